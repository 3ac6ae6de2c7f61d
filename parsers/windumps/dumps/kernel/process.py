"""One process of a kernel dump as a dump of its own, so that heaps are read as in any other."""

from __future__ import annotations

from dataclasses import replace

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dump import Dump, Thread
from windumps.dumps import kinds
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import MemoryReadError, UnsupportedDumpError
from windumps.images.modules import Module
from windumps.images.search import find_images
from windumps.kernel.drivers import listed_modules
from windumps.kernel.processes import KernelProcess, threads
from windumps.memory import AddressSpace, PageTableMemory

_NAME_BYTES = 14  # of `_EPROCESS.ImageFileName`, without its end
# PEB.ImageBaseAddress, PEB.Ldr, PEB_LDR_DATA.InLoadOrderModuleList, NT_TIB.StackBase and StackLimit, by
# pointer size: the same from XP to 11 24H2 (public types of ntdll).
_IMAGE_BASE = {4: 0x8, 8: 0x10}
_LDR = {4: 0xC, 8: 0x18}
_IN_LOAD_ORDER = {4: 0xC, 8: 0x10}
_STACK_BASE = {4: 0x4, 8: 0x8}
_STACK_LIMIT = {4: 0x8, 8: 0x10}


def find_process(dump: KernelDump, wanted: str) -> KernelProcess:
    """A process by PID (decimal, or hex with 0x) or by name, with or without ".exe".

    Raises:
        UnsupportedDumpError: there is none, or several of that name; the message lists them.
    """
    found = dump.processes
    if not found:
        raise UnsupportedDumpError(
            f"{dump.path}: {dump.why_no_processes or 'it lists no processes'}"
        )
    try:
        number = int(wanted, 0)
    except ValueError:
        number = -1
    name = wanted.lower()
    matching = [p for p in found if p.process_id == number] or [
        # The kernel keeps 14 characters of the name.
        p
        for p in found
        if p.name.lower() in (name[:14], f"{name}.exe"[:14])
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = ", ".join(str(p.process_id) for p in matching)
        raise UnsupportedDumpError(
            f"{dump.path}: {len(matching)} processes are called {wanted}: give one of their ids, {listed}"
        )
    names = ", ".join(f"{p.name} ({p.process_id})" for p in found[:20])
    more = f" and {len(found) - 20} more" if len(found) > 20 else ""
    raise UnsupportedDumpError(f"{dump.path}: no process {wanted}; there are {names}{more}")


def open_process(dump: KernelDump, process: KernelProcess) -> Dump:
    """A process's user memory, modules and threads.

    Raises:
        UnsupportedDumpError: the dump has no memory of processes.
    """
    log = DiagnosticLog()
    memory = dump.process_memory(process)
    native = "x86" if dump.architecture == "x86" else "x64"
    pebs = {native: process.peb} if process.peb else {}
    if process.wow64_peb and native != "x86":
        pebs["x86"] = process.wow64_peb
    return Dump(
        path=dump.path,
        kind=kinds.PROCESS_OF_KERNEL,
        architecture=dump.architecture,
        platform=dump.platform,
        os_version=dump.os_version,
        time=dump.time,
        process_id=process.process_id,
        process_times=None if process.create_time is None else (process.create_time, None, None),
        full_memory=dump.full_memory,
        memory=memory,
        modules=_modules(memory, pebs, process.name, log),
        unloaded_modules=[],
        threads=_threads(dump, process, memory),
        comments=list(dump.comments),
        streams=[],
        log=log,
        release=dump.release,
        pebs=pebs,
    )


def _modules(
    memory: PageTableMemory, pebs: dict[str, int], program: str, log: DiagnosticLog
) -> list[Module]:
    """Images by the loader's lists, of both pointer sizes in a WoW64 process; each once."""
    found: dict[int, Module] = {}
    for architecture, peb in pebs.items():
        pointer = 4 if architecture == "x86" else 8
        try:
            loader = memory.read_uint(peb + _LDR[pointer], pointer)
        except MemoryReadError:
            continue
        if loader:
            head = loader + _IN_LOAD_ORDER[pointer]
            listed = listed_modules(
                memory, architecture, head, log, "modules", "_PEB_LDR_DATA.InLoadOrderModuleList"
            )
            for module in listed:
                found.setdefault(module.base_address, module)
    if not found:
        own = _image_base(memory, pebs)
        for module in find_images(memory, 0, memory.end):
            # Of the program the kernel knows the name, unless it had to cut it.
            known = module.base_address == own and len(program) < _NAME_BYTES
            found[module.base_address] = (
                replace(module, name=program, path=program) if known else module
            )
        log.add(
            "modules-by-headers",
            Severity.INFO,
            "_PEB_LDR_DATA",
            None,
            f"the loader's list of modules is not in the dump or empty; {len(found)} images were found "
            "by their headers",
        )
    return list(found.values())


def _image_base(memory: AddressSpace, pebs: dict[str, int]) -> int:
    """Where the program's own image lies; 0 when unknown."""
    for architecture, peb in pebs.items():
        pointer = 4 if architecture == "x86" else 8
        try:
            return memory.read_uint(peb + _IMAGE_BASE[pointer], pointer)
        except MemoryReadError:
            continue
    return 0


def _threads(dump: KernelDump, process: KernelProcess, memory: AddressSpace) -> list[Thread]:
    layout = dump.process_layout
    if layout is None:
        return []
    pointer = dump.kernel.pointer_size
    found = []
    for thread in threads(dump.kernel.memory, layout, dump.architecture, dump.build, process):
        try:
            top = memory.read_uint(thread.teb + _STACK_BASE[pointer], pointer)
            bottom = memory.read_uint(thread.teb + _STACK_LIMIT[pointer], pointer)
        except MemoryReadError:
            top = bottom = 0
        if not thread.teb or not bottom < top:
            top = bottom = 0
        found.append(Thread(thread.thread_id, thread.teb, bottom, top - bottom))
    return found
