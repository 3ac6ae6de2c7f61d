"""The answers of `dumpleak pool`, ready to be written: which tags, in which order, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dumpleak.compare.counters import PoolComparison, compare_pools, with_blocks
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.pool import ORDERS, POOLS, Order, TagDelta, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_source import PoolSource
from dumpleak.model.snapshot import SourceInfo
from windumps.diagnostics import Diagnostic, Severity

EXPLAINED_TAGS = 20  # tags of a comparison whose new blocks are looked at


@dataclass(frozen=True)
class Selection:
    """What is shown of the pools.

    Attributes:
        order: How tags are ranked.
        tags: Patterns of tags, of which one must match; empty for all.
        pools: Those of `POOLS` that are shown and ranked by.
    """

    order: Order = ORDERS["bytes"]
    tags: tuple[str, ...] = ()
    pools: tuple[str, ...] = POOLS

    def wants(self, tag: str) -> bool:
        """True for tags that are asked for; upper and lower case differ, as they do for the pool."""
        return not self.tags or any(
            fnmatchcase(tag, pattern) or fnmatchcase(tag.rstrip(), pattern) for pattern in self.tags
        )

    def rows(self, rows: Sequence[TagRow]) -> list[TagRow]:
        """The rows that are shown, in order."""
        chosen = [
            row
            for row in rows
            if self.wants(row.tag)
            and any(pool in row.pools and not row.pools[pool].is_empty for pool in self.pools)
        ]
        return sorted(chosen, key=lambda row: self.order.key(row, self.pools))

    def deltas(self, deltas: Sequence[TagDelta]) -> list[TagDelta]:
        """The tags that are shown of a comparison, in order: those of which anything changed."""
        chosen = [
            delta
            for delta in deltas
            if self.wants(delta.current.tag)
            and any(pool in delta.deltas and not delta.deltas[pool].is_empty for pool in self.pools)
        ]
        return sorted(chosen, key=lambda delta: self.order.key(delta, self.pools))


@dataclass(frozen=True)
class PoolAnswer:
    """The pools of one dump.

    Attributes:
        source: Where it comes from.
        selection: What was asked for.
        rows: The tags that are shown, in order.
        account: What is known of the pools as a whole.
        diagnostics: What was left out, and how things were found.
    """

    source: SourceInfo
    selection: Selection
    rows: tuple[TagRow, ...]
    account: PoolAccount
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True)
class PoolGrowth:
    """The pools of two dumps.

    Attributes:
        comparison: All of it.
        selection: What was asked for.
        deltas: The tags that are shown, in order.
        base: What is known of the base's pools as a whole.
        current: What is known of the later dump's.
    """

    comparison: PoolComparison
    selection: Selection
    deltas: tuple[TagDelta, ...]
    base: PoolAccount
    current: PoolAccount


def take_pool(source: PoolSource, selection: Selection, walk: bool = True) -> PoolAnswer:
    """Reads the pools of one dump.

    Args:
        source: The dump or its snapshot.
        selection: What to show.
        walk: Also read the blocks and hold them against the trackers.
    """
    _check_sessions(source, selection)
    account = source.account(walk)  # the walk comes first: it may know tags that no tracker has
    rows = selection.rows(source.rows())
    return PoolAnswer(source.source, selection, tuple(rows), account, tuple(source.diagnostics))


def take_growth(
    base: PoolSource,
    current: PoolSource,
    selection: Selection,
    walk: bool = True,
    explained: int = EXPLAINED_TAGS,
) -> PoolGrowth:
    """Compares the pools of two dumps.

    Args:
        base: The earlier dump.
        current: The later one.
        selection: What to show.
        walk: Also read the blocks and hold them against the trackers.
        explained: How many of the tags shown have their new blocks looked at.
    """
    for source in (base, current):
        _check_sessions(source, selection)
    accounts = base.account(walk), current.account(walk)
    comparison = compare_pools(base, current, accounts)
    deltas = selection.deltas(comparison.tags)
    if walk:
        deltas[:explained] = [
            with_blocks(delta, base, current, comparison.same_boot) for delta in deltas[:explained]
        ]
    return PoolGrowth(comparison, selection, tuple(deltas), *accounts)


def _check_sessions(source: PoolSource, selection: Selection) -> None:
    """Where only session pool is asked for and none was read, says whether there is any.

    Raises:
        CannotAnswerError: there is or may be, and its counters were not found.
    """
    if set(selection.pools) != {"session"} or source.has_session_pool:
        return
    why = source.why_no_session_pool
    if not why:
        raise CannotAnswerError(
            f"{source.source.file}: session pool: the counters of its tags were not found; the other pools "
            "are known without --type session"
        )
    source.log.add("no-session-pool", Severity.WARNING, "_MM_SESSION_SPACE", None, why)
