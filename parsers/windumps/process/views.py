"""From threads to TEBs to PEBs to the list of heaps, without symbols.

A WoW64 process has two of everything: a 64-bit and a 32-bit `ProcessView` over the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.diagnostics import HEAP_LIST_CUT, DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.images.modules import Module
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.process.environment_blocks import (
    MAX_THREADS,
    ThreadBlock,
    find_peb,
    find_thread_blocks,
    is_thread_block,
    looks_like_peb,
    offsets_of,
    private_memory_is_whole,
    read_pointer,
    read_thread_block,
)

MAX_HEAPS = 0xFFFF  # of one process: blocks name their heap in 16 bits
_TEB32_GDI_BATCH_COUNT = 0xF70  # in a WoW64 process: address of the 64-bit TEB


class _ThreadList(NamedTuple):
    """What a dump says of the threads of its process; see `process_views`."""

    tebs: list[int]
    whole: bool
    process_id: int | None
    full_memory: bool


@dataclass
class ProcessView:
    """One process as one pointer size sees it.

    Attributes:
        memory: Its address space.
        architecture: "x86" or "x64" (ARM64 uses the 64-bit structures).
        build: Windows build number; 0 when unknown.
        peb: Address of the PEB; 0 when none was found.
        nt_global_flag: PEB.NtGlobalFlag; None when unknown.
        is_secondary: True for the other half of a WoW64 process.
        image_base: Load address of the program's executable; 0 when unknown.
        exact_layouts: Layouts out of the symbols of this very ntdll, by component ("NT heap"); they go
            before the built-in tables.
        modules: Images of the process (of both pointer sizes under WoW64).
        heap_addresses: Handles of the heaps, in the order of the process's own list.
        heap_count: PEB.NumberOfHeaps; 0 when unknown.
        heap_array: (start, bytes) of the list of handles that PEB.ProcessHeaps points to.
        heaps_missing: The process may have heaps that are not listed.
        heap_list_source: Where the list was found, for people.
        thread_blocks: TEBs of this pointer size; those that were found by their structure where the list of
            threads is absent or cut.
        threads_known: All threads are known: they are listed, or all memory that may hold a TEB was searched.
        log: Diagnostics of finding all this.
    """

    memory: AddressSpace
    architecture: str
    build: int
    peb: int
    nt_global_flag: int | None
    modules: list[Module]
    heap_addresses: list[int] = field(default_factory=list)
    heap_count: int = 0
    heap_array: tuple[int, int] = (0, 0)
    heaps_missing: bool = False
    heap_list_source: str = ""
    is_secondary: bool = False
    image_base: int = 0
    exact_layouts: Mapping[str, LayoutRow] = field(default_factory=dict)
    thread_blocks: list[ThreadBlock] = field(default_factory=list)
    threads_known: bool = True
    log: DiagnosticLog = field(default_factory=DiagnosticLog)

    @property
    def pointer_size(self) -> int:
        """4 or 8 bytes."""
        return 4 if self.architecture == "x86" else 8

    @property
    def unlisted_heaps(self) -> int:
        """Heaps whose addresses are not in the dump: those the PEB counts, one where it cannot be told."""
        return max(self.heap_count - len(self.heap_addresses), int(self.heaps_missing))

    def ntdll(self) -> Module | None:
        """The ntdll of this pointer size; under WoW64 the other one lies beside it."""
        candidates = [m for m in self.modules if m.name.lower() in ("ntdll.dll", "wntdll.dll")]
        if len(candidates) > 1:
            low = [m for m in candidates if m.base_address < 1 << 32]
            high = [m for m in candidates if m not in low or "syswow64" not in m.path.lower()]
            wow = [m for m in low if "syswow64" in m.path.lower()]
            candidates = (wow or low) if self.architecture == "x86" else (high or candidates)
        return candidates[0] if candidates else None


def process_views(
    memory: AddressSpace,
    architecture: str,
    build: int,
    tebs: Iterable[int],
    modules: list[Module],
    known_pebs: Mapping[str, int] | None = None,
    process_id: int | None = None,
    *,
    threads_whole: bool = True,
    full_memory: bool = False,
) -> list[ProcessView]:
    """Finds the PEBs of a process and reads their heap lists.

    Args:
        memory: The process's memory.
        architecture: Of the dump: "x86", "x64" or "arm64"; others give no view.
        build: Windows build number, 0 when unknown.
        tebs: TEB addresses as the dump lists them.
        modules: Loaded images.
        known_pebs: PEBs that are known without a TEB, by architecture ("x86", "x64").
        threads_whole: False when the list of threads is absent or cut: TEBs are searched for then.
        process_id: Of the process; None when unknown.
        full_memory: The writer was asked for all memory of the process.

    Returns:
        The native view first, then the other half of a WoW64 process. A view without PEB has `peb`
        0.
    """
    if architecture not in ("x86", "x64", "arm64"):
        return []
    threads = _ThreadList(list(tebs), threads_whole, process_id, full_memory)
    native = "x86" if architecture == "x86" else "x64"
    images = {module.base_address for module in modules}
    pebs: dict[str, int] = dict(known_pebs or {})
    blocks: dict[str, dict[int, ThreadBlock]] = {"x86": {}, "x64": {}}
    for teb in threads.tebs:
        for arch, address in _tebs_of(memory, native, teb):
            block = read_thread_block(memory, arch, address)
            if is_thread_block(memory, arch, address):
                blocks[arch][address] = block
            named = looks_like_peb(memory, arch, block.peb, images, MAX_HEAPS)
            if arch not in pebs and named:
                pebs[arch] = block.peb
    log = DiagnosticLog()
    known = threads.whole and bool(threads.tebs)
    if not known or native not in pebs:
        known |= _search(memory, native, threads, images, pebs, blocks, log)
    views = []
    for arch in (native, "x86" if native == "x64" else "x64"):
        if arch == native or arch in pebs:
            view = _view(memory, arch, build, pebs.get(arch, 0), modules)
            view.is_secondary = arch != native
            view.thread_blocks = list(blocks[arch].values())
            view.threads_known = known
            views.append(view)
    views[0].log.extend(log.collect())
    return views


def _search(
    memory: AddressSpace,
    native: str,
    threads: _ThreadList,
    images: set[int],
    pebs: dict[str, int],
    blocks: dict[str, dict[int, ThreadBlock]],
    log: DiagnosticLog,
) -> bool:
    """Looks for TEBs and the PEB in memory, by their structure; adds them to `pebs` and `blocks`.

    Returns:
        True when all threads are known then.
    """
    found = 0
    for arch in ("x86",) if native == "x86" else ("x64", "x86"):
        for block in find_thread_blocks(memory, arch, threads.process_id):
            if arch not in pebs and looks_like_peb(memory, arch, block.peb, images, MAX_HEAPS):
                pebs[arch] = block.peb
            if pebs.get(arch, block.peb) == block.peb and block.address not in blocks[arch]:
                blocks[arch][block.address] = block
                found += arch == native
    if native not in pebs and (peb := find_peb(memory, native, images, MAX_HEAPS)):
        pebs[native] = peb
        log.add(
            "peb-by-structure",
            Severity.INFO,
            "_PEB",
            peb,
            "no thread environment block leads to it; it was found by its structure",
        )
    if threads.whole and threads.tebs:
        return True
    whole = len(blocks[native]) > 0 and found < MAX_THREADS
    whole = whole and private_memory_is_whole(memory, says_full=threads.full_memory)
    what = "a cut list of threads" if threads.tebs else "no list of threads"
    message = (
        f"the dump has {what}; {found} thread environment blocks were found by their structure"
    )
    if found >= MAX_THREADS:
        message += " (MAX_THREADS)"
    if not whole:
        message += ", and there may be more: other threads' stacks count as private memory"
    log.add("no-thread-list", Severity.WARNING, "ThreadListStream", None, message)
    return whole


def _tebs_of(memory: AddressSpace, native: str, teb: int) -> list[tuple[str, int]]:
    """The TEB itself and, under WoW64, its twin of the other pointer size."""
    if not teb:
        return []
    found = [(native, teb)]
    if native == "x64":
        # TEB64.NtTib.ExceptionList holds the 32-bit TEB under WoW64 and 0 otherwise.
        other, twin = "x86", read_pointer(memory, teb, 8)
    else:
        other, twin = "x64", read_pointer(memory, teb + _TEB32_GDI_BATCH_COUNT, 4)
    if twin and is_thread_block(memory, other, twin):
        found.append((other, twin))
    return found


def _view(
    memory: AddressSpace, architecture: str, build: int, peb: int, modules: list[Module]
) -> ProcessView:
    view = ProcessView(memory, architecture, build, peb, None, modules)
    if not peb:
        view.log.add(
            "no-peb",
            Severity.WARNING,
            "_PEB",
            None,
            "the process environment block is not in the dump, so its list of heaps is not either",
        )
        return view
    offsets = offsets_of(architecture)
    try:
        view.image_base = memory.read_uint(peb + offsets.peb_image_base, offsets.pointer)
        view.nt_global_flag = memory.read_uint(peb + offsets.peb_nt_global_flag, 4)
        count = view.heap_count = memory.read_uint(peb + offsets.peb_number_of_heaps, 4)
        array = memory.read_uint(peb + offsets.peb_process_heaps, offsets.pointer)
    except MemoryReadError as error:
        view.log.add("peb-absent", Severity.WARNING, "_PEB", peb, str(error))
        return view
    process_heap = read_pointer(memory, peb + offsets.peb_process_heap, offsets.pointer)
    wanted = min(count, MAX_HEAPS)
    view.heap_array = array, wanted * offsets.pointer
    raw = memory.read_available(*view.heap_array) if array else b""
    usable = len(raw) // offsets.pointer * offsets.pointer
    listed = np.frombuffer(raw[:usable], f"<u{offsets.pointer}").tolist()
    if count > MAX_HEAPS:
        listed = _cut_list(view, listed)
    elif len(listed) < count:
        view.log.add(
            "heap-list-absent",
            Severity.WARNING,
            "_PEB.ProcessHeaps",
            array,
            f"the process has {count} heaps, their list is {'partly' if listed else 'not'} in the dump",
        )
    view.heap_addresses = list(dict.fromkeys(address for address in listed if address))
    view.heap_list_source = "PEB"
    if process_heap and process_heap not in view.heap_addresses:
        view.heap_addresses.insert(0, process_heap)
    return view


def _cut_list(view: ProcessView, listed: list[int]) -> list[int]:
    """What is taken of a list of more heaps than are read.

    Such a count is more likely damaged than right: then what follows the list is no address of a heap, and
    how many there are is unknown.
    """
    end = next((n for n, address in enumerate(listed) if not address or address & 0xFFF), None)
    message = f"the PEB counts {view.heap_count} heaps, at most {MAX_HEAPS} are read (MAX_HEAPS)"
    if end is not None or len(listed) < MAX_HEAPS:
        listed = listed[:end]
        message = (
            f"the PEB counts {view.heap_count} heaps, which are more than can be (MAX_HEAPS is {MAX_HEAPS}), "
            f"and {len(listed)} are listed; heaps may be missing"
        )
        view.heap_count = len(listed)
    view.heaps_missing = True
    view.log.add(HEAP_LIST_CUT, Severity.WARNING, "_PEB.NumberOfHeaps", view.peb, message)
    return listed
