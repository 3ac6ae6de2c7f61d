"""Drivers of a kernel: the loaded ones with their PDBs, and those unloaded before."""

from __future__ import annotations

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.memory import AddressSpace
from windumps.memory.address_space import ADDRESS_LIMIT
from windumps.windows.kernel_layouts import DRIVER_LAYOUTS, UNLOADED_DRIVER, UNLOADED_DRIVER_COUNT
from windumps.windows.layouts import LayoutRow, Record
from windumps.windows.modules import Module, file_name
from windumps.windows.pe_image import MAX_IMAGE_BYTES, read_image_header

MAX_DRIVERS = 0x4000
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
    """Walks PsLoadedModuleList.

    Args:
        memory: Kernel memory.
        architecture: "x86", "x64" or "arm64".
        head: Address of the list head; 0 gives no drivers.
        log: Where damage is told.

    Returns:
        In load order: the kernel first.
    """
    row = DRIVER_LAYOUTS["x86" if architecture == "x86" else "x64"]
    found: list[Module] = []
    if not head:
        return found
    seen = {head}
    at = _pointer(memory, head, row.pointer_size)
    while at is not None and at not in seen and len(found) < MAX_DRIVERS:
        seen.add(at)
        try:
            record = row.read(memory, _STRUCTURE, at)
        except MemoryReadError:
            at = None
            break
        module = _driver(memory, row, record)
        if module is None:
            log.add(
                "bad-driver",
                Severity.WARNING,
                _STRUCTURE,
                at,
                "an entry of the list of drivers cannot be one and is left out",
            )
        else:
            found.append(module)
        at = _pointer(memory, at, row.pointer_size)
    if at != head:
        log.add(
            "driver-list-broken",
            Severity.WARNING,
            "PsLoadedModuleList",
            head,
            f"the list of drivers does not close: what follows its {len(found)} entries is missing",
        )
    return found


def _pointer(memory: AddressSpace, address: int, size: int) -> int | None:
    try:
        return memory.read_uint(address, size)
    except MemoryReadError:
        return None


def _driver(memory: AddressSpace, row: LayoutRow, record: Record) -> Module | None:
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
        pdb=header.pdb if header else None,
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
