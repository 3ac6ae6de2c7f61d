"""Import and export tables of images in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders.driver_builder import IAT, SIZE, Driver, export, place, slot_of
from builders.kernel_builder import PAGE, System, full

from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.images.image_tables import ImportTable, exported_names
from windumps.images.modules import Module
from windumps.images.sections import MEM_DISCARDABLE, read_sections

NET = 2
IMPORTS = ("DbgPrint", "ExAllocatePoolWithTag", "ExFreePoolWithTag")
KINDS = pytest.mark.parametrize("kind", ["x64", "pae", "arm64"])


def opened(system: System, tmp_path: Path) -> KernelDump:
    path = tmp_path / "made.dmp"
    path.write_bytes(full(system))
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def driver(dump: KernelDump) -> Module:
    return next(module for module in dump.kernel.drivers if module.name == "acmenet.sys")


@KINDS
def test_slots_have_the_names_the_linker_left(kind: str, tmp_path: Path) -> None:
    system = System(kind)
    base = place(system, NET, Driver(imports=IMPORTS))
    dump = opened(system, tmp_path)
    table = ImportTable(dump.memory, driver(dump), system.n.pointer)
    slots = [slot_of(system, base, number) for number in range(len(IMPORTS))]
    assert [table.name(slot) for slot in slots] == list(IMPORTS)
    assert all(table.holds(slot) for slot in slots)
    assert not table.holds(base + IAT - system.n.pointer)
    assert table.name(base) == ""


@KINDS
def test_without_names_the_table_is_still_known(kind: str, tmp_path: Path) -> None:
    system = System(kind)
    base = place(system, NET, Driver(imports=IMPORTS, with_names=False))
    dump = opened(system, tmp_path)
    table = ImportTable(dump.memory, driver(dump), system.n.pointer)
    slot = slot_of(system, base, 1)
    assert (table.holds(slot), table.name(slot)) == (True, "")


@KINDS
def test_exports_by_address(kind: str, tmp_path: Path) -> None:
    system = System(kind)
    export(system, {"KeBugCheck": 0x2340, "ExAllocatePool2": 0x2100})
    dump = opened(system, tmp_path)
    assert exported_names(dump.memory, dump.kernel.drivers[0]) == {
        system.kernel + 0x2340: "KeBugCheck",
        system.kernel + 0x2100: "ExAllocatePool2",
    }


def test_sections_have_names_and_flags(tmp_path: Path) -> None:
    system = System()
    base = place(system, NET, Driver())
    dump = opened(system, tmp_path)
    sections = read_sections(dump.memory, driver(dump))
    assert [(s.name, s.start - base) for s in sections] == [
        (".text", 0x1000),
        (".rdata", 0x3000),
        (".data", 0x4000),
        ("INIT", 0x5000),
    ]
    assert [bool(s.flags & MEM_DISCARDABLE) for s in sections] == [False, False, False, True]


@pytest.mark.parametrize("seed", range(20))
def test_damaged_tables_are_survived(seed: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(seed)
    system = System(("x64", "pae")[seed % 2])
    base = place(system, NET, Driver(imports=IMPORTS))
    export(system, {"KeBugCheck": 0x2340})
    for start, size in ((base + 0x80, 0x200), (base + 0x3000, 0x200), (system.kernel + 0x6000, 64)):
        for at in generator.integers(0, size, 12).tolist():
            system.write(start + at, generator.bytes(1))
    dump = opened(system, tmp_path)
    module = Module("acmenet.sys", "acmenet.sys", base, SIZE, 0)
    table = ImportTable(dump.memory, module, system.n.pointer)
    for slot in range(base, base + SIZE, PAGE // 8):
        assert isinstance(table.name(slot), str)
    read_sections(dump.memory, module)
    kernel = Module("ntoskrnl.exe", "ntoskrnl.exe", system.kernel, 0x8000, 0)
    assert all(
        system.kernel <= address < system.kernel + 0x8000
        for address in exported_names(dump.memory, kernel)
    )
