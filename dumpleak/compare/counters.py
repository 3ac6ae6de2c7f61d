"""Two kernel dumps compared by pool tag."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dumpleak.compare.answers import Verdict
from dumpleak.compare.comparable import is_older, labelled, order_diagnostics
from dumpleak.compare.handle_holders import holder_clauses
from dumpleak.model.boots import is_same_boot
from dumpleak.model.pool import (
    NO_BLOCKS,
    NONE,
    POOLS,
    TRACKERS,
    UNKNOWN,
    WALK,
    Counters,
    TagDelta,
    TagRow,
    minus,
)
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import new_blocks
from dumpleak.model.pool_source import PoolSource
from dumpleak.model.snapshot import SourceInfo
from windumps.diagnostics import Diagnostic, Severity


@dataclass(frozen=True)
class PoolComparison:
    """Two dumps compared by pool tag.

    Attributes:
        base: Where the earlier one comes from.
        current: Where the later one comes from.
        same_boot: The system was not restarted in between.
        verdict: See `Verdict`.
        reasons: Why they are not comparable.
        tags: All tags of both, the largest growth first; those whose growth is unknown come last.
        diagnostics: Of both; messages begin with the dump they concern.
    """

    base: SourceInfo
    current: SourceInfo
    same_boot: bool
    verdict: Verdict
    reasons: tuple[str, ...]
    tags: tuple[TagDelta, ...]
    diagnostics: tuple[Diagnostic, ...]


def compare_pools(
    base: PoolSource, current: PoolSource, accounts: tuple[PoolAccount, PoolAccount]
) -> PoolComparison:
    """Compares the pools of two dumps by tag.

    Args:
        base: The earlier dump.
        current: The later one.
        accounts: What is known of the pools of each as a whole.
    """
    same_boot = is_same_boot(base.boot, current.boot)
    sources = base.source, current.source
    reasons = tuple(why_pools_differ(base, current, accounts))
    deltas: list[TagDelta] = []
    if not reasons:
        # Only from the earlier dump to the later one do counters rise.
        onward = same_boot and not is_older(*sources)
        bits = current.counter_bits if onward else 0
        before, after = ({row.number: row for row in side.rows()} for side in (base, current))
        told = [pool for pool in POOLS if pool != "session" or not _is_unsaid(base, current)]
        for tag in before.keys() | after.keys():
            pair = _both(before.get(tag), after.get(tag), (base, current), accounts)
            deltas.append(TagDelta(*pair, _deltas(*pair, bits, told)))
        deltas.sort(key=_rank)
    grew = any((delta.total("bytes") or 0) > 0 for delta in deltas)
    verdict = Verdict.GROWTH if grew else Verdict.NO_GROWTH
    return PoolComparison(
        *sources,
        same_boot,
        Verdict.NOT_COMPARABLE if reasons else verdict,
        reasons,
        tuple(deltas),
        (
            *labelled("base", base.diagnostics),
            *labelled("current", current.diagnostics),
            *order_diagnostics(*sources),
            *(Diagnostic("not-comparable", Severity.ERROR, "comparison", None, r) for r in reasons),
        ),
    )


def why_pools_differ(
    base: PoolSource, current: PoolSource, accounts: tuple[PoolAccount, PoolAccount]
) -> list[str]:
    """Why a comparison of two dumps would lie; empty when it does not."""
    reasons = []
    machines = {base.source.architecture, current.source.architecture}
    if len(machines) > 1 and "" not in machines:  # logs do not tell theirs
        reasons.append(
            f"the base is of a kernel for {base.source.architecture}, the current dump of one for "
            f"{current.source.architecture}"
        )
    for name, account in zip(("the base", "the current dump"), accounts, strict=True):
        if account.shortfall:
            reasons.append(f"{name}: {account.shortfall}")
    sources = [
        "the kernel's trackers" if account.ranking == TRACKERS else "a walk over its blocks"
        for account in accounts
    ]
    if not reasons and sources[0] != sources[1]:
        reasons.append(
            f"the totals of the base come from {sources[0]} and those of the current dump from "
            f"{sources[1]}: a difference may be what the walk did not see"
        )
    return reasons


def _rank(delta: TagDelta) -> tuple[bool, int, int, str]:
    size, count = delta.total("bytes"), delta.total("count")
    return size is None, -(size or 0), -(count or 0), delta.current.tag


def _both(
    base: TagRow | None,
    current: TagRow | None,
    sides: tuple[PoolSource, PoolSource],
    accounts: tuple[PoolAccount, PoolAccount],
) -> tuple[TagRow, TagRow]:
    """Both rows; a tag that a table does not have has no blocks, unless parts of the table are absent."""
    known = base or current
    if known is None:
        raise ValueError("a tag of neither dump")
    return (
        base or _none(known, sides[0], accounts[0]),
        current or _none(known, sides[1], accounts[1]),
    )


def _none(known: TagRow, side: PoolSource, account: PoolAccount) -> TagRow:
    owner = (side.owner(known.number) if side.has_trackers else None) or known.owner
    counters, source = NONE, TRACKERS
    if side.absent_entries:
        counters = NO_BLOCKS if account.blocks_are_total else UNKNOWN
        source = WALK if account.blocks_are_total else TRACKERS
    return TagRow(known.number, known.tag, dict.fromkeys(known.pools, counters), source, owner)


def _is_unsaid(base: PoolSource, current: PoolSource) -> bool:
    """Only one of the two tells of session pool, which is no difference."""
    one, other = (side.has_session_pool for side in (base, current))
    return one != other and bool(base.why_no_session_pool or current.why_no_session_pool)


def _deltas(base: TagRow, current: TagRow, bits: int, told: Iterable[str]) -> dict[str, Counters]:
    deltas = {}
    for pool in told:
        if pool not in base.pools and pool not in current.pools:
            continue
        before, after = base.pools.get(pool, NONE), current.pools.get(pool, NONE)
        deltas[pool] = Counters(
            _wrapped(minus(after.allocs, before.allocs), bits),
            _wrapped(minus(after.frees, before.frees), bits),
            minus(after.count, before.count),
            minus(after.bytes, before.bytes),
        )
    return deltas


def _wrapped(delta: int | None, bits: int) -> int | None:
    """The growth of a counter that only rises and may have wrapped; `bits` is 0 where it may have sunk."""
    return delta if delta is None or not bits or delta >= 0 else delta % (1 << bits)


def with_blocks(
    delta: TagDelta, base: PoolSource, current: PoolSource, same_boot: bool
) -> TagDelta:
    """A tag that grew, with what its new blocks are; any other as it is."""
    if (delta.total("bytes") or 0) <= 0:
        return delta
    tag = delta.current.number
    return replace(
        delta,
        new=new_blocks(base.blocks, current.blocks, tag, same_boot),
        holders=holder_clauses(base, current, tag),
    )
