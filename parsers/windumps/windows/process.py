"""From threads to TEBs to PEBs to the list of heaps, without symbols.

Offsets of the TEB and PEB fields used here have not changed from Windows XP to 11 24H2 (public
kernel types of every build; checked on dumps of each), so they are constants and not layout rows.

A WoW64 process has two of everything: a 64-bit and a 32-bit `ProcessView` over the same memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow
from windumps.windows.modules import Module

MAX_HEAPS = 0x1000
HEAP_LIST_CUT = "heap-list-cut"  # code of the diagnostic: the process may have more heaps


@dataclass(frozen=True)
class _Offsets:
    """Field offsets for one pointer size."""

    pointer: int
    teb_self: int
    teb_peb: int
    peb_image_base: int
    peb_process_heap: int
    peb_nt_global_flag: int
    peb_number_of_heaps: int
    peb_process_heaps: int


_X86 = _Offsets(4, 0x18, 0x30, 0x8, 0x18, 0x68, 0x88, 0x90)
_X64 = _Offsets(8, 0x30, 0x60, 0x10, 0x30, 0xBC, 0xE8, 0xF0)
_TEB32_GDI_BATCH_COUNT = 0xF70  # in a WoW64 process: address of the 64-bit TEB


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
        heap_list_source: Where the list was found, for people.
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
    heap_list_source: str = ""
    is_secondary: bool = False
    image_base: int = 0
    exact_layouts: Mapping[str, LayoutRow] = field(default_factory=dict)
    log: DiagnosticLog = field(default_factory=DiagnosticLog)

    @property
    def pointer_size(self) -> int:
        """4 or 8 bytes."""
        return 4 if self.architecture == "x86" else 8

    @property
    def unlisted_heaps(self) -> int:
        """Heaps that the PEB counts and whose addresses are not in the dump."""
        return max(self.heap_count - len(self.heap_addresses), 0)

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
) -> list[ProcessView]:
    """Finds the PEBs of a process and reads their heap lists.

    Args:
        memory: The process's memory.
        architecture: Of the dump: "x86", "x64" or "arm64"; others give no view.
        build: Windows build number, 0 when unknown.
        tebs: TEB addresses as the dump lists them.
        modules: Loaded images.
        known_pebs: PEBs that are known without a TEB, by architecture ("x86", "x64").

    Returns:
        The native view first, then the other half of a WoW64 process. A view without PEB has `peb`
        0.
    """
    if architecture not in ("x86", "x64", "arm64"):
        return []
    native = "x86" if architecture == "x86" else "x64"
    images = {module.base_address for module in modules}
    pebs: dict[str, int] = dict(known_pebs or {})
    for teb in tebs:
        if len(pebs) == 2:
            break
        for arch, address in _tebs_of(memory, native, teb):
            if arch not in pebs:
                peb = _peb_of(memory, arch, address, images)
                if peb:
                    pebs[arch] = peb
    views = []
    for arch in (native, "x86" if native == "x64" else "x64"):
        if arch == native or arch in pebs:
            view = _view(memory, arch, build, pebs.get(arch, 0), modules)
            view.is_secondary = arch != native
            views.append(view)
    return views


def _offsets(architecture: str) -> _Offsets:
    return _X86 if architecture == "x86" else _X64


def _pointer(memory: AddressSpace, address: int, size: int) -> int:
    """A pointer in memory; 0 when it is not in the dump."""
    try:
        return memory.read_uint(address, size)
    except MemoryReadError:
        return 0


def _tebs_of(memory: AddressSpace, native: str, teb: int) -> list[tuple[str, int]]:
    """The TEB itself and, under WoW64, its twin of the other pointer size."""
    if not teb:
        return []
    found = [(native, teb)]
    if native == "x64":
        # TEB64.NtTib.ExceptionList holds the 32-bit TEB under WoW64 and 0 otherwise.
        other, twin = "x86", _pointer(memory, teb, 8)
    else:
        other, twin = "x64", _pointer(memory, teb + _TEB32_GDI_BATCH_COUNT, 4)
    if twin and _is_teb(memory, other, twin):
        found.append((other, twin))
    return found


def _is_teb(memory: AddressSpace, architecture: str, teb: int) -> bool:
    offsets = _offsets(architecture)
    return _pointer(memory, teb + offsets.teb_self, offsets.pointer) == teb


def _peb_of(memory: AddressSpace, architecture: str, teb: int, images: set[int]) -> int:
    """The PEB a TEB points to, if it looks like one; else 0.

    It does when its image base is a module's, or when its heap count is sane: small dumps may lack
    the module list, and Wine counts no heaps.
    """
    offsets = _offsets(architecture)
    peb = _pointer(memory, teb + offsets.teb_peb, offsets.pointer)
    if not peb or peb & 0xFFF:
        return 0
    try:
        count = memory.read_uint(peb + offsets.peb_number_of_heaps, 4)
    except MemoryReadError:
        return 0
    image = _pointer(memory, peb + offsets.peb_image_base, offsets.pointer)
    return peb if 0 < count <= MAX_HEAPS or (count == 0 and image in images) else 0


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
    offsets = _offsets(architecture)
    try:
        view.image_base = memory.read_uint(peb + offsets.peb_image_base, offsets.pointer)
        view.nt_global_flag = memory.read_uint(peb + offsets.peb_nt_global_flag, 4)
        count = view.heap_count = memory.read_uint(peb + offsets.peb_number_of_heaps, 4)
        array = memory.read_uint(peb + offsets.peb_process_heaps, offsets.pointer)
    except MemoryReadError as error:
        view.log.add("peb-absent", Severity.WARNING, "_PEB", peb, str(error))
        return view
    process_heap = _pointer(memory, peb + offsets.peb_process_heap, offsets.pointer)
    raw = memory.read_available(array, count * offsets.pointer) if array else b""
    usable = len(raw) // offsets.pointer * offsets.pointer
    listed = np.frombuffer(raw[:usable], f"<u{offsets.pointer}").tolist()
    if len(listed) < count:
        view.log.add(
            "heap-list-absent",
            Severity.WARNING,
            "_PEB.ProcessHeaps",
            array,
            f"the process has {count} heaps, their list is {'partly' if listed else 'not'} in the dump",
        )
    view.heap_addresses = list(dict.fromkeys(int(address) for address in listed if address))
    view.heap_list_source = "PEB"
    if process_heap and process_heap not in view.heap_addresses:
        view.heap_addresses.insert(0, process_heap)
    return view
