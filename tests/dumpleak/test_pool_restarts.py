"""A series of kernel dumps over a restart of the system: each run is judged by itself."""

from __future__ import annotations

import json
import lzma
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kernel_truth import kernel_pairs
from pool_samples import run, run_json

from dumpleak.compare.trend import TrendError, find_trend
from dumpleak.model.boots import Boot, is_same_boot, runs_of, was_restarted
from dumpleak.model.coverage import PoolsCovered
from dumpleak.model.populations import POOL
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals

HOUR = timedelta(hours=1)
START = datetime(2024, 5, 1, tzinfo=UTC)
AT_TIME, AT_UP_TIME = 0xFA8, 0x1030  # _DUMP_HEADER64: SystemTime, SystemUpTime
TICKS = 36_000_000_000  # an hour in units of 100 ns


def taken(number: int, up_hours: float, held: dict[str, int], refuted: dict[str, int]) -> Snapshot:
    """A dump of the pools: blocks of 100 bytes by tag, and what refuted counters say."""
    when = START + number * HOUR
    source = SourceInfo(f"t{number}.dmp", "kernel dump", "", "x64", 19041, when, None, "", None)

    def groups(counts: dict[str, int]) -> dict[str, tuple[Site, Totals]]:
        return {
            tag: (Site(SiteKind.TAG, tag, tag, tag=tag), Totals(count, 100 * count, 100 * count))
            for tag, count in counts.items()
        }

    total = sum(held.values())
    return Snapshot(
        source=source,
        grouping="site",
        groups=groups(held),
        totals=Totals(total, 100 * total, 100 * total),
        private={},
        heaps=[HeapRow("nonpaged pool", 0, POOL, "x64", "")],
        coverage=PoolsCovered(100 * total, 100 * total, 100 * total, 2, 2),
        boot=Boot(0xFFFFF80000000000, when, up_hours * HOUR, source.file),
        refuted=groups(refuted),
    )


def test_runs_are_told_by_up_times_and_by_where_the_kernel_lies() -> None:
    first = Boot(1 << 40, START, 5 * HOUR, "a")
    later = Boot(1 << 40, START + HOUR, 6 * HOUR, "b")
    anew = Boot(1 << 40, START + 2 * HOUR, HOUR / 2, "c")
    moved = Boot(1 << 41, START + 2 * HOUR, None, "d")
    untold = Boot(0, None, None, "e")
    assert (is_same_boot(first, later), was_restarted(first, later)) == (True, False)
    assert (is_same_boot(later, anew), was_restarted(later, anew)) == (False, True)
    assert was_restarted(later, moved)
    # What tells nothing is neither.
    assert (is_same_boot(first, untold), was_restarted(first, untold)) == (False, False)
    assert runs_of([first, later, anew, untold]) == [range(2), range(2, 4)]
    assert runs_of([None, None]) == [range(2)]


def test_growth_of_two_runs_is_not_added_up_and_each_is_judged() -> None:
    ups = [10, 11, 12, 13, 0.5, 1.5, 2.5]
    counts = [100, 200, 300, 400, 50, 150, 250]
    series = [
        taken(n, up, {"Leak": count, "Same": 9}, {})
        for n, (up, count) in enumerate(zip(ups, counts, strict=True))
    ]
    answer = find_trend(series)
    assert answer.restarts == (("t3.dmp", "t4.dmp"),)
    assert answer.restarted == "the system was restarted between t3.dmp and t4.dmp"
    (site,) = answer.sites
    assert (site.confidence, site.delta_count) == ("suspect", 300)
    assert site.count_per_hour == pytest.approx(100)
    (other,) = answer.other_runs
    assert [s.source.file for s in other.snapshots] == ["t4.dmp", "t5.dmp", "t6.dmp"]
    assert [(s.confidence, s.delta_count) for s in other.sites] == [("suspect", 200)]
    assert "restarted" in [item.code for item in answer.diagnostics]


def test_no_run_with_dumps_enough_is_no_trend_and_says_why() -> None:
    series = [taken(n, up, {"Leak": 9 * n}, {}) for n, up in enumerate([10, 11, 0.5, 1.5])]
    with pytest.raises(TrendError, match=r"restarted between t1\.dmp and t2\.dmp.*has 2"):
        find_trend(series)


