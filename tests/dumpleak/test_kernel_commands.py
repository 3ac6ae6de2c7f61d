"""Commands on kernel dumps: info, modules, processes, and a process of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.kernel_builder import GUID_TEXT, System, elf_core, full, header, raw_image, triage
from kernel_truth import REAL_KERNEL, KernelTruthDump, kernel_dumps
from pool_samples import run, run_json
from truth import TESTDATA

# The reader is tested on all; one of each build and kind is enough here.
DUMPS = [
    d
    for d in kernel_dumps("tiny-pair", "leak-pair", "truncated")
    if "after" in d.dump.name and d.dump.is_relative_to(TESTDATA)
]
USER_HEAP = kernel_dumps("user-heap")
MINIDUMP = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
# What a cut dump still lists is tested with the reader.
WHOLE = pytest.mark.parametrize(
    "source", [d for d in DUMPS if not d.is_truncated], ids=lambda source: source.name
)
EACH = pytest.mark.parametrize("source", DUMPS, ids=lambda source: source.name)


@EACH
def test_info_has_the_keys_of_kernel_dumps(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    told, truth = run_json(capsys, "info", source.dump), source.read_truth()
    assert told["schema"] == "dumpleak/info/1"
    assert told["kind"] == "kernel dump"
    assert (told["architecture"], told["build"]) == (truth["arch"], truth["build"])
    assert told["dump_type"] == truth["dump"]["dump_type"]
    if "bugcheck" in truth:
        assert told["bug_check"]["code"] == truth["bugcheck"]["code"]
    assert told["counters"].keys() >= {"committed", "commit_limit", "nonpaged_pool", "paged_pool"}
    assert {"full_memory", "pool", "coverage", "memory_by_use", "diagnostics"} <= told.keys()
    if source.is_truncated:
        assert told["coverage"]["missing_bytes"] > 0
        return
    assert int(told["kernel_base"], 16) == int(truth["kernel_base"], 16)
    assert int(told["kdbg"]["address"], 16) == int(truth["kdbg"], 16)
    assert [driver["name"] for driver in told["drivers"]] == [m["name"] for m in truth["modules"]]
    assert told["modules"] == told["drivers"]
    assert [p["name"] for p in told["processes"]] == [p["name"] for p in truth["processes"]]
    assert told["usable"]
    # What the truth knows must not be told otherwise; what is unknown is null, never zero.
    for name, key in (
        ("nonpaged_pool", "nonpaged_pool_pages"),
        ("paged_pool", "paged_pool_pages"),
    ):
        value = told["counters"][name]["value"]
        assert value is None or value == truth["mm"][key] * 0x1000
    assert all(c["value"] != 0 and c["source"] for c in told["counters"].values())


def test_info_knows_the_pools_of_builds_it_has_a_layout_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = [d for d in DUMPS if d.build in ("14393-x64", "7601-x64") and not d.is_truncated]
    assert known
    for source in known:
        told, truth = run_json(capsys, "info", source.dump), source.read_truth()
        pages = told["counters"]["nonpaged_pool"]["value"] // 0x1000
        assert pages == truth["mm"]["nonpaged_pool_pages"]


@EACH
def test_info_for_people_says_whether_the_dump_is_good_enough(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "info", source.dump)
    assert (code, err) == (0, "")
    last = out.splitlines()[-1]
    assert last.startswith("Good enough to look for leaks? ")
    assert ("yes" in last) != source.is_truncated
    assert "Unknown: " in out


@WHOLE
def test_processes_in_three_formats(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = source.read_truth()
    expected = [(p["pid"], p["ppid"], p["name"]) for p in truth["processes"]]
    told = run_json(capsys, "processes", source.dump)
    assert told["schema"] == "dumpleak/processes/1"
    assert [(p["pid"], p["parent_pid"], p["name"]) for p in told["processes"]] == expected
    code, out, _ = run(capsys, "processes", source.dump, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(int(r["pid"]), int(r["parent_pid"]), r["name"]) for r in rows] == expected
    code, out, _ = run(capsys, "processes", source.dump, "--top", "2")
    assert code == 0
    assert "System" in out
    assert f"{len(expected) - 2} more" in out


@WHOLE
def test_modules_are_the_drivers(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    told, truth = run_json(capsys, "modules", source.dump), source.read_truth()
    assert [(m["name"], f"{m['pdb_guid']}{m['pdb_age']:X}") for m in told["modules"]] == [
        (m["name"], m["pdb"]) for m in truth["modules"]
    ]
    if "unloaded" in truth:
        assert [m["name"] for m in told["unloaded_modules"]] == truth["unloaded"][::-1]


def test_a_table_along_the_symbol_path_names_the_kernels_variables(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "made.dmp"
    system = System("x64")
    path.write_bytes(full(system))
    table = {
        "metadata": {"windows": {"pdb": {"database": "ntkrnlmp.pdb", "GUID": GUID_TEXT, "age": 1}}},
        "symbols": {"PoolBigPageTable": {"address": 0x4300}, "MiState": {"address": 0x4400}},
        "user_types": {
            "_MI_SYSTEM_INFORMATION": {
                "size": 64,
                "fields": {"Pools": {"offset": 8, "type": {"kind": "struct", "name": "_POOLS"}}},
            },
            "_POOLS": {
                "size": 16,
                "fields": {
                    "AllocatedNonPagedPool": {
                        "offset": 8,
                        "type": {"kind": "base", "name": "unsigned long long"},
                    }
                },
            },
        },
        "base_types": {"unsigned long long": {"size": 8}},
    }
    folder = tmp_path / "symbols" / "ntkrnlmp.pdb"
    folder.mkdir(parents=True)
    (folder / f"{GUID_TEXT}-1.json").write_text(json.dumps(table))
    without = run_json(capsys, "info", path)
    assert without["symbols"]["PoolTrackTable"]["source"] == "kdbg"
    assert without["symbols"]["PoolBigPageTable"] is None
    system.write(system.kernel + 0x4400 + 16, (1234).to_bytes(8, "little"))
    path.write_bytes(full(system))
    told = run_json(capsys, "info", path, "--symbols", tmp_path / "symbols")
    found = told["symbols"]["PoolBigPageTable"]
    assert (int(found["address"], 16), found["source"]) == (system.kernel + 0x4300, "symbols")
    assert told["counters"]["nonpaged_pool"]["value"] == 1234 * 0x1000
    assert "symbols" in told["counters"]["nonpaged_pool"]["source"]


def test_info_in_csv(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "made.dmp"
    path.write_bytes(full(System("x64")))
    code, out, _ = run(capsys, "info", path, "--format", "csv")
    told = dict(csv.reader(io.StringIO(out)))
    assert code == 0
    assert told["dump_type"] == "1"
    assert told["bug_check_name"] == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
    assert told["counters.committed"] == ""


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_a_triage_dump_says_why_it_cannot_answer(
    kind: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "small.dmp"
    path.write_bytes(triage(System(kind)))
    told = run_json(capsys, "info", path)
    assert told["dump_type"] == 4
    assert told["processes"] is None
    assert not told["usable"]
    assert "triage" in told["advice"]
    assert [driver["name"] for driver in told["drivers"]] == [
        name for name, _, _ in System(kind).modules
    ]
    code, out, err = run(capsys, "processes", path)
    assert (code, out) == (3, "")
    assert "triage" in err


@pytest.mark.parametrize("path", sorted(REAL_KERNEL.glob("*.dmp")), ids=lambda p: p.stem)
def test_real_triage_dumps_are_described(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, path)  # a file alone is info
    assert (code, err) == (0, "")
    assert "small memory dump (triage)" in out
    assert "no: this is a small memory dump" in out


@pytest.mark.parametrize(("name", "write"), [("elf", elf_core), ("raw", raw_image)])
def test_an_image_of_memory_is_described(
    name: str,
    write: Callable[[System], bytes],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"memory.{name}"
    system = System("x64")
    path.write_bytes(write(system))
    told = run_json(capsys, "info", path)
    assert told["dump_type"] is None
    assert told["bug_check"] is None
    assert int(told["kernel_base"], 16) == system.kernel
    assert [d["name"] for d in told["drivers"]] == [name for name, _, _ in system.modules]
    assert [p["pid"] for p in told["processes"]] == [4, 312, 2244]
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert "Bug check       none" in out


def test_a_header_alone_is_described(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "header.dmp"
    path.write_bytes(bytes(header(System("x64"), 3)))
    code, out, _ = run(capsys, "info", path)
    assert code == 0
    assert "no: this is a header-only dump that holds no memory" in out
    for command in ("modules", "processes", "pool", "leaks"):
        code, out, err = run(capsys, command, path)
        assert (code, out, len(err.splitlines())) == (3, "", 1), command


def test_a_list_of_drivers_that_breaks_off_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made, path = System("x64"), tmp_path / "made.dmp"
    nowhere = made.kernel + 0x7FFF0000
    made.pointer(made.entries[1], nowhere)
    made.pointer(made.entries[3] + 8, nowhere)
    path.write_bytes(full(made))
    code, out, err = run(capsys, "modules", path, "--format", "csv")
    assert (code, out.count(",loaded")) == (0, 3)
    assert "the list of drivers is not complete, 3 were found" in err
    made.pointer(made.module_list, nowhere)
    made.pointer(made.module_list + 8, nowhere)
    path.write_bytes(full(made))
    code, out, err = run(capsys, "modules", path)
    assert (code, out, len(err.splitlines())) == (3, "", 1)


@pytest.mark.parametrize("command", ["heaps", "allocations", "stat", "info", "modules"])
def test_a_process_that_is_not_there_is_told_with_those_that_are(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "made.dmp"
    path.write_bytes(full(System("x64")))
    code, out, err = run(capsys, command, path, "--process", "nosuch.exe")
    assert (code, out) == (3, "")
    assert "acmesvc.exe (2244)" in err


@pytest.mark.parametrize(
    ("process", "text"), [("explorer.exe", "complete memory"), ("4", "no heaps")]
)
def test_a_kernel_dump_without_user_memory_says_what_to_take(
    process: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(d for d in DUMPS if d.build == "22621-x64" and not d.is_truncated)
    code, out, err = run(capsys, "heaps", source.dump, "--process", process)
    assert (code, out) == (3, "")
    assert text in err
    assert "\n" not in err.strip()


def test_a_process_of_a_minidump_cannot_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "heaps", MINIDUMP, "--process", "app.exe")
    assert code == 3
    assert "minidump of one process" in err
    code, _, err = run(capsys, "processes", MINIDUMP)
    assert code == 3
    assert "only kernel dumps" in err


@pytest.mark.parametrize("source", USER_HEAP, ids=lambda source: source.name)
def test_commands_work_on_a_process_of_a_complete_dump(
    source: KernelTruthDump, capsys: pytest.CaptureFixture[str]
) -> None:
    choice = (source.dump, "--process", "acmesvc.exe")
    heaps = run_json(capsys, "heaps", *choice)
    assert [heap["kind"] for heap in heaps["heaps"]] == ["nt"]
    assert heaps["coverage"]["walked_bytes"] == heaps["coverage"]["committed_bytes"] > 1 << 20
    stat = run_json(capsys, "stat", *choice, "--by", "size")
    code, out, _ = run(capsys, "allocations", *choice, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == stat["totals"]["used_count"] > 1000
    assert sum(int(r["size"] or r["block_bytes"]) for r in rows) == stat["totals"]["used_bytes"]
    info = run_json(capsys, "info", *choice)
    assert (info["kind"], info["process_id"]) == ("process of a kernel dump", 2244)
    pair = [source.dump.with_name(f"{side}.dmp.xz") for side in ("before", "after")]
    assert run_json(capsys, "diff", *pair, *choice[1:])["verdict"] == "no-growth"
