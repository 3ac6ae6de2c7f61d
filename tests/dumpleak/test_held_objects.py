"""Who keeps kernel objects alive: handles, the objects' own counts, pointers; and what is not known."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import NUMBERS, FilledSystem
from kernel_truth import KernelTruthDump
from pool_samples import dumps_of, run, run_json

from dumpleak.kernel.pools import PoolReader
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.process_figures import PROCESS_TAG
from windumps.kernel.thread_objects import THREAD_TAG, thread_objects

HEADER = 0x30  # of an object, x64
# Where `_ETHREAD` has its exit time, of the dumps of these builds.
EXIT = {"7601-x64": 0x370, "14393-x64": 0x5E8, "22621-x64": 0x488, "26100-x64": 0x4C8}
BUILDS = pytest.mark.parametrize("build", list(NUMBERS))


@pytest.fixture
def held(capsys: pytest.CaptureFixture[str]) -> Any:
    """Who holds the objects of a tag, as the pool of one dump tells it."""

    def ask(path: Path, tag: str) -> dict[str, Any]:
        (row,) = run_json(capsys, "pool", path, "--tag", tag)["tags"]
        return dict(row["objects"])

    return ask


def blocks(made: FilledSystem, tag: str) -> list[int]:
    """Where users got the blocks of a tag that are in the dump."""
    rows = [row for row in made.truth["small_blocks"] if row["tag"] == tag]
    return [int(row["user"], 16) for row in rows if not row.get("absent")]


@BUILDS
def test_handles_and_their_processes_are_counted(build: str, held: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path, build).fill(handles=2)  # of System and smss.exe
    tokens = blocks(made, "Toke")
    inside = [token + HEADER + 0x20 for token in tokens]
    made.leads("lsass.exe", inside[:4] + inside[:2])
    made.leads("services.exe", inside[3:5])
    told = held(made.save(), "Toke")
    assert (told["type"], told["count"], told["with_handles"]) == ("Token", len(tokens), 5)
    holders = [(holder["name"], holder["objects"]) for holder in told["holders"]]
    assert holders == [("lsass.exe", 4), ("services.exe", 2)]
    assert told["unknown"] is None
    assert told["held_by_pointer"] == len(tokens) - 5
    assert f"{len(tokens) - 5} have no handle: a driver" in "\n".join(told["evidence"])


def test_who_points_to_objects_without_a_handle_is_named(
    held: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path, which="after").fill(handles=2)
    tokens, blamed = blocks(made, "Toke"), blocks(made, "AcNb")
    for token, block in zip(tokens, blamed, strict=False):
        made.pointer(block + 0x18, token + HEADER + 0x40)
    path = made.save()
    told = held(path, "Toke")
    assert told["pointers"] == [{"tag": "AcNb", "driver": "acmenet.sys", "objects": len(tokens)}]
    assert (told["held_by_pointer"], told["whole_pool_searched"]) == (len(tokens), True)
    out = run(capsys, "pool", path, "--tag", "Toke")[1]
    said = f"pointers to them stand in pool blocks of AcNb of acmenet.sys ({len(tokens)} objects)"
    assert said in out
    # What grew is told of in the same words.
    for command in ("pool", "diff"):
        out = run(capsys, command, FilledSystem(tmp_path).fill(handles=2).save(), path)[1]
        assert said in out
        assert "no process has more handles of them than before" in out


def test_absent_handle_tables_leave_the_holders_unknown(
    held: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path, which="after").fill(handles=2)
    for name in ("lsass.exe", "services.exe"):
        table = made.get(made.address(name) + made.n.table)
        made.pointer(table + made.n.code, 0xFFFFE0FFFFFF0000)
    path = made.save()
    told = held(path, "Toke")
    assert told["unknown"] == "handle tables of 2 processes are not in the dump"
    assert (told["held_by_pointer"], told["pointers"]) == (None, [])
    base = FilledSystem(tmp_path).fill(handles=2).save()
    for command in ("pool", "diff"):
        out = run(capsys, command, base, path)[1]
        assert "who holds them is unknown: handle tables of 2 processes are not in the dump" in out
        assert "no process has more handles" not in out


def test_objects_count_their_handles_themselves(held: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)  # its tables hold no handles
    tokens = blocks(made, "Toke")
    # A name (bit 1) and a quota (bit 3) in front of the header, 0x20 each; references, handles, mask.
    for number, token in enumerate(tokens):
        made.put(token, bytes(0x40 + HEADER))
        made.put(token + 0x40, struct.pack("<QQ", 5, 3 * (number % 2)))
        made.put(token + 0x40 + 0x1A, b"\x0a")
    told = held(made.save(), "Toke")
    bare = (len(tokens) + 1) // 2
    assert (told["headers_read"], told["headers_without_handles"]) == (len(tokens), bare)
    assert told["held_by_pointer"] == bare
    assert told["evidence"][-1].startswith("who holds the others is unknown: ")


def test_what_the_mask_does_not_fit_is_no_header(held: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    tokens = blocks(made, "Toke")
    for token in tokens:
        made.put(token, bytes(0x100))
        made.put(token + 0x40, struct.pack("<QQ", 5, 0))
        made.put(token + 0x40 + 0x1A, b"\x02")  # a name, 0x20, and not 0x40
    told = held(made.save(), "Toke")
    assert (told["headers_read"], told["held_by_pointer"]) == (0, None)


@BUILDS
def test_threads_that_ended_are_told_by_process_and_time(
    build: str, held: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build).fill(handles=2)
    threads = {row["name"]: int(row["thread"], 16) for row in made.truth["processes"]}
    ended = datetime(2023, 5, 9, 9, tzinfo=UTC)
    ticks = (ended - datetime(1601, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10
    made.pointer(threads["lsass.exe"] + EXIT[build], ticks)
    # While it runs, a list of who waits stands there.
    made.pointer(threads["csrss.exe"] + EXIT[build], threads["csrss.exe"] + EXIT[build])
    told = held(made.save(), "Thre")
    (row,) = told["ended"]
    assert (row["name"], row["objects"]) == ("lsass.exe", 1)
    assert datetime.fromisoformat(row["last_exit"]) == ended
    said = json.dumps(told["evidence"])
    assert "1 of them have ended" not in said
    assert "1 of them has ended and is kept alive: 1 of lsass.exe (pid " in said
    assert "the last at 2023-05-09 09:00:00 UTC" in said


def test_processes_that_ended_are_told_by_program(held: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path).fill(handles=2)
    for process in made.named("svchost.exe"):
        made.end(process, listed=False)
    told = held(made.save(), "Proc")
    assert told["count"] == len(made.processes)
    ((name, count),) = [(row["name"], row["objects"]) for row in told["ended"]]
    assert (name, count) == ("svchost.exe", len(made.named("svchost.exe")))


def test_what_points_to_ended_processes_is_told_and_running_ones_need_nobody(
    held: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = FilledSystem(tmp_path).fill(handles=1)  # all have one of System
    ended, blamed = made.named("svchost.exe"), blocks(made, "AcNb")
    for process, block in zip(ended, blamed, strict=False):
        made.end(process, listed=False)
        made.pointer(process - HEADER + 8, 0)
        made.pointer(block + 0x18, process)
    made.pointer(blocks(made, "IoNm")[0] + 0x8, made.address("lsass.exe"))
    path = made.save()
    told = held(path, "Proc")
    assert (told["with_handles"], told["held_by_pointer"]) == (1, len(ended))
    pointers = [row for row in told["pointers"] if row["tag"] != "Thre"]
    assert pointers == [{"tag": "AcNb", "driver": "acmenet.sys", "objects": len(ended)}]
    listed = run_json(capsys, "processes", path)
    assert listed["pointers"] == told["pointers"]
    said = f"AcNb of acmenet.sys ({len(ended)} objects)"
    assert said in run(capsys, "processes", path)[1]
    out = run(capsys, "pool", path, "--tag", "Proc")[1]
    assert f"{len(ended)} that ended have no handle: " in out


@dumps_of("leak-pair", "tiny-pair", "traps")
def test_objects_in_the_pool_are_those_of_the_truth(source: KernelTruthDump) -> None:
    dump = open_dump(source.dump)
    assert isinstance(dump, KernelDump)
    reader, truth = PoolReader(dump), source.read_truth()["processes"]
    pools = reader.read()
    processes = {int(row["eprocess"], 16) for row in truth}
    assert {process.address for process in dump.processes} == processes
    (held, address) = pools.held(PROCESS_TAG), reader.blocks.of(PROCESS_TAG)[0]
    assert held is not None
    assert (held.count, len(address), held.ended) == (len(processes), len(processes), ())
    threads = {int(row["thread"], 16) for row in truth}
    ids = [process.process_id for process in dump.processes]
    found = thread_objects(dump.kernel, reader.blocks.of(THREAD_TAG), ids)
    if dump.architecture == "arm64":
        assert found is None  # where its threads keep their ids is not known
        return
    assert found is not None
    assert set(found.address.tolist()) == threads
    assert dict(zip(found.address.tolist(), found.process_id.tolist(), strict=True)) == {
        int(row["thread"], 16): row["pid"] for row in truth
    }
    assert (found.unread, found.exit_time.any()) == (0, False)
