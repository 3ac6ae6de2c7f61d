"""Series with known roles: who is a suspect, who leaked, and how fast; through the command and its parts."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truth import SHARED, TESTDATA, Truth, load_json

from dumpleak.compare.shape import Shape
from dumpleak.compare.trend import Trend, TrendError, find_trend
from dumpleak.model.block_table import BlockTable
from dumpleak.model.coverage import Coverage
from dumpleak.model.memory import Limit
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

SERIES = sorted(
    folder for root in (TESTDATA, SHARED / "user") for folder in root.glob("*/series-*")
)
OF_TESTDATA = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
FILES = [str(OF_TESTDATA / f"dump{number}.dmp.gz") for number in range(6)]
ROLES = ("leak", "drip", "cache", "sawtooth", "step", "churn")
# What two neighbouring dumps of the series say is a size of its own for each role but churn.
SIZES = {"drip": 3000, "cache": 72, "sawtooth": 512, "step": 96}


class Series:
    """One series of dumps, read once."""

    def __init__(self, folder: Path) -> None:
        dumps = sorted(folder.glob("dump*.dmp.*"))
        self.snapshots = [take_snapshot(Session.open(dump)) for dump in dumps]
        self.truths = [
            Truth(load_json(next(folder.glob(f"truth-{dump.name.split('.')[0]}.json.*"))))
            for dump in dumps
        ]
        self.stacks = folder.name.endswith("-ust")

    def of_stack(self, role: str) -> list[tuple[int, int]]:
        """Bytes and blocks of one role's stack in each dump."""
        found = []
        for truth in self.truths:
            columns = truth.raw["alloc_columns"]
            size, stack = columns.index("requested_size"), columns.index("stack_id")
            sizes = [
                row[size]
                for row in truth.raw["allocations"]
                if row[stack] == truth.raw["roles"][role]
            ]
            found.append((sum(sizes), len(sizes)))
        return found

    def growth_of(self, role: str) -> list[int]:
        """Blocks of the size that a role allocates under load, in each dump."""
        size = self.planted_size(role)
        return [self._sizes(truth, role).count(size) for truth in self.truths]

    def planted_size(self, role: str) -> int:
        """The size a role's stack allocated most often between the first and the last dump."""
        if role in SIZES:
            return SIZES[role]
        first, last = (self._sizes(truth, role) for truth in (self.truths[0], self.truths[-1]))
        return max(set(last), key=lambda size: last.count(size) - first.count(size))

    @staticmethod
    def _sizes(truth: Truth, role: str) -> list[int]:
        columns = truth.raw["alloc_columns"]
        size, stack = columns.index("requested_size"), columns.index("stack_id")
        return [
            row[size] for row in truth.raw["allocations"] if row[stack] == truth.raw["roles"][role]
        ]

    def named(self, trend: Trend, role: str) -> list[Any]:
        """The sites that hold a role's blocks: by its points where stacks are recorded, else by size."""
        if self.stacks:
            points = self.of_stack(role)
            return [
                site
                for site in (*trend.sites, *trend.private)
                if [(p.bytes, p.count) for p in site.points] == points[: len(site.points)]
            ]
        growth = self.growth_of(role)
        span = len(trend.snapshots)
        delta = growth[span - 1] - growth[0]
        size = self.planted_size(role)
        return [
            site
            for site in trend.sites
            if site.delta_count == delta
            and site.delta_bytes == delta * size
            and [p.count - site.points[0].count for p in site.points]
            == [count - growth[0] for count in growth[:span]]
        ]


@pytest.fixture(scope="module", params=SERIES, ids=lambda p: f"{p.parent.name}/{p.name}")
def series(request: pytest.FixtureRequest) -> Series:
    return Series(request.param)


def _rate(points: list[tuple[int, int]]) -> float:
    """Bytes an hour of a role under load: the dumps are an hour apart, and the sixth is idle."""
    return (points[4][0] - points[0][0]) / 4


