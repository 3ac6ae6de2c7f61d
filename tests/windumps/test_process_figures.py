"""What processes hold, and processes that ended: exit times, threads, charged pool; objects in no list."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from builders.kernel_builder import FILETIME, System, full

from windumps import open_dump
from windumps.diagnostics import DiagnosticLog
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.process_figures import unlisted_processes, with_figures
from windumps.kernel.processes import KernelProcess

# ExitTime, ActiveThreads, QuotaUsage of _EPROCESS: 19041 (64 bits), 22000 on ARM64, 7601 (32 bits).
NUMBERS = {"x64": (0x840, 0x5F0, 0x470), "arm64": (0x7F8, 0x5A8, 0x428), "pae": (0xA8, 0x198, 0xC0)}
KINDS = pytest.mark.parametrize("kind", list(NUMBERS))
POOL = 0x80 * 0x10000  # from the kernel's base to the processes, a page each
HEADERS = 0x40  # of the pool and the object manager, in front of a process here


def _opened(system: System, folder: Path) -> KernelDump:
    path = folder / "made.dmp"
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def _figured(dump: KernelDump, processes: list[KernelProcess] | None = None) -> list[KernelProcess]:
    assert dump.process_layout is not None
    return with_figures(dump.kernel, dump.process_layout, processes or dump.processes)


def _processes(system: System) -> list[int]:
    return [system.kernel + POOL + number * 0x1000 for number in range(3)]


def _fill(system: System, kind: str) -> None:
    _, threads, quota = NUMBERS[kind]
    for number, process in enumerate(_processes(system), 1):
        system.write(process + threads, struct.pack("<I", 10 * number))
        system.pointer(process + quota, 0x1000 * number)
        system.pointer(process + quota + system.n.pointer, 0x5000 * number)


def _object(system: System, kind: str, page: int, pid: int, ended: int = 0) -> tuple[int, int]:
    """A process object in a pool block of its own that no list has: (address, bytes) of the block."""
    n = system.n
    block = system.kernel + POOL + page * 0x1000
    process = block + HEADERS
    system.write(
        block, b"\xcc" * HEADERS + b"\x03" + bytes(0x8FF)
    )  # 3: a process, for the scheduler
    system.pointer(process + n.pid, pid)
    system.pointer(process + n.parent, 4)
    system.pointer(process + n.peb, 0x7FFD0000)
    system.write(process + n.name, b"acmeold.exe")
    system.write(process + n.created, struct.pack("<Q", FILETIME))
    system.write(process + NUMBERS[kind][0], struct.pack("<Q", ended))
    return block, 0xA00


def _unlisted(
    dump: KernelDump, blocks: list[tuple[int, int]]
) -> tuple[list[KernelProcess], list[str]]:
    assert dump.process_layout is not None
    log = DiagnosticLog()
    addresses, sizes = zip(*blocks, strict=True)
    columns = np.array(addresses, np.uint64), np.array(sizes, np.int64)
    found = unlisted_processes(dump.kernel, dump.process_layout, dump.processes, columns, log)
    return found, [item.message for item in log.collect()]


@KINDS
def test_threads_and_charged_pool_are_those_that_were_written(kind: str, tmp_path: Path) -> None:
    system = System(kind)
    _fill(system, kind)
    found = _figured(_opened(system, tmp_path))
    assert [p.thread_count for p in found] == [10, 20, 30]
    assert [p.nonpaged_quota_bytes for p in found] == [0x1000, 0x2000, 0x3000]
    assert [p.paged_quota_bytes for p in found] == [0x5000, 0xA000, 0xF000]
    assert [p.exit_time for p in found] == [None] * 3


@KINDS
def test_a_figure_that_no_process_has_is_unknown_and_not_zero(kind: str, tmp_path: Path) -> None:
    found = _figured(_opened(System(kind), tmp_path))
    assert [p.thread_count for p in found] == [None] * 3
    assert [p.nonpaged_quota_bytes for p in found] == [None] * 3
    assert [p.private_commit_bytes for p in found] == [None] * 3


@KINDS
def test_a_listed_process_that_ended_has_its_exit_time(kind: str, tmp_path: Path) -> None:
    system = System(kind)
    _fill(system, kind)
    last = _processes(system)[2]
    system.write(last + NUMBERS[kind][0], struct.pack("<Q", FILETIME + 10**8))
    found = _figured(_opened(system, tmp_path))
    assert [p.exit_time is not None for p in found] == [False, False, True]


def test_fields_that_cannot_be_what_they_should_be_give_no_figures(tmp_path: Path) -> None:
    system = System("x64")
    _fill(system, "x64")
    for process in _processes(system):
        system.write(process + 0x840, b"\xff" * 8)
    found = _figured(_opened(system, tmp_path))
    assert [p.thread_count for p in found] == [None] * 3
    assert [p.exit_time for p in found] == [None] * 3


def test_a_build_without_fields_of_its_own_gives_no_figures(tmp_path: Path) -> None:
    system = System("x64")
    _fill(system, "x64")
    dump = _opened(system, tmp_path)
    dump.kernel.build = 27000
    assert [p.thread_count for p in _figured(dump)] == [None] * 3


@KINDS
def test_process_objects_that_no_list_has_are_found_in_their_blocks(
    kind: str, tmp_path: Path
) -> None:
    system = System(kind)
    blocks = [_object(system, kind, 8, 1000, FILETIME + 10**8), _object(system, kind, 9, 1004)]
    listed = [(process - HEADERS, 0xA00) for process in _processes(system)]
    dump = _opened(system, tmp_path)
    found, said = _unlisted(dump, [*listed, *blocks])
    assert [(p.name, p.process_id, p.is_listed) for p in found] == [
        ("acmeold.exe", 1000, False),
        ("acmeold.exe", 1004, False),
    ]
    assert said == []
    ended = [p.exit_time is not None for p in _figured(dump, [*dump.processes, *found])]
    assert ended == [False, False, False, True, False]


def test_objects_with_other_headers_than_those_of_listed_processes_are_found(
    tmp_path: Path,
) -> None:
    system = System("x64")
    dump = _opened(system, tmp_path)
    block = _object(system, "x64", 8, 1000)
    dump = _opened(system, tmp_path)
    found, _ = _unlisted(dump, [block])  # no listed process lies in a block that tells the distance
    assert [p.process_id for p in found] == [1000]


def test_blocks_that_hold_no_process_are_said(tmp_path: Path) -> None:
    system = System("x64")
    block, size = _object(system, "x64", 8, 1000)
    system.write(block + HEADERS + 0x5A8, b"\x01\x02\x03")  # no name of a program
    absent = system.kernel + POOL + 0x100 * 0x1000
    dump = _opened(system, tmp_path)
    found, said = _unlisted(dump, [(block, size), (absent, size)])
    assert found == []
    assert said[0].startswith("2 pool blocks of process objects that are in no list cannot be read")


def test_any_bytes_in_a_block_are_survived(tmp_path: Path) -> None:
    system = System("x64")
    generator = np.random.default_rng(14)
    block = system.kernel + POOL + 8 * 0x1000
    system.write(block, generator.bytes(0xA00))
    _unlisted(_opened(system, tmp_path), [(block, 0xA00), (block + 0x10, 1 << 40)])
