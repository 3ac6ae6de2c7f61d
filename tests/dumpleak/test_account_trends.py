"""Rates and ends of account rows over a series; heaps that took memory and do not use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dumpleak.compare.account_trends import RowTrend, row_trends
from dumpleak.compare.answers import Verdict
from dumpleak.compare.fragmented import fragmented_heaps
from dumpleak.compare.site_trends import Exhaustion
from dumpleak.compare.trend import Trend
from dumpleak.model.account import AccountRow
from dumpleak.model.coverage import Coverage
from dumpleak.model.memory import Limit
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.reports.answers.account_facts import end_told, fragmentation_facts, rate_told
from dumpleak.reports.answers.summary_trend import summarize_trend

MIB, GIB = 1 << 20, 1 << 30
START = datetime(2026, 11, 30, 8, tzinfo=UTC)


def _snapshot(time: datetime | None) -> Snapshot:
    source = SourceInfo("x.dmp", "minidump", "Windows", "x86", 7601, time, None, "", None)
    return Snapshot(source, "site", {}, Totals(), {}, [], Coverage(0, 0, 0, 0, 0))


def _trend(
    name: str, points: Sequence[int | None], *more: AccountRow, idle: int = 0, times: bool = True
) -> RowTrend:
    row = AccountRow(name, "bytes", tuple(points))
    hours = [START + timedelta(hours=n) if times else None for n in range(len(points))]
    series = [_snapshot(time) for time in hours]
    return row_trends([row, *more], series, len(points) - idle)[name]


def test_a_rate_is_that_of_the_middle_slope_and_one_odd_dump_does_not_move_it() -> None:
    assert _trend("private.bytes", [0, 10 * MIB, 20 * MIB]).per_hour == 10 * MIB
    assert _trend("private.bytes", [0, 10, 500, 30, 40, 50]).per_hour == 10


@pytest.mark.parametrize(
    ("points", "times"), [([0, None, 20], True), ([0, 10], True), ([0, 10, 20], False)]
)
def test_without_all_values_and_times_there_is_no_rate(
    points: list[int | None], times: bool
) -> None:
    found = _trend("address_space.largest_free_bytes", points, times=times)
    assert (found.per_hour, found.time) == (None, None)


def test_what_comes_after_the_load_is_not_of_the_rate() -> None:
    assert _trend("private.bytes", [0, 10, 20, 0], idle=1).per_hour == 10


def test_a_largest_free_piece_that_shrinks_ends_at_the_usual_request() -> None:
    found = _trend("address_space.largest_free_bytes", [601 * MIB, 401 * MIB, 201 * MIB])
    assert found.per_hour == -200 * MIB
    assert found.time == START + timedelta(hours=3)
    assert "asks for 1.0 MiB" in end_told(found)
    assert "2026-11-30 11:00 UTC" in end_told(found)


@pytest.mark.parametrize("last", [601, 701])
def test_a_piece_that_came_back_in_between_ends_nowhere(last: int) -> None:
    found = _trend("address_space.largest_free_bytes", [900 * MIB, 500 * MIB, last * MIB])
    assert found.time is None
    assert end_told(found) == ""


def test_committed_memory_ends_at_the_commit_limit() -> None:
    limit = AccountRow("memory.commit_limit_bytes", "bytes", (24 * GIB,) * 3)
    found = _trend("memory.committed_bytes", [4 * GIB, 8 * GIB, 12 * GIB], limit)
    assert found.time == START + timedelta(hours=5)
    assert "up in 2 of 2 intervals; going on like this, about 2026-11-30 13:00" in rate_told(found)
    unknown = AccountRow("memory.commit_limit_bytes", "bytes", (None,) * 3)
    assert _trend("memory.committed_bytes", [4 * GIB, 8 * GIB, 12 * GIB], unknown).edge is None


def test_an_end_beyond_all_calendars_is_none() -> None:
    assert _trend("memory.available_bytes", [1 << 60, (1 << 60) - 1, (1 << 60) - 2]).time is None


def _heap(label: str, committed: int | None, used: int | None, free: int | None) -> HeapRow:
    return HeapRow(
        label, 0x10000, "nt", "x64", "", committed_bytes=committed, used_bytes=used, free_bytes=free
    )


def test_a_heap_that_took_memory_and_does_not_use_it_is_fragmented() -> None:
    base = [_heap("heap 1", MIB, MIB // 2, 0), _heap("heap 2", MIB, MIB // 2, 0)]
    current = [
        _heap("heap 1", 9 * MIB, 8 * MIB, 0),  # it has blocks in it
        _heap("heap 2", 9 * MIB, MIB // 2 + 100, 8 * MIB),
    ]
    (found,) = fragmented_heaps(base, current)
    assert (found.label, found.committed, found.used) == ("heap 2", 8 * MIB, 100)
    ((label, text),) = fragmentation_facts(base, current)
    assert label == "Fragments"
    assert text == "heap 2 committed +8.0 MiB and uses +100 B of it; 89% of it is free now"


def test_a_heap_of_one_side_or_one_that_was_not_read_is_not_called_fragmented() -> None:
    grown = _heap("heap 1", 9 * MIB, 0, 8 * MIB)
    assert fragmented_heaps([], [grown]) == []
    unknown = _heap("heap 1", MIB, None, None)
    assert fragmented_heaps([unknown], [grown]) == []
    assert fragmented_heaps([_heap("heap 1", MIB, 0, 0)], [unknown]) == []


def _series(points: Sequence[int]) -> Trend:
    """A series without growth whose largest free piece of address space has these sizes."""
    taken = [
        replace(
            _snapshot(START + timedelta(hours=n)), limits=(Limit("address space", GIB, 2 * GIB),)
        )
        for n in range(len(points))
    ]
    row = AccountRow("address_space.largest_free_bytes", "bytes", tuple(points))
    end = Exhaustion(taken[-1].limits[0], None, 0.0)
    return Trend(tuple(taken), False, Verdict.NO_GROWTH, (), (), (), end, (), account=(row,))


def test_a_series_says_first_that_the_largest_free_piece_shrinks_to_its_end() -> None:
    found = summarize_trend(_series([601 * MIB, 401 * MIB, 201 * MIB]))
    assert found.headline.startswith("Largest free piece of address space shrinks. ")
    facts = dict(found.facts)
    assert (
        "601 MiB to 201 MiB; going on like this, about 2026-11-30 11:00 UTC" in facts["Addresses"]
    )
    assert facts["When it ends"] == (
        "1.0 GiB of address space left in pieces, of which about 2026-11-30 11:00 UTC none is large enough."
    )


def test_a_piece_that_shrinks_a_little_is_nothing_to_say_first() -> None:
    found = summarize_trend(_series([1901 * MIB, 1900 * MIB, 1899 * MIB]))
    assert found.headline == "No site grows steadily."