def test_counters_that_rise_and_blocks_that_do_not_are_told_apart() -> None:
    series = [taken(n, 10 + n, {"Tagg": 40}, {"Tagg": 40 + 100 * n} if n else {}) for n in range(5)]
    answer = find_trend(series)
    assert answer.sites == ()
    assert [(s.site.key, s.confidence, s.delta_count) for s in answer.by_counters] == [
        ("Tagg", "suspect", 400)
    ]
    # One dump whose processors were copied at different times is no trend.
    series = [taken(n, 10 + n, {"Tagg": 40}, {"Tagg": 20_000} if n == 4 else {}) for n in range(5)]
    assert find_trend(series).by_counters == ()


PAIR = next(pair for pair in kernel_pairs("tiny-pair") if pair[1].build == "14393-x64")


def test_trend_names_the_restart_and_a_gate_does_not_pass_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(lzma.decompress(PAIR[0].dump.read_bytes()))
    time, up = (struct.unpack_from("<Q", raw, at)[0] for at in (AT_TIME, AT_UP_TIME))
    files = []
    for number, hours in enumerate((0, 1, 2, None, None)):
        alive = TICKS * (number - 2) - TICKS // 2 if hours is None else up + hours * TICKS
        struct.pack_into("<Q", raw, AT_TIME, time + number * TICKS)
        struct.pack_into("<Q", raw, AT_UP_TIME, alive)
        files.append(tmp_path / f"t{number}.dmp")
        files[-1].write_bytes(raw)
    stored = tmp_path / "t3.dlsnap"
    assert run(capsys, "snapshot", files[3], "-o", stored)[0] == 0
    files[3] = stored
    told = run_json(capsys, "trend", *files)
    assert [Path(row["before"]).name for row in told["restarts"]] == ["t2.dmp"]
    assert len(told["dumps"]) == 3
    assert [len(other["dumps"]) for other in told["other_runs"]] == [2]
    code, out, _ = run(capsys, "trend", *files, "--fail-on", "bytes>=1G")
    assert code == 3
    assert "restarted between" in " ".join(out.split())
    assert json.dumps(told)


def test_growth_by_counters_only_is_told_by_tag_and_driver_too_and_by_size_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = lzma.decompress(PAIR[0].dump.read_bytes())
    row = raw.index(struct.pack("<4sII", b"AcNb", 39409, 24150))  # of a tracker table
    dumps, files = [], []
    for number in range(3):
        data, more = bytearray(raw), 10_000 * (number + 1)
        for at, form, value in (
            (AT_TIME, "<Q", struct.unpack_from("<Q", raw, AT_TIME)[0] + number * TICKS),
            (AT_UP_TIME, "<Q", struct.unpack_from("<Q", raw, AT_UP_TIME)[0] + number * TICKS),
            (row + 4, "<I", 39409 + more),
            (row + 16, "<Q", struct.unpack_from("<Q", raw, row + 16)[0] + 352 * more),
        ):
            struct.pack_into(form, data, at, value)
        dumps.append(tmp_path / f"t{number}.dmp")
        dumps[-1].write_bytes(data)
        files.append(tmp_path / f"t{number}.dlsnap")
        assert run(capsys, "snapshot", dumps[-1], "-o", files[-1])[0] == 0
    keys = {"site": "tag|AcNb|nonpaged", "tag": "tag|AcNb", "driver": "driver|acmenet.sys"}
    for series, by in ((dumps, "driver"), (files, "driver"), (files, "tag"), (files, "site")):
        told = run_json(capsys, "trend", *series, "--by", by)
        assert (told["sites"], told["by_counters_unknown"]) == ([], None)
        assert [
            (site["key"], site["delta_count"], site["delta_bytes"], site["confidence"])
            for site in told["by_counters"]
        ] == [(keys[by], 20_000, 352 * 20_000, "suspect")]
    for series, by in ((dumps, "size"), (files, "kind")):
        told = run_json(capsys, "trend", *series, "--by", by)
        assert told["by_counters"] == []
        assert f"do not tell the {by} of blocks" in told["by_counters_unknown"]
    assert "is shown by site, tag, driver" in run(capsys, "trend", *files, "--by", "heap")[1]
