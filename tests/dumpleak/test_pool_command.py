"""`dumpleak pool` on dumps whose pools are known."""

from __future__ import annotations

import csv
import io
import json
import lzma
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders.kernel_builder import System, full, triage
from kernel_truth import KernelTruthDump, kernel_dumps, kernel_pairs
from pool_samples import (
    COUNTERS,
    OWNERS,
    Pair,
    all_blocks,
    dumps_of,
    leaking,
    pairs_of,
    run,
    run_json,
)
from truth import TESTDATA

ONE_BOOT = ("tiny-pair", "leak-pair", "leak-pair-bmp5", "summary-pair", "traps")
MINIDUMP = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"


def growth(capsys: pytest.CaptureFixture[str], pair: Pair, *args: object) -> dict[str, Any]:
    return run_json(capsys, "pool", pair[0].dump, pair[1].dump, *args)


def assert_every_counter_changed_as_it_did(pair: Pair, told: dict[str, Any]) -> None:
    rows = {row["tag"]: row for row in told["tags"]}
    truth = pair[1].read_pair()["tags"]
    for row in truth:
        expected = {}
        for pool in ("nonpaged", "paged"):
            for name in COUNTERS:
                before, after = row[pool][name]
                expected[f"{pool}_{name}"] = after
                expected[f"delta_{pool}_{name}"] = after - before
        if any(expected[name] for name in expected if name.startswith("delta_")):
            mine = rows[row["tag"]]
            assert {name: mine[name] for name in expected} == expected, row["tag"]
            assert mine["source"] == "trackers"
    assert rows.keys() <= {row["tag"] for row in truth}


