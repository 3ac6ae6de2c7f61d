"""Inputs of a comparison brought together: what one of them cannot tell is no difference."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from dumpleak.files import umdh_log
from dumpleak.files.poolmon_log import KIND, TAGS_UNKNOWN
from dumpleak.files.process_log import CountersCovered, one_process
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.pool import POOLS
from dumpleak.model.pool_sites import site_key
from dumpleak.model.pools import Pools
from dumpleak.model.populations import PROCESSES
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import sum_of
from windumps.diagnostics import MEMORY_CUT, Diagnostic, Severity

_SESSION = "session pool"
_HALF = 1 << 31  # a counter of 32 bits that was beyond may have wrapped


def matched(*snapshots: Snapshot, of: str | None = None) -> tuple[Snapshot, ...]:
    """Snapshots so that their sites can match, and with what logs lack beside each other.

    Args:
        snapshots: In order of time.
        of: The population that the user named: processes of a log are compared only when they are meant.

    Raises:
        CannotAnswerError: see `umdh_log.matched` and `one_process`; or a log of counters stands beside a
            dump that is not asked for processes.
    """
    _of_one_kind(snapshots)
    if of != PROCESSES:
        one_process(snapshots)
    return _with_lost_tags(_without_sessions(umdh_log.matched(*snapshots)))


def _of_one_kind(snapshots: tuple[Snapshot, ...]) -> None:
    log = next((side for side in snapshots if isinstance(side.coverage, CountersCovered)), None)
    other = next((side for side in snapshots if side.population != PROCESSES), None)
    if log is not None and other is not None:
        raise CannotAnswerError(
            f"{log.source.file} tells of processes, {other.source.file} of {other.population}: a log of "
            "counters is compared with another, or, by --of processes, with the dump of a system"
        )


def _without_sessions(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """Dumps without their session pool, beside a PoolMon log, which shows that only alone (/s).

    Raises:
        CannotAnswerError: the grouping does not tell it apart.
    """
    logs = [side.pool for side in snapshots if side.pool and side.pool.may_lack_tags]
    if not logs or any(log.has_session_pool for log in logs):
        return snapshots
    return tuple(map(_without_session, snapshots))


def _without_session(side: Snapshot) -> Snapshot:
    session = [row for row in side.heaps if row.label == _SESSION and row.used_count]
    if not session:
        return side
    if side.grouping != "site":
        raise CannotAnswerError(
            f"{side.source.file}: its groups by {side.grouping} count session pool too, which a PoolMon log "
            "does not show; compare by site"
        )
    groups = {key: group for key, group in side.groups.items() if not key.endswith("|session")}
    message = "session pool is left out, as a PoolMon log shows it only alone (/s)"
    left = replace(
        side,
        groups=groups,
        totals=sum_of(totals for _, totals in groups.values()),
        heaps=[row for row in side.heaps if row.label != _SESSION],
    )
    return _noted(left, message, "poolmon-left-out", sum(row.used_bytes or 0 for row in session))


def _with_lost_tags(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """PoolMon logs that lack tags of their neighbours say so: such tags are unknown, not none.

    A kernel's trackers forget no tag, so a log that lacks one of an earlier log or dump is cut or filtered,
    or the system was restarted. A tag that an earlier log lacks may be new; it is not where that log counts
    less of the pool than it ought to.
    """
    sides = list(snapshots)
    for number, (before, after) in enumerate(pairwise(snapshots)):
        if before.population != after.population:
            continue
        if fell := _fallen(before.pool, after.pool):
            message = _falling(fell, before.source.file)
            sides[number + 1] = _noted(sides[number + 1], message, "pool-counters-fell")
        older, newer = _tags(before), _tags(after)
        lost = older.keys() - newer.keys()
        if lost and after.pool and after.pool.may_lack_tags:
            size = sum(older[key] for key in lost)
            message = _lacking(len(lost), before.source.file)
            marked = _noted(sides[number + 1], message, TAGS_UNKNOWN, size)
            sides[number + 1] = _without_entries(marked, len(lost))
        new = {key for key in newer.keys() - older.keys() if newer[key]}
        if new and before.pool and before.pool.may_lack_tags:
            size = sum(newer[key] for key in new)
            if before.pool.absent_entries or _is_less(_slack(before), _slack(after), size):
                message = _lacking(len(new), after.source.file)
                marked = _noted(sides[number], message, MEMORY_CUT, size)
                sides[number] = _without_entries(marked, len(new))
    return tuple(sides)


def _without_entries(side: Snapshot, lost: int) -> Snapshot:
    """A log of which so many tags more are known to be missing."""
    pools = side.pool
    entries = pools.absent_entries + lost if pools else 0
    return replace(side, pool=pools and replace(pools, absent_entries=entries))


def _is_less(base: int | None, current: int | None, size: int) -> bool:
    """Whether what the tags of a log come to leaves room for tags that it does not have.

    Args:
        base: What the memory manager counts of the pools and no tag does; None when unknown.
        current: What it counts of the later side.
        size: Of the tags that the log lacks.
    """
    return base is None or current is None or base - current > size // 2


def _slack(side: Snapshot) -> int | None:
    """What the memory manager counts of the pools and no tag does; None when it is unknown."""
    held = [row.committed_bytes for row in side.heaps]
    known = [size for size in held if size is not None]
    if len(known) < len(held):
        return None
    return sum(known) - sum(row.used_bytes or 0 for row in side.heaps)


def _tags(side: Snapshot) -> dict[str, int]:
    """Bytes of each tag and pool that a side lists, by the key of its site."""
    if side.pool and side.pool.may_lack_tags:
        return {
            site_key(row.number, POOLS.index(pool)): counters.bytes or 0
            for row in side.pool.rows
            for pool, counters in row.pools.items()
        }
    if side.grouping != "site":
        return {}
    return {key: totals.bytes for key, (_, totals) in side.groups.items()}


def _fallen(before: Pools | None, after: Pools | None) -> int:
    """How many tags have made fewer allocations, or frees, than before; a wrapped counter may have not."""
    if not (before and after and before.may_lack_tags and after.may_lack_tags):
        return 0
    later = {row.number: row.pools for row in after.rows}
    pairs = [
        (old, later[row.number][pool])
        for row in before.rows
        for pool, old in row.pools.items()
        if pool in later.get(row.number, ())
    ]
    return sum(
        _HALF > (old.allocs or 0) > (new.allocs or 0) or _HALF > (old.frees or 0) > (new.frees or 0)
        for old, new in pairs
    )


def _falling(fell: int, other: str) -> str:
    return (
        f"counters of {fell} tags, which only rise, are below those of {other}: the system was restarted in "
        "between, or the two are swapped"
    )


def _lacking(lost: int, other: str) -> str:
    return (
        f"the log lacks {lost} tags that {other} has: it is cut or filtered, or the system was "
        "restarted in between"
    )


def _noted(side: Snapshot, message: str, code: str, size: int = 0) -> Snapshot:
    note = Diagnostic(code, Severity.WARNING, KIND, None, message, size)
    return replace(side, diagnostics=[*side.diagnostics, note])
