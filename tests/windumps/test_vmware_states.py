"""A `.vmem` is opened as the VMware state beside it says; what that cannot be true of is searched."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
from builders.kernel_builder import PAGE, System, raw_image
from builders.vmware_builder import state

from windumps import open_dump
from windumps.dumps.image import layouts as raw_layouts
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import NotADumpError

FOUR_GIB = 12 << 20  # of a machine small enough to be written whole
GAP = 5 << 20  # where no machine that the search knows has one
HIGH = FOUR_GIB // PAGE
CODE = "memory-regions"


@pytest.fixture(autouse=True)
def _ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that knows a gap from 8 MiB on only, and needs proof of files beyond."""
    monkeypatch.setattr(raw_layouts, "GAPS", (8 << 20,))
    monkeypatch.setattr(raw_layouts, "FOUR_GIB", FOUR_GIB)


def machine(listed: tuple[int, int] | None = (1, GAP // PAGE - 1)) -> System:
    """A system above the gap; `listed` is (first page, pages) of other memory that the kernel lists."""
    system = System("x64", first_frame=HIGH)
    if listed is None:
        return system
    block = system.kernel + 0x4120
    system.pointer(system.kdbg + 0x270, block)
    system.pointer(block, block + 0x40)
    system.write(block + 0x40, bytes(0x80))
    rows = [listed, (HIGH, max(system.pages) + 1 - HIGH)]
    raw = struct.pack("<QQ", len(rows), sum(count for _, count in rows))
    raw += b"".join(struct.pack("<QQ", *row) for row in rows)
    system.write(block + 0x40, raw)
    return system


def vmem(system: System) -> bytes:
    """Its memory as VMware writes it: what lies above the gap follows what lies below."""
    pages = max(system.pages) + 1 - HIGH
    image = bytearray(GAP + pages * PAGE)
    for number, page in system.pages.items():
        at = GAP + (number - HIGH) * PAGE
        image[at : at + PAGE] = page
    return bytes(image)


def regions(system: System, more: int = 0) -> list[tuple[int, int, int]]:
    return [(0, 0, GAP // PAGE), (HIGH, GAP // PAGE, max(system.pages) + 1 - HIGH + more)]


def beside(folder: Path, raw: bytes, suffix: str = ".vmss", name: str = "vm.vmem") -> Path:
    (folder / f"vm{suffix}").write_bytes(raw)
    return folder / name


def opened(path: Path) -> KernelDump:
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


def check(dump: KernelDump, system: System, codes: tuple[str, ...] = ()) -> None:
    assert dump.kernel_base == system.kernel
    assert [(m.name, m.base_address, m.size_bytes) for m in dump.modules] == system.modules
    assert tuple(item.code for item in dump.diagnostics) == codes


@pytest.mark.parametrize("version", [2, 0])
@pytest.mark.parametrize("suffix", [".vmss", ".vmsn"])
def test_the_state_beside_tells_where_memory_lies(
    suffix: str, version: int, tmp_path: Path
) -> None:
    system = machine()
    path = beside(tmp_path, state(regions(system), version), suffix)
    path.write_bytes(vmem(system))
    dump = opened(path)
    check(dump, system, (CODE,))
    assert dump.physical is not None
    assert dump.physical.runs.address.tolist() == [0, FOUR_GIB]
    assert not dump.missing_bytes


def test_without_the_state_the_search_does_not_know_such_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "vm.vmem"
    path.write_bytes(vmem(machine()))
    with pytest.raises(NotADumpError):
        opened(path)


def test_a_packed_image_has_its_state_beside_it_too(tmp_path: Path) -> None:
    system = machine()
    path = beside(tmp_path, state(regions(system)), name="vm.vmem.gz")
    path.write_bytes(gzip.compress(vmem(system), 1))
    check(opened(path), system, (CODE,))


def test_a_state_of_another_machine_is_not_believed(tmp_path: Path) -> None:
    # The kernel lists memory at an address that no region has; the search opens the file.
    system = System("x64")
    block = system.kernel + 0x4120
    system.pointer(system.kdbg + 0x270, block)
    system.pointer(block, block + 0x40)
    last = max(system.pages) + 1
    raw = struct.pack("<QQQQ", 1, last - 1, 1, last - 1)
    system.write(block + 0x40, raw)
    path = beside(tmp_path, state([(0, 0, last - 2), (HIGH, last - 2, 2)]))
    path.write_bytes(raw_image(system))
    check(opened(path), system)


def test_a_file_that_is_cut_says_how_much_is_missing(tmp_path: Path) -> None:
    system = machine(None)
    path = beside(tmp_path, state(regions(system, more=7)))
    path.write_bytes(vmem(system))
    dump = opened(path)
    assert dump.missing_bytes == 7 * PAGE
    assert [d.bytes_affected for d in dump.diagnostics if d.code == "memory-cut"] == [7 * PAGE]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0, 0, 8), (4, 8, 8)],  # one page twice
        [(0, 0, 0)],
        [(0, 1 << 31, 8)],  # behind the file
        [(n, n, 1) for n in range(5000)],
    ],
    ids=["none", "overlap", "empty", "behind", "many"],
)
def test_regions_that_cannot_be_are_none(rows: list[tuple[int, int, int]], tmp_path: Path) -> None:
    system = System("x64")
    path = beside(tmp_path, state(rows))
    path.write_bytes(raw_image(system))
    check(opened(path), system)


@pytest.mark.parametrize("size", [0, 1, 11, 12, 100, 300, 600, 700])
def test_a_state_that_is_cut_or_no_state_stops_nothing(size: int, tmp_path: Path) -> None:
    system = System("x64")
    raw = state([(0, 0, max(system.pages) + 1)])
    path = beside(tmp_path, raw[:size])
    path.write_bytes(raw_image(system))
    assert opened(path).kernel_base == system.kernel
    (tmp_path / "vm.vmss").write_bytes(bytes(range(256)) * 4)
    check(opened(path), system)
