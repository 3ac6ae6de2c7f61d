"""The account of a system: what grew is named whatever it is, and what is not known is null."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import FilledSystem

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump

MIB, GIB, PAGE = 1 << 20, 1 << 30, 0x1000
# Bytes, by the kernel variable that counts them in pages.
BEFORE = {
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
ROWS = {
    "memory.available_bytes": "MmAvailablePages",
    "memory.committed_bytes": "MmTotalCommittedPages",
    "memory.commit_limit_bytes": "MmTotalCommitLimit",
    "memory.driver_bytes": "MmDriverCommit",
    "memory.shared_bytes": "MmSharedCommit",
}


def _counted(folder: Path, which: str, values: dict[str, int], build: str = "7601-x64") -> Path:
    made = FilledSystem(folder, build, which).fill()
    dump = open_dump(made.path)
    assert isinstance(dump, KernelDump)
    for name, size in values.items():
        address = dump.symbol(name)
        assert address
        made.put(address, struct.pack("<I", size // PAGE))
    return made.save()


def _rows(run: Any, command: str, *files: Path, of: tuple[str, ...] = ()) -> dict[str, Any]:
    code, out, err = run(command, *files, *of, "--format", "json")
    assert (code, err) == (0, "")
    return {row["name"]: row for row in json.loads(out)["account"]}


def test_info_tells_what_the_memory_manager_counts(run: Any, tmp_path: Path) -> None:
    path = _counted(tmp_path, "before", BEFORE)
    rows = _rows(run, "info", path)
    assert {name: rows[name]["value"] for name in ROWS} == {
        name: BEFORE[variable] for name, variable in ROWS.items()
    }
    assert rows["processes.count"]["value"] == 12
    assert rows["processes.bytes"]["value"] == 12 * MIB
    assert rows["handles.count"]["value"] == 48
    assert rows["threads.count"]["value"] == 12
    known = 12 * MIB + 160 * MIB + rows["pool.bytes"]["value"]
    assert rows["memory.unexplained_bytes"]["value"] == 3 * GIB - known


def test_memory_that_drivers_took_is_named_before_tags_that_grew_a_little(
    run: Any, tmp_path: Path
) -> None:
    pair = _counted(tmp_path, "before", BEFORE), _counted(tmp_path, "after", TAKEN)
    rows = _rows(run, "diff", *pair)
    assert rows["memory.driver_bytes"]["delta"] == 11 * GIB - 60 * MIB
    assert rows["memory.driver_bytes"]["state"] == "grew"
    code, out, _ = run("diff", *pair)
    assert code == 0
    assert out.startswith("+10.9 GiB memory that drivers took outside pool; ")
    told = " ".join(out.split())
    assert "available memory fell from 12.0 GiB to 256 MiB: pool +" in told
    assert "drivers outside pool +10.9 GiB, processes 0 B" in told
    assert "TrackLockedPages" in told
    code, out, _ = run("pool", *pair)
    assert (code, out.startswith("+10.9 GiB memory that drivers took outside pool; ")) == (0, True)
    assert "TrackLockedPages" in out
    code, out, _ = run("pool", *pair, "--format", "json")
    told = {row["name"]: row["delta"] for row in json.loads(out)["system"]}
    assert told["memory.driver_bytes"] == 11 * GIB - 60 * MIB
    assert run("diff", *pair, "--fail-on", "memory.driver_bytes>=1G")[0] == 1
    assert run("diff", *pair, "--fail-on", "memory.driver_bytes>=11G")[0] == 0


def test_committed_memory_that_nothing_explains_is_named(run: Any, tmp_path: Path) -> None:
    lost = BEFORE | {"MmTotalCommittedPages": 9 * GIB}
    pair = _counted(tmp_path, "before", BEFORE), _counted(tmp_path, "after", lost)
    code, out, _ = run("diff", *pair, "--of", "processes")
    assert (
        code,
        out.startswith("+6.0 GiB committed memory that nothing in the dump explains"),
    ) == (
        0,
        True,
    )


def test_what_a_dump_does_not_count_is_null_and_no_gate_passes_on_it(
    run: Any, tmp_path: Path
) -> None:
    pair = [FilledSystem(tmp_path, "22621-x64", which).save() for which in ("before", "after")]
    rows = _rows(run, "diff", *pair)
    for name in ("memory.driver_bytes", "handles.count", "processes.bytes"):
        assert rows[name]["delta"] is None
        assert rows[name]["reason"]
        code, _, err = run("diff", *pair, "--fail-on", f"{name}>=1")
        assert (code, "SUMMARY: PASS" in err) == (3, False)


@pytest.mark.parametrize("of", [(), ("--of", "processes")])
def test_three_dumps_show_how_the_account_grows(
    of: tuple[str, ...], run: Any, tmp_path: Path
) -> None:
    series = []
    for number, size in enumerate((60 * MIB, 400 * MIB, 800 * MIB)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = _counted(folder, "before", BEFORE | {"MmDriverCommit": size})
        raw = bytearray(path.read_bytes())
        time, up = struct.unpack_from("<Q", raw, 0xFA8)[0], struct.unpack_from("<Q", raw, 0x1030)[0]
        struct.pack_into("<Q", raw, 0xFA8, time + number * 36_000_000_000)
        struct.pack_into("<Q", raw, 0x1030, up + number * 36_000_000_000)
        path.write_bytes(raw)
        series.append(path)
    rows = _rows(run, "trend", *series, of=of)
    assert rows["memory.driver_bytes"]["points"] == [60 * MIB, 400 * MIB, 800 * MIB]
    code, out, _ = run("trend", *series, *of)
    assert code == 0
    assert "+740 MiB memory that drivers took outside pool" in out
    line = "trend", *series, *of, "--fail-on"
    assert run(*line, "memory.driver_bytes-per-hour>=300M")[0] == 1
    assert run(*line, "memory.driver_bytes-per-hour>=400M")[0] == 0


def test_snapshot_files_keep_the_account(run: Any, tmp_path: Path) -> None:
    pair = _counted(tmp_path, "before", BEFORE), _counted(tmp_path, "after", TAKEN)
    files = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for dump, file in zip(pair, files, strict=True):
        assert run("snapshot", dump, "-o", file)[0] == 0
    assert _rows(run, "diff", *files).keys() == _rows(run, "diff", *pair).keys()
    of_files, of_dumps = (_rows(run, "diff", *sides) for sides in (files, pair))
    assert [r["delta"] for r in of_files.values()] == [r["delta"] for r in of_dumps.values()]


def test_two_dumps_with_nothing_changed_show_no_growth(run: Any, tmp_path: Path) -> None:
    first = _counted(tmp_path, "before", BEFORE)
    second = tmp_path / "later.dmp"
    second.write_bytes(_later(first.read_bytes()))
    for line in (
        ("diff",),
        ("diff", "--of", "processes"),
        ("diff", "--of", "handles"),
        ("processes",),
    ):
        code, out, _ = run(line[0], first, second, *line[1:], "--format", "json")
        told = json.loads(out)
        assert (code, told["verdict"]) == (0, "no-growth")
        assert {row["state"] for row in told["account"]} <= {"steady", "unknown"}


@pytest.mark.parametrize("build", ["7601-x64", "22621-x64", "26100-x64"])
def test_pool_by_counters_alone_is_what_the_tags_add_up_to(
    build: str, run: Any, tmp_path: Path
) -> None:
    path = FilledSystem(tmp_path, build).fill().save()
    walked = _rows(run, "info", path)
    (later := tmp_path / "later.dmp").write_bytes(_later(path.read_bytes()))
    counted = _rows(run, "diff", path, later, of=("--of", "processes"))
    for name in ("pool.count", "pool.bytes", "pool.nonpaged_bytes", "pool.paged_bytes"):
        assert counted[name]["base"] == walked[name]["value"] > 0


def _later(raw: bytes) -> bytes:
    """The same a minute later."""
    made = bytearray(raw)
    for place in (0xFA8, 0x1030):
        struct.pack_into("<Q", made, place, struct.unpack_from("<Q", raw, place)[0] + 600_000_000)
    return bytes(made)
