"""Handle tables, written with their own numbers (published headers of 19041 and 7601)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from builders.kernel_builder import PAGE, System, full

from windumps import open_dump
from windumps.diagnostics import DiagnosticLog
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.handles import HandleTable, read_handles


@dataclass(frozen=True)
class Numbers:
    """_EPROCESS.ObjectTable, and in _HANDLE_TABLE the code, the owner and its id; entry size."""

    table: int
    code: int
    owner: int
    number: int
    entry: int


NUMBERS = {
    "x64": Numbers(0x570, 0x8, 0x10, 0x28, 16),
    # Behind the _KPROCESS everything lies 0x48 lower than on x64.
    "arm64": Numbers(0x528, 0x8, 0x10, 0x28, 16),
    "pae": Numbers(0xF4, 0x0, 0x4, 0x8, 8),
}
TABLES = 0x200 * 0x10000  # from the kernel's base


class Handles:
    """Gives the processes of a made system handle tables."""

    def __init__(self, kind: str = "x64") -> None:
        self.system = System(kind)
        self.n = NUMBERS[kind]
        self.free = self.system.kernel + TABLES
        self.processes = [
            self.system.kernel + 0x80 * 0x10000 + number * 0x1000 for number in range(3)
        ]
        self.heads = [self._head(number) for number in range(3)]

    def page(self) -> int:
        self.free += PAGE
        self.system.write(self.free, bytes(PAGE))
        return self.free

    def _head(self, process: int) -> int:
        head, address = self.page(), self.processes[process]
        pid = self.system.processes[process][0]
        self.system.pointer(head + self.n.owner, address if process else 0)
        self.system.write(head + self.n.number, struct.pack("<I", pid))
        self.system.pointer(address + self.n.table, head)
        return head

    def set_code(self, process: int, code: int) -> None:
        self.system.pointer(self.heads[process] + self.n.code, code)

    def leaf(self, objects: dict[int, int]) -> int:
        """A page of entries: index → address of the object's header."""
        page = self.page()
        for index, header in objects.items():
            # Unlocked, a reference count, and 44 bits of the address from bit 20 on.
            packed = (header >> 4 & (1 << 44) - 1) << 20 | 0x1234 << 1 | 1
            low = packed if self.n.entry == 16 else header | 1
            self.system.pointer(page + index * self.n.entry, low)
        return page

    def read(self, tmp_path: Path) -> tuple[list[HandleTable], DiagnosticLog]:
        path = tmp_path / "made.dmp"
        path.write_bytes(full(self.system))
        dump = open_dump(path)
        assert isinstance(dump, KernelDump)
        assert len(dump.processes) == 3
        log = DiagnosticLog()
        return read_handles(dump.kernel, dump.processes, log), log

    def objects(self, tmp_path: Path, process: int) -> list[int]:
        tables, _ = self.read(tmp_path)
        return [int(at) for at in tables[process].objects]


BODY = {"x64": 0xFFFFAF8123456780, "arm64": 0xFFFFAF8123456780, "pae": 0x85D38AA8}
KINDS = pytest.mark.parametrize("kind", list(NUMBERS))


@KINDS
def test_one_level(kind: str, tmp_path: Path) -> None:
    made, body = Handles(kind), BODY[kind]
    leaf = made.leaf({0: body + 0x100, 1: body, 2: body + 0x40, 200: body, 255: body + 0x80})
    made.set_code(1, leaf)
    tables, _ = made.read(tmp_path)
    assert [table.process.process_id for table in tables] == [4, 312, 2244]
    assert [len(table.objects) for table in tables] == [0, 4, 0]
    # The first entry of a page is no handle.
    assert made.objects(tmp_path, 1) == [body, body + 0x40, body, body + 0x80]


