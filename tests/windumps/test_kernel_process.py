"""A process of a kernel dump as a dump of its own: its modules, threads and heaps."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from builders.kernel_builder import PAGE, System, full, image, triage
from kernel_truth import KernelTruthDump, kernel_dumps
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.process.session import Session
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.kernel.process import find_process, open_process
from windumps.errors import UnsupportedDumpError
from windumps.memory import Presence

USER_HEAP = kernel_dumps("user-heap")
PEB = 0x7FFD0000
# PEB.Ldr and the head in PEB_LDR_DATA.
LOADER = {8: (0x18, 0x10), 4: (0xC, 0xC)}
BASES = (("app.exe", 0x400000), ("ntdll.dll", 0x770000))


def with_loader_list(kind: str) -> System:
    """A machine whose last process has a list of modules, linked in load order."""
    system = System(kind)
    root = system.processes[2][3]
    n = system.n
    at, head_at = LOADER[n.pointer]
    head = 0x60000 + head_at
    system.pointer(PEB + at, 0x60000, root)
    nodes = []
    for number, (name, base) in enumerate(BASES):
        entry = 0x61000 + number * 0x200
        text = name.encode("utf-16-le")
        system.write(base, image(n.machine, 2 * PAGE, name[:3].encode() + b".pdb"), root)
        system.write(entry, bytes(0x80), root)
        system.pointer(entry + n.dll_base, base, root)
        system.write(entry + n.image_size, struct.pack("<I", 2 * PAGE), root)
        for place in (n.full_name, n.base_name):
            counts = struct.pack("<HH", len(text), len(text)).ljust(n.pointer, b"\0")
            system.write(entry + place, counts, root)
            system.pointer(entry + place + n.pointer, entry + 0x100, root)
        system.write(entry + 0x100, text, root)
        nodes.append(entry)
    system.ring(head, nodes, root)
    return system


def opened(tmp_path: Path, raw: bytes) -> KernelDump:
    path = tmp_path / "made.dmp"
    path.write_bytes(raw)
    dump = open_dump(path)
    assert isinstance(dump, KernelDump)
    return dump


@pytest.mark.parametrize("kind", ["x64", "pae", "x86", "arm64"])
def test_modules_come_from_the_loaders_list(tmp_path: Path, kind: str) -> None:
    dump = opened(tmp_path, full(with_loader_list(kind)))
    process = open_process(dump, find_process(dump, "acmesvc.exe"))
    assert [(m.name, m.base_address) for m in process.modules] == list(BASES)
    assert [m.pdb.name for m in process.modules if m.pdb] == ["app.pdb", "ntd.pdb"]
    assert process.process_id == 2244
    assert process.process_times is not None
    assert process.process_times[1:] == (None, None)
    assert process.pebs == {"x86" if dump.architecture == "x86" else "x64": PEB}


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_without_a_list_modules_are_found_by_their_headers(tmp_path: Path, kind: str) -> None:
    system = with_loader_list(kind)
    root = system.processes[2][3]
    system.pointer(PEB + LOADER[system.n.pointer][0], 0, root)
    system.pointer(PEB + 2 * system.n.pointer, 0x400000, root)  # ImageBaseAddress
    dump = opened(tmp_path, full(system))
    process = open_process(dump, find_process(dump, "2244"))
    assert [(m.name, m.base_address) for m in process.modules] == [
        ("acmesvc.exe", 0x400000),
        ("ntd.exe", 0x770000),
    ]
    assert "modules-by-headers" in {item.code for item in process.diagnostics}


def test_a_wow64_process_has_two_blocks(tmp_path: Path) -> None:
    system = System("x64")
    process = system.kernel + 0x80 * 0x10000 + 2 * 0x1000
    # _EPROCESS.WoW64Process of 19041: a pointer to what begins with the address of the 32-bit PEB.
    system.pointer(process + 0x580, process + 0x900)
    system.pointer(process + 0x900, 0x7FFC0000)
    dump = opened(tmp_path, full(system))
    assert [p.is_wow64 for p in dump.processes] == [False, False, True]
    assert open_process(dump, dump.processes[2]).pebs == {"x64": PEB, "x86": 0x7FFC0000}


@pytest.mark.parametrize("kind", ["x64", "pae"])
def test_a_process_sees_its_own_memory_and_not_the_kernels(tmp_path: Path, kind: str) -> None:
    system = System(kind)
    dump = opened(tmp_path, full(system))
    texts = []
    for process in dump.processes[1:]:
        memory = open_process(dump, process).memory
        texts.append(memory.read_available(0x30000, 16))
        assert memory.presence(system.kernel) is Presence.NOT_MAPPED
        assert dump.address_space(process.directory_table_base).read(system.kernel, 2) == b"MZ"
        assert memory.total_bytes == 2 * PAGE
    assert texts == [b"user memory of s", b"user memory of a"]


@pytest.mark.parametrize(
    ("kind", "highest", "place"),
    [("la57", 0x00FF_FFFF_FFFE_FFFF, 1 << 50), ("pae", 0xBFFE_FFFF, 0xA000_0000)],
)
def test_the_user_half_may_be_larger_than_usual(
    tmp_path: Path, kind: str, highest: int, place: int
) -> None:
    system = System(kind)
    system.write(place, b"high up", system.processes[2][3])
    usual = opened(tmp_path, full(system))
    assert usual.process_memory(usual.processes[2]).presence(place) is Presence.NOT_MAPPED
    system.variables[0x1C8] = system.kernel + 0x5000
    system.pointer(system.kernel + 0x5000, highest)
    system.write(system.kdbg, system.kdbg_bytes())
    dump = opened(tmp_path, full(system))
    assert dump.process_memory(dump.processes[2]).read(place, 7) == b"high up"


@pytest.mark.parametrize("wanted", ["2244", "0x8c4", "acmesvc.exe", "ACMESVC", "acmesvc"])
def test_processes_are_found_by_id_and_name(tmp_path: Path, wanted: str) -> None:
    dump = opened(tmp_path, full(System("x64")))
    assert find_process(dump, wanted).process_id == 2244


def test_a_process_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    dump = opened(tmp_path, full(System("x64")))
    with pytest.raises(UnsupportedDumpError, match=r"no process nosuch.*smss.exe \(312\)"):
        find_process(dump, "nosuch")


def test_two_processes_of_one_name_are_told_by_id(tmp_path: Path) -> None:
    system = System("x64")
    process = system.kernel + 0x80 * 0x10000 + 0x1000
    system.write(process + system.n.name, b"acmesvc.exe\0\0\0\0")
    dump = opened(tmp_path, full(system))
    with pytest.raises(UnsupportedDumpError, match=r"2 processes .* 312, 2244"):
        find_process(dump, "acmesvc.exe")


def test_a_small_dump_has_no_processes(tmp_path: Path) -> None:
    dump = opened(tmp_path, triage(System("x64")))
    with pytest.raises(UnsupportedDumpError, match="has no list of processes"):
        find_process(dump, "4")


def _rows(session: Session) -> set[tuple[int, ...]]:
    columns = ("address", "size", "block_bytes", "state", "kind")
    return {
        row
        for _, blocks in session.blocks()
        for row in zip(*(getattr(blocks, name).tolist() for name in columns), strict=True)
    }


MINIDUMPS = [
    dump
    for dump in truth_dumps("tiny", "mixed", "nt-lfh")
    if dump.dump.is_relative_to(TESTDATA) and "5.1" not in dump.build
]


@pytest.mark.parametrize("source", MINIDUMPS, ids=lambda source: source.name)
def test_heaps_of_a_process_are_those_of_its_minidump(source: TruthDump, tmp_path: Path) -> None:
    """The memory of a minidump becomes that of a process, its pages all over the machine's."""
    alone = Session.open(source.dump)
    memory = alone.dump.memory
    system = System("pae" if alone.dump.architecture == "x86" else "x64")
    pid, _, _, root = system.processes[2]
    process = system.kernel + 0x80 * 0x10000 + 2 * 0x1000
    system.pointer(process + system.n.peb, alone.views[0].peb)
    pages = [
        page
        for start, size in zip(*(c.tolist() for c in memory.runs[:2]), strict=True)
        for page in range(start & ~(PAGE - 1), start + size, PAGE)
    ]
    for page in np.random.default_rng(3).permutation(np.unique(np.array(pages, np.uint64))):
        pieces = memory.extents(int(page), int(page) + PAGE)
        for start, size, _ in zip(*(c.tolist() for c in pieces), strict=True):
            system.write(start, memory.read(start, size), root)
    dump = opened(tmp_path, full(system))
    inside = Session(open_process(dump, find_process(dump, str(pid))))
    inside.dump.os_version = alone.dump.os_version
    inside = Session(inside.dump)
    assert [source.entry.address for source in inside.heaps] == [
        source.entry.address for source in alone.heaps
    ]
    assert _rows(inside) == _rows(alone)


@pytest.mark.parametrize("source", USER_HEAP, ids=lambda source: source.name)
def test_the_heap_of_a_process_adds_up(source: KernelTruthDump) -> None:
    session = Session.open(source.dump, process="acmesvc.exe")
    assert [heap.entry.kind for heap in session.heaps] == ["nt"]
    used = 0
    for _, blocks in session.blocks():
        used += len(blocks.used)
    heap = session.heaps[0].entry.heap
    assert heap is not None
    assert used > 1000
    assert heap.account.residual_bytes == 0
    assert heap.account.absent_bytes == 0
    assert heap.account.unwalked_bytes == 0
    assert not [item for item in session.diagnostics if item.severity != "info"]