@pairs_of(*ONE_BOOT)
def test_planted_tags_come_first_with_exact_deltas_and_their_drivers(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    told = growth(capsys, pair, "--no-walk")
    assert (told["schema"], told["verdict"], told["same_boot"]) == (
        "dumpleak/pool/1",
        "growth",
        True,
    )
    first = told["tags"][:3]
    assert [(row["tag"], row["delta_bytes"], row["delta_count"]) for row in first] == [
        (row["tag"], row["delta_bytes"], row["delta_count"]) for row in leaking(pair)
    ]
    assert {row["tag"]: row["driver"] for row in first} == OWNERS
    for row in first:
        assert row["drivers"][0]["name"] == OWNERS[row["tag"]]
        assert row["drivers"][0]["confidence"] == "strong"
        assert row["drivers"][0]["evidence"]
    # Tags that only churn are allocated most, and rank by what they hold.
    ranks = {row["tag"]: row["rank"] for row in told["tags"]}
    churn = pair[1].read_pair()["churn_tag"]
    assert ranks[churn] > max(ranks[tag] for tag in OWNERS)
    assert churn == max(told["tags"], key=lambda row: row["delta_nonpaged_allocs"])["tag"]
    assert_every_counter_changed_as_it_did(pair, told)


@pairs_of("reboot-pair")
def test_planted_tags_are_among_the_first_six_after_a_restart(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    told = growth(capsys, pair, "--no-walk")
    assert told["same_boot"] is False
    first = {row["tag"]: row["driver"] for row in told["tags"][:6]}
    assert {tag: first.get(tag) for tag in OWNERS} == OWNERS
    assert_every_counter_changed_as_it_did(pair, told)


@pairs_of("tiny-pair")
def test_new_blocks_are_told_by_size_and_address(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {row["tag"]: row for row in growth(capsys, pair)["tags"]}
    (before, lost_before), (after, lost_after) = (all_blocks(side) for side in pair)
    for tag in OWNERS:
        new = told[tag]["new_blocks"]
        assert (new["samples_are_new"], new["other_sizes"]) == (True, 0)
        more = {row["block_bytes"]: row["count"] for row in new["sizes"]}
        for size in {size for owner, size in (*before.values(), *after.values()) if owner == tag}:
            grown = sum(block == (tag, size) for block in after.values())
            grown -= sum(block == (tag, size) for block in before.values())
            lost = sum(after[at] == (tag, size) for at in lost_after)
            lost += sum(before[at] == (tag, size) for at in lost_before)
            assert abs(more.pop(size, 0) - max(grown, 0)) <= lost, (tag, size)
        assert not more
        assert new["samples"]
        for address in new["samples"]:
            assert after[int(address, 16)][0] == tag
            assert before.get(int(address, 16)) != after[int(address, 16)]


@pairs_of("reboot-pair")
def test_after_a_restart_no_block_is_called_new_by_its_address(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    first = growth(capsys, pair)["tags"][0]
    assert first["new_blocks"]["samples_are_new"] is False
    code, out, _ = run(capsys, "pool", *(side.dump for side in pair), "--top", 1)
    assert code == 0
    assert "Restarted in between" in out
    assert "new, for example" not in out


@dumps_of("tiny-pair", "leak-pair")
def test_all_tags_of_one_dump_with_totals_and_drivers(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run_json(capsys, "pool", source.dump, "--no-walk")
    truth = source.read_truth()["tags"]
    rows = {row["tag"]: row for row in told["tags"]}
    assert rows.keys() == truth.keys()
    for tag, expected in truth.items():
        for pool in ("nonpaged", "paged"):
            for name in COUNTERS:
                assert rows[tag][f"{pool}_{name}"] == expected[pool][name], (tag, pool, name)
        assert rows[tag]["driver"].lower() == expected["driver"].lower(), tag
    held = [
        row["nonpaged_bytes"] + row["paged_bytes"] + row.get("session_bytes", 0)
        for row in told["tags"]
    ]
    assert held == sorted(held, reverse=True)


@dumps_of("tiny-pair")
def test_the_walk_is_held_against_the_trackers(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    account = run_json(capsys, "pool", source.dump)["account"]
    truth = source.read_truth()
    tracked = sum(
        tag[pool]["bytes"] for tag in truth["tags"].values() for pool in ("nonpaged", "paged")
    )
    assert account["ranking"] == "trackers"
    assert account["tracked_bytes"] == tracked
    # What trackers count and the walk cannot find lies on pages that are not in the dump.
    absent = {int(block, 16) for page in truth["absent_pages"] for block in page["blocks"]}
    lost: dict[tuple[str, str], int] = {}
    for block in truth["small_blocks"]:
        if int(block["address"], 16) in absent and block.get("absent"):
            pool = "paged" if block["kind"].startswith("Paged") else "nonpaged"
            key = block["tag"], pool
            lost[key] = lost.get(key, 0) + block["charged"]
    told = {(row["tag"], row["pool"]): row["bytes"] for row in account["residuals"]}
    # A page in transition may be read or be called absent.
    assert set(told.items()) <= set(lost.items())


@dumps_of("tiny-pair")
def test_patterns_of_tags_types_and_orders(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    def tags(*args: str) -> list[dict[str, Any]]:
        return list(run_json(capsys, "pool", source.dump, "--no-walk", *args)["tags"])

    truth = source.read_truth()["tags"]
    assert {row["tag"] for row in tags("--tag", "Ac*")} == {t for t in truth if t.startswith("Ac")}
    assert tags("--tag", "ac*") == []
    chosen = tags("--tag", "AcNb", "--tag", "AcF?", "--sort", "paged")
    assert chosen[0]["tag"] == "AcFc"
    paged = tags("--type", "paged")
    ever = {t for t, row in truth.items() if row["paged"]["allocs"]}
    assert {row["tag"] for row in paged} == ever
    assert [row["paged_bytes"] for row in paged] == sorted(
        (truth[t]["paged"]["bytes"] for t in ever), reverse=True
    )
    nonpaged = [row["nonpaged_bytes"] for row in tags("--sort", "2")]
    assert nonpaged == sorted(nonpaged, reverse=True)
    diff = [
        row["nonpaged_count"] + row["paged_count"] + row.get("session_count", 0)
        for row in tags("--sort", "diff")
    ]
    assert diff == sorted(diff, reverse=True)


@dumps_of("tiny-pair")
def test_csv_has_the_same_numbers(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "pool", source.dump, "--no-walk", "--format", "csv")
    assert (code, err) == (0, "")
    truth = source.read_truth()["tags"]
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == len(truth)
    for row in rows:
        assert int(row["nonpaged_bytes"]) == truth[row["tag"]]["nonpaged"]["bytes"]
        assert int(row["paged_frees"]) == truth[row["tag"]]["paged"]["frees"]


@pairs_of("tiny-pair")
def test_text_has_poolmon_s_columns_and_names_the_owner(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "pool", pair[1].dump, "--tag", "AcNb")
    assert code == 0
    head, row = (line for line in out.splitlines() if line.startswith(("Tag", "AcNb")))
    assert head.split() == [
        *["Tag", "Type", "Allocs", "Frees", "Diff", "Bytes", "Per"],
        "Alloc",
        "Driver",
    ]
    counters = pair[1].read_truth()["tags"]["AcNb"]["nonpaged"]
    allocs, frees, held = (counters[name] for name in COUNTERS)
    expected = [allocs, frees, allocs - frees, held, held // (allocs - frees)]
    assert row.split() == ["AcNb", "Nonp", *(f"{n:,}" for n in expected), "acmenet.sys"]


@pytest.mark.parametrize(
    "pair", kernel_pairs("tiny-pair", "truncated")[:3], ids=lambda p: p[1].name
)
def test_json_is_what_its_schema_says(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    file = resources.files("dumpleak").joinpath("schemas/pool-1.schema.json")
    validator = jsonschema.Draft202012Validator(json.loads(file.read_text("utf-8")))
    documents = []
    for files in ([pair[1].dump], [side.dump for side in pair]):
        _, out, _ = run(capsys, "pool", *files, "--format", "json")
        if out:
            documents.append(json.loads(out))
            validator.validate(documents[-1])
    for document in documents:
        document["tags"].append({"tag": "Leak"})
        assert not validator.is_valid(document)


@dumps_of("truncated")
def test_a_cut_dump_gives_no_number_that_is_not_so(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "pool", source.dump, "--format", "json")
    assert code == 3
    assert len(err.splitlines()) == 1
    assert "cut" in err
    truth = source.read_truth()["tags"]
    for row in json.loads(out)["tags"] if out else []:
        for pool in ("nonpaged", "paged"):
            assert row[f"{pool}_allocs"] in (None, truth[row["tag"]][pool]["allocs"])
            assert row["source"] == "walk" or row[f"{pool}_bytes"] in (
                None,
                truth[row["tag"]][pool]["bytes"],
            )


@pairs_of("truncated")
def test_cut_dumps_are_not_compared(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("pool", "diff"):
        code, out, err = run(capsys, command, *(side.dump for side in pair), "--format", "json")
        assert code == 3, command
        assert len(err.splitlines()) == 1
        if out:
            told = json.loads(out)
            assert told["verdict"] == "not-comparable"
            assert not told.get("tags")


def one_line(capsys: pytest.CaptureFixture[str], code: int, *args: object) -> str:
    found, out, err = run(capsys, *args)
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    return err


def test_dumps_without_pools_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "of one process" in one_line(capsys, 3, "pool", MINIDUMP)
    small = tmp_path / "small.dmp"
    small.write_bytes(triage(System()))
    assert "small memory dump" in one_line(capsys, 3, "pool", small)
    assert "small memory dump" in one_line(capsys, 3, "stat", small)
    # A kernel whose memory holds no pool at all.
    bare = tmp_path / "bare.dmp"
    bare.write_bytes(full(System()))
    code, _, err = run(capsys, "pool", bare)
    assert (code, len(err.splitlines())) == (3, 1)


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dump = kernel_dumps("tiny-pair")[0].dump
    assert run(capsys, "pool", dump, "--process", "System")[0] == 2
    assert run(capsys, "pool", dump, dump, dump)[0] == 2
    assert run(capsys, "pool", dump, "--sort", "colour")[0] == 2
    assert run(capsys, "pool", dump, "--pooltag", tmp_path / "none.txt")[0] == 2
    assert run(capsys, "pool", tmp_path / "none.dmp")[0] == 2
    junk = tmp_path / "junk.txt"
    junk.write_bytes(bytes(range(256)) * 40)
    assert "TAG - driver" in one_line(capsys, 3, "pool", dump, "--pooltag", junk)


def test_descriptions_come_from_the_user_s_pooltag_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = kernel_dumps("tiny-pair")[0].dump
    table = tmp_path / "tags.txt"
    table.write_text("rem a comment\nAcNb - acmenet.sys - Acme network buffers\n")
    told = run_json(capsys, "pool", source, "--no-walk", "--tag", "AcNb", "--pooltag", table)
    (row,) = told["tags"]
    assert row["description"] == "Acme network buffers"
    assert any("tags.txt names it" in text for text in row["drivers"][0]["evidence"])
    # One that lies beside the dump is found, whatever its case.
    folder = tmp_path / "case"
    folder.mkdir()
    dump = folder / "memory.dmp"
    dump.write_bytes(lzma.decompress(source.read_bytes()))
    (folder / "PoolTag.TXT").write_text("AcNb - acmenet.sys - found beside it\n")
    told = run_json(capsys, "pool", dump, "--no-walk", "--tag", "AcNb")
    assert told["tags"][0]["description"] == "found beside it"


@dumps_of("tiny-pair")
def test_session_pool_is_told_apart(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = (source.read_truth().get("session_pool") or {}).get("tags", {})
    answer = run_json(capsys, "pool", source.dump, "--type", "session", "--no-walk")
    told = answer["tags"]
    codes = {item["code"] for item in answer["diagnostics"]}
    assert ("no-session-pool" in codes) == (not told)
    assert {row["tag"]: tuple(row[f"session_{name}"] for name in COUNTERS) for row in told} == {
        tag: tuple(row["paged"][name] for name in COUNTERS) for tag, row in truth.items()
    }


@pairs_of("tiny-pair")
def test_a_kernel_and_a_process_are_not_comparable(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "diff", MINIDUMP, pair[1].dump, "--format", "json")
    assert (code, len(err.splitlines())) == (3, 1)
    told = json.loads(out)
    assert (told["verdict"], told["sites"]) == ("not-comparable", [])
    assert "kernel's pools" in told["reasons"][0]


@pairs_of("tiny-pair")
def test_dumps_in_the_wrong_order_are_told_and_no_counter_wraps(
    pair: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("pool", pair[1].dump, pair[0].dump, "--no-walk")
    told = run_json(capsys, *arguments)
    rows = {row["tag"]: row for row in told["tags"]}
    for row in pair[1].read_pair()["tags"]:
        for pool in ("nonpaged", "paged"):
            before, after = row[pool]["allocs"]
            if row["tag"] in rows:
                assert rows[row["tag"]][f"delta_{pool}_allocs"] == before - after
    assert "dumps-swapped" in {item["code"] for item in told["diagnostics"]}
    code, out, _ = run(capsys, *arguments, "--top", "1")
    assert code == 0
    assert "taken before the base" in " ".join(out.split("Tag ")[0].split())
    for command in ("pool", "diff"):  # no driver is tracked for what comes of the wrong order
        out = run(capsys, command, *arguments[1:3])[1]
        assert "dumpleak diff CURRENT BASE" in out
        assert "verifier" not in out
    told = run_json(capsys, "diff", pair[1].dump, pair[0].dump)
    assert "dumps-swapped" in {item["code"] for item in told["diagnostics"]}
    told = run_json(capsys, "diff", pair[0].dump, pair[1].dump)
    assert "dumps-swapped" not in {item["code"] for item in told["diagnostics"]}
