"""How fast rows of the account move over a series, how steadily, and when one reaches its end.

Ends are of what a process or a system runs into whoever takes it: a 32-bit process fails when no free piece
of its address space is large enough, long before all of it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from dumpleak.compare.site_trends import LAST_DATE
from dumpleak.model.account import AccountRow
from dumpleak.model.snapshot import Snapshot

HOUR = 3600.0
# The stack that a thread reserves unless its program says otherwise, and the least that a heap asks for when
# it needs another segment.
USUAL_REQUEST = 1 << 20
_REQUEST = "a new thread's stack, or a heap that needs a segment, asks for 1.0 MiB"
MOST_HANDLES = 1 << 24  # of one process
MIN_POINTS = 3  # two moments show no rate that goes on
_Rows = dict[str, AccountRow]


@dataclass(frozen=True)
class Edge:
    """What a row runs into.

    Attributes:
        what: For people, with the reason.
        value: Where it ends.
        falls: It is reached by falling.
    """

    what: str
    value: int
    falls: bool = False


@dataclass(frozen=True)
class RowTrend:
    """One row over a series under load.

    Attributes:
        row: It.
        per_hour: Its rate, the median of the slopes between all pairs of dumps; None where a value or a time
            is not known, or there are less than three dumps.
        rising: In how many of the intervals it rose, or fell where that leads to its end.
        intervals: All of them.
        edge: What it runs into; None for nothing that is known.
        time: When it gets there if everything goes on as it did; None when it does not, or nobody knows.
    """

    row: AccountRow
    per_hour: float | None
    rising: int
    intervals: int
    edge: Edge | None = None
    time: datetime | None = None


def row_trends(
    rows: Sequence[AccountRow], snapshots: Sequence[Snapshot], under_load: int
) -> dict[str, RowTrend]:
    """Every row of an account over a series, by its name.

    Args:
        rows: The account.
        snapshots: The series, in order of time.
        under_load: How many of them are under load; what comes behind is not of the rate.
    """
    times = [snapshot.source.time for snapshot in snapshots[:under_load]]
    known = {row.name: row for row in rows}
    found = {}
    for row in rows:
        make = _EDGES.get(row.name)
        edge = make(known) if make is not None else None
        found[row.name] = _trend(row, row.points[:under_load], times, edge)
    return found


def _trend(
    row: AccountRow,
    values: Sequence[int | None],
    times: Sequence[datetime | None],
    edge: Edge | None,
) -> RowTrend:
    points = [
        (time, value)
        for time, value in zip(times, values, strict=True)
        if time is not None and value is not None
    ]
    steps = [after[1] - before[1] for before, after in pairwise(points)]
    moved = sum((step < 0) if edge and edge.falls else (step > 0) for step in steps)
    if len(points) < max(len(values), MIN_POINTS):
        return RowTrend(row, None, moved, len(steps), edge)
    slopes = [
        (value - before) / ((time - earlier).total_seconds() / HOUR)
        for number, (time, value) in enumerate(points)
        for earlier, before in points[:number]
        if time > earlier
    ]
    if not slopes:
        return RowTrend(row, None, moved, len(steps), edge)
    rate = median(slopes)
    end = _end(points[-1], rate, edge) if edge is not None and moved == len(steps) else None
    return RowTrend(row, rate, moved, len(steps), edge, end)


def _end(last: tuple[datetime, int], rate: float, edge: Edge) -> datetime | None:
    """When a row that moves on at its rate gets to its edge; None where it does not move there."""
    time, value = last
    left = value - edge.value if edge.falls else edge.value - value
    speed = -rate if edge.falls else rate
    if left <= 0:
        return time
    if speed <= 0 or left / speed >= (LAST_DATE - time).total_seconds() / HOUR:
        return None
    return (time + timedelta(hours=left / speed)).replace(microsecond=0)


def _largest_free(rows: _Rows) -> Edge:
    return Edge(
        f"no free piece of address space is left for a usual request: {_REQUEST}",
        USUAL_REQUEST,
        True,
    )


def _commit(rows: _Rows) -> Edge | None:
    limit = rows.get("memory.commit_limit_bytes")
    if limit is None or not limit.current:
        return None
    return Edge("the system's commit limit, unless page files grow", limit.current)


def _handles(rows: _Rows) -> Edge | None:
    if rows["handles.count"].of_system:
        return None
    return Edge("all the handles a process can have, 16,777,216", MOST_HANDLES)


_EDGES: dict[str, Callable[[_Rows], Edge | None]] = {
    "address_space.largest_free_bytes": _largest_free,
    "memory.committed_bytes": _commit,
    "memory.available_bytes": lambda rows: Edge(
        "no memory is available: the system pages", 0, True
    ),
    "handles.count": _handles,
}
