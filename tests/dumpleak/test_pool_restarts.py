"""A series of kernel dumps over a restart of the system: each run is judged by itself."""

from __future__ import annotations

import json
import lzma
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from builders.filled_system import FilledSystem, rebuild
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


def over_restarts(*lives: list[dict[str, int]]) -> list[Snapshot]:
    """A dump an hour; in each life the counts of the tags."""
    series: list[Snapshot] = []
    for life in lives:
        series += [taken(len(series) + n, n + 0.5, held, {}) for n, held in enumerate(life)]
    return series


def test_what_grows_at_a_like_rate_in_each_life_is_named_with_its_rates() -> None:
    lives = (
        [{"Leak": 100 + 10 * n, "Once": 40 + 9 * n, "Slow": 50 + n * 5} for n in range(4)],
        [{"Leak": 20 + 11 * n, "Once": 40, "Slow": 50 + n * 50} for n in range(3)],
        [{"Leak": 10 + 9 * n, "Once": 40, "Slow": 90} for n in range(2)],
    )
    answer = find_trend(over_restarts(*lives))
    (leak,) = answer.recurring
    assert leak.site.key == "Leak"
    assert [rate and round(rate.bytes_per_hour or 0) for rate in leak.rates] == [1000, 1100, 900]
    assert leak.told == "+1000 B, +1.1 KiB, +900 B an hour"
    evidence = {site.site.key: " ".join(site.evidence) for site in answer.sites}
    assert "in each of 3 boots: +1000 B, +1.1 KiB, +900 B an hour" in evidence["Leak"]
    # A suspect of one life says what it does in the others.
    assert "in each of 3 boots: +900 B, 0 B, 0 B an hour" in evidence["Once"]


def test_a_life_of_one_dump_tells_no_rate_and_speaks_against_nothing() -> None:
    lives = (
        [{"Leak": 100 + 10 * n} for n in range(3)],
        [{"Leak": 7}],
        [{"Leak": 20 + 10 * n} for n in range(2)],
    )
    (leak,) = find_trend(over_restarts(*lives)).recurring
    assert [rate is None for rate in leak.rates] == [False, True, False]
    only_one = lives[:2]
    assert find_trend(over_restarts(*only_one)).recurring == ()


def test_a_step_after_each_start_is_no_growth_in_each_life() -> None:
    fills = [{"Cach": 10 + 500 * (n > 0)} for n in range(4)]
    assert find_trend(over_restarts(fills, fills)).recurring == ()


def test_a_rate_is_never_a_slope_over_a_restart() -> None:
    lives = [{"Leak": 400 - 10 * n} for n in range(4)], [{"Leak": 900 - 10 * n} for n in range(4)]
    answer = find_trend(over_restarts(*lives))
    assert answer.recurring == ()
    assert {site.bytes_per_hour for site in (*answer.sites, *answer.other_runs[0].sites)} == {-1000}


def test_dumps_over_a_restart_tell_what_grows_in_each_boot_in_all_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = lzma.decompress(PAIR[0].dump.read_bytes())
    row = raw.index(struct.pack("<4sII", b"AcNb", 39409, 24150))  # of a tracker table
    files = []
    for number in range(5):
        data = bytearray(raw)
        life = number - 3 if number > 2 else number
        up = TICKS // 2 + life * TICKS
        time, held = (struct.unpack_from("<Q", raw, at)[0] for at in (AT_TIME, row + 16))
        for at, form, value in (
            (AT_TIME, "<Q", time + number * TICKS),
            (AT_UP_TIME, "<Q", up),
            (row + 4, "<I", 39409 + 100 * life),
            (row + 16, "<Q", held + 35200 * life),
        ):
            struct.pack_into(form, data, at, value)
        files.append(tmp_path / f"t{number}.dmp")
        files[-1].write_bytes(data)
    told = run_json(capsys, "trend", *files)
    assert [len(boot["dumps"]) for boot in told["boots"]] == [3, 2]
    assert [boot["hours"] for boot in told["boots"]] == [2, 1]
    (found,) = told["recurring"]
    assert (found["tag"], found["driver"], found["by_counters"]) == ("AcNb", "acmenet.sys", True)
    assert [rate["bytes_per_hour"] for rate in found["rates"]] == [35200, 35200]
    assert [rate["count_per_hour"] for rate in found["rates"]] == [100, 100]
    text = " ".join(run(capsys, "trend", *files)[1].split())
    assert "alike in each boot" in text
    assert "AcNb nonpaged, acmenet.sys: +34.4 KiB, +34.4 KiB an hour" in text
    page = tmp_path / "page.html"
    assert run(capsys, "trend", *files, "--format", "html", "-o", page)[0] == 0
    assert "What grows alike in each boot" in page.read_text("utf-8")


def test_a_driver_that_was_replaced_at_a_restart_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number in range(5):
        system = FilledSystem(tmp_path).fill()
        if number > 2:
            rebuild(system, "acmenet.sys")
        (time,) = struct.unpack_from("<Q", system.raw, AT_TIME)
        up = TICKS // 2 + (number - 3 if number > 2 else number) * TICKS
        struct.pack_into("<Q", system.raw, AT_TIME, time + number * TICKS)
        struct.pack_into("<Q", system.raw, AT_UP_TIME, up)
        files.append(tmp_path / f"t{number}.dmp")
        files[-1].write_bytes(system.raw)
    told = run_json(capsys, "trend", *files)
    (changed,) = told["changes"]
    names = [Path(changed[side]).name for side in ("before", "after")]
    assert names == ["t2.dmp", "t3.dmp"]
    assert [row["name"] for row in changed["drivers_changed"]] == ["acmenet.sys"]
    text = " ".join(run(capsys, "trend", *files)[1].split())
    assert "another build of acmenet.sys (build GUID changed)" in text
