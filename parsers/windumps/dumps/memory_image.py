"""Physical memory as other tools give it: raw images, and ELF cores of virtual machines.

Neither says where the kernel is: it is found in the memory itself (`windows.kernel_finder`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps import c_elf_core as c
from windumps.dumps.kernel_dump import KernelDump
from windumps.errors import TruncatedDumpError, UnsupportedDumpError
from windumps.layout import Layout
from windumps.memory import RunMemory
from windumps.memory.address_space import U8
from windumps.memory.paging import PAGE_SIZE
from windumps.windows.kernel import identify_kernel, read_shared_data, version_of_build
from windumps.windows.kernel_finder import find_kernel

ELF_NAME = "ELF core of a virtual machine"
RAW_NAME = "raw memory image"
MIN_RAW_BYTES = 1 << 20
# A PC keeps addresses below 4 GiB for devices. Some tools leave that out of a raw image (VMware from
# 3 GiB on), most fill it.
GAP = (3 << 30, 1 << 30)
_MAX_PHYSICAL = 1 << 52


def detect_elf(head: bytes) -> bool:
    """True when the first bytes of a file are those of a little-endian ELF core."""
    return (
        head[:4] == c.MAGIC
        and head[4:5] in (bytes([c.CLASS32]), bytes([c.CLASS64]))
        and head[5] == c.LITTLE_ENDIAN
        and int.from_bytes(head[16:18], "little") == c.ET_CORE
    )


def open_elf(path: Path, data: U8) -> KernelDump:
    """Opens an ELF core of a virtual machine that runs Windows.

    Raises:
        TruncatedDumpError: the file ends inside its headers.
        UnsupportedDumpError: no Windows kernel is in it: a core of a program, or of another system.
    """
    log = DiagnosticLog()
    is_64bit = int(data[4]) == c.CLASS64
    header = (c.HEADER64 if is_64bit else c.HEADER32).record(data, 0)
    layout = c.SEGMENT64 if is_64bit else c.SEGMENT32
    rows = _segments(data, header, layout, is_64bit)
    loads = rows[rows["Type"] == c.PT_LOAD]
    start = loads["PhysicalAddress"].astype(np.uint64)
    offset = loads["Offset"].astype(np.uint64)
    told = np.minimum(loads["FileSize"].astype(np.uint64), np.uint64(_MAX_PHYSICAL))
    usable = (start < np.uint64(_MAX_PHYSICAL)) & (offset <= np.uint64(len(data)))
    start, offset, told = start[usable], offset[usable], told[usable]
    size = np.minimum(told, np.uint64(len(data)) - offset)
    missing = int((told - size).sum())
    if missing:
        log.add(
            "memory-cut",
            Severity.ERROR,
            layout.name,
            None,
            f"the file ends after {len(data)} bytes: memory behind counts as absent; copy it again",
            missing,
        )
    physical = RunMemory(data, start, size.astype(np.int64), offset.astype(np.int64))
    architecture = c.ARCHITECTURES.get(header.Machine, "")
    hints = [(architecture, root) for root in _roots(data, rows) if architecture in ("x64", "x86")]
    dump = _open(path, physical, hints, ELF_NAME, log)
    if dump is None:
        raise UnsupportedDumpError(
            f"{path}: this is an ELF core file without a Windows kernel in it (a Linux core dump?), not a "
            "Windows dump"
        )
    dump.missing_bytes = missing
    return dump


def open_raw(path: Path, data: U8) -> KernelDump | None:
    """Opens physical memory that lies in a file as it is; None when no Windows kernel is in it."""
    log = DiagnosticLog()
    size = len(data) // PAGE_SIZE * PAGE_SIZE
    if size < MIN_RAW_BYTES:
        return None
    gap, gap_bytes = GAP
    layouts = [[(0, size, 0)]]
    if size > gap:
        layouts.append([(0, gap, 0), (gap + gap_bytes, size - gap, gap)])
    best: KernelDump | None = None
    for runs in layouts:
        columns = list(zip(*runs, strict=True))
        physical = RunMemory(
            data,
            np.array(columns[0], np.uint64),
            np.array(columns[1], np.int64),
            np.array(columns[2], np.int64),
        )
        dump = _open(path, physical, [], RAW_NAME, log)
        if dump is not None and dump.kernel.drivers:
            return dump
        best = best or dump
    return best


def _segments(data: U8, header: Any, layout: Layout, is_64bit: bool) -> Any:
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
