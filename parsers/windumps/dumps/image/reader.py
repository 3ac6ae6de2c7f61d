"""Physical memory as other tools give it: raw images, and ELF cores of virtual machines.

Neither says where the kernel is: it is found in the memory itself (`windows.kernel_finder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from windumps.arrays import PAGE_SIZE, U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps import kinds
from windumps.dumps.image import layouts as raw_layouts
from windumps.dumps.image import structures as c
from windumps.dumps.image import vmware, xen
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import TruncatedDumpError, UnsupportedDumpError
from windumps.file_structure import Layout
from windumps.kernel.finder import find_kernel
from windumps.kernel.kernel import identify_kernel, read_shared_data, version_of_build
from windumps.kernel.physical_runs import memory_runs
from windumps.memory import RunMemory

MIN_RAW_BYTES = 1 << 20
_MAX_PHYSICAL = 1 << 52


def open_elf(path: Path, data: U8) -> KernelDump:
    """Opens an ELF core of a virtual machine that runs Windows.

    Raises:
        TruncatedDumpError: the file ends inside its headers.
        UnsupportedDumpError: no Windows kernel is in it: a core of a program, or of another system.
    """
    log = DiagnosticLog()
    is_64bit = int(data[4]) == c.CLASS64
    header = (c.HEADER64 if is_64bit else c.HEADER32).record(data, 0)
    hints: list[tuple[str, int]] = []
    xen_core = xen.read_memory(data, header) if is_64bit else None
    if xen_core is not None:
        name = kinds.XEN
        physical, missing = xen_core
    else:
        name = kinds.ELF
        layout = c.SEGMENT64 if is_64bit else c.SEGMENT32
        rows = _segments(data, header, layout, is_64bit=is_64bit)
        physical, missing = _loaded(data, rows)
        architecture = c.ARCHITECTURES.get(header.Machine, "")
        hints = [
            (architecture, root) for root in _roots(data, rows) if architecture in ("x64", "x86")
        ]
    if missing:
        log.add(
            "memory-cut",
            Severity.ERROR,
            "Elf_Phdr" if xen_core is None else ".xen_pages",
            None,
            f"the file ends after {len(data)} bytes: memory behind counts as absent; copy it again",
            missing,
        )
    dump = _open(path, physical, hints, name, log)
    if dump is None:
        raise UnsupportedDumpError(
            f"{path}: this is an ELF core file without a Windows kernel in it (a Linux core dump?), not a "
            "Windows dump"
        )
    dump.missing_bytes = missing
    return dump


def _loaded(data: U8, rows: Any) -> tuple[RunMemory, int]:
    """The memory of loaded segments, and how many bytes of it lie behind the file's end."""
    loads = rows[rows["Type"] == c.PT_LOAD]
    start = loads["PhysicalAddress"].astype(np.uint64)
    offset = loads["Offset"].astype(np.uint64)
    told = np.minimum(loads["FileSize"].astype(np.uint64), np.uint64(_MAX_PHYSICAL))
    usable = (start < np.uint64(_MAX_PHYSICAL)) & (offset <= np.uint64(len(data)))
    start, offset, told = start[usable], offset[usable], told[usable]
    size = np.minimum(told, np.uint64(len(data)) - offset)
    memory = RunMemory(data, start, size.astype(np.int64), offset.astype(np.int64))
    return memory, int((told - size).sum())


def open_raw(path: Path, data: U8) -> KernelDump | None:
    """Opens physical memory that lies in a file as it is; None when no Windows kernel is in it.

    Where memory lies in the file a VMware state beside it says (`vmware.py`). Else it is proven by the
    kernel's own list of its memory, and what cannot be proven is not used (`layouts.py`).
    """
    size = len(data) // PAGE_SIZE * PAGE_SIZE
    if size < MIN_RAW_BYTES:
        return None
    for regions in vmware.regions_beside(path, size):
        found = _by_regions(path, data, regions)
        if found is not None:
            return found
    best: KernelDump | None = None
    for layout in raw_layouts.candidates(size):
        dump = _open(path, layout.memory(data), [], kinds.RAW, DiagnosticLog())
        if dump is None:
            continue
        if not layout.needs_proof:
            return dump
        runs = memory_runs(dump.kernel)
        if raw_layouts.is_proven(data, layout, runs):
            return dump
        if dump.kernel.drivers and (best is None or not best.kernel.drivers):
            best = dump
    if best is None:
        return None
    return _only_the_proven(path, data, size, memory_runs(best.kernel))


