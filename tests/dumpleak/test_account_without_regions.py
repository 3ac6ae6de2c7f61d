"""The account of a dump that does not list its memory regions, or not all: what is not known says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.minidump_builder import patched, stream_place
from builders.process_builder import ProcessBuilder

from dumpleak.model.account import NO_REGIONS, PIECES, REGIONS_CUT

REGIONS, COUNT_AT = 16, 8  # MemoryInfoListStream; where in it the number of its rows stands
OF_REGIONS = {
    *("private.count", "private.reserved_bytes", "mapped.count", "mapped.bytes", "modules.bytes"),
    *("stacks.bytes", "stacks.reserved_bytes", "regions.committed_bytes"),
    *("regions.reserved_bytes", "address_space.free_bytes", "address_space.largest_free_bytes"),
}
KNOWN = {
    *("blocks.count", "blocks.bytes", "heaps.count", "heaps.committed_bytes", "heaps.free_bytes"),
    *("private.bytes", "modules.count", "threads.count"),
}
NOT_THERE = {
    *("handles.count", "counters.private_bytes", "counters.virtual_bytes"),
    *("counters.working_set_bytes", "unexplained.bytes"),
}


def _process(hour: int = 0) -> ProcessBuilder:
    process = ProcessBuilder(3600 * hour).image("app.exe", data=b"").heap(2, 5).thread()
    process.private(2, 0x3000, 0xD000).views(3, 0x20000).free(0x100000)
    last = next(row for row in reversed(process.rows) if row.size == 0x3000)
    process.dump.memory(last.base, bytes(0x3000))
    return process


def _made(folder: Path, kind: str, hour: int = 0) -> Path:
    process = _process(hour)
    process.with_regions = kind != "absent"
    data = process.build()
    if kind == "cut":
        place, _ = stream_place(data, REGIONS)
        at = place + COUNT_AT
        data = patched(
            data, at, (int.from_bytes(data[at : at + 4], "little") + 9).to_bytes(4, "little")
        )
    file = folder / f"{kind}{hour}.dmp"
    file.write_bytes(data)
    return file


def _account(run: Any, *words: object) -> dict[str, dict[str, Any]]:
    status, out, err = run(*words, "--format", "json")
    assert status == 0, err
    return {row["name"]: row for row in json.loads(out)["account"]}


@pytest.mark.parametrize(("kind", "why"), [("absent", NO_REGIONS), ("cut", REGIONS_CUT)])
@pytest.mark.parametrize("kept", [False, True])
def test_every_row_that_needs_the_list_is_null_and_says_why(
    run: Any, tmp_path: Path, kind: str, why: str, kept: bool
) -> None:
    file = _made(tmp_path, kind)
    if kept:
        taken = tmp_path / "a.dlsnap"
        assert run("snapshot", file, "-o", taken)[0] == 0
        file = taken
    rows = _account(run, "info", file)
    assert rows.keys() == OF_REGIONS | KNOWN | NOT_THERE
    for name, row in rows.items():
        assert (row["value"] is None) == bool(row["reason"]), name
    assert {name for name, row in rows.items() if row["value"] is not None} == KNOWN
    assert {name: rows[name]["reason"] for name in OF_REGIONS} == dict.fromkeys(OF_REGIONS, why)


def test_with_the_list_the_same_rows_are_known(run: Any, tmp_path: Path) -> None:
    rows = _account(run, "info", _made(tmp_path, "whole"))
    assert {name for name, row in rows.items() if row["value"] is None} == NOT_THERE
    assert rows["private.count"]["value"] == 2


@pytest.mark.parametrize("swapped", [False, True])
def test_a_list_on_one_side_alone_makes_no_difference_of_any_row(
    run: Any, tmp_path: Path, swapped: bool
) -> None:
    kinds = ("absent", "whole") if swapped else ("whole", "absent")
    files = [_made(tmp_path, kind, hour) for hour, kind in enumerate(kinds)]
    rows = _account(run, "diff", *files)
    for name in OF_REGIONS | NOT_THERE:
        assert (rows[name]["delta"], rows[name]["state"]) == (None, "unknown"), name
        assert rows[name]["reason"]
    assert PIECES in rows["private.count"]["reason"]
    assert {name: rows[name]["delta"] for name in KNOWN} == dict.fromkeys(KNOWN, 0)


@pytest.mark.parametrize("name", sorted(OF_REGIONS))
def test_a_condition_on_a_row_that_is_null_has_no_answer(
    run: Any, tmp_path: Path, name: str
) -> None:
    files = [_made(tmp_path, "absent", hour) for hour in range(2)]
    status, out, err = run("diff", *files, "--fail-on", f"{name}>=1")
    assert status == 3, err
    assert "PASS" not in out


def test_pieces_of_a_file_are_no_allocations_that_became_more(run: Any, tmp_path: Path) -> None:
    files = []
    for hour in range(2):
        process = ProcessBuilder(3600 * hour).image("app.exe", data=b"").heap(2, 5).thread()
        for number in range(5):  # images lie between what came
            process.private(max(hour * number, number == 0), 0x80000)
            process.image(f"m{number}.dll", data=b"")
        for row in process.rows:
            if row.size == 0x80000:
                process.dump.memory(row.base, bytes(row.size))
        process.with_regions = False
        file = tmp_path / f"{hour}.dmp"
        file.write_bytes(process.build())
        files.append(file)
    status, out, err = run("diff", *files, "--format", "json")
    assert status == 0, err
    told = json.loads(out)
    assert told["totals"]["delta_bytes"] == 10 * 0x80000
    assert told["totals"]["delta_count"] == 0
    assert [row["delta_count"] for row in told["private"]] == [0]
    assert run("diff", *files, "--fail-on", "bytes>=1M")[0] == 1


def test_a_count_has_no_answer_where_only_bytes_of_private_memory_are_known(
    run: Any, tmp_path: Path
) -> None:
    """What came are 4 x 512 KiB, which may be up to 512 allocations; blocks of heaps did not change."""
    files = []
    for hour in range(2):
        process = ProcessBuilder(3600 * hour).image("app.exe", data=b"").heap(2, 5).thread()
        process.private(1 + 4 * hour, 0x80000)
        for row in process.rows:
            if row.size == 0x80000:
                process.dump.memory(row.base, bytes(row.size))
        process.with_regions = False
        files.append(tmp_path / f"{hour}.dmp")
        files[-1].write_bytes(process.build())
    codes = [run("diff", *files, "--fail-on", f"count>={most}")[0] for most in (512, 513)]
    assert codes == [3, 0]
    assert run("diff", *files, "--fail-on", "bytes>=2M")[0] == 1