def test_what_grows_steadily_is_suspect_with_the_true_rate(series: Series) -> None:
    for dumps in (series.snapshots[:5], series.snapshots):
        trend = find_trend(dumps)
        suspects = [site for site in trend.sites if site.confidence != "growth"]
        expected = {role: series.named(trend, role)[0] for role in ("leak", "drip")}
        assert {id(site) for site in suspects} == {id(site) for site in expected.values()}
        for role, site in expected.items():
            assert site.confidence == "suspect"
            assert site.shape is Shape.STEADY
            if series.stacks:
                assert site.bytes_per_hour == pytest.approx(_rate(series.of_stack(role)), rel=0.02)
            else:
                growth = series.growth_of(role)
                rate = series.planted_size(role) * (growth[4] - growth[0]) / 4
                assert site.bytes_per_hour == pytest.approx(rate, rel=0.02)


def test_what_a_stopped_load_does_not_give_back_is_leaked(series: Series) -> None:
    trend = find_trend(series.snapshots[:5], after_idle=series.snapshots[5])
    leaked = [site for site in trend.sites if site.confidence == "leaked"]
    expected = [series.named(trend, role)[0] for role in ("leak", "drip")]
    assert {id(site) for site in leaked} == {id(site) for site in expected}
    assert {site.confidence for site in trend.sites} == {"leaked", "growth"}
    assert list(trend.sites[:2]) == sorted(leaked, key=lambda site: -site.delta_bytes)


@pytest.mark.parametrize("role", ["cache", "step", "sawtooth"])
def test_what_does_not_grow_steadily_is_no_suspect_and_its_shape_says_why(
    series: Series, role: str
) -> None:
    shape = {"cache": Shape.SATURATING, "step": Shape.STEP, "sawtooth": Shape.SAWTOOTH}[role]
    for count in (5, 6):
        trend = find_trend(series.snapshots[:count])
        (site,) = series.named(trend, role)
        assert (site.confidence, site.shape) == ("growth", shape)


@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 4), (2, 5), (0, 4), (1, 5)])
def test_any_part_of_the_series_has_the_same_suspects(
    series: Series, first: int, last: int
) -> None:
    parts = find_trend(series.snapshots[first:last])
    suspects = {site.site.key for site in parts.sites if site.confidence == "suspect"}
    whole = find_trend(series.snapshots)
    assert suspects >= {series.named(whole, role)[0].site.key for role in ("leak", "drip")}
    others = {
        site.site.key
        for role in ("cache", "step", "sawtooth")
        for site in series.named(whole, role)
    }
    assert not suspects & others


def test_blocks_of_a_leak_stay_and_those_of_churn_go(run: Any) -> None:
    document = json.loads(run("trend", *FILES, "--format", "json")[1])
    series = Series(OF_TESTDATA)
    by_points = {
        tuple((p["bytes"], p["count"]) for p in site["points"]): site for site in document["sites"]
    }
    for role in ROLES:
        site = by_points[tuple(series.of_stack(role))]
        new = _numbers(series, role, 3) - _numbers(series, role, 0)
        stayed = new & _numbers(series, role, 5)
        found = site["newcomers"]
        if role == "churn":
            # Freed and allocated again all the time; a few get the very same address and size.
            assert found["kept"] < 0.1 * found["new"]
        else:
            assert (found["new"], found["kept"]) == (len(new), len(stayed))
    assert by_points[tuple(series.of_stack("leak"))]["newcomers"]["kept"] >= 180


def _numbers(series: Series, role: str, dump: int) -> set[int]:
    """Allocation numbers of a role's blocks in one dump."""
    raw = series.truths[dump].raw
    number, stack = (raw["alloc_columns"].index(name) for name in ("seq", "stack_id"))
    return {row[number] for row in raw["allocations"] if row[stack] == raw["roles"][role]}


def test_files_given_out_of_order_are_put_in_order_by_their_times(series: Series) -> None:
    shuffled = [series.snapshots[number] for number in (3, 0, 4, 1, 2)]
    assert find_trend(shuffled).sites == find_trend(series.snapshots[:5]).sites


# -- made series -------------------------------------------------------------------------------------

START = datetime(2025, 3, 1, tzinfo=UTC)


def _made(hour: float | None, sizes: dict[str, int], **source: Any) -> Snapshot:
    groups = {
        name: (Site(SiteKind.SHAPE, name, name), Totals(size, size, size, 1))
        for name, size in sizes.items()
    }
    total = sum(sizes.values())
    time = None if hour is None else START + timedelta(hours=hour)
    info = SourceInfo("d.dmp", "minidump", "Windows", "x86", 19041, time, 7, "app.exe", None)
    return Snapshot(
        replace(info, **source),
        "site",
        groups,
        Totals(total, total, total, 1),
        {},
        [],
        Coverage(100, 100, 100, 1, 1),
    )


