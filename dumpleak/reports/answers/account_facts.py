"""What the account says beside sites: rates and ends, fragmented heaps, a system's memory that is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dumpleak.compare.account_trends import RowTrend, row_trends
from dumpleak.compare.answers import Comparison
from dumpleak.compare.fragmented import fragmented_heaps
from dumpleak.compare.trend import Trend
from dumpleak.model.account import AccountRow
from dumpleak.model.snapshot import HeapRow
from dumpleak.model.units import format_bytes, format_share
from dumpleak.reports.answers.balance import rest_told
from dumpleak.reports.answers.next_steps import Step, named_elsewhere

AVAILABLE, DRIVERS = "memory.available_bytes", "memory.driver_bytes"
_TAKERS = {"pool.bytes": "pool", DRIVERS: "drivers outside pool", "processes.bytes": "processes"}
# As `!vm` has them: what, of which a part is used, of how much.
_USED_OF = (
    ("available", AVAILABLE, "memory.physical_bytes", "of"),
    ("committed", "memory.committed_bytes", "memory.commit_limit_bytes", "of"),
    ("nonpaged pool", "pool.nonpaged_bytes", "pool.nonpaged_limit_bytes", "of at most"),
    ("paged pool", "pool.paged_bytes", "pool.paged_limit_bytes", "of at most"),
)
_ALWAYS = "available", "committed"
_OF_SYSTEM = tuple(used for _, used, _, _ in _USED_OF)
ADDRESS_SPACE = "address space"  # the limit of that name
NEAR = 10
NAMED_HEAPS = 2
WORTH_TELLING = 0.1  # share of available memory whose loss is told
# Documented for bug check 0xCB: the kernel then remembers who locked pages.
_TRACK_PAGES = Step(
    "Pages that drivers take for themselves are no pool, and no tag names them: a virtual machine's balloon "
    "driver does that. Let Windows remember who locks pages, then restart, and ask !lockedpages:",
    r'reg add "HKLM\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management" '
    "/v TrackLockedPages /t REG_DWORD /d 1",
)


def trends_of(answer: Comparison | Trend) -> dict[str, RowTrend]:
    """Every row of the account over a series, by its name; of two dumps none: they show no rate."""
    if not isinstance(answer, Trend):
        return {}
    under_load = len(answer.snapshots) - answer.after_idle
    return row_trends(answer.account, answer.snapshots, under_load)


def rate_told(trend: RowTrend) -> str:
    """How fast and how steadily: "private bytes: +9.5 MiB an hour, up in 19 of 19 intervals"."""
    row = trend.row
    steady = f"up in {trend.rising} of {trend.intervals} intervals"
    if trend.per_hour is None:
        return f"{row.kind.label}: {steady}"
    rate = row.told(round(trend.per_hour), signed=True)
    return f"{row.kind.label}: {rate} an hour, {steady}{end_told(trend)}"


def end_told(trend: RowTrend | None) -> str:
    """When a row reaches what it runs into: "; at this rate … about 2026-12-01 08:00 UTC"."""
    if trend is None or trend.edge is None or trend.time is None:
        return ""
    return f"; going on like this, about {trend.time:%Y-%m-%d %H:%M} UTC {trend.edge.what}"


def shrinking_told(trend: Trend) -> str:
    """What shrinks steadily and nears its end: "Available memory shrinks"; "" for nothing.

    An end is near when it comes sooner than the series went on, ten times over.
    """
    first, last = trend.base.source.time, trend.current.source.time
    if first is None or last is None:
        return ""
    near = last + NEAR * (last - first)
    found = [
        row.row.kind.label
        for row in trends_of(trend).values()
        if row.edge is not None and row.edge.falls and row.time is not None and row.time <= near
    ]
    told = ", ".join(found)
    return f"{told[:1].upper()}{told[1:]} shrinks" if told else ""


def fragmentation_facts(
    base: Sequence[HeapRow], current: Sequence[HeapRow]
) -> list[tuple[str, str]]:
    """Heaps whose committed memory grew while what is used of it did not."""
    found = fragmented_heaps(base, current)
    told = [
        f"{heap.label} committed {format_bytes(heap.committed, signed=True)} and uses "
        f"{format_bytes(heap.used, signed=True)} of it; {format_share(heap.share, 1, 0)} of it is free now"
        for heap in found[:NAMED_HEAPS]
    ]
    more = f"; and {len(found) - NAMED_HEAPS} more heaps" if len(found) > NAMED_HEAPS else ""
    return [("Fragments", "; ".join(told) + more)] if told else []


def memory_facts(
    rows: Sequence[AccountRow], trends: Mapping[str, RowTrend]
) -> list[tuple[str, str]]:
    """How much less memory is available, and how much of that pool and drivers explain."""
    known = {row.name: row for row in rows if row.delta is not None}
    row = known.get(AVAILABLE)
    if row is None or not (row.delta or 0) <= -WORTH_TELLING * (row.base or 0) < 0:
        return []
    text = f"{row.kind.label} fell from {row.told(row.base)} to {row.told(row.current)}"
    parts = [
        f"{who} {known[name].told(known[name].delta, signed=True)}"
        for name, who in _TAKERS.items()
        if name in known
    ]
    if rest := rest_told(rows):
        parts.append(rest)
    text += f": {', '.join(parts)}" if parts else ""
    return [("Memory", text + end_told(trends.get(AVAILABLE)))]


def system_told(values: Mapping[str, int | None]) -> str:
    """How much memory a system has, as `!vm` begins; "" of what tells nothing of that.

    Args:
        values: Figures of the account by name; None for those that are not known.
    """
    if not any(values.get(name) is not None for name in _OF_SYSTEM):
        return ""
    told = [
        f"{what} {_of(values.get(used), values.get(limit), word)}"
        for what, used, limit, word in _USED_OF
        if values.get(used) is not None or what in _ALWAYS
    ]
    return ", ".join(told)


def _of(used: int | None, limit: int | None, word: str) -> str:
    """How much of how much: "3.0 GiB of 18.0 GiB"; what is unknown is called that."""
    if used is None:
        return "unknown"
    return format_bytes(used) + (f" {word} {format_bytes(limit)}" if limit is not None else "")


def system_steps(rows: Sequence[AccountRow], of: str) -> tuple[Step, ...]:
    """What to do next about rows of a system that grew, the worst first.

    Args:
        rows: What grew.
        of: The population that was looked at.
    """
    drivers = any(row.name == DRIVERS for row in rows)
    return (*((_TRACK_PAGES,) if drivers else ()), *named_elsewhere(rows, of))
