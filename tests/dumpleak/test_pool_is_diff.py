"""`pool`, `diff`, `stat` and `trend` of the same files: the same figures, words, coverage and ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import Tag, poolmon
from truth import SHARED, TESTDATA

from dumpleak.cli import main

POOLS = ("nonpaged", "paged", "session")
ROOTS = TESTDATA, SHARED
PAIRS = sorted(p.parent for root in ROOTS for p in (root / "kernel").rglob("before.dmp.xz"))
GENUINE = sorted(p for root in ROOTS for p in (root / "kernel-genuine").rglob("*.dmp.xz"))
Figures = dict[str, tuple[int, int]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str | Path) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as stop:
            main([*map(str, words), "--format", "json"])
        told = capsys.readouterr()
        return int(stop.value.code or 0), json.loads(told.out or "null"), told.err

    return call


def by_tag(rows: list[dict[str, Any]], prefix: str = "") -> Figures:
    """(bytes, blocks) by tag and pool, as `pool` tells them."""
    found = {
        f"{row['tag']}|{pool}": (row[f"{prefix}{pool}_bytes"], row[f"{prefix}{pool}_count"])
        for row in rows
        for pool in POOLS
        if row.get(f"{prefix}{pool}_count") is not None
    }
    return {key: figures for key, figures in found.items() if any(figures)}


def by_site(rows: list[dict[str, Any]], *names: str) -> Figures:
    """The same, as commands tell them that add sites up."""
    found = {}
    for row in rows:
        pool = row["name"].removeprefix(row["tag"].rstrip()).partition(",")[0].strip()
        size, count = (row[name] for name in names)
        found[f"{row['tag']}|{pool}"] = size, count
    return {key: figures for key, figures in found.items() if any(figures)}


def readable(figures: Figures) -> Figures:
    """Tags that a key shows as they are."""
    return {key: value for key, value in figures.items() if len(key.partition("|")[0]) == 4}


@pytest.mark.parametrize(
    "dump",
    [*(pair / "after.dmp.xz" for pair in PAIRS), *GENUINE],
    ids=lambda path: "-".join(path.parts[-4:]),
)
def test_stat_adds_up_what_pool_lists(run: Any, dump: Path) -> None:
    code, pool, said = run("pool", dump)
    other, stat, why = run("stat", dump)
    assert code == other
    if stat is None:  # what is no answer is shown by `pool` only, and called none
        assert (code, said.strip()[-40:]) == (3, why.strip()[-40:])
        return
    told = by_site(stat["groups"], "used_bytes", "used_count")
    assert readable(told) == readable(by_tag(pool["tags"])) != {}
    assert stat["coverage"] == pool["account"]["coverage"]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda path: "-".join(path.parts[-4:]))
def test_diff_tells_the_growth_that_pool_tells(run: Any, pair: Path) -> None:
    dumps = pair / "before.dmp.xz", pair / "after.dmp.xz"
    code, pool, _ = run("pool", *dumps)
    other, diff, _ = run("diff", *dumps)
    assert code == other
    if diff is None:
        assert code == 3
        if pool is not None:  # else no dump of the kernel can be read
            assert (pool["verdict"], pool["tags"]) == ("not-comparable", [])
        return
    assert (diff["verdict"], diff["reasons"]) == (pool["verdict"], pool["reasons"])
    told = by_site(diff["sites"], "delta_bytes", "delta_count")
    assert readable(told) == readable(by_tag(pool["tags"], "delta_")) != {}
    for side in ("base", "current"):
        assert diff["coverage"][side] == pool["account"][side]["coverage"]
    # Why a tag is somebody's is said in the same words.
    best = pool["tags"][0]
    evidence = "; ".join(best["drivers"][0]["evidence"])
    assert any(evidence in clause for clause in diff["sites"][0]["evidence"])


def test_a_snapshot_file_is_told_about_as_its_dump_is(run: Any, tmp_path: Path) -> None:
    pair = TESTDATA / "kernel" / "22621-x64" / "tiny-pair"
    dumps = [pair / "before.dmp.xz", pair / "after.dmp.xz"]
    files = [tmp_path / "before.dlsnap", tmp_path / "after.dlsnap"]
    for dump, file in zip(dumps, files, strict=True):
        with pytest.raises(SystemExit):
            main(["snapshot", str(dump), "-o", str(file)])
    whole, kept = (run("diff", *sides)[1] for sides in (dumps, files))
    assert [site["evidence"] for site in kept["sites"][:3]] == [
        site["evidence"] for site in whole["sites"][:3]
    ]
    assert [site["delta_bytes"] for site in kept["sites"]] == [
        site["delta_bytes"] for site in whole["sites"]
    ]


def test_one_dump_given_twice_is_no_comparison_to_either(run: Any) -> None:
    dump = TESTDATA / "kernel" / "22621-x64" / "tiny-pair" / "after.dmp.xz"
    ends = [run(command, dump, dump) for command in ("pool", "diff")]
    assert [end[0] for end in ends] == [3, 3]
    assert ends[0][2] == ends[1][2]
    assert "one and the same file" in ends[0][2]


def _logs(folder: Path) -> list[Path]:
    logs = []
    for step in range(3):
        tags = [
            Tag("EtwB", "Nonp", 6394, 4056, 163_418_368),
            Tag("Leak", "Nonp", 5000 + 1000 * step, 4990, (10 + 1000 * step) * 4096),
        ]
        logs.append(folder / f"{step}.log")
        logs[-1].write_bytes(poolmon(tags).encode("latin-1"))
    return logs


def test_trend_tells_the_growth_of_logs_that_pool_and_diff_tell(run: Any, tmp_path: Path) -> None:
    logs = _logs(tmp_path)
    pool, diff = (run(command, logs[0], logs[-1])[1] for command in ("pool", "diff"))
    trend = run("trend", *logs)[1]
    told = [by_site(each["sites"], "delta_bytes", "delta_count") for each in (diff, trend)]
    assert (
        told[0] == told[1] == by_tag(pool["tags"], "delta_") == {"Leak|nonpaged": (8192000, 2000)}
    )


def test_what_a_cut_log_hides_is_a_doubt_to_pool_as_to_diff(run: Any, tmp_path: Path) -> None:
    logs = _logs(tmp_path)
    lines = logs[0].read_bytes().splitlines(keepends=True)
    logs[0].write_bytes(
        b"".join([*lines[3:5], *lines[-2:-1]])
    )  # neither its header nor the last tag
    ends = [run(command, logs[0], logs[1]) for command in ("pool", "diff")]
    assert [end[0] for end in ends] == [3, 3]
    assert ends[0][2] == ends[1][2] != ""
    assert {end[1]["verdict"] for end in ends} == {"not-comparable"}
