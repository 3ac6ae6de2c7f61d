"""Blocks of a process that a reader asks for, out of a walk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.order import is_older
from dumpleak.compare.survivors import find_survivors
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Groups, Totals
from dumpleak.pointers.reachability import find_reachable
from dumpleak.pointers.references import BlockIndexBuilder
from dumpleak.pointers.roots import find_roots, require_roots
from dumpleak.process.arenas import arena_blocks
from dumpleak.process.session import HeapSource, Session
from dumpleak.process.used_pieces import joined_used
from dumpleak.survey.block_table import BlockTableBuilder
from dumpleak.survey.heaps import snapshot_of
from dumpleak.survey.pages import Walk, WalkedSites, free_pages
from windumps.arrays import U64
from windumps.blocks import Blocks, State


def selected_pages(
    session: Session,
    walk: Walk,
    state: State | None,
    asked: BlockFilter,
    base: Snapshot | None,
) -> Iterator[BlockPage]:
    """The blocks of a walk that are asked for.

    Args:
        session: The process.
        walk: Over its heaps.
        state: Of the blocks; None for all.
        asked: What they have to have.
        base: The earlier dump that they have to be missing in, with its blocks; None for none.

    Raises:
        CannotAnswerError: no heap has the name asked for, what nothing leads to cannot be told, or the
            earlier dump is of another process life.
    """
    heaps = [(source.label, source.entry.address) for source in session.heaps]
    if asked.heap is not None and not any(asked.takes_heap(*heap) for heap in heaps):
        names = ", ".join(f"{label} (0x{address:x})" for label, address in heaps)
        raise CannotAnswerError(f"{session.dump.path}: no heap {asked.heap!r}; there are {names}")
    if state is State.FREE:
        return _selected(free_pages(walk), asked)
    chosen = None
    if asked.unreferenced or base is not None:
        walk, state = list(walk), State.USED
        chosen = _chosen(session, walk, asked, base)
    found = WalkedSites(session, walk, state)
    return _selected(found.pages(chosen), asked.among(found.names))


def _selected(pages: Iterable[BlockPage], asked: BlockFilter) -> Iterator[BlockPage]:
    return (found for page in pages if (found := asked.selected(page)) is not None)


def _chosen(
    session: Session,
    pieces: list[tuple[HeapSource, Blocks]],
    asked: BlockFilter,
    base: Snapshot | None,
) -> U64 | None:
    """Addresses of the used blocks of a finished walk that are unreferenced, new, or both."""
    used = list(joined_used(pieces))
    chosen = unreferenced(session, [*used, *arena_blocks(session)]) if asked.unreferenced else None
    if base is not None:
        new = _new(session, used, base)
        chosen = new if chosen is None else np.intersect1d(chosen, new)
    return chosen


def unreferenced(session: Session, used: Walk) -> U64:
    """Addresses of the blocks that no root leads to.

    Args:
        session: The process.
        used: All its used blocks, those of other allocators included.
    """
    builder = BlockIndexBuilder()
    for source, blocks in used:
        builder.add(blocks, np.zeros(len(blocks), np.int64), source.view.pointer_size)
    index, roots = builder.build(), find_roots(session)
    require_roots(session, roots.amounts(session.dump.memory))
    found = find_reachable(session.dump.memory, roots, index, release=session.dump.release)
    return index.address[~found.reachable]


def _new(session: Session, used: Walk, base: Snapshot) -> U64:
    """Addresses of the blocks that an earlier dump does not have."""
    if base.blocks is None:
        raise CannotAnswerError(f"{base.source.file} does not keep single blocks; name a dump")
    finder, kept = SiteFinder(session), BlockTableBuilder(session)
    for source, blocks in used:
        kept.add(source, blocks, finder.assign(source, blocks))
    sites = finder.table.sites
    groups: Groups = {site.key: (site, Totals()) for site in sites}
    current = snapshot_of(session, "site", groups, Totals())
    if is_older(base.source, current.source):
        raise CannotAnswerError(
            f"{base.source.file} was taken after {session.dump.path}: --new-since names the earlier dump"
        )
    life = same_life(base, current)
    if life.life is Life.OTHER:
        raise CannotAnswerError(
            f"{base.source.file} and {session.dump.path} are of two runs of the program ({life.why}); which "
            "blocks are new can be told within one"
        )
    table = kept.build(tuple(site.key for site in sites))
    known = find_survivors(base.blocks(), table, (base.groups, groups)).known
    return table.address[~known]
