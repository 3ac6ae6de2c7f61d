"""PoolMon's log, read: the pools of a live system by tag, in place of a dump of its kernel.

PoolMon shows the counters that the kernel's trackers have in a dump, so a log and a dump of one machine give
the same keys. It never shows blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from dumpleak.files.live_text import lines_of
from dumpleak.files.poolmon_lines import MAX_ROWS, PoolLog, parse
from dumpleak.model.account import Figure
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.memory import Limit
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import POOLS, TRACKERS, Counters, TagRow, sited
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_sites import driver_of, tag_site
from dumpleak.model.pools import Pools
from dumpleak.model.populations import POOL
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Groups, Totals, add_to, sum_of
from dumpleak.owners.by_table import owner_by_notes
from dumpleak.owners.tag_table import (
    TagNote,
    TagTable,
    built_in_table,
    parse_drivers,
    pooltag_for,
)
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.pool_tags import tag_text

KIND = "poolmon log"
GROUPINGS = ("site", "tag", "driver")
TAGS_UNKNOWN = "pool-tags-unknown"  # code: tags are missing, nobody knows how much of the pool
_HEADER = {
    "memory.available_bytes": "available",
    "memory.committed_bytes": "committed",
    "memory.commit_limit_bytes": "commit_limit",
}
_NEVER = "a PoolMon log counts the blocks of each tag and shows none of them: no sizes, no contents"


class PoolLogCoverage(PoolsCovered):
    """Coverage of a log: all that it counts is known, and none of it was walked."""

    never: ClassVar[str] = _NEVER


def read_log(path: Path | str, by: str = "site", pooltag: Path | None = None) -> Snapshot:
    """Reads a PoolMon log into a snapshot of the pools, with the keys that a kernel dump gives.

    Args:
        path: The log.
        by: Of `GROUPINGS`.
        pooltag: A `pooltag.txt`; one that lies beside the log is found without.

    Raises:
        CannotAnswerError: it is several logs in one, cut before its first tag, or cannot be grouped so.
        PoolTagFileError: `pooltag` says nothing.
        OSError: a file cannot be read.
    """
    if by not in GROUPINGS:
        raise CannotAnswerError(
            f"{path}: a PoolMon log counts blocks by tag and shows none; it can be grouped by "
            f"{', '.join(GROUPINGS)}, not by {by}"
        )
    log = parse(lines_of(path))
    if why := _why_not_one(log):
        raise CannotAnswerError(f"{path}: {why}")
    said = DiagnosticLog()
    table = pooltag_for(Path(path).parent, pooltag, said, KIND)
    _say(log, said)
    pools = _pools(log, table)
    groups = _grouped(pools.rows, by)
    totals = sum_of(totals for _, totals in groups.values())
    heaps = _heaps(log)
    size, count = totals.bytes, len(heaps)
    return Snapshot(
        # No log tells its time.
        source=SourceInfo(
            *(str(path), KIND, "Windows", "", 0, None, None, "System", None), subject=Subject.SYSTEM
        ),
        grouping=by,
        groups=groups,
        totals=totals,
        private={},
        heaps=heaps,
        coverage=PoolLogCoverage(0, size, size, count, count, counted_bytes=size),
        diagnostics=said.collect(),
        limits=_limits(log),
        pool=pools,
        outside=_account(log, totals),
        population=POOL,
    )


def _pools(log: PoolLog, table: TagTable | None) -> Pools:
    """What a log tells of each tag, those included that hold nothing now."""

    def owner(tag: int) -> Ownership | None:
        text = tag_text(tag)
        notes = [_mapped(log, tag, text), built_in_table().find(text)]
        return owner_by_notes(text, [*([table.find(text)] if table else []), *notes])

    held: dict[int, dict[str, Counters]] = {}
    for (number, pool), counters in sorted(log.rows.items()):
        held.setdefault(number, {})[pool] = counters
    rows = tuple(
        TagRow(number, tag_text(number), pools, TRACKERS, owner(number) or Ownership("    "))
        for number, pools in held.items()
    )
    return Pools(
        rows,
        PoolAccount(
            ranking=TRACKERS,
            reason=_NEVER,
            trackers="the kernel's counters by tag, as PoolMon shows them",
            walk="",
            tracked_bytes=sum(row.total("bytes") or 0 for row in rows),
            tag_count=len(rows) + log.damaged,
            unknown_tags=log.damaged,
            walked_bytes=None,
            walked_count=None,
            uncounted_bytes=0,
            matched_bytes=None,
            absent_bytes=0,
            damaged_bytes=0,
            missing_bytes=0,
            residuals=(),
            pool_count=len({pool for _, pool in log.rows}),
        ),
        has_trackers=True,
        counter_bits=64 if any((row.total("allocs") or 0) >> 32 for row in rows) else 32,
        absent_entries=log.damaged,
        has_session_pool=log.in_sessions,
        why_no_session_pool="" if log.in_sessions else "PoolMon shows it only with /s",
        may_lack_tags=True,
        find_owner=owner,
    )


def _mapped(log: PoolLog, tag: int, text: str) -> TagNote | None:
    """What the column Mapped_Driver says: "[ntfs.sys  -  Create.c]", of drivers alone "[ipsec]"."""
    said = log.drivers.get(tag, "")
    if not said.startswith("["):
        return None
    entry = said.rsplit("[", 1)[1].rstrip("]")
    driver, _, description = entry.partition(" - ")
    drivers, component = parse_drivers(driver)
    if not drivers and driver.strip().isalnum():
        drivers = (f"{driver.strip()}.sys",)
    return TagNote(text, drivers, component, description.strip(), "the log's Mapped_Driver column")


def _why_not_one(log: PoolLog) -> str:
    """Why this is less, or more, than one log; "" when it is one."""
    if len(log.rows) + log.damaged > MAX_ROWS:
        return f"more than {MAX_ROWS} lines, no log of PoolMon has so many"
    if log.headings > 1 or log.repeated:
        twice = f"the tag {log.repeated} is there twice" if log.repeated else ""
        return (
            f"{twice or 'it has several tables'}: several snapshots in one file; write each to a file of "
            "its own, `poolmon /n FILE`"
        )
    return "" if log.rows else "a PoolMon log that is cut before its first tag"


def _say(log: PoolLog, said: DiagnosticLog) -> None:
    """What is missing, and what a log never tells."""

    def warn(code: str, message: str) -> None:
        said.add(code, Severity.WARNING, KIND, None, message)

    said.add("poolmon-log", Severity.INFO, KIND, None, _NEVER)
    if log.damaged:
        warn(
            TAGS_UNKNOWN,
            f"{log.damaged} lines are damaged and were left out: they are no rows, or contradict "
            "themselves",
        )
    if log.in_sessions:
        return
    if not log.memory:
        warn(
            "poolmon-no-header",
            "the log lacks its header, so that nothing tells whether it has all tags",
        )
    for pool in POOLS[:2]:
        header, told = log.memory.get(f"{pool}_pool", 0) << 10, log.total(pool)
        if told * 2 < header:
            warn(
                "poolmon-part",
                f"its tags come to {told} of {header} bytes of {pool} pool: it is cut, or was "
                "filtered (/i, /x, /p)",
            )


def _grouped(rows: Iterable[TagRow], by: str) -> Groups:
    groups: Groups = {}
    for row, number in sited(rows):
        counters = row.pools[POOLS[number]]
        held = counters.bytes or 0
        site = _site(row, number, by)
        add_to(groups, site, Totals(counters.count or 0, held, held))
    return groups


def _site(row: TagRow, number: int, by: str) -> Site:
    if by == "driver":
        return driver_of(row.owner.driver)
    return tag_site(row, number if by == "site" else None)


def _heaps(log: PoolLog) -> list[HeapRow]:
    heaps = []
    for pool in POOLS:
        rows = [row for (_, where), row in log.rows.items() if where == pool]
        if rows:
            kilobytes = None if log.in_sessions else log.memory.get(f"{pool}_pool")
            heaps.append(
                HeapRow(
                    label=f"{pool} pool",
                    address=0,
                    kind=POOL,
                    architecture="",
                    reason="",
                    committed_bytes=None if kilobytes is None else kilobytes << 10,
                    used_bytes=log.total(pool),
                    used_count=sum(row.count or 0 for row in rows),
                )
            )
    return heaps


def _account(log: PoolLog, totals: Totals) -> tuple[Figure, ...]:
    """The system as a whole, by its tags and the log's header."""
    figures = [Figure("pool.count", totals.count), Figure("pool.bytes", totals.bytes)]
    for pool in POOLS[:2]:
        listed = any(where == pool for _, where in log.rows)
        name, why = f"pool.{pool}_bytes", f"the log lists no tags of {pool} pool"
        figures.append(Figure(name, log.total(pool)) if listed else Figure(name, None, why))
    for name, key in _HEADER.items():
        size = log.memory.get(key)
        why = "" if size is not None else "the log lacks its header"
        figures.append(Figure(name, None if size is None else size << 10, why))
    return tuple(figures)


def _limits(log: PoolLog) -> tuple[Limit, ...]:
    """Pool of both kinds is committed memory."""
    committed, limit = log.memory.get("committed"), log.memory.get("commit_limit")
    if committed is None or limit is None or limit < committed:
        return ()
    return (Limit("commit limit", (limit - committed) << 10, limit << 10),)
