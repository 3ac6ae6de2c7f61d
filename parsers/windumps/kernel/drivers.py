"""Lists of images: the drivers of a kernel, those unloaded before, and the modules of a process.

The loader of the kernel and that of processes keep the same entries, up to the name.
"""

from __future__ import annotations

from windumps.arrays import ADDRESS_LIMIT
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.images.file_version import read_file_version
from windumps.images.modules import Module, file_name
from windumps.images.pe_image import MAX_IMAGE_BYTES, read_image_header
from windumps.layouts.kernel import DRIVER_LAYOUTS, UNLOADED_DRIVER, UNLOADED_DRIVER_COUNT
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory import AddressSpace
from windumps.memory.lists import list_nodes

MAX_MODULES = 0x4000
_STRUCTURE = "_KLDR_DATA_TABLE_ENTRY"


def read_string(memory: AddressSpace, raw: bytes, pointer_size: int) -> str:
    """The text of a UNICODE_STRING given by its bytes; "" when it is not in the dump."""
    length = int.from_bytes(raw[:2], "little") & ~1
    buffer = int.from_bytes(raw[pointer_size : 2 * pointer_size], "little")
    text = memory.read_available(buffer, length) if buffer and length else b""
    return text[: len(text) & ~1].decode("utf-16-le", "replace").rstrip("\0")


def loaded_drivers(
    memory: AddressSpace, architecture: str, head: int, log: DiagnosticLog
) -> list[Module]:
    """Walks PsLoadedModuleList; see `listed_modules`."""
    return listed_modules(memory, architecture, head, log, "drivers", "PsLoadedModuleList")


def listed_modules(
    memory: AddressSpace,
    architecture: str,
    head: int,
    log: DiagnosticLog,
    what: str,
    list_name: str,
) -> list[Module]:
    """Walks a list of loaded images.

    Args:
        memory: Where it lies.
        architecture: "x86", "x64" or "arm64".
        head: Address of the list head; 0 gives no images.
        log: Where damage is told.
        what: Are listed, for people.
        list_name: Of the list, under Microsoft's name.

    Returns:
        In load order, the kernel or the program first. Of a list that is cut both ends are read.
    """
    row = DRIVER_LAYOUTS["x86" if architecture == "x86" else "x64"]
    if not head:
        return []
    nodes, trouble = list_nodes(memory, head, row.pointer_size)
    found: list[Module] = []
    for node in nodes[:MAX_MODULES]:
        try:
            module = _module(memory, row, row.read(memory, _STRUCTURE, node))
        except MemoryReadError:
            module = None
        if module is None:
            log.add(
                "bad-module",
                Severity.WARNING,
                _STRUCTURE,
                node,
                f"an entry of the list of {what} is not in the dump or cannot be one; it is left out",
            )
        else:
            found.append(module)
    if trouble is not None or len(nodes) > MAX_MODULES:
        log.add(
            "module-list-broken",
            Severity.WARNING,
            list_name,
            head,
            f"the list of {what} is not complete, {len(found)} were found: "
            f"{trouble or f'it has more than {MAX_MODULES} entries'}",
        )
    return found


def _module(memory: AddressSpace, row: LayoutRow, record: Record) -> Module | None:
    base, size = record["DllBase"], record["SizeOfImage"]
    if not base or base & 0xFFF or not 0 < size <= MAX_IMAGE_BYTES or base + size > ADDRESS_LIMIT:
        return None
    path = read_string(memory, record.bytes_of("FullDllName"), row.pointer_size)
    name = read_string(memory, record.bytes_of("BaseDllName"), row.pointer_size)
    header = read_image_header(memory, base)
    return Module(
        name=name or file_name(path) or f"module_{base:x}",
        path=path or name,
        base_address=base,
        size_bytes=size,
        timestamp=header.timestamp if header else 0,
        version=read_file_version(memory, base, header.resources, size) if header else "",
        pdb=header.pdb if header else None,
        checksum=header.checksum if header else 0,
    )


def unloaded_drivers(
    memory: AddressSpace, architecture: str, array: int, last_index: int
) -> list[Module]:
    """Reads MmUnloadedDrivers, the newest first.

    Args:
        memory: Kernel memory.
        architecture: "x86", "x64" or "arm64".
        array: The value of nt!MmUnloadedDrivers: a ring of 50 entries; 0 when unknown.
        last_index: The value of nt!MmLastUnloadedDriver: how many were ever written.
    """
    kind = "x86" if architecture == "x86" else "x64"
    pointer = 4 if kind == "x86" else 8
    size, _, start_at, end_at, _ = UNLOADED_DRIVER[kind]
    count = min(last_index, UNLOADED_DRIVER_COUNT)
    found = []
    for number in range(count):
        slot = (last_index - 1 - number) % UNLOADED_DRIVER_COUNT
        raw = memory.read_available(array + slot * size, size) if array else b""
        start = int.from_bytes(raw[start_at : start_at + pointer], "little")
        end = int.from_bytes(raw[end_at : end_at + pointer], "little")
        name = read_string(memory, raw[: 2 * pointer], pointer)
        if len(raw) == size and name and start <= end:
            found.append(Module(name, name, start, end - start, 0))
    return found
