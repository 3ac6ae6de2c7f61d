"""Where the memory of a system is: what is known, and the rest that is said to be unexplained."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import FilledSystem
from builders.frames_builder import ACTIVE, STANDBY, made, self_map
from builders.kernel_builder import bitmap

from dumpleak.model.account import BYTES, AccountRow, Figure
from dumpleak.model.balance import balances
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump

MIB, GIB, PAGE = 1 << 20, 1 << 30, 0x1000
PHYSICAL, COMMIT = "physical memory", "commit"
BEFORE = {
    "MmNumberOfPhysicalPages": 16 * GIB,
    "MmAvailablePages": 12 * GIB,
    "MmTotalCommittedPages": 3 * GIB,
    "MmTotalCommitLimit": 24 * GIB,
    "MmDriverCommit": 60 * MIB,
    "MmSharedCommit": 100 * MIB,
}
TAKEN = BEFORE | {
    "MmAvailablePages": GIB // 4,
    "MmTotalCommittedPages": 14 * GIB,
    "MmDriverCommit": 11 * GIB,
}


def counted(folder: Path, which: str, values: dict[str, int]) -> Path:
    system = FilledSystem(folder, "7601-x64", which).fill()
    dump = open_dump(system.path)
    assert isinstance(dump, KernelDump)
    for name, size in values.items():
        address = dump.symbol(name)
        assert address
        system.put(address, struct.pack("<I", size // PAGE))
    return system.save()


def told(run: Any, *args: object) -> dict[str, Any]:
    code, out, _ = run(*args, "--format", "json")
    assert code == 0
    return {each["of"]: each for each in json.loads(out)["balance"]}


def parts(balance: dict[str, Any], key: str) -> dict[str, int]:
    return {part["name"]: part[key] for part in balance["parts"]}


def test_one_dump_tells_where_its_memory_is_and_what_is_not_explained(
    run: Any, tmp_path: Path
) -> None:
    path = counted(tmp_path, "before", BEFORE)
    both = told(run, "info", path)
    assert both == told(run, "pool", path)
    physical, commit = both[PHYSICAL], both[COMMIT]
    assert physical["total"]["value"] == 16 * GIB
    known = parts(physical, "value")
    assert known["memory.available_bytes"] == 12 * GIB
    assert known["memory.driver_bytes"] == 60 * MIB
    assert set(known) == {
        "memory.available_bytes",
        "memory.driver_bytes",
        "pool.nonpaged_bytes",
    }
    # A page of page tables is not in this dump.
    assert "page tables" in physical["rest_holds"]
    assert physical["rest"]["value"] == 16 * GIB - sum(known.values())
    assert "working sets of processes, file cache" in physical["rest_holds"]
    known = parts(commit, "value")
    assert (known["processes.bytes"], known["memory.shared_bytes"]) == (12 * MIB, 100 * MIB)
    assert commit["rest"]["value"] == 3 * GIB - sum(known.values())
    assert "private memory of processes" not in commit["rest_holds"]
    text = " ".join(run("info", path)[1].split())
    assert "physical memory of 16.0 GiB" in text
    assert "Not explained may be: modified pages, working sets of processes, file cache" in text


def test_growth_shows_where_memory_went_in_pool_and_diff_alike(run: Any, tmp_path: Path) -> None:
    pair = counted(tmp_path, "before", BEFORE), counted(tmp_path, "after", TAKEN)
    both = told(run, "diff", *pair)
    assert both == told(run, "pool", *pair)
    moved = parts(both[PHYSICAL], "delta")
    assert moved["memory.available_bytes"] == GIB // 4 - 12 * GIB
    assert moved["memory.driver_bytes"] == 11 * GIB - 60 * MIB
    assert both[PHYSICAL]["rest"]["delta"] == -sum(moved.values())
    for command in ("pool", "diff"):
        text = " ".join(run(command, *pair)[1].split())
        assert "bytes +/- base current physical memory of 16.0 GiB" in text
        assert "+10.9 GiB 60.0 MiB 11.0 GiB drivers outside pool" in text


def test_a_balance_of_which_nothing_moved_is_not_shown(run: Any, tmp_path: Path) -> None:
    pair = counted(tmp_path, "before", BEFORE), counted(tmp_path, "after", BEFORE)
    assert set(told(run, "diff", *pair)) == {PHYSICAL, COMMIT}
    assert "Not explained may be" not in run("diff", *pair)[1]


def test_without_the_whole_there_is_no_balance(run: Any, tmp_path: Path) -> None:
    assert told(run, "info", FilledSystem(tmp_path, "22621-x64").save()) == {}


def test_a_snapshot_has_the_balance_of_its_dump(run: Any, tmp_path: Path) -> None:
    pair = counted(tmp_path, "before", BEFORE), counted(tmp_path, "after", TAKEN)
    kept = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for source, target in zip(pair, kept, strict=True):
        assert run("snapshot", source, "-o", target)[0] == 0
    assert told(run, "diff", *kept) == told(run, "diff", *pair)


def test_a_part_that_one_dump_does_not_tell_stands_in_the_rest() -> None:
    rows = [
        AccountRow("memory.physical_bytes", BYTES, (100, 100)),
        AccountRow("memory.available_bytes", BYTES, (50, 40)),
        AccountRow("memory.driver_bytes", BYTES, (None, 30)),
    ]
    (found,) = balances(rows)
    assert [part.name for part in found.parts] == ["memory.available_bytes"]
    assert found.rest.points == (50, 60)
    assert "memory of drivers outside pool" in found.holds


def test_pages_by_use_leave_less_unexplained() -> None:
    figures = [
        Figure(name, value)
        for name, value in {
            "memory.physical_bytes": 100,
            "memory.available_bytes": 20,
            "pages.modified_bytes": 5,
            "pages.private_bytes": 30,
            "pages.shared_bytes": 25,
            "pool.nonpaged_bytes": 8,
        }.items()
    ]
    (found,) = balances(figures)
    assert found.rest.points == (12,)
    assert not any(word in found.holds for word in ("working sets", "file cache", "modified"))
    assert "paged pool in memory" in found.holds


def test_memory_that_two_rows_count_is_taken_off_once() -> None:
    known = {
        "memory.physical_bytes": 100,
        "memory.available_bytes": 20,
        "pages.awe_bytes": 30,
    }
    for more, rest in (({}, 50), ({"memory.driver_bytes": 40}, 40)):
        (found,) = balances([Figure(name, value) for name, value in (known | more).items()])
        assert found.rest.points == (rest,)


def test_parts_that_come_to_more_than_the_whole_are_said_to_overlap() -> None:
    known = {"memory.physical_bytes": 100, "memory.available_bytes": 120}
    (found,) = balances([Figure(name, value) for name, value in known.items()])
    assert found.rest.points == (-20,)
    assert "parts overlap" in found.holds


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_the_pfn_database_tells_physical_and_available_memory_where_no_counter_does(
    kind: str, run: Any, tmp_path: Path
) -> None:
    system, free = made(kind, tmp_path)
    for number in range(5):
        system.entry(free[number], ACTIVE, pte=self_map(system) + 8 * (0x30 + number))
    system.entry(free[6], STANDBY)
    path = tmp_path / "d.dmp"
    path.write_bytes(bitmap(system))
    code, out, _ = run("info", path, "--format", "json")
    assert code == 0
    rows = {row["name"]: row["value"] for row in json.loads(out)["account"]}
    frames = system.last - system.first_frame
    assert rows["pages.private_bytes"] == 5 * PAGE
    assert rows["memory.physical_bytes"] == frames * PAGE
    assert rows["memory.available_bytes"] == (len(free) - 5) * PAGE
    assert rows["pages.active_bytes"] == (frames - len(free) + 5) * PAGE
    assert rows["memory.page_table_bytes"] == (frames - len(free)) * PAGE
    balance = told(run, "info", path)[PHYSICAL]
    assert balance["rest"]["value"] == 0
    assert parts(balance, "value")["pages.private_bytes"] == 5 * PAGE
