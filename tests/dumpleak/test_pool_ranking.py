"""`pool` ranks by PoolMon's keys, leaves tags out, says how much memory there is, and how fast it goes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from kernel_truth import KernelTruthDump, kernel_pairs
from pool_samples import dumps_of, run, run_json

from dumpleak.compare.pool_answers import Selection, take_pool
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.pool import ORDER_KEYS, ORDERS, TagRow
from dumpleak.model.snapshot import Snapshot
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump

# PoolMon's documented keys, and !poolused's digits, beside the words.
KEYS = {
    "b": "bytes",
    "a": "allocs",
    "f": "frees",
    "d": "diff",
    "m": "per-alloc",
    "t": "tag",
    "2": "nonpaged",
    "4": "paged",
}


PAIR = kernel_pairs("tiny-pair")[0]  # ranking knows nothing of builds
RESTARTED = kernel_pairs("reboot-pair")[:1]


def order(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, Any]]:
    return list(run_json(capsys, "pool", *args)["tags"])


@lru_cache
def snapshot() -> Snapshot:
    return take_pool_snapshot(PoolReader(open_dump(PAIR[1].dump)), walk=False)


def ranked(word: str) -> list[TagRow]:
    return list(take_pool(snapshot(), Selection(ORDERS[word])).rows)


def test_each_key_of_poolmon_is_taken_for_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert KEYS == ORDER_KEYS
    told = run_json(capsys, "pool", PAIR[1].dump, "--no-walk", "--sort", "m")
    assert told["sort"] == "per-alloc"
    assert [row["tag"] for row in told["tags"]] == [row.tag for row in ranked("per-alloc")]


def test_tags_are_ranked_by_frees_by_bytes_an_allocation_and_by_name() -> None:
    frees = [row.total("frees") or 0 for row in ranked("frees")]
    assert frees == sorted(frees, reverse=True)
    assert frees[0] > frees[-1]
    held = [(row.total("bytes") or 0, row.total("count") or 0) for row in ranked("per-alloc")]
    sizes = [size // count for size, count in held if count]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    assert all(count for _, count in held[: len(sizes)])  # without blocks there is none
    tags = [row.tag for row in ranked("tag")]
    assert tags == sorted(tags)
    assert len({tuple(row.tag for row in ranked(word)) for word in KEYS.values()}) == len(KEYS)


def test_excluded_tags_are_left_out_by_patterns(capsys: pytest.CaptureFixture[str]) -> None:
    files = [side.dump for side in PAIR]
    everything = {row["tag"] for row in order(capsys, *files, "--no-walk")}
    told = order(capsys, *files, "--no-walk", "--exclude", "AcNb,Nt*", "--exclude", "AcG?")
    left_out = everything - {row["tag"] for row in told}
    expected = {t for t in everything if t.startswith(("Nt", "AcG")) or t == "AcNb"}
    assert left_out == expected
    assert {"AcNb", "AcGb"} <= expected


def test_what_is_left_out_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(
        capsys, "pool", __file__, __file__, "--exclude", "AcNb", "--fail-on", "bytes>=1"
    )
    assert (code, "--exclude" in err) == (2, True)


@dumps_of("tiny-pair")
def test_the_first_screen_says_how_much_memory_there_is_and_what_is_unknown(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "pool", source.dump, "--no-walk")
    assert code == 0
    told = " ".join(next(part for part in out.split("  What next") if "System" in part).split())
    figures = {
        row["name"]: row["value"]
        for row in run_json(capsys, "pool", source.dump, "--no-walk")["system"]
    }
    for name, word in (("available", "available"), ("committed", "committed")):
        known = figures[f"memory.{name}_bytes"] is not None
        assert (f"{word} unknown" in told) is not known
    assert " 0 B" not in told.partition("System")[2].partition("Who")[0]
    assert "nonpaged pool " in told
    assert "paged pool " in told


def test_growth_of_one_boot_has_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    files = [side.dump for side in PAIR]
    for command in ("pool", "diff"):
        told = run_json(capsys, command, *files)
        rows = told["tags" if command == "pool" else "sites"]
        assert told["hours"] > 0
        for row in rows[:5]:
            assert row["bytes_per_hour"] == round(row["delta_bytes"] / told["hours"], 3)
            assert row["count_per_hour"] == round(row["delta_count"] / told["hours"], 3)
        assert "an hour" in run(capsys, command, *files)[1]


@pytest.mark.skipif(not RESTARTED, reason="the shared dumps are not beside the repository")
def test_growth_over_a_restart_has_no_rate(capsys: pytest.CaptureFixture[str]) -> None:
    files = [side.dump for side in RESTARTED[0]]
    for command in ("pool", "diff"):
        told = run_json(capsys, command, *files)
        rows = told["tags" if command == "pool" else "sites"]
        assert told["hours"] is None
        assert {row["bytes_per_hour"] for row in rows} == {None}
        assert "an hour" not in run(capsys, command, *files)[1]
