"""Blocks of other allocators that a reader asks for (`allocations --of arenas`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.attribution import SiteFinder
from dumpleak.attribution.arena_sites import ArenaSites
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import CannotAnswerError
from dumpleak.process.arenas import arena_blocks, arena_pieces, arenas_of
from dumpleak.process.session import Session
from dumpleak.survey.pages import Walk, named_pages
from dumpleak.survey.populations.arenas import require_arenas
from dumpleak.survey.selected import unreferenced
from windumps.blocks import State


def arena_pages(
    session: Session, walk: Walk, state: State | None, asked: BlockFilter
) -> Iterator[BlockPage]:
    """The blocks that are asked for.

    Args:
        session: The process.
        walk: Over its heaps: what lies in them is no arena, and blocks in them may hold others.
        state: Of the blocks; None for all.
        asked: What they have to have.

    Raises:
        CannotAnswerError: there are none in the dump, or it cannot be told which blocks are wanted.
    """
    if asked.new_since is not None:
        raise CannotAnswerError(
            f"{session.dump.path}: --new-since is of blocks of Windows' heaps; what of other allocators grew "
            "is told by dumpleak diff BASE CURRENT --of arenas"
        )
    native = [(source, blocks.used) for source, blocks in walk if asked.unreferenced]
    require_arenas(session)
    names = [source.label for source in arenas_of(session)]
    if asked.heap is not None and not any(asked.takes_heap(name, 0) for name in names):
        known = ", ".join(names)
        raise CannotAnswerError(f"{session.dump.path}: no heap {asked.heap!r}; there are {known}")
    pieces = arena_pieces(session)
    if asked.unreferenced:
        used = list(arena_blocks(session))
        lost = unreferenced(session, [*native, *used])
        pieces = ((s, blocks.select(np.isin(blocks.address, lost))) for s, blocks in used)
    finder = SiteFinder(session)
    groups = ArenaSites(session, "site", finder)
    pages = named_pages(session, pieces, state, groups.assign, finder.table)
    return (found for page in pages if (found := asked.selected(page)) is not None)
