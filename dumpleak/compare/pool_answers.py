"""What `dumpleak pool` shows of snapshots of the pools: which tags, in which order, as PoolMon counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

from dumpleak.compare.answers import Comparison
from dumpleak.compare.counters import tag_deltas, with_blocks
from dumpleak.model.account import Figure
from dumpleak.model.boots import is_same_boot
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.held_objects import HeldObjects
from dumpleak.model.left_pool import LeftPool
from dumpleak.model.listed_blocks import MAX_LISTED, BlockList, list_blocks
from dumpleak.model.pool import (
    ORDERS,
    POOLS,
    Counters,
    Order,
    TagDelta,
    TagRow,
    is_never_freed,
)
from dumpleak.model.pool_account import PoolAccount, is_said_by_account
from dumpleak.model.pools import Pools
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.together import roots_first
from windumps.diagnostics import Diagnostic, Severity

EXPLAINED_OBJECTS = 2  # tags of objects of one dump of which is told who holds them
LARGEST = 3  # tags that count as those that hold most
EXPLAINED_TAGS = 20  # tags of a comparison whose new blocks are looked at
_Tag = TypeVar("_Tag", TagRow, TagDelta)


@dataclass(frozen=True)
class Selection:
    """What is shown of the pools.

    Attributes:
        order: How tags are ranked.
        tags: Patterns of tags, of which one must match; empty for all.
        pools: Those of `POOLS` that are shown and ranked by.
        excluded: Patterns of tags, of which none may match.
    """

    order: Order = ORDERS["bytes"]
    tags: tuple[str, ...] = ()
    pools: tuple[str, ...] = POOLS
    excluded: tuple[str, ...] = ()

    def wants(self, tag: str) -> bool:
        """True for tags that are asked for; upper and lower case differ, as they do for the pool."""
        asked = not self.tags or _is_one_of(tag, self.tags)
        return asked and not _is_one_of(tag, self.excluded)

    def rows(self, rows: Iterable[TagRow]) -> list[TagRow]:
        """The rows that are shown, in order."""
        return self._shown(rows, lambda row: row.tag, lambda row: row.pools)

    def deltas(self, deltas: Iterable[TagDelta]) -> list[TagDelta]:
        """The tags that are shown of a comparison, in order: those of which anything changed."""
        return self._shown(deltas, lambda delta: delta.current.tag, lambda delta: delta.deltas)

    def _shown(
        self,
        rows: Iterable[_Tag],
        tag_of: Callable[[_Tag], str],
        pools_of: Callable[[_Tag], dict[str, Counters]],
    ) -> list[_Tag]:
        chosen = [
            row
            for row in rows
            if self.wants(tag_of(row))
            and any(p in pools_of(row) and not pools_of(row)[p].is_empty for p in self.pools)
        ]
        return sorted(chosen, key=lambda row: self.order.rank(row, self.pools))


def _is_one_of(tag: str, patterns: Iterable[str]) -> bool:
    return any(
        fnmatchcase(tag, pattern) or fnmatchcase(tag.rstrip(), pattern) for pattern in patterns
    )


@dataclass(frozen=True)
class PoolAnswer:
    """The pools of one dump.

    Attributes:
        source: Where it comes from.
        selection: What was asked for.
        rows: The tags that are shown, in order.
        account: What is known of the pools as a whole.
        diagnostics: What was left out, and how things were found.
        system: Figures of the system, as far as the dump tells them.
        blocks: The blocks of the tags, where single tags were asked for and blocks were looked for.
        held: Who holds the objects of the first tags of objects, by tag.
        left: The pool that an unloaded driver left, where the system stopped for it.
    """

    source: SourceInfo
    selection: Selection
    rows: tuple[TagRow, ...]
    account: PoolAccount
    diagnostics: tuple[Diagnostic, ...]
    held: dict[int, HeldObjects]
    left: LeftPool | None = None
    system: tuple[Figure, ...] = ()
    blocks: BlockList | None = None


@dataclass(frozen=True)
class PoolGrowth:
    """Two snapshots of the pools compared, by tag.

    Attributes:
        comparison: What `diff` says of them.
        selection: What was asked for.
        deltas: The tags that are shown, in order.
        base: What is known of the base's pools as a whole.
        current: What is known of the later dump's.
        same_boot: The system was not restarted in between.
        diagnostics: Of both; messages begin with the dump they concern.
    """

    comparison: Comparison
    selection: Selection
    deltas: tuple[TagDelta, ...]
    base: PoolAccount
    current: PoolAccount
    same_boot: bool
    diagnostics: tuple[Diagnostic, ...]


def take_pool(
    snapshot: Snapshot, selection: Selection, most_blocks: int = MAX_LISTED
) -> PoolAnswer:
    """The pools of one snapshot.

    Args:
        snapshot: It.
        selection: What to show.
        most_blocks: So many blocks are listed where single tags are asked for.

    Raises:
        CannotAnswerError: it does not tell of what is selected.
    """
    pools = _pools(snapshot, selection)
    rows = selection.rows(pools.rows)
    notes = (*snapshot.diagnostics, *_no_sessions(pools, selection))
    walked = pools.account.walked_bytes is not None
    blocks = None
    if selection.tags and walked:
        used, look = pools.blocks(), pools.look_into
        blocks = list_blocks(used, rows, selection.pools, look, most_blocks)
    return PoolAnswer(
        *(snapshot.source, selection, tuple(rows), pools.account, _shown(notes)),
        held=_held(pools, rows, selection) if walked else {},
        left=pools.left,
        system=snapshot.outside or (),
        blocks=blocks,
    )


def _held(pools: Pools, rows: list[TagRow], selection: Selection) -> dict[int, HeldObjects]:
    """Who holds the objects of tags that were asked for, hold most, or are never freed."""
    found: dict[int, HeldObjects] = {}
    for number, row in enumerate(rows[:EXPLAINED_TAGS]):
        never = is_never_freed(row.total("allocs"), row.total("frees"))
        wanted = bool(selection.tags) or number < LARGEST or never
        held = pools.held(row.number) if wanted and len(found) < EXPLAINED_OBJECTS else None
        if held is not None:
            found[row.number] = held
    return found


def take_growth(
    comparison: Comparison, selection: Selection, explained: int = EXPLAINED_TAGS
) -> PoolGrowth:
    """The pools of two snapshots that were compared.

    Args:
        comparison: Of snapshots by site.
        selection: What to show.
        explained: How many of the tags shown have their new blocks looked at.

    Raises:
        CannotAnswerError: one does not tell of what is selected.
    """
    base, current = comparison.base, comparison.current
    sides = [_pools(side, selection) for side in (base, current)]
    deltas = selection.deltas(tag_deltas(comparison))
    deltas = roots_first(deltas, lambda delta: delta.current.number, comparison.together)
    deltas[:explained] = [with_blocks(delta, base, current) for delta in deltas[:explained]]
    notes = comparison.diagnostics
    for which, side in zip(("base", "current"), sides, strict=True):
        said = _no_sessions(side, selection)
        notes += tuple(replace(item, message=f"{which}: {item.message}") for item in said)
    return PoolGrowth(
        comparison,
        selection,
        tuple(deltas),
        sides[0].account,
        sides[1].account,
        is_same_boot(base.boot, current.boot),
        _shown(notes),
    )


def _pools(snapshot: Snapshot, selection: Selection) -> Pools:
    """What a snapshot tells by tag."""
    pools, file = snapshot.pool, snapshot.source.file
    if pools is None:
        raise CannotAnswerError(
            f"{file}: this snapshot keeps no counters of pool tags, as an older version wrote it; make "
            "it anew from the dump"
        )
    only_sessions = set(selection.pools) == {"session"}
    if only_sessions and not (pools.has_session_pool or pools.why_no_session_pool):
        raise CannotAnswerError(
            f"{file}: session pool: the counters of its tags were not found; the other pools "
            "are known without --type session"
        )
    return pools


def _no_sessions(pools: Pools, selection: Selection) -> list[Diagnostic]:
    """Where only session pool is asked for, says why there is none."""
    why = pools.why_no_session_pool
    if set(selection.pools) != {"session"} or pools.has_session_pool:
        return []
    return [Diagnostic("no-session-pool", Severity.WARNING, "_MM_SESSION_SPACE", None, why)]


def _shown(notes: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Without what stands in the account, which is shown as such."""
    return tuple(item for item in notes if not is_said_by_account(item))
