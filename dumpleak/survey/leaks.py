"""Blocks of one dump that nothing points to.

An unreferenced block is not proven to be leaked: its only pointer may be kept in a form that is none (an
offset, an encoded pointer), or by the kernel. Such blocks are few; many of one site are a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.arena_sites import ArenaSites
from dumpleak.attribution.grouping import GROUPINGS, Grouping
from dumpleak.attribution.text_finder import Held, find_texts
from dumpleak.model.coverage import Coverage
from dumpleak.model.errors import Progress, no_progress
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.texts import Texts
from dumpleak.model.totals import Totals
from dumpleak.pointers.managed_roots import ManagedRoots
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndex, BlockIndexBuilder
from dumpleak.pointers.roots import (
    RootBytes,
    RootKind,
    Roots,
    find_roots,
    lost_share,
    require_roots,
)
from dumpleak.process.arenas import arena_blocks, arenas_of
from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from dumpleak.process.used_pieces import used_pieces
from dumpleak.survey.heaps import source_info
from windumps.diagnostics import Diagnostic, Severity


@dataclass(frozen=True)
class LeakGroup:
    """The unreferenced blocks of one group.

    Attributes:
        site: The group.
        used: All its used blocks.
        unreferenced_count: How many of them cannot be reached from any root.
        unreferenced_bytes: Bytes of these.
        head_count: Of these, how many nothing at all points to; the others hang on such blocks, or on
            each other.
        addresses: uint64, the unreferenced blocks, ascending.
    """

    site: Site
    used: Totals
    unreferenced_count: int
    unreferenced_bytes: int
    head_count: int
    addresses: NDArray[np.uint64]


@dataclass(frozen=True)
class Leaks:
    """What nothing points to.

    Attributes:
        source: The dump.
        grouping: The `--by` key.
        groups: Those with unreferenced blocks, most bytes first.
        used: All used blocks.
        unreferenced_count: Over all groups.
        unreferenced_bytes: Over all groups.
        head_count: Over all groups.
        roots: How much memory of each kind was scanned for pointers.
        has_registers: The registers of threads were looked at, too.
        pointer_size: 4 or 8, for the width of addresses.
        coverage: How much of the heaps was walked.
        diagnostics: What was left out, and why.
        lost_share: The share of all memory that may hold pointers, heaps included, that could not be looked
            at: what only that points to is listed, too. None when the dump does not say what it lacks.
        texts: What kinds of text blocks at some of the addresses hold.
    """

    source: SourceInfo
    grouping: str
    groups: tuple[LeakGroup, ...]
    used: Totals
    unreferenced_count: int
    unreferenced_bytes: int
    head_count: int
    roots: dict[RootKind, RootBytes]
    has_registers: bool
    pointer_size: int
    coverage: Coverage
    diagnostics: tuple[Diagnostic, ...]
    lost_share: float | None = 0.0
    texts: Callable[[NDArray[np.uint64]], Texts] | None = None


def find_leaks(
    session: Session,
    by: str = "site",
    progress: Progress = no_progress,
    *,
    contents: bool = False,
) -> Leaks:
    """Walks all heaps, those of other allocators included, and groups what no root leads to.

    Args:
        session: The open dump.
        by: A key of `GROUPINGS`.
        progress: Told of each heap.
        contents: Let `Leaks.texts` also give a few texts.

    Raises:
        CannotAnswerError: no heap can be read, or the roots are not in the dump.
    """
    if not any(source.entry.heap for source in session.arenas):
        session.require_heaps()
    grouping: Grouping = GROUPINGS[by](session)
    sums, builder = GroupSums(), BlockIndexBuilder()
    for source, used in used_pieces(session, progress):
        groups = grouping.assign(source, used)
        sums.add(groups, used.counted_bytes, used.block_bytes)
        builder.add(used, groups, source.view.pointer_size)
    others = ArenaSites(session, by, grouping)
    for source, used in arena_blocks(session):
        groups = others.assign(source, used)
        sums.add(groups, used.counted_bytes, used.block_bytes)
        builder.add(used, groups, source.view.pointer_size)
    index = builder.build()
    roots = find_roots(session)
    amounts = roots.amounts(session.dump.memory)
    require_roots(session, amounts)
    notes = _missing_notes(roots, amounts)
    progress("scanning for pointers", 0, 1)
    memory, release = session.dump.memory, session.dump.release
    by_objects = ManagedRoots(session) if session.managed.heap is not None else None
    graph = scan_pointers(memory, roots, index, by_objects, release)
    found = reachability_of(graph)
    notes += by_objects.told(graph, index) if by_objects is not None else []
    progress("scanned", 1, 1)
    groups_found = _groups(
        grouping.table.sites, sums, index, ~found.reachable, ~found.referenced & ~found.reachable
    )
    return Leaks(
        source_info(session),
        by,
        groups_found,
        sums.overall(),
        sum(group.unreferenced_count for group in groups_found),
        sum(group.unreferenced_bytes for group in groups_found),
        sum(group.head_count for group in groups_found),
        amounts,
        bool(roots.registers),
        max(index.widths, default=8),
        _covered(session),
        (*session.diagnostics, *notes),
        lost_share(session, amounts),
        lambda addresses: _texts(session, index, addresses, contents=contents),
    )


def _texts(
    session: Session, index: BlockIndex, addresses: NDArray[np.uint64], *, contents: bool
) -> Texts:
    rows = np.searchsorted(index.address, addresses)
    one = np.zeros(len(rows), np.int32)
    held = Held(addresses, index.size[rows], one, index.width[rows])
    return find_texts(session.dump.memory, held, (0,), samples=contents)[0]


def _covered(session: Session) -> Coverage:
    """How much was walked of all whose blocks are looked at, other allocators included."""
    heaps = coverage(session)
    found = [source.entry.heap for source in arenas_of(session)]
    accounts = [arena.account for arena in found if arena is not None]
    committed = sum(account.committed_bytes for account in accounts)
    absent = sum(account.absent_bytes for account in accounts)
    return replace(
        heaps,
        walked_bytes=heaps.walked_bytes + sum(account.walked_bytes for account in accounts),
        present_bytes=heaps.present_bytes + committed - absent,
        committed_bytes=heaps.committed_bytes + committed,
        heaps_listed=heaps.heaps_listed + len(accounts),
        heaps_read=heaps.heaps_read + len(accounts),
    )


def _groups(
    sites: list[Site],
    sums: GroupSums,
    index: BlockIndex,
    lost: NDArray[np.bool_],
    heads: NDArray[np.bool_],
) -> tuple[LeakGroup, ...]:
    rows = np.flatnonzero(lost)
    if not len(rows):
        return ()
    rows = rows[np.argsort(index.group[rows], kind="stable")]
    numbers, first = np.unique(index.group[rows], return_index=True)
    found = []
    for number, mine in zip(numbers.tolist(), np.split(rows, first[1:]), strict=True):
        found.append(
            LeakGroup(
                sites[number],
                sums.totals(number),
                len(mine),
                int(index.size[mine].sum()),
                int(heads[mine].sum()),
                index.address[mine],
            )
        )
    found.sort(key=lambda g: (-g.unreferenced_bytes, -g.unreferenced_count, g.site.key))
    return tuple(found)


def _missing_notes(roots: Roots, amounts: dict[RootKind, RootBytes]) -> list[Diagnostic]:
    """What is missing of the roots."""
    notes = []
    if RootKind.STACK not in amounts:
        message = (
            "the dump does not say where the stacks of threads are; all of its memory outside heaps and "
            "images was scanned, and blocks held only by a stack that is not in it are listed"
        )
        notes.append(Diagnostic("roots-absent", Severity.WARNING, "stack", None, message))
    for kind, amount in amounts.items():
        absent = amount.committed_bytes - amount.present_bytes
        if absent:
            message = (
                f"{absent} bytes of {kind} are not in the dump; blocks that only they point to are "
                "listed as unreferenced"
            )
            notes.append(
                Diagnostic("roots-absent", Severity.WARNING, str(kind), None, message, absent)
            )
    if not roots.registers:
        message = "the dump has no registers of threads; blocks that only they point to are listed"
        notes.append(Diagnostic("roots-absent", Severity.INFO, "registers", None, message))
    return notes