def _by_regions(path: Path, data: U8, regions: vmware.Regions) -> KernelDump | None:
    """The image as the state beside it says; None where its kernel lists memory that this does not have.

    Then the state is of another moment, or another machine.
    """
    log = DiagnosticLog()
    physical, missing = regions.memory(data)
    dump = _open(path, physical, [], kinds.RAW, log)
    if dump is None or not dump.kernel.drivers or not regions.holds(memory_runs(dump.kernel)):
        return None
    dump.missing_bytes = missing
    log.add(
        "memory-regions",
        Severity.INFO,
        "regionPPN",
        None,
        f"where memory lies is told by {regions.state.name} beside it",
    )
    if missing:
        log.add(
            "memory-cut",
            Severity.ERROR,
            "regionSize",
            None,
            f"the file ends after {len(data)} bytes, and {regions.state.name} tells of more memory; that "
            "counts as absent: copy it again",
            missing,
        )
    return dump


def _only_the_proven(
    path: Path, data: U8, size: int, runs: list[tuple[int, int]]
) -> KernelDump | None:
    """The image without what may lie elsewhere than it seems."""
    layout = raw_layouts.common(size, runs)
    log = DiagnosticLog()
    dump = _open(path, layout.memory(data), [], kinds.RAW, log)
    if dump is None:
        return None
    end = max((base + count for base, count in runs), default=0)
    dump.missing_bytes = max(end, size) - layout.size
    log.add(
        "memory-layout-unproven",
        Severity.ERROR,
        "MmPhysicalMemoryBlock",
        None,
        f"where the image's memory above 0x{layout.size:x} belongs cannot be told: "
        + (
            f"the kernel has memory up to 0x{end:x} and the file of {size} bytes holds it neither with nor "
            "without the gap below 4 GiB (it is probably cut)"
            if runs
            else "the kernel's list of its memory is not in it"
        )
        + "; that memory counts as absent",
        dump.missing_bytes,
    )
    return dump


def _segments(data: U8, header: Any, layout: Layout, *, is_64bit: bool) -> Any:
    count = int(header.SegmentCount)
    if count == c.PN_XNUM:
        at = header.SectionTable + c.SECTION_INFO[c.CLASS64 if is_64bit else c.CLASS32]
        if at + 4 > len(data):
            raise TruncatedDumpError("Elf_Shdr", at + 4, len(data))
        count = int.from_bytes(data[at : at + 4].tobytes(), "little")
    if header.SegmentTable > len(data):
        raise TruncatedDumpError(layout.name, header.SegmentTable + layout.size, len(data))
    return layout.records(
        data, header.SegmentTable, min(count, c.MAX_SEGMENTS), header.SegmentEntrySize
    )


def _roots(data: U8, rows: Any) -> Iterator[int]:
    """Roots of page tables that QEMU's notes name: CR3 of each processor."""
    for row in rows[rows["Type"] == c.PT_NOTE]:
        at = int(row["Offset"])
        end = min(at + min(int(row["FileSize"]), c.MAX_NOTE_BYTES), len(data))
        while at + c.NOTE.size <= end:
            note = c.NOTE.record(data, at)
            name = at + c.NOTE.size
            content = name + (note.NameSize + 3 & ~3)
            if data[name : name + note.NameSize].tobytes() == c.QEMU_NOTE:
                place = content + c.QEMU_CR3
                if note.DataSize >= c.QEMU_CR3 + 8 and place + 8 <= end:
                    yield int.from_bytes(data[place : place + 8].tobytes(), "little")
            at = content + (note.DataSize + 3 & ~3)


def _open(
    path: Path,
    physical: RunMemory,
    hints: list[tuple[str, int]],
    name: str,
    log: DiagnosticLog,
) -> KernelDump | None:
    runs = physical.runs
    limit = int(runs.address[-1]) + int(runs.size[-1]) if len(runs.address) else 0
    found = find_kernel(physical, limit, hints)
    if found is None:
        return None
    memory, architecture = found.memory, found.architecture
    shared = read_shared_data(memory, architecture)
    kernel = identify_kernel(
        memory, architecture, shared.build if shared else 0, 0, 0, 0, found.base, log
    )
    if not kernel.build:
        lab = kernel.build_lab.partition(".")[0]
        kernel.build = int(lab) if lab.isdecimal() and len(lab) < 6 else 0
    if not found.base:
        log.add(
            "kernel-not-found",
            Severity.ERROR,
            "ntoskrnl.exe",
            None,
            "page tables of Windows were found, the kernel's image behind them was not",
        )
    if shared is not None:
        kernel.processor_count = shared.processor_count
    return KernelDump(
        path=path,
        kind=name,
        architecture=architecture,
        platform="Windows",
        os_version=(
            *(shared.version if shared is not None else version_of_build(kernel.build)),
            kernel.build,
        ),
        time=shared.system_time if shared is not None else None,
        process_id=None,
        process_times=None,
        full_memory=True,
        memory=memory,
        modules=kernel.drivers,
        unloaded_modules=kernel.unloaded,
        threads=[],
        comments=[],
        streams=[],
        log=log,
        dump_type_name=name,
        kernel=kernel,
        physical=physical,
        paging=memory.paging,
        physical_limit=limit,
        up_time=shared.up_time if shared is not None else None,
    )
