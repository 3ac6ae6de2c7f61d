"""Which blocks `allocations` shows when only some are asked for."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzz.command_lines import run
from truth import TESTDATA, TruthDump, load_json, truth_dumps

from dumpleak.model.block_filter import BlockFilter, parse_sizes, pattern_of
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.pages import WalkedSites

FOLDER = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust"
BEFORE, AFTER = FOLDER / "before.dmp.gz", FOLDER / "after.dmp.gz"
PLAIN = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr" / "after.dmp.gz"
POOLS = TESTDATA / "kernel" / "14393-x64" / "tiny-pair" / "after.dmp.xz"
Rows = list[dict[str, str]]


def rows(*words: object) -> Rows:
    code, output, said = run("allocations", *map(str, words), "--format", "csv")
    assert code == 0, said
    return list(csv.DictReader(io.StringIO(output)))


def addresses(found: Rows) -> set[int]:
    return {int(row["address"], 16) for row in found}


@pytest.fixture(scope="module")
def every() -> Rows:
    return rows(AFTER)


def test_names_are_chosen_by_a_part_or_by_a_whole_pattern(every: Rows) -> None:
    sessions = [row for row in every if row["type"] == "app::net::Session"]
    assert 0 < len(sessions) < len(every)
    for pattern in ("session", "app::net::Session", "*::Session", "app::net::S?ssion"):
        assert rows(AFTER, "--type", pattern) == sessions
    assert rows(AFTER, "--type", "::Session*") == []
    site = sessions[0]["site"]
    assert rows(AFTER, "--site", site) == [row for row in every if site in row["site"]]
    both = rows(AFTER, "--site", site, "--type", "session")
    assert both == [row for row in sessions if site in row["site"]]


def test_brackets_in_names_mean_themselves() -> None:
    takes = pattern_of("vector<[a]>*")
    assert takes("Vector<[A]>::x")
    assert not takes("vector<a>::x")
    assert pattern_of("Cache<app")("app::Cache<app::Node>")


def test_a_heap_is_named_by_label_number_or_handle(every: Rows) -> None:
    mine = [row for row in every if row["heap_label"] == "heap 1"]
    handle = mine[0]["heap"]
    for name in ("heap 1", "HEAP 1", "1", handle, hex(int(handle, 16))):
        assert rows(AFTER, "--heap", name) == mine
    code, output, said = run("allocations", str(AFTER), "--heap", "7")
    assert (code, output) == (3, "")
    assert "heap 0 (0x" in said


def test_sizes_are_one_or_a_range_of_them(every: Rows) -> None:
    def sized(low: int, high: int) -> Rows:
        return [row for row in every if low <= int(row["size"] or row["block_bytes"]) <= high]

    assert rows(AFTER, "--size", "48") == sized(48, 48) != []
    assert rows(AFTER, "--size", "1K-64K") == sized(1024, 65536) != []
    assert parse_sizes("64-1.5K") == (64, 1536)
    for wrong in ("x", "-5", "9-4", "5-", ""):
        assert run("allocations", str(AFTER), "--size", wrong)[0] == 2


def test_unreferenced_blocks_are_those_that_leaks_lists() -> None:
    leaks = json.loads(run("leaks", str(AFTER), "--format", "json")[1])
    lost = {int(a, 16) for group in leaks["groups"] for a in group["addresses"]}
    assert addresses(rows(AFTER, "--unreferenced")) == lost != set()
    assert run("allocations", str(AFTER), "--unreferenced", "--state", "free")[0] == 2


def test_new_blocks_are_those_that_the_earlier_dump_had_not(tmp_path: Path) -> None:
    truth = load_json(FOLDER / "truth-after.json.gz")
    leaked = {row[0] if isinstance(row, list) else row for row in truth["leaked_since_before"]}
    found = rows(AFTER, "--new-since", BEFORE)
    new = addresses(found)
    both = addresses(rows(AFTER, "--new-since", BEFORE, "--unreferenced"))
    assert leaked <= both <= new
    before = addresses(rows(BEFORE))
    assert addresses(rows(AFTER)) - before <= new
    # A snapshot of the earlier dump says the same.
    kept = tmp_path / "before.dlsnap"
    assert run("snapshot", str(BEFORE), "-o", str(kept))[0] == 0
    assert addresses(rows(AFTER, "--new-since", kept)) == new


def test_of_two_runs_of_a_program_nobody_says_what_is_new() -> None:
    other = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr" / "before.dmp.gz"
    code, output, said = run("allocations", str(AFTER), "--new-since", str(other))
    assert (code, output) == (3, "")
    assert "two runs of the program" in said


def test_pool_blocks_are_chosen_by_tag_and_pool() -> None:
    every = rows(POOLS)
    assert rows(POOLS, "--tag", "MmLd") == [row for row in every if row["tag"] == "MmLd"] != []
    assert rows(POOLS, "--tag", "Mm*") == [row for row in every if row["tag"][:2] == "Mm"]
    assert rows(POOLS, "--tag", "mm*") == []
    assert rows(POOLS, "--heap", "nonpaged") == [r for r in every if r["heap"] == "nonpaged"]
    for option in (("--unreferenced",), ("--new-since", str(POOLS))):
        code, output, said = run("allocations", str(POOLS), *option)
        assert (code, output) == (3, "")
        assert "--process" in said


def test_the_first_rows_are_counted_after_choosing(every: Rows) -> None:
    assert (
        rows(AFTER, "--type", "session", "--top", 2)
        == [row for row in every if row["type"] == "app::net::Session"][:2]
    )


# Groups.


def listed(*words: object) -> tuple[dict[str, Any], str]:
    code, output, said = run(*map(str, words), "--format", "json")
    assert code == 0, said
    return json.loads(output), run(*map(str, words))[1]


def test_groups_are_chosen_by_name_and_type_and_totals_stay_whole() -> None:
    for command in ("stat", "leaks"):
        every, _ = listed(command, AFTER, "--by", "type")
        some, text = listed(command, AFTER, "--by", "type", "--type", "APP::no*")
        wanted = [g for g in every["groups"] if (g["type"] or "").startswith("app::No")]
        assert some["groups"] == wanted != []
        assert some["totals"] == every["totals"]
        assert "Only groups with type 'APP::no*' are listed; totals are of all." in text
    every, _ = listed("diff", BEFORE, AFTER, "--no-holders")
    some, text = listed("diff", BEFORE, AFTER, "--no-holders", "--site", "4446")
    assert [site["name"] for site in some["sites"]] == [
        site["name"] for site in every["sites"] if "4446" in site["name"]
    ]
    assert some["totals"] == every["totals"]
    assert "Only changed sites with name '4446'" in text
    assert "There are no changed sites" in listed("diff", BEFORE, AFTER, "--site", "nobody")[1]


def test_whole_stacks_are_shown_when_asked_for() -> None:
    site = json.loads(run("stat", str(AFTER), "--format", "json")[1])["groups"][0]
    behind = site["frames"][site["frames"].index(site["name"]) + 1 :]
    assert len(behind) > 3
    short = run("stat", str(AFTER), "--top", "1")[1]
    assert f"from {', '.join(behind[:3])}\n" in short
    whole = run("stat", str(AFTER), "--top", "1", "--frames", "all")[1]
    assert all(f"from {frame}\n" in whole for frame in behind)
    assert behind[0] not in run("stat", str(AFTER), "--top", "1", "--frames", "0")[1]
    assert run("stat", str(AFTER), "--frames", "many")[0] == 2


def test_several_heaps_have_a_row_of_all_for_people_only() -> None:
    heaps = json.loads(run("heaps", str(AFTER), "--format", "json")[1])["heaps"]
    assert len(heaps) == 3
    text = run("heaps", str(AFTER))[1]
    (total,) = (line for line in text.splitlines() if line.startswith("all 3"))
    assert f"{sum(heap['used_count'] for heap in heaps):,}" in total
    assert "all 3" not in run("heaps", str(AFTER), "--format", "csv")[1]


SITED = [
    dump
    for dump in truth_dumps(
        "tiny", "mixed", "nt-lfh", "segment-basic", "debug-crt", "leak-pair-aslr"
    )
    if "before" not in dump.dump.name
][::5]


@pytest.mark.parametrize("dump", SITED, ids=lambda d: d.name)
def test_each_site_of_stat_has_as_many_blocks_and_bytes_when_it_is_asked_for(
    dump: TruthDump,
) -> None:
    expected: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for site, totals in take_snapshot(Session.open(dump.dump)).groups.values():
        expected[site.name] += totals.count
        held[site.name] += totals.bytes
    session = Session.open(dump.dump)
    walked = WalkedSites(session, session.blocks(), None)
    everything = list(walked.pages())
    for name, count in expected.items():
        asked = BlockFilter(site=name).among(walked.names)
        pages = [found for page in everything if (found := asked.selected(page))]
        assert sum(len(page.blocks) for page in pages) == count, name
        assert sum(int(page.blocks.counted_bytes.sum()) for page in pages) == held[name]
        assert {site for page in pages for site in page.sites.rows()} == {name}


def test_a_whole_name_means_only_itself() -> None:
    stat = json.loads(run("stat", str(PLAIN), "--format", "json")[1])["groups"]
    names = [group["name"] for group in stat]
    short = min(names, key=lambda name: (-sum(name in other for other in names), name))
    assert sum(short in name for name in names) > 1
    count = next(group["used_count"] for group in stat if group["name"] == short)
    assert len(rows(PLAIN, "--site", short)) == count
    for command in ("stat", "explain"):
        code, output, _ = run(command, str(PLAIN), "--site", short, "--format", "json")
        assert code == 0
        found = json.loads(output)
        assert (found.get("sites") or [group["name"] for group in found["groups"]]) == [short]
