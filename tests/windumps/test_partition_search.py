"""The memory manager's counters of Windows 10 without symbols: a variable found by what it holds."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders.kernel_builder import PAGE, System, full

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.counters import Counter

# Of MiSystemPartition, 19041 x64; pages.
OFFSETS = {
    "physical_memory": 0x1B10,
    "available": 0x1BC0,
    "committed": 0x1D28,
    "commit_limit": 0x1DA8,
    "peak_commit": 0x1840,
    "shared_commit": 0x1DC8,
}
VALUES = {
    "physical_memory": 0x80000,
    "available": 0x12345,
    "committed": 0x60000,
    "commit_limit": 0x90000,
    "peak_commit": 0x70000,
    "shared_commit": 0x1000,
}
PLACE = 0x5000  # from the kernel's base
PHYSICAL_PAGES = 0x2E8  # of KUSER_SHARED_DATA


def _system(values: dict[str, int] | None = None, place: int = PLACE) -> System:
    system = System("x64")
    system.write(system.n.shared + PHYSICAL_PAGES, struct.pack("<I", VALUES["physical_memory"]))
    for name, value in (VALUES | (values or {})).items():
        system.write(system.kernel + place + OFFSETS[name], struct.pack("<Q", value))
    return system


def _counters(system: System, folder: Path) -> dict[str, Counter]:
    path = folder / "made.dmp"
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return {counter.name: counter for counter in dump.counters}


def test_the_partition_is_found_by_the_memory_it_counts(tmp_path: Path) -> None:
    found = _counters(_system(), tmp_path)
    for name, pages in VALUES.items():
        assert found[name].bytes == pages * PAGE, name
        assert found[name].searched
        assert "found by its structure" in found[name].source
    assert found["driver_commit"].bytes is None  # it stands in another variable


@pytest.mark.parametrize(
    "values",
    [
        {"available": 0x80001},  # more than there is
        {"committed": 0x90001},  # above the limit
        {"peak_commit": 0x5FFFF},  # below what is committed
        {"commit_limit": 0x3000, "committed": 0x2000},  # less than half of the memory
        {"available": 0},
    ],
)
def test_what_does_not_fit_around_it_is_no_partition(
    values: dict[str, int], tmp_path: Path
) -> None:
    found = _counters(_system(values), tmp_path)
    assert found["committed"].bytes is None
    assert found["available"].bytes is None


def test_two_places_that_fit_are_no_answer(tmp_path: Path) -> None:
    system = _system()
    for name, value in VALUES.items():
        system.write(system.kernel + PLACE + 0x40 + OFFSETS[name], struct.pack("<Q", value))
    assert _counters(system, tmp_path)["committed"].bytes is None


def test_a_place_that_no_variable_has_is_not_taken(tmp_path: Path) -> None:
    assert _counters(_system(place=PLACE + 8), tmp_path)["committed"].bytes is None


def test_without_the_number_of_pages_nothing_is_searched_for(tmp_path: Path) -> None:
    system = _system()
    system.write(system.n.shared + PHYSICAL_PAGES, bytes(4))
    assert _counters(system, tmp_path)["committed"].bytes is None
