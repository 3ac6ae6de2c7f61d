"""A running kernel as a dump shows it: its memory, who it is, its drivers and its variables.

This is what readers of pools and processes take; they know no file format.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from windumps.diagnostics import DiagnosticLog
from windumps.errors import MemoryReadError
from windumps.images.modules import Module
from windumps.images.pe_image import ImageHeader, read_image_header
from windumps.kernel import kdbg as kdbg_block
from windumps.kernel.drivers import loaded_drivers, unloaded_drivers
from windumps.kernel.kdbg import Kdbg
from windumps.kernel.lists import list_closes, search_module_list, search_process_list
from windumps.kernel.variables import KernelSymbol, KernelSymbols, built_in_rvas
from windumps.memory import AddressSpace
from windumps.times import filetime

# KUSER_SHARED_DATA: mapped at the same address in every process of every build.
SHARED_DATA = {"x86": 0xFFDF_0000, "x64": 0xFFFF_F780_0000_0000, "arm64": 0xFFFF_F780_0000_0000}
_INTERRUPT_TIME = 0x8
_SYSTEM_TIME = 0x14
_NT_BUILD_NUMBER = 0x260  # Windows 10 and later; 0 before
_NT_MAJOR_VERSION = 0x26C
_NT_MINOR_VERSION = 0x270
_ACTIVE_PROCESSOR_COUNT = 0x3C0  # Windows 7 and later
SHARED_DATA_BYTES = 0x400
_MAX_PROCESSORS = 2048
# As the loader names the file; before Windows 8 the x86 kernels have names of their own.
KERNEL_NAMES = ("ntoskrnl.exe", "ntkrnlmp.exe", "ntkrnlpa.exe", "ntkrpamp.exe")
_MAX_LAB = 0x80

# Windows versions by their first build.
_VERSIONS = (
    (10240, (10, 0)),
    (9600, (6, 3)),
    (9200, (6, 2)),
    (7600, (6, 1)),
    (6000, (6, 0)),
    (3790, (5, 2)),
    (2600, (5, 1)),
)


@dataclass(frozen=True)
class SharedData:
    """What KUSER_SHARED_DATA says; None or 0 where it does not.

    Attributes:
        build: NtBuildNumber; 0 before Windows 10.
        version: (NtMajorVersion, NtMinorVersion).
        system_time: When memory was taken, UTC.
        up_time: Since the system started.
        processor_count: ActiveProcessorCount; 0 before Windows 7.
    """

    build: int
    version: tuple[int, int]
    system_time: datetime | None
    up_time: timedelta | None
    processor_count: int


def read_shared_data(memory: AddressSpace, architecture: str) -> SharedData | None:
    """Reads KUSER_SHARED_DATA; None where it is not in the dump or cannot be it."""
    raw = memory.read_available(SHARED_DATA[architecture], SHARED_DATA_BYTES)
    if len(raw) < SHARED_DATA_BYTES:
        return None

    def integer(offset: int, size: int = 4) -> int:
        return int.from_bytes(raw[offset : offset + size], "little")

    version = integer(_NT_MAJOR_VERSION), integer(_NT_MINOR_VERSION)
    if version not in dict(_VERSIONS).values():
        return None
    up_time = integer(_INTERRUPT_TIME, 8)
    processors = integer(_ACTIVE_PROCESSOR_COUNT)
    return SharedData(
        build=integer(_NT_BUILD_NUMBER) & 0xFFFF,
        version=version,
        system_time=filetime(integer(_SYSTEM_TIME, 8)),
        up_time=timedelta(microseconds=up_time // 10) if 0 < up_time < 1 << 55 else None,
        processor_count=processors if processors <= _MAX_PROCESSORS else 0,
    )


def version_of_build(build: int) -> tuple[int, int]:
    """(major, minor) of the Windows a build belongs to; zeros when unknown."""
    return next((version for first, version in _VERSIONS if build >= first), (0, 0))


@dataclass
class Kernel:
    """One kernel.

    Attributes:
        memory: Its address space.
        architecture: "x86", "x64" or "arm64".
        build: Windows build number; 0 when unknown.
        base: Load address of its image; 0 when unknown.
        image: Its image, with the PDB where that can be read; None when unknown.
        kdbg: Its KDBG; None when it was not found.
        symbols: Where its variables are.
        drivers: Loaded images in load order, itself first.
        unloaded: Drivers unloaded before, the newest first.
        processor_count: 0 when unknown.
        module_list: Address of PsLoadedModuleList; 0 when unknown.
        process_list: Address of PsActiveProcessHead; 0 when unknown.
        log: Diagnostics of finding all this.
    """

    memory: AddressSpace
    architecture: str
    build: int
    base: int
    image: Module | None
    kdbg: Kdbg | None
    symbols: KernelSymbols
    drivers: list[Module] = field(default_factory=list)
    unloaded: list[Module] = field(default_factory=list)
    processor_count: int = 0
    module_list: int = 0
    process_list: int = 0
    log: DiagnosticLog = field(default_factory=DiagnosticLog)

    @property
    def pointer_size(self) -> int:
        """4 or 8 bytes."""
        return 4 if self.architecture == "x86" else 8

    @property
    def user_end(self) -> int:
        """First address behind those of processes.

        An x86 kernel started with /3GB leaves them 3 GiB, an x64 one with five levels of page tables
        64 PiB.
        """
        lowest, most = (1 << 30, 0xC000_0000) if self.pointer_size == 4 else (1 << 42, 1 << 56)
        highest = self.value("MmHighestUserAddress") or 0
        if lowest < highest < most:
            return highest + 1
        return 1 << (31 if self.pointer_size == 4 else 47)

    def symbol(self, name: str) -> int | None:
        """Address of a kernel variable; None when no way leads to it."""
        return self.symbols.address(name)

    def find_symbol(self, name: str) -> KernelSymbol | None:
        """A kernel variable and how it was found."""
        return self.symbols.find(name)

    def value(self, name: str, size: int | None = None) -> int | None:
        """The value of an integer or pointer variable; None when unknown or not in the dump.

        Args:
            name: Of the variable.
            size: Its bytes; a pointer's when None.
        """
        address = self.symbols.address(name)
        if address is None:
            return None
        try:
            return self.memory.read_uint(address, size or self.pointer_size)
        except MemoryReadError:
            return None

    @property
    def build_lab(self) -> str:
        """NtBuildLab, "19041.1.amd64fre.vb_release.191206-1406"; "" when unknown."""
        address = self.symbols.address("NtBuildLab")
        raw = self.memory.read_available(address, _MAX_LAB) if address else b""
        text = raw.split(b"\0", 1)[0].decode("latin-1")
        return text if text.isascii() and text.isprintable() else ""


def identify_kernel(
    memory: AddressSpace,
    architecture: str,
    build: int,
    module_list: int,
    process_list: int,
    kdbg_address: int,
    base: int,
    log: DiagnosticLog,
) -> Kernel:
    """Puts a kernel together from what a header, or a search, says of it.

    Args:
        memory: Kernel memory.
        architecture: "x86", "x64" or "arm64".
        build: Windows build number; 0 when unknown.
        module_list: Address of PsLoadedModuleList; 0 when unknown.
        process_list: Address of PsActiveProcessHead; 0 when unknown.
        kdbg_address: Of KDBG; 0 when unknown.
        base: Of the kernel's image; 0 when unknown.
        log: Where damage is told.
    """
    is_32bit = architecture == "x86"
    pointer = 4 if is_32bit else 8
    drivers = loaded_drivers(memory, architecture, module_list, log)
    base = base or _kernel_among(drivers)
    header = read_image_header(memory, base) if base else None
    block = _find_kdbg(memory, kdbg_address, is_32bit=is_32bit, base=base, header=header)
    if block is not None:
        base = block.kernel_base
        header = header or read_image_header(memory, base)
        process_list = process_list or block.value("PsActiveProcessHead")
        if not module_list:
            module_list = block.value("PsLoadedModuleList")
            drivers = loaded_drivers(memory, architecture, module_list, log)
    elif base:
        module_list = module_list or _module_list(memory, pointer, base, header)
        drivers = drivers or loaded_drivers(memory, architecture, module_list, log)
    image = _image(drivers, base, header)
    symbols = _symbols(memory, architecture, base, image, block)
    kernel = Kernel(
        memory=memory,
        architecture=architecture,
        build=build,
        base=base,
        image=image,
        kdbg=block,
        symbols=symbols,
        drivers=drivers,
        module_list=module_list,
        process_list=process_list or symbols.address("PsActiveProcessHead") or 0,
        log=log,
    )
    kernel.unloaded = unloaded_drivers(
        memory,
        architecture,
        kernel.value("MmUnloadedDrivers") or 0,
        kernel.value("MmLastUnloadedDriver", 4) or 0,
    )
    return kernel


def _image(drivers: list[Module], base: int, header: ImageHeader | None) -> Module | None:
    """The kernel's image, from the list of drivers or else from its own header."""
    listed = next((driver for driver in drivers if driver.base_address == base), None)
    if listed is not None or header is None:
        return listed
    name = "ntoskrnl.exe"
    return Module(name, name, base, header.size_bytes, header.timestamp, "", header.pdb)