@KINDS
def test_two_and_three_levels(kind: str, tmp_path: Path) -> None:
    made, body = Handles(kind), BODY[kind]
    leaves = [made.leaf({1: body + 0x100 * number}) for number in range(3)]
    middle = [made.page(), made.page()]
    pointer = made.system.n.pointer
    for number, leaf in enumerate(leaves):
        made.system.pointer(middle[number // 2] + pointer * (number % 2), leaf)
    top = made.page()
    for number, page in enumerate(middle):
        made.system.pointer(top + pointer * number, page)
    made.set_code(2, top | 2)
    assert made.objects(tmp_path, 2) == [body, body + 0x100, body + 0x200]
    made.set_code(2, middle[0] | 1)
    assert made.objects(tmp_path, 2) == [body, body + 0x100]


@KINDS
def test_free_entries_are_no_handles(kind: str, tmp_path: Path) -> None:
    made = Handles(kind)
    leaf = made.leaf({1: BODY[kind]})
    for index in (2, 3):  # a free entry holds the next free one beside a zero
        made.system.pointer(leaf + index * made.n.entry + made.system.n.pointer, index + 1)
    made.set_code(1, leaf)
    assert made.objects(tmp_path, 1) == [BODY[kind]]


@KINDS
def test_a_page_that_nobody_wrote_is_not_an_empty_one(kind: str, tmp_path: Path) -> None:
    made = Handles(kind)
    made.set_code(0, made.page())
    written = made.leaf({})
    made.system.pointer(written + made.n.entry + made.system.n.pointer, 2)
    made.set_code(1, written)
    made.system.pointer(made.processes[2] + made.n.table, 0)
    tables, _ = made.read(tmp_path)
    assert [len(table.objects) for table in tables] == [0, 0, 0]
    assert [table.is_whole for table in tables] == [False, True, True]


def test_a_table_that_is_not_in_the_dump_is_not_known(tmp_path: Path) -> None:
    made = Handles()
    made.set_code(1, made.leaf({1: BODY["x64"]}))
    made.system.pointer(made.processes[2] + made.n.table, made.system.kernel + 0x3FF00000)
    tables, _ = made.read(tmp_path)
    assert [table.process.process_id for table in tables] == [4, 312, 2244]
    assert [table.is_whole for table in tables] == [False, True, False]


def test_absent_pages_are_counted(tmp_path: Path) -> None:
    made = Handles()
    middle, leaf = made.page(), made.leaf({1: BODY["x64"]})
    made.system.pointer(middle, leaf)
    made.system.pointer(middle + 8, leaf + 0x40000000)
    made.set_code(1, middle | 1)
    tables, _ = made.read(tmp_path)
    assert tables[1].absent_pages == 1
    assert tables[1].objects.tolist() == [BODY["x64"]]


def test_tables_that_name_themselves_end(tmp_path: Path) -> None:
    made = Handles()
    page = made.page()
    made.system.write(page, struct.pack("<Q", page) * (PAGE // 8))
    for process in range(3):
        made.set_code(process, page | 2)
    tables, _ = made.read(tmp_path)
    assert len(tables) == 3
    assert all(len(table.objects) <= 256 for table in tables)


def test_a_layout_that_does_not_fit_is_not_used(tmp_path: Path) -> None:
    made = Handles()
    leaf = made.leaf({1: BODY["x64"]})
    for process in range(3):
        made.set_code(process, leaf)
        made.system.write(made.heads[process] + made.n.number, struct.pack("<I", 0x1111))
    tables, log = made.read(tmp_path)
    assert tables == []
    assert [item.code for item in log.collect()] == ["handles-unknown"]


def test_a_build_without_a_layout_of_its_own_is_unknown(tmp_path: Path) -> None:
    made = Handles()
    made.set_code(1, made.leaf({1: BODY["x64"]}))
    path = tmp_path / "made.dmp"
    path.write_bytes(full(made.system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    processes = dump.processes
    assert read_handles(dump.kernel, processes, DiagnosticLog())
    dump.kernel.build = 27000
    log = DiagnosticLog()
    assert read_handles(dump.kernel, processes, log) == []
    assert log.collect()


def test_any_bytes_in_a_table_are_survived(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    for level in range(4):
        made = Handles()
        page = made.page()
        made.system.write(page, generator.bytes(PAGE))
        made.set_code(1, page | level)
        tables, _ = made.read(tmp_path)
        assert len(tables) == 3
