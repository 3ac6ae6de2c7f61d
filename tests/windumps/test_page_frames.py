"""The PFN database tells what each page frame is used for, and is believed only when it can be."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.frames_builder import (
    ACTIVE,
    BAD,
    ENTRIES,
    FREE,
    MODIFIED,
    NO_WRITE,
    STANDBY,
    TRANSITION,
    Frames,
    made,
    opened,
    self_map,
    tables_of,
)
from builders.kernel_builder import System

from windumps.kernel.page_frames import PageUse, read_page_use


def use_of(system: System, path: Path) -> PageUse:
    dump = opened(system, path)
    assert dump.physical is not None
    assert dump.paging is not None
    return read_page_use(dump.kernel, dump.physical, dump.paging, *tables_of(dump))


@pytest.mark.parametrize("kind", ENTRIES)
def test_frames_are_counted_by_list_and_by_use(kind: str, tmp_path: Path) -> None:
    system, free = made(kind, tmp_path)
    begin = self_map(system)
    kernel_pte = begin + (
        system.kernel >> 12 << 3 & (1 << 39) - 1 if kind == "x64" else system.kernel >> 9
    )
    numbers = iter(free.values())
    planted = {
        FREE: 3, STANDBY: 7, MODIFIED: 5, NO_WRITE: 2, BAD: 1,
    }  # fmt: skip
    for location, count in planted.items():
        for _ in range(count):
            system.entry(next(numbers), location)
    for number in range(4):  # pages of a process
        system.entry(next(numbers), ACTIVE, pte=begin + 8 * (0x30 + number))
    for _ in range(6):  # mapped files: their entries are in pool
        system.entry(next(numbers), TRANSITION, pte=system.kernel + 0x7000, bits=system.e.shared)
    for number in range(9):  # the kernel's, two of them locked
        system.entry(next(numbers), ACTIVE, pte=kernel_pte, references=1 + (number < 2))
    if system.e.awe:
        for _ in range(2):
            system.entry(next(numbers), ACTIVE, bits=system.e.awe)
    use = use_of(system, tmp_path / "d.dmp")
    assert use.unknown == ""
    tables = system.last - system.first_frame - len(free)
    rest = len(list(numbers))
    awe = 2 if system.e.awe else 0
    assert use.lists == {
        "zeroed": rest, "free": 3, "standby": 7, "modified": 7, "bad": 1,
        "active": tables + 4 + 6 + 9 + awe,
    }  # fmt: skip
    expected = {"private": 4, "shared": 6, "tables": tables, "system": 9}
    assert use.uses == expected | ({"awe": 2} if awe else {})
    assert use.locked == 2


def test_a_large_page_of_the_kernel_is_no_page_of_a_process(tmp_path: Path) -> None:
    system, free = made("x64", tmp_path)
    begin = self_map(system)
    entry = begin + (system.kernel >> 9 & (1 << 39) - 1)
    upper = begin + ((entry >> 9) & (1 << 39) - 1)
    system.entry(free[0], ACTIVE, pte=upper & ~7)
    assert use_of(system, tmp_path / "d.dmp").uses["private"] == 0


def test_entries_that_do_not_have_the_page_tables_in_use_are_not_believed(tmp_path: Path) -> None:
    system = Frames("x64")
    system.begin()
    use = use_of(system, tmp_path / "d.dmp")
    assert "not believed" in use.unknown
    assert use.lists == {}


def test_entries_that_are_not_in_the_dump_leave_all_unknown(tmp_path: Path) -> None:
    system, free = made("x64", tmp_path)
    last = system.e.database + (system.last - 1) * system.e.size
    system.poke(system.entry_at(last & ~0xFFF), 0, 8)
    assert free
    assert "not in the dump" in use_of(system, tmp_path / "d.dmp").unknown


def test_a_kernel_without_a_database_says_so(tmp_path: Path) -> None:
    assert "was not found" in use_of(System("x64"), tmp_path / "d.dmp").unknown


@pytest.mark.parametrize("count", [0, 1 << 31])
def test_a_list_of_memory_that_cannot_be_is_none(count: int, tmp_path: Path) -> None:
    system, _ = made("x64", tmp_path)
    system.write(system.kernel + 0x4400, struct.pack("<I", count))
    assert "was not found" in use_of(system, tmp_path / "d.dmp").unknown