def _symbols(
    memory: AddressSpace, architecture: str, base: int, image: Module | None, block: Kdbg | None
) -> KernelSymbols:
    """Where the kernel's variables are; its lists can be searched for."""
    size, pdb = (image.size_bytes, image.pdb) if image is not None else (0, None)
    symbols = KernelSymbols(architecture, base, size, pdb, block)
    pointer, end = 4 if architecture == "x86" else 8, base + size
    symbols.add_search(
        "PsLoadedModuleList", lambda: search_module_list(memory, pointer, base, end) or None
    )
    symbols.add_search(
        "PsActiveProcessHead", lambda: search_process_list(memory, pointer, base, end) or None
    )
    return symbols


def _module_list(memory: AddressSpace, pointer: int, base: int, header: ImageHeader | None) -> int:
    """PsLoadedModuleList without KDBG; 0 when it is not found."""
    if header is None:
        return 0
    rva = built_in_rvas(header.pdb).get("PsLoadedModuleList", 0)
    if rva and list_closes(memory, base + rva, pointer):
        return base + rva
    return search_module_list(memory, pointer, base, base + header.size_bytes)


def _kernel_among(drivers: list[Module]) -> int:
    """Load address of the kernel; 0 when it is not listed."""
    return next((d.base_address for d in drivers if d.name.lower() in KERNEL_NAMES), 0)


def _find_kdbg(
    memory: AddressSpace, address: int, *, is_32bit: bool, base: int, header: ImageHeader | None
) -> Kdbg | None:
    """KDBG where the dump's header says, by the built-in table, or by a search of the kernel's image."""
    found = kdbg_block.read(memory, address, is_32bit, base, "header") if address else None
    if found is not None or header is None:
        return found
    rva = built_in_rvas(header.pdb).get("KdDebuggerDataBlock", 0)
    if rva:
        found = kdbg_block.read(
            memory, base + rva, is_32bit, base, "built-in table of public symbols"
        )
    return found or kdbg_block.scan(
        memory, base, base + header.size_bytes, is_32bit, base, "search of the kernel's image"
    )
