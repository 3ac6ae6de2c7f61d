"""Physical memory without a header: raw images and ELF cores of virtual machines."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from builders.kernel_builder import (
    ARCHITECTURE,
    NUMBERS,
    PAGE,
    Machine,
    System,
    elf_core,
    raw_image,
    runs,
    xen_core,
)
from kernel_truth import KernelTruthDump, kernel_dumps

from windumps import open_dump
from windumps.dumps.image import layouts as raw_layouts
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import NotADumpError, TruncatedDumpError, UnsupportedDumpError
from windumps.kernel.finder import find_kernel
from windumps.memory import RunMemory

CONTAINERS = {
    "raw": raw_image,
    "elf": elf_core,
    "xen": xen_core,
    "xen-p2m": partial(xen_core, with_machine_pages=True),
    "xen-shuffled": partial(xen_core, shuffled=True),
}
# Complete ones, and one whose KDBG is encoded as in a running system.
IMAGES = [
    dump
    for dump in kernel_dumps()
    if dump.scenario in ("traps", "leak-pair-full", "tiny-pair") and "before" in dump.dump.name
]


def opened(path: Path) -> KernelDump:
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def check(dump: KernelDump, system: System) -> None:
    assert dump.architecture == ARCHITECTURE[system.kind]
    assert dump.build == system.n.build
    assert dump.kernel_base == system.kernel
    assert dump.memory.read(system.kernel, 2) == b"MZ"
    assert [(m.name, m.base_address, m.size_bytes) for m in dump.modules] == system.modules
    assert [
        (p.process_id, p.parent_id, p.name, p.directory_table_base) for p in dump.processes
    ] == system.processes
    assert dump.header is None
    assert dump.bug_check is None
    assert dump.time is not None
    assert dump.time.year == 2023
    assert dump.kernel.processor_count == 4
    assert not dump.diagnostics


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("kind", NUMBERS)
def test_the_kernel_is_found_in_memory(tmp_path: Path, kind: str, container: str) -> None:
    system = System(kind)
    path = tmp_path / "memory.bin"
    path.write_bytes(CONTAINERS[container](system))
    check(opened(path), system)


@pytest.mark.parametrize("kind", ["x64", "la57"])
def test_the_root_a_hypervisor_notes_is_used(tmp_path: Path, kind: str) -> None:
    system = System(kind)
    # No table names itself, so that a search finds nothing.
    for _, _, _, root in system.processes:
        system.poke(root + 0x1ED * 8, 0, 8)
    path = tmp_path / "memory.elf"
    path.write_bytes(elf_core(system))
    with pytest.raises(UnsupportedDumpError, match="without a Windows kernel"):
        open_dump(path)
    path.write_bytes(elf_core(system, cr3=system.root | 0x2))
    check(opened(path), system)


GAP, FOUR_GIB = 8 << 20, 12 << 20  # of a machine small enough to be written whole


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap from 8 MiB on that ends at 12 MiB; the true ones begin at 2, 3 and 3.5 GiB."""
    assert raw_layouts.GAPS == (2 << 30, 3 << 30, 7 << 29)
    assert raw_layouts.FOUR_GIB == 4 << 30
    monkeypatch.setattr(raw_layouts, "GAPS", (GAP,))
    monkeypatch.setattr(raw_layouts, "FOUR_GIB", FOUR_GIB)
    monkeypatch.setattr(raw_layouts, "_KEPT_BYTES", 1 << 20)


