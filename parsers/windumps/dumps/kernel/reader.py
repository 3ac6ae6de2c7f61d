"""Kernel crash dumps of every kind, opened.

A dump of any kind comes down to physical memory (`PageMap`), a root of page tables and
the address of the list of drivers; the rest is found through the memory itself. Which kind of page
tables a dump has is decided by what can be read through them, not by the header alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from windumps.arrays import U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps import kinds
from windumps.dumps.kernel import bitmap as kernel_bitmap
from windumps.dumps.kernel import full as kernel_full
from windumps.dumps.kernel import ranges as kernel_ranges
from windumps.dumps.kernel import structures as c
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.kernel.header import KernelHeader, read_header
from windumps.dumps.kernel.pages import PageMap, no_pages, say_missing
from windumps.dumps.kernel.triage import read_triage, secondary_blocks
from windumps.errors import CorruptDumpError
from windumps.kernel import kdbg
from windumps.kernel.bug_checks import BugCheck
from windumps.kernel.finder import find_kernel
from windumps.kernel.kernel import (
    Kernel,
    identify_kernel,
    read_shared_data,
    version_of_build,
)
from windumps.kernel.lists import list_closes
from windumps.kernel.processes import process_of_copy
from windumps.kernel.variables import KernelSymbols
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.paging import PAGINGS, X86, X86_PAE

_ReadPages = Callable[[U8, KernelHeader, DiagnosticLog], PageMap]
# One row for each kind that holds pages.
PAGE_READERS: dict[int, _ReadPages] = {
    c.DumpType.FULL: kernel_full.read_pages,
    c.DumpType.KERNEL_SUMMARY: kernel_bitmap.read_summary_pages,
    c.DumpType.BITMAP_FULL: kernel_bitmap.read_bitmap_pages,
    c.DumpType.BITMAP_KERNEL: kernel_bitmap.read_bitmap_pages,
    c.DumpType.AUTOMATIC: kernel_bitmap.read_bitmap_pages,
    c.DumpType.KERNEL_RANGES: kernel_ranges.read_pages,
    c.DumpType.KERNEL_AND_USER_RANGES: kernel_ranges.read_pages,
    c.DumpType.FULL_RANGES: kernel_ranges.read_pages,
}
FULL_TYPES = frozenset((c.DumpType.FULL, c.DumpType.BITMAP_FULL, c.DumpType.FULL_RANGES))


def open_kernel_dump(path: Path, data: U8) -> KernelDump:
    """Opens a kernel crash dump.

    Args:
        path: The name to report.
        data: The file's bytes; stays referenced by the result.

    Raises:
        TruncatedDumpError: the file ends inside its header.
        CorruptDumpError: its list of pages makes no sense.
        UnsupportedDumpError: a processor that is not read.
    """
    log = DiagnosticLog()
    header = read_header(data)
    if header.dump_type == c.DumpType.TRIAGE:
        return _open_triage(path, data, header, log)
    pages = _read_pages(data, header, log)
    say_missing(pages, len(data), header.required_bytes, log)
    physical = pages.memory
    memory, base = _kernel_memory(physical, header, pages.physical_limit, log)
    kernel = identify_kernel(
        memory,
        header.architecture,
        header.build,
        header.integer("PsLoadedModuleList"),
        header.integer("PsActiveProcessHead"),
        header.integer("KdDebuggerDataBlock"),
        base,
        log,
    )
    kernel.processor_count = header.integer("NumberProcessors")
    dump = _dump(path, header, memory, kernel, log)
    dump.physical, dump.paging = physical, memory.paging
    dump.physical_limit, dump.missing_bytes = pages.physical_limit, pages.missing_bytes
    if not pages.missing_bytes:
        dump.secondary = secondary_blocks(data, pages.end)
    return dump


def _read_pages(data: U8, header: KernelHeader, log: DiagnosticLog) -> PageMap:
    if header.dump_type == c.DumpType.HEADER:
        return no_pages(data)
    reader = PAGE_READERS.get(header.dump_type)
    if reader is None:
        reader = _reader_by_content(data, header)
        log.add(
            "unknown-dump-type",
            Severity.WARNING,
            "_DUMP_HEADER.DumpType",
            None,
            f"type {header.dump_type} is not known; how pages lie in the file is taken from what "
            "follows the header",
        )
    return reader(data, header, log)


def _reader_by_content(data: U8, header: KernelHeader) -> _ReadPages:
    head = data[header.size : header.size + 12].tobytes()
    if head[:8] in c.BITMAP_MAGICS:
        return kernel_bitmap.read_bitmap_pages
    if head[4:12] == b"RDMPDUMP":
        return kernel_ranges.read_pages
    if header.runs is not None:
        return kernel_full.read_pages
    raise CorruptDumpError(
        "_DUMP_HEADER.DumpType",
        0xF98 if header.is_64bit else 0xF88,
        "a type of dump that is known",
        str(header.dump_type),
    )


def _kernel_memory(
    physical: AddressSpace, header: KernelHeader, physical_limit: int, log: DiagnosticLog
) -> tuple[PageTableMemory, int]:
    """The kernel's address space, with the kind of page tables under which most makes sense.

    And the load address of its image, where it had to be searched for; 0 else.
    """
    candidates = PAGINGS[header.architecture]
    if header.pae_enabled is not None:
        candidates = (X86_PAE, X86) if header.pae_enabled else (X86, X86_PAE)
    root = header.integer("DirectoryTableBase")
    head = header.integer("PsLoadedModuleList")
    best, best_score = None, -1
    for paging in candidates:
        memory = PageTableMemory(physical, paging, root, physical_limit, log)
        shared = read_shared_data(memory, header.architecture)
        score = (shared is not None) + 2 * list_closes(memory, head, 8 if header.is_64bit else 4)
        score += kdbg.is_at(memory, header.integer("KdDebuggerDataBlock"))
        if score > best_score:
            best, best_score = memory, score
    if best is None:
        raise ValueError(f"no way to translate addresses of {header.architecture}")
    if not best_score and physical.total_bytes:
        found = find_kernel(physical, physical_limit)
        if found is not None and found.architecture == header.architecture:
            log.add(
                "page-tables-searched",
                Severity.WARNING,
                "_DUMP_HEADER.DirectoryTableBase",
                root,
                f"the header's page tables lead nowhere; those at 0x{found.memory.directory_base:x}, found "
                "by a search, are used",
            )
            return found.memory, found.base
        log.add(
            "page-tables-unconfirmed",
            Severity.ERROR,
            "_DUMP_HEADER.DirectoryTableBase",
            root,
            "neither KUSER_SHARED_DATA, nor KDBG, nor the list of drivers can be reached through the page "
            "tables: they are absent or damaged, little of the kernel's memory can be read by address",
        )
    return best, 0


def _open_triage(path: Path, data: U8, header: KernelHeader, log: DiagnosticLog) -> KernelDump:
    triage = read_triage(data, header, log)
    block = kdbg.parse(
        triage.kdbg,
        header.integer("KdDebuggerDataBlock"),
        "triage dump",
        is_32bit=not header.is_64bit,
    )
    drivers = triage.drivers
    base = block.kernel_base if block is not None else 0
    base = base or (drivers[0].base_address if drivers else 0)
    image = next((driver for driver in drivers if driver.base_address == base), None)
    kernel = Kernel(
        memory=triage.memory,
        architecture=header.architecture,
        build=header.build,
        base=base,
        image=image,
        kdbg=block,
        symbols=KernelSymbols(
            header.architecture,
            base,
            image.size_bytes if image is not None else 0,
            image.pdb if image is not None else None,
            block,
        ),
        drivers=drivers,
        unloaded=triage.unloaded,
        processor_count=header.integer("NumberProcessors"),
        module_list=header.integer("PsLoadedModuleList"),
        process_list=header.integer("PsActiveProcessHead"),
        log=log,
    )
    dump = _dump(path, header, triage.memory, kernel, log)
    dump.secondary = secondary_blocks(data, triage.end)
    dump.current_process = process_of_copy(triage.process, header.architecture, header.build, block)
    return dump


def _dump(
    path: Path,
    header: KernelHeader,
    memory: AddressSpace,
    kernel: Kernel,
    log: DiagnosticLog,
) -> KernelDump:
    shared = read_shared_data(memory, header.architecture)
    kernel.build = kernel.build or (shared.build if shared is not None else 0)
    version = shared.version if shared is not None else version_of_build(kernel.build)
    return KernelDump(
        path=path,
        kind=kinds.KERNEL,
        architecture=header.architecture,
        platform="Windows",
        os_version=(*version, kernel.build),
        time=_time(header.system_time, shared.system_time if shared is not None else None),
        process_id=None,
        process_times=None,
        full_memory=header.dump_type in FULL_TYPES,
        memory=memory,
        modules=kernel.drivers,
        unloaded_modules=kernel.unloaded,
        threads=[],
        comments=[header.comment] if header.comment else [],
        streams=[],
        log=log,
        dump_type=header.dump_type,
        dump_type_name=c.TYPE_NAMES.get(
            header.dump_type, f"kernel dump of type {header.dump_type}"
        ),
        header=header,
        kernel=kernel,
        bug_check=_bug_check(header),
        up_time=header.up_time or (shared.up_time if shared is not None else None),
    )


def _time(header: datetime | None, shared: datetime | None) -> datetime | None:
    return header if header is not None else shared


def _bug_check(header: KernelHeader) -> BugCheck | None:
    code = header.fields["BugCheckCode"]
    if not code:
        return None
    parameters = tuple(header.integer(f"BugCheckParameter{number}") for number in range(1, 5))
    return BugCheck(code, parameters)
