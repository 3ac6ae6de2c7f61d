"""The memory manager's counters: where they come from, and when they are unknown."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.kernel_builder import PAGE, System, full, triage

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.counters import NAMES, Counter

# Offsets in KDBG, and the bytes of one unit: pages, except where Microsoft's name says bytes.
KDBG = {
    "physical_memory": (0xF8, PAGE),
    "nonpaged_pool_limit": (0x100, 1),
    "paged_pool_limit": (0x140, 1),
    "commit_limit": (0x148, PAGE),
    "committed": (0x150, PAGE),
    "shared_commit": (0x158, PAGE),
    "driver_commit": (0x160, PAGE),
    "paged_pool_commit": (0x170, PAGE),
    "available": (0x1A8, PAGE),
    "nonpaged_pool": (0x250, PAGE),
    "peak_commit": (0x258, PAGE),
}


def opened(tmp_path: Path, raw: bytes) -> KernelDump:
    path = tmp_path / "made.dmp"
    path.write_bytes(raw)
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def counters(dump: KernelDump) -> dict[str, Counter]:
    found = {counter.name: counter for counter in dump.counters}
    assert tuple(found) == NAMES
    return found


def with_variables(kind: str, values: dict[int, int]) -> System:
    """A machine whose KDBG names variables of these values, by offset in KDBG."""
    system = System(kind)
    for number, (at, value) in enumerate(values.items()):
        place = system.kernel + 0x5000 + number * 16
        system.variables[at] = place
        system.pointer(place, value)
    system.write(system.kdbg, system.kdbg_bytes())
    return system


@pytest.mark.parametrize("kind", ["pae", "x86"])
def test_before_windows_10_kdbg_names_the_counters(tmp_path: Path, kind: str) -> None:
    values = {at: 1000 + number for number, (at, _) in enumerate(KDBG.values())}
    start, end = 0x80000000, 0x80000000 + 5000 * PAGE
    system = with_variables(kind, {**values, 0xC8: start, 0xD0: end})
    found = counters(opened(tmp_path, full(system)))
    for name, (at, unit) in KDBG.items():
        assert found[name].bytes == values[at] * unit, name
        assert found[name].source.startswith("nt!Mm")
    assert found["system_ptes"].bytes == 5000


def test_paged_pool_is_the_sum_of_its_descriptors(tmp_path: Path) -> None:
    system = System("pae")
    pools = [system.kernel + 0x6000 + number * 0x200 for number in range(3)]
    array, count = system.kernel + 0x5000, system.kernel + 0x5100
    for number, pool in enumerate(pools):
        system.pointer(array + 4 * number, pool)
        # _POOL_DESCRIPTOR of Windows 7: TotalPages, TotalBigPages.
        system.write(pool + 0xC0, (10 + number).to_bytes(4, "little"))
        system.write(pool + 0x48, (100 * number).to_bytes(4, "little"))
    system.write(count, (2).to_bytes(4, "little"))  # one less than there are
    system.variables[0x68], system.variables[0x70] = array, count
    system.write(system.kdbg, system.kdbg_bytes())
    found = counters(opened(tmp_path, full(system)))
    assert found["paged_pool"].bytes == (10 + 11 + 12 + 300) * PAGE


@pytest.mark.parametrize("kind", ["pae", "x64"])
def test_a_counter_that_reads_zero_or_nonsense_is_unknown(tmp_path: Path, kind: str) -> None:
    system = with_variables(kind, {0x150: 0, 0x148: (1 << 8 * System(kind).n.pointer) - 1})
    found = counters(opened(tmp_path, full(system)))
    assert found["committed"].bytes is None
    assert found["committed"].source
    if kind == "x64":
        assert found["commit_limit"].bytes is None


def test_a_complete_dump_knows_how_much_memory_there_is(tmp_path: Path) -> None:
    system = System("x64")
    found = counters(opened(tmp_path, full(system)))
    assert found["physical_memory"].bytes == len(system.pages) * PAGE
    assert "header" in found["physical_memory"].source


@pytest.mark.parametrize("kind", ["x64", "pae", "arm64"])
def test_a_small_dump_knows_none(tmp_path: Path, kind: str) -> None:
    found = counters(opened(tmp_path, triage(System(kind))))
    assert all(counter.bytes is None for counter in found.values())
    assert all(counter.source for counter in found.values())
