"""The first screen: recorded stacks, and what references prove."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from builders.debug_crt_builder import DebugCrtBuilder
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.process.session import Session
from dumpleak.reports.answers.summary_dump import summarize_info
from dumpleak.reports.rows import process_facts
from dumpleak.survey.info import source_names, take_info
from dumpleak.survey.leaks import find_leaks
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.debug_crt import DebugCrt


def test_page_heap_records_stacks_without_the_flag_for_them() -> None:
    session = Session.open(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz")
    plain = take_info(session)
    assert dict(summarize_info(plain).facts)["Call stacks"].startswith("not recorded")
    heaps = [dataclasses.replace(heap, kind="page-heap") for heap in plain.heaps]
    assert "Call stacks" not in dict(summarize_info(dataclasses.replace(plain, heaps=heaps)).facts)


PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"


def test_the_headline_says_how_many_new_blocks_nothing_points_to(run: Any, tmp_path: Path) -> None:
    """Counted anew: what `leaks` lists of the later dump, less what the base had at that address."""
    taken = [tmp_path / name for name in ("before.dlsnap", "after.dlsnap")]
    dumps = [PAIR / f"{stem}.dmp.gz" for stem in ("before", "after")]
    for dump, target in zip(dumps, taken, strict=True):
        run("snapshot", dump, "-o", target)
    truths = [TruthDump(d, d.parent / f"truth-{d.name.split('.')[0]}.json.gz") for d in dumps]
    before, after = (truth.read_truth() for truth in truths)
    session = Session.open(dumps[1])
    lost = {int(a) for group in find_leaks(session).groups for a in group.addresses}
    new = {a for a in after.sizes if a not in before.sizes}
    expected = f"{len(lost & new):,} of {len(new):,} new blocks are unreferenced"
    for files in (dumps, taken):
        assert expected in run("diff", *files)[1].splitlines()[0]
    # Where nobody looked, or two dumps are of two runs, there is no such proof.
    assert "cannot tell" in run("diff", *dumps, "--no-holders")[1].splitlines()[0]


def test_unreferenced_blocks_are_a_condition_of_the_gate(run: Any) -> None:
    files = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
    assert run("diff", *files, "--fail-on", "unreferenced.count>=1680")[0] == 1
    assert run("diff", *files, "--fail-on", "unreferenced.count>=1681")[0] == 0
    code, _, err = run("diff", *files, "--fail-on", "unreferenced.bytes>=1", "--no-holders")
    assert code == 3
    assert "SUMMARY: NO ANSWER; unreferenced.bytes>=1" in err


def test_a_dump_with_a_debug_runtime_is_told_to_hold_files_and_lines() -> None:
    heap = DebugCrtBuilder("x64")
    name, broken = heap.text(b"C:\\src\\gfx.cpp"), heap.text(b"\x01\x02")
    for file in (name, name, broken, 0):
        heap.block(24, file=file, line=7)
    heap.block(24, use=0, file=name, line=7)  # freed, and kept by the runtime
    blocks = DebugCrt(heap.memory(), 8, DiagnosticLog()).apply(heap.blocks())
    assert source_names(blocks) == {name: 2, broken: 1}

    plain = take_info(Session.open(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"))
    assert plain.sourced_blocks == 0
    assert "Source lines" not in dict(summarize_info(plain).facts)
    facts = dict(summarize_info(dataclasses.replace(plain, sourced_blocks=12)).facts)
    used = sum(heap.used_count or 0 for heap in plain.heaps)
    assert facts["Source lines"].startswith(f"file and line of 12 of {used:,} used blocks")
    assert "by file and line where they are known" in facts["Call stacks"]


@pytest.mark.parametrize("dump", truth_dumps("debug-crt*"), ids=lambda d: d.name)
def test_info_counts_the_blocks_whose_file_and_line_the_debug_runtime_kept(
    run: Any, tmp_path: Path, dump: TruthDump
) -> None:
    crt = dump.read_truth().raw["crt"]
    file = crt["block_columns"].index("file")
    least = sum(bool(row[file]) for row in crt["blocks"])
    told = next(line for line in run("info", dump.dump)[1].splitlines() if "Source lines" in line)
    many = int(told.split("file and line of ")[1].split(" of ")[0].replace(",", ""))
    assert least <= many <= least + len(crt["internal"])
    run("snapshot", dump.dump, "-o", tmp_path / "a.dlsnap")
    assert told in run("info", tmp_path / "a.dlsnap")[1]


def test_a_process_with_heaps_of_two_pointer_sizes_is_called_a_wow64_one() -> None:
    plain = take_info(Session.open(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"))
    assert "Process" not in dict(process_facts(plain))
    other = dataclasses.replace(plain.heaps[0], label="x86 heap 0", architecture="x86")
    both = dataclasses.replace(plain, heaps=(*plain.heaps, other))
    wow64 = "WoW64, a 32-bit program on 64-bit Windows"
    assert dict(process_facts(both))["Process"] == f"{wow64}; heaps of both halves are listed"
    image = dataclasses.replace(plain.modules[0], name="wow64.dll")
    small = dataclasses.replace(plain, heaps=(), modules=(image,))
    assert dict(process_facts(small))["Process"] == wow64


def test_who_records_stacks_already_is_not_told_to_record_them(run: Any) -> None:
    """By type no stack is shown; that the process records them stands in its NtGlobalFlag."""
    pairs = [TESTDATA / "10.0.19041.3324-x64" / f"leak-pair-{kind}" for kind in ("ust", "aslr")]
    said = []
    for pair in pairs:
        dumps = pair / "before.dmp.gz", pair / "after.dmp.gz"
        said.append(run("diff", *dumps, "--by", "type")[1])
    assert "+ust" not in said[0]
    assert "are recorded in this process" in said[0]
    assert "+ust" in said[1]
