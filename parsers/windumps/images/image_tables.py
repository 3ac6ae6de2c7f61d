"""What an image imports and exports, from its tables in memory.

Layout: public, the PE format's specification (IMAGE_IMPORT_DESCRIPTOR, IMAGE_EXPORT_DIRECTORY). Drivers
often keep the names of their imports in a section that is thrown away once they run; then a slot of the
import table still points to a function that the other image exports.
"""

from __future__ import annotations

import struct

import numpy as np

from windumps.errors import MemoryReadError
from windumps.images.modules import Module
from windumps.memory import AddressSpace

_HEADER_BYTES = 0x1000
_EXPORT, _IMPORT, _IAT = 0, 1, 12  # IMAGE_DIRECTORY_ENTRY_*
_DESCRIPTOR = struct.Struct("<IIIII")  # OriginalFirstThunk, time stamp, chain, Name, FirstThunk
MAX_DESCRIPTORS = 1024
MAX_THUNKS = 1 << 15
MAX_EXPORTS = 1 << 16
MAX_NAME = 128
MAX_EXPORT_BYTES = 8 << 20


def data_directory(memory: AddressSpace, module: Module, number: int) -> tuple[int, int]:
    """(address, bytes) of one data directory of an image; zeros when it has none."""
    raw = memory.read_available(module.base_address, min(_HEADER_BYTES, module.size_bytes))
    if raw[:2] != b"MZ" or len(raw) < 0x40:
        return 0, 0
    pe = int.from_bytes(raw[0x3C:0x40], "little")
    optional = pe + 24
    if raw[pe : pe + 4] != b"PE\0\0" or len(raw) < optional + 2:
        return 0, 0
    (magic,) = struct.unpack_from("<H", raw, optional)
    first = {0x10B: optional + 96, 0x20B: optional + 112}.get(magic)
    if first is None or len(raw) < first + 8 * (number + 1):
        return 0, 0
    (count,) = struct.unpack_from("<I", raw, first - 4)
    rva, size = struct.unpack_from("<II", raw, first + 8 * number)
    if number >= count or not rva or rva + size > module.size_bytes:
        return 0, 0
    return module.base_address + rva, size


class ImportTable:
    """The import table of one image: which function a slot is for."""

    def __init__(self, memory: AddressSpace, module: Module, pointer_size: int) -> None:
        self._memory = memory
        self._module = module
        self._pointer_size = pointer_size
        self.start, self.size = data_directory(memory, module, _IAT)
        self._runs = self._descriptors()

    def holds(self, slot: int) -> bool:
        """True when an address lies in the import table."""
        return 0 <= slot - self.start < self.size or any(
            0 <= slot - first < size for first, size, _ in self._runs
        )

    def name(self, slot: int) -> str:
        """The function a slot is for, by the names the linker left; "" when they are not there."""
        for first, size, names in self._runs:
            if 0 <= slot - first < size and names:
                try:
                    thunk = self._memory.read_uint(names + slot - first, self._pointer_size)
                except MemoryReadError:
                    return ""
                by_number = thunk >> (8 * self._pointer_size - 1)
                if by_number or not 0 < thunk < self._module.size_bytes - 2:
                    return ""
                return _text(self._memory, self._module.base_address + thunk + 2)
        return ""

    def _descriptors(self) -> list[tuple[int, int, int]]:
        """(address of the slots, bytes of them, address of the names or 0) of each imported image."""
        start, _ = data_directory(self._memory, self._module, _IMPORT)
        if not start:
            return []
        raw = self._memory.read_available(start, MAX_DESCRIPTORS * _DESCRIPTOR.size)
        base, end = self._module.base_address, self._module.size_bytes
        rows = []
        for at in range(0, len(raw) - _DESCRIPTOR.size + 1, _DESCRIPTOR.size):
            names, _, _, name, slots = _DESCRIPTOR.unpack_from(raw, at)
            if not name or not slots:
                break
            if slots < end and names < end:
                rows.append((base + slots, base + names if names else 0))
        rows.sort()
        limit = self.start + self.size if self.size else base + end
        ends = [row[0] for row in rows[1:]] + [max(limit, rows[-1][0])] if rows else []
        return [
            (slots, min(following - slots, MAX_THUNKS * self._pointer_size), names)
            for (slots, names), following in zip(rows, ends, strict=True)
        ]


def exported_names(memory: AddressSpace, module: Module) -> dict[int, str]:
    """Names of the functions an image exports, by address; empty when the table is not in the dump."""
    start, size = data_directory(memory, module, _EXPORT)
    if not start or not 40 <= size <= MAX_EXPORT_BYTES:
        return {}
    raw = memory.read_available(start, size)
    if len(raw) < 40:
        return {}
    functions, names = struct.unpack_from("<II", raw, 20)
    tables = struct.unpack_from("<III", raw, 28)
    functions, names = min(functions, MAX_EXPORTS), min(names, MAX_EXPORTS)
    shift = start - module.base_address
    address_of, name_of, number_of = (
        np.frombuffer(raw, kind, count, rva - shift)
        if 0 <= rva - shift <= len(raw) - count * np.dtype(kind).itemsize
        else np.empty(0, kind)
        for rva, kind, count in zip(
            tables, ("<u4", "<u4", "<u2"), (functions, names, names), strict=True
        )
    )
    found = {}
    for name_rva, number in zip(name_of.tolist(), number_of.tolist(), strict=False):
        at = name_rva - shift
        if not 0 <= at < len(raw) or number >= len(address_of):
            continue
        text = raw[at : at + MAX_NAME].split(b"\0", 1)[0].decode("latin-1")
        rva = int(address_of[number])
        if rva < module.size_bytes and not 0 <= rva - shift < size:  # inside: forwarded elsewhere
            found[module.base_address + rva] = text
    return found


def _text(memory: AddressSpace, address: int) -> str:
    raw = memory.read_available(address, MAX_NAME).split(b"\0", 1)[0]
    text = raw.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""