def test_growth_that_is_given_back_after_the_load_is_not_leaked() -> None:
    loaded = [_made(hour, {"a": 100 * hour}) for hour in range(5)]
    (site,) = find_trend(loaded, _made(6, {"a": 0})).sites
    assert site.confidence == "growth"
    assert "100% of it given back after the load stopped" in site.evidence


@pytest.mark.parametrize(("stay", "confidence"), [(True, "suspect"), (False, "growth")])
def test_growth_of_blocks_that_come_and_go_is_no_suspect(stay: bool, confidence: str) -> None:
    """Nine, thirteen, eighteen blocks: each time other ones, or each time some more."""

    def blocks(hour: int, count: int) -> BlockTable:
        first = 0 if stay else 1000 * hour
        address = np.arange(first, first + count).astype(np.uint64) * np.uint64(16)
        zeros = np.zeros(count, np.int32)
        return BlockTable(address, zeros.astype(np.int64), zeros, zeros.astype(np.uint16), ("a",))

    series = []
    for hour, count in enumerate((9, 13, 18)):
        heap = HeapRow("heap 1", 0x10000, "nt", "x86", "")
        start = START - timedelta(hours=1)
        snapshot = _made(hour, {"a": 207 * count}, process_created=start, program_base=0x400000)
        snapshot.heaps = [heap]
        snapshot.groups["a"] = snapshot.groups["a"][0], Totals(count, 207 * count, 207 * count, 207)
        table = blocks(hour, count)
        snapshot.blocks = lambda table=table: table
        series.append(snapshot)
    (site,) = find_trend(series).sites
    assert site.newcomers == ((4, 4) if stay else (13, 0))
    assert site.confidence == confidence
    for snapshot in series:
        snapshot.blocks = None
    assert find_trend(series).sites[0].confidence == "suspect", "nothing speaks against it"


def test_two_dumps_under_load_and_one_after_leave_a_suspect() -> None:
    loaded = [_made(0, {"a": 10}), _made(1, {"a": 500})]
    (site,) = find_trend(loaded, _made(3, {"a": 480})).sites
    assert site.confidence == "suspect"


def test_exhaustion_is_when_the_rate_has_used_up_what_is_left() -> None:
    loaded = [_made(hour, {"a": 1000 + 500 * hour, "b": 3000 - hour}) for hour in range(4)]
    loaded[-1].limits = (Limit("address space", 10_000), Limit("commit limit", 50_000))
    trend = find_trend(loaded)
    assert trend.exhaustion is not None
    assert trend.exhaustion.limit.name == "address space"
    # 10,000 bytes at 500 an hour, from the last dump at hour 3.
    assert trend.exhaustion.time == START + timedelta(hours=23)
    assert trend.sites[0].exhaustion == START + timedelta(hours=23)
    assert trend.sites[1].exhaustion is None


def test_without_times_there_is_a_shape_and_no_rate() -> None:
    trend = find_trend([_made(None, {"a": 1000 * number}) for number in range(4)])
    (site,) = trend.sites
    assert (site.bytes_per_hour, site.exhaustion) == (None, None)
    assert (site.shape, site.confidence) == (Shape.STEADY, "suspect")
    assert [item.code for item in trend.diagnostics] == ["no-times"]


def test_a_process_that_was_started_anew_makes_no_series() -> None:
    loaded = [_made(hour, {"a": hour}, process_id=pid) for hour, pid in enumerate((7, 7, 8))]
    trend = find_trend(loaded)
    assert trend.verdict == "not-comparable"
    assert "started anew" in trend.reasons[0]
    assert trend.sites == ()
    assert find_trend(loaded, force=True).verdict == "growth"


def test_an_idle_dump_that_is_older_than_the_load_is_refused() -> None:
    with pytest.raises(TrendError, match="not older"):
        find_trend([_made(hour, {"a": hour}) for hour in range(1, 4)], _made(0, {"a": 0}))


def test_a_dump_of_too_little_coverage_is_not_compared() -> None:
    loaded = [_made(hour, {"a": hour}) for hour in range(3)]
    loaded[1].coverage = Coverage(10, 10, 100, 1, 1)
    assert find_trend(loaded).verdict == "not-comparable"