def with_gap(listed: list[tuple[int, int]]) -> tuple[System, bytes]:
    """A system above the gap, and its image as a tool writes it that leaves the gap out.

    Args:
        listed: (first page, pages) of the memory the kernel lists; its own is added.
    """
    system = System("x64", first_frame=FOUR_GIB // PAGE)
    block = system.kernel + 0x4120
    system.pointer(system.kdbg + 0x270, block)
    system.pointer(block, block + 0x40)
    system.write(block + 0x40, bytes(0x80))
    rows = [*listed, (FOUR_GIB // PAGE, max(system.pages) + 1 - FOUR_GIB // PAGE)]
    raw = struct.pack("<QQ", len(rows), sum(count for _, count in rows))
    raw += b"".join(struct.pack("<QQ", *row) for row in rows)
    for at in range(0, len(raw), 8):
        system.pointer(block + 0x40 + at, int.from_bytes(raw[at : at + 8], "little"))
    gap = FOUR_GIB - GAP
    image = bytearray((max(system.pages) + 1) * PAGE - gap)
    for number, page in system.pages.items():
        image[number * PAGE - gap : number * PAGE - gap + PAGE] = page
    return system, bytes(image)


@pytest.mark.usefixtures("small_machine")
def test_memory_behind_a_gap_that_is_not_in_the_file_is_found(tmp_path: Path) -> None:
    system, image = with_gap([(1, GAP // PAGE - 1)])
    path = tmp_path / "memory.vmem"
    path.write_bytes(image)
    check(opened(path), system)


@pytest.mark.usefixtures("small_machine")
def test_an_image_that_holds_the_gap_is_read_as_it_is(tmp_path: Path) -> None:
    system, _ = with_gap([(1, GAP // PAGE - 1)])
    path = tmp_path / "memory.raw"
    path.write_bytes(raw_image(system))
    check(opened(path), system)


@pytest.mark.usefixtures("small_machine")
def test_what_the_kernels_list_does_not_prove_is_not_used(tmp_path: Path) -> None:
    # The kernel lists more memory than the file can hold, with the gap or without.
    low = System("x64")
    block = low.kernel + 0x4120
    low.pointer(low.kdbg + 0x270, block)
    low.pointer(block, block + 0x40)
    for at, value in enumerate((2, 0x500 + 0x8000, 1, 0x500, FOUR_GIB // PAGE, 0x8000)):
        low.pointer(block + 0x40 + 8 * at, value)
    path = tmp_path / "memory.raw"
    path.write_bytes(raw_image(low).ljust(GAP + (6 << 20), b"\x5a"))
    dump = opened(path)
    assert dump.physical is not None
    assert dump.physical.runs.size.tolist() == [GAP]
    assert dump.missing_bytes == FOUR_GIB + 0x8000 * PAGE - GAP
    assert [item.code for item in dump.diagnostics] == ["memory-layout-unproven"]


@pytest.mark.parametrize(
    ("size", "gap", "listed", "proven"),
    [
        (9 << 30, None, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], True),
        (8 << 30, None, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], False),
        (8 << 30, 3 << 30, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], True),
        (8 << 30, 2 << 30, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], False),
        (8 << 30, 7 << 29, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], False),
        (4 << 30, 2 << 30, [(1 << 20, (2 << 30) - (1 << 20)), (4 << 30, 2 << 30)], True),
        (7 << 29, 3 << 30, [(1 << 20, 2 << 30), (4 << 30, 5 << 30)], False),  # cut
        (3 << 30, None, [(1 << 20, 2 << 30)], True),
    ],
)
def test_a_layout_is_proven_by_the_size_it_gives_the_file(
    size: int, gap: int | None, listed: list[tuple[int, int]], proven: bool
) -> None:
    layout = raw_layouts.RawLayout(size, gap, True)
    assert raw_layouts.is_proven(np.empty(0, np.uint8), layout, listed) == proven


def test_a_core_that_is_cut_says_so(tmp_path: Path) -> None:
    system = System("x64")
    path = tmp_path / "memory.elf"
    path.write_bytes(elf_core(system)[: -3 * PAGE])
    dump = opened(path)
    assert dump.missing_bytes == 3 * PAGE
    assert [item.bytes_affected for item in dump.diagnostics if item.code == "memory-cut"] == [
        3 * PAGE
    ]


def test_a_xen_core_whose_pages_are_cut_short_says_so(tmp_path: Path) -> None:
    # Headers stand behind the memory: what can be missing is pages that the numbers tell of.
    system = System("x64")
    raw = bytearray(xen_core(system))
    table = struct.unpack_from("<Q", raw, 40)[0]
    size = struct.unpack_from("<Q", raw, table + 64 + 32)[0]
    struct.pack_into("<Q", raw, table + 64 + 32, size - 3 * PAGE)
    path = tmp_path / "memory.core"
    path.write_bytes(raw)
    dump = opened(path)
    assert dump.missing_bytes == 3 * PAGE
    assert [d.bytes_affected for d in dump.diagnostics if d.code == "memory-cut"] == [3 * PAGE]


def test_a_xen_core_without_its_end_is_told_to_be_cut(tmp_path: Path) -> None:
    path = tmp_path / "memory.core"
    path.write_bytes(xen_core(System("x64"))[:-64])
    with pytest.raises(TruncatedDumpError, match=r"memory\.core.*Elf64_Shdr"):
        open_dump(path)


def test_a_core_of_a_linux_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "core"
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0x1000, 0x400000, 0, 0x4000, 0x4000, 0)
    path.write_bytes((head + segment).ljust(0x1000, b"\0") + bytes(range(256)) * 64)
    with pytest.raises(UnsupportedDumpError, match="Linux core"):
        open_dump(path)


@pytest.mark.parametrize("fill", [b"\0", b"\x63", b"\xff"])
def test_memory_without_windows_is_no_dump(tmp_path: Path, fill: bytes) -> None:
    path = tmp_path / "memory.raw"
    path.write_bytes(fill * (2 << 20))
    with pytest.raises(NotADumpError, match="Windows kernel"):
        open_dump(path)


def test_page_tables_without_the_kernel_behind_them_are_told(tmp_path: Path) -> None:
    system = System("x64")
    system.poke(system.entry_at(system.kernel), 0, 8)
    path = tmp_path / "memory.raw"
    path.write_bytes(raw_image(system))
    dump = opened(path)
    assert "kernel-not-found" in {item.code for item in dump.diagnostics}
    assert dump.kernel_base == 0
    assert "no kernel" in dump.why_no_pool


def test_a_root_of_another_system_is_passed_over(tmp_path: Path) -> None:
    # Page tables that name themselves but have no KUSER_SHARED_DATA lie first in memory.
    other = Machine("x64", first_frame=0x10)
    system = System("x64")
    system.pages.update(other.pages)
    path = tmp_path / "memory.raw"
    path.write_bytes(raw_image(system))
    check(opened(path), system)


@pytest.mark.parametrize("source", IMAGES, ids=lambda source: source.name)
def test_the_kernel_of_a_dump_is_found_in_its_memory_alone(source: KernelTruthDump) -> None:
    dump, truth = opened(source.dump), source.read_truth()
    assert dump.physical is not None
    found = find_kernel(dump.physical, dump.physical_limit)
    assert found is not None
    assert hex(found.base) == truth["kernel_base"]
    assert found.architecture == truth["arch"]
    for address, size, _ in list(zip(*(c.tolist() for c in dump.memory.runs), strict=True))[::40]:
        size = min(size, PAGE)
        if address >= 1 << 47:
            assert found.memory.read(address, size) == dump.memory.read(address, size)


def test_a_run_in_the_middle_of_pages_does_not_stop_the_search() -> None:
    system = System("x64")
    places = runs(system)
    data = np.frombuffer(b"".join(bytes(p) for _, p in sorted(system.pages.items())), np.uint8)
    sizes = np.array([count * PAGE for _, count in places], np.int64)
    starts = np.array([first * PAGE for first, _ in places], np.uint64)
    offsets = np.cumsum(sizes) - sizes
    starts[0] += np.uint64(0x800)
    offsets[0] += 0x800
    sizes[0] -= 0x800
    found = find_kernel(RunMemory(data, starts, sizes, offsets), 1 << 32)
    assert found is not None
    assert found.base == system.kernel
