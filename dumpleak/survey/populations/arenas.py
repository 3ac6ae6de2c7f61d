"""Blocks of other allocators as members (`--of arenas`): mimalloc, rpmalloc."""

from __future__ import annotations

import numpy as np

from dumpleak.attribution.grouping import GROUPINGS, Grouping
from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ArenasCovered
from dumpleak.model.errors import BETTER_DUMP, CannotAnswerError
from dumpleak.process.arenas import arena_blocks, arenas_of
from dumpleak.process.memory_use import absent_private
from dumpleak.process.private_memory import find_private
from dumpleak.process.session import Session
from dumpleak.survey.populations.members import Members, added_up
from windumps.heaps.arenas import ARENA_KINDS


def arena_members(session: Session, by: str) -> StoredPopulation:
    """All used blocks of other allocators.

    Raises:
        CannotAnswerError: there are none in the dump, or they cannot be read.
    """
    require_arenas(session)
    grouping: Grouping = GROUPINGS[by](session)
    groups, sizes = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for source, used in arena_blocks(session):
        groups.append(grouping.assign(source, used))
        sizes.append(used.counted_bytes)
    group, size = np.concatenate(groups), np.concatenate(sizes)
    members = Members(grouping.table.sites, group, size)
    return StoredPopulation({by: added_up(members)}, coverage=covered_arenas(session))


def require_arenas(session: Session) -> None:
    """Checks that blocks of other allocators can be told; heaps have to be walked first.

    Raises:
        CannotAnswerError: there are none in the dump, or they cannot be read.
    """
    arenas = arenas_of(session)
    unread = [source.entry for source in arenas if source.entry.heap is None]
    if unread:
        told = "; ".join(f"{entry.kind} is {entry.reason}" for entry in unread)
        raise CannotAnswerError(f"{session.dump.path}: {told}")
    if not arenas:
        raise CannotAnswerError(f"{session.dump.path}: {_why_none(session)}")


def _why_none(session: Session) -> str:
    """Says that no allocator was found whose blocks are read, which others were, and what may help."""
    others = find_private(session).owners.names if len(session.dump.memory.regions) else []
    known = f"; recognised, but not read: {', '.join(others)}" if others else ""
    lacking = f"; {BETTER_DUMP}" if absent_private(session) else ""
    names = " or ".join(kind.name for kind in ARENA_KINDS)
    return f"no memory of {names} was found in the dump{known}{lacking}"


def covered_arenas(session: Session) -> ArenasCovered:
    """How much of their memory was walked; memory that is not in the dump may hold blocks of them, too."""
    arenas = arenas_of(session)
    accounts = [source.entry.heap.account for source in arenas if source.entry.heap is not None]
    absent = absent_private(session)
    committed = sum(account.committed_bytes for account in accounts)
    walked = sum(account.walked_bytes for account in accounts)
    return ArenasCovered(walked, committed, committed + absent, len(arenas), len(accounts))