# -- the command -------------------------------------------------------------------------------------


def test_trend_json_has_the_keys_of_the_contract(run: Any) -> None:
    code, out, _ = run("trend", *FILES[:5], "--after-idle", FILES[5], "--format", "json")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "dumpleak/trend/1"
    assert [dump["file"] for dump in document["dumps"]] == FILES
    assert all(dump["time"].endswith("+00:00") for dump in document["dumps"])
    totals = document["totals"]
    assert totals["delta_bytes"] == totals["current_bytes"] - totals["base_bytes"]
    for rank, site in enumerate(document["sites"], start=1):
        assert site["rank"] == rank
        assert len(site["points"]) == 6
        assert site["points"][0] == {"bytes": site["base_bytes"], "count": site["base_count"]}
        assert site["delta_bytes"] == site["points"][-1]["bytes"] - site["base_bytes"]
        assert site["exhaustion"] is None, "a 64-bit process does not run out of addresses"
        assert {
            "bytes_per_hour",
            "count_per_hour",
            "shape",
            "confidence",
            "evidence",
        } <= site.keys()


def test_three_files_without_a_command_are_a_trend(run: Any) -> None:
    assert run(*FILES[:3])[1] == run("trend", *FILES[:3])[1]
    assert (
        run(*FILES[:5], "--after-idle", FILES[5])[1]
        == (run("trend", *FILES, "--after-idle", FILES[5])[1])
    ), "the idle dump may be among the others, as a wildcard gives it"


def test_an_output_file_that_exists_does_not_count_as_a_dump(run: Any, tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    assert run(*FILES[:2], "--format", "json", "-o", str(target))[0] == 0
    assert json.loads(target.read_text())["schema"] == "dumpleak/diff/1"


def test_csv_has_a_row_a_site_with_its_points(run: Any) -> None:
    rows = list(csv.DictReader(io.StringIO(run("trend", *FILES, "--format", "csv")[1])))
    assert rows[0]["confidence"] == "suspect"
    assert float(rows[0]["bytes_per_hour"]) == 24000
    assert int(rows[0]["bytes_5"]) == int(rows[0]["current_bytes"])


def test_text_names_leaked_sites_and_asks_for_an_idle_dump_where_there_is_none(run: Any) -> None:
    assert "--after-idle" in run(*FILES[:5])[1]
    out = run(*FILES[:5], "--after-idle", FILES[5])[1]
    assert "2 sites grew steadily, and a stopped load did not give it back" in out
    assert "--after-idle" not in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["trend"], 2, "Missing argument"),
        (["trend", FILES[0]], 3, "needs 3 dumps"),
        (["trend", *FILES[:2]], 3, "needs 3 dumps"),
        (["trend", *FILES[3:], "--after-idle", FILES[0]], 3, "not older"),
        (["trend", *FILES[:3], FILES[1]], 3, "are the same dump"),
        (["trend", *FILES[:2], str(TESTDATA / "10.0.26100.5074-x64/tiny/dump.dmp.gz")], 3, "anew"),
    ],
)
def test_what_makes_no_series_is_said_in_one_line(
    run: Any, arguments: list[str], code: int, said: str
) -> None:
    found, _, err = run(*arguments)
    assert found == code
    assert said in err


@pytest.mark.parametrize("order", [(3, 0, 2, 1, 4), (4, 3, 2, 1, 0)])
def test_the_order_on_the_command_line_changes_nothing(run: Any, order: tuple[int, ...]) -> None:
    swapped = [FILES[number] for number in order]
    for idle in ([], ["--after-idle", FILES[5]]):
        given = [
            json.loads(run("trend", *names, *idle, "--format", "json")[1])
            for names in (FILES[:5], swapped)
        ]
        assert given[0] == given[1]
        assert given[0]["sites"][0]["newcomers"]["kept"] > 0


# -- made blocks: what chance, load and idle time do to a site ---------------------------------------


def _followed(
    counts: list[tuple[int, int]], idle: tuple[int, int] | None, size: int = 100
) -> Trend:
    """A series of one site: so many blocks that stay, and so many that are other ones in each dump."""
    series = []
    for hour, (staying, passing) in enumerate([*counts, *([idle] if idle else [])]):
        number = [*range(staying), *range(10**6 * (hour + 1), 10**6 * (hour + 1) + passing)]
        count = len(number)
        zeros = np.zeros(count, np.int32)
        table = BlockTable(
            np.array(number, np.uint64) * np.uint64(16),
            zeros.astype(np.int64),
            zeros,
            zeros.astype(np.uint16),
            ("a",),
        )
        start = START - timedelta(hours=1)
        snapshot = _made(hour, {"a": size * count}, process_created=start, program_base=0x400000)
        snapshot.heaps = [HeapRow("heap 1", 0x10000, "nt", "x86", "")]
        snapshot.groups["a"] = (
            snapshot.groups["a"][0],
            Totals(count, size * count, size * count, size),
        )
        snapshot.blocks = lambda table=table: table
        series.append(snapshot)
    return find_trend(series[: len(counts)], series[-1] if idle else None)


def test_a_leak_below_work_in_progress_is_leaked_though_the_total_falls_below_its_start() -> None:
    # 400 blocks come and go under load; of 60 an hour more, none comes back.
    loaded = [(60 * hour, 400) for hour in range(6)]
    (site,) = _followed(loaded, idle=(300, 0)).sites
    assert site.confidence == "leaked"
    assert "180 of 580 blocks that came in the first half are still there" in site.evidence
    assert "39.1 KiB given back after the load stopped, more than it grew by" in site.evidence
    # The same load, whose work in progress grows: nothing of it is there when it stops.
    (site,) = _followed([(0, 400 + 60 * hour) for hour in range(6)], idle=(0, 5)).sites
    assert site.confidence == "growth"


def test_growth_within_the_chance_of_what_comes_and_goes_is_no_suspect_of_few_dumps() -> None:
    # 100 and 110 blocks of which none stays differ by less than two standard deviations.
    (site,) = _followed([(6 * hour, 100) for hour in range(3)], None).sites
    assert site.confidence == "growth"
    (site,) = _followed([(60 * hour, 100) for hour in range(3)], None).sites
    assert site.confidence == "suspect"
    (site,) = _followed([(6 * hour, 0) for hour in range(3)], None).sites
    assert site.confidence == "suspect", "where nothing goes, there is no chance"


# -- noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "each", "confidence"),
    [
        (24, 1, "growth"),  # one block more, and one more
        (100_000, 1, "growth"),
        (24, 2, "growth"),  # four blocks of 24 bytes
        (64, 2, "leaked"),
        (1 << 20, 1, "leaked"),  # few, but each is worth a look
    ],
)
def test_growth_of_next_to_nothing_is_no_verdict_however_regular(
    size: int, each: int, confidence: str
) -> None:
    loaded = [(10 + each * hour, 0) for hour in range(3)]
    (site,) = _followed(loaded, idle=(10 + 2 * each, 0), size=size).sites
    assert site.confidence == confidence
    (site,) = _followed(loaded, None, size=size).sites
    assert site.confidence == confidence.replace("leaked", "suspect")
    too_little = any("too little to tell from noise" in clause for clause in site.evidence)
    assert too_little == (confidence == "growth")
    # Two dumps under load and one after are no more than that.
    (site,) = _followed(loaded[:2], idle=loaded[1], size=size).sites
    assert site.confidence == "growth" or size == 1 << 20


def test_the_example_in_the_help_comes_out_as_its_truth_says(run: Any) -> None:
    code, out, _ = run("trend", "--help")
    assert code == 0
    example = " ".join(out.split("Examples:")[1].split()).split("dumpleak ")[1].split()
    files = [str(TESTDATA.parent / word) if "/" in word else word for word in example]
    series = Series(OF_TESTDATA)
    found = json.loads(run(*files, "--format", "json")[1])["sites"]
    leaked = {tuple(p["count"] for p in s["points"]) for s in found if s["confidence"] == "leaked"}
    dumps = (0, 2, 4, 5)
    expected = {
        tuple(series.of_stack(role)[number][1] for number in dumps) for role in ("leak", "drip")
    }
    assert leaked == expected
    assert not [s for s in found if s["confidence"] == "suspect"]


def test_what_a_verdict_takes_is_said_in_the_help_and_in_the_answer(run: Any) -> None:
    minimum = "4 blocks and 256 B, or 1.0 MiB"
    assert minimum in " ".join(run("trend", "--help")[1].split())
    assert minimum in " ".join(run("trend", *FILES[:3])[1].split())
