"""Names of types out of .NET metadata (ECMA-335, partition II, 22 to 24), read in place.

Only what names need: the tables TypeDef, TypeRef, NestedClass and Assembly. The sizes of all tables are
needed to find these, and so all are declared.
"""

from __future__ import annotations

import struct
from functools import cached_property
from typing import NamedTuple

import numpy as np

from windumps.images.pe_image import HEADER_BYTES
from windumps.memory import AddressSpace

SIGNATURE = b"BSJB"
MAX_STREAMS = 16
MAX_NAME = 1024
MAX_NESTING = 16
MAX_ROWS = 1 << 24
TYPE_REF, TYPE_DEF, ASSEMBLY, NESTED_CLASS = 0x01, 0x02, 0x20, 0x29
# Coded indexes: which tables they choose from; the tag takes as many bits as their number needs.
_CODED = {
    "TypeDefOrRef": (0x02, 0x01, 0x1B),
    "HasConstant": (0x04, 0x08, 0x17),
    "HasCustomAttribute": (
        *(0x06, 0x04, 0x01, 0x02, 0x08, 0x09, 0x0A, 0x00, 0x0E, 0x17, 0x14, 0x11, 0x1A, 0x1B),
        *(0x20, 0x23, 0x26, 0x27, 0x28, 0x2A, 0x2C, 0x2B),
    ),
    "HasFieldMarshal": (0x04, 0x08),
    "HasDeclSecurity": (0x02, 0x06, 0x20),
    "MemberRefParent": (0x02, 0x01, 0x1A, 0x06, 0x1B),
    "HasSemantics": (0x14, 0x17),
    "MethodDefOrRef": (0x06, 0x0A),
    "MemberForwarded": (0x04, 0x06),
    "Implementation": (0x26, 0x23, 0x27),
    "CustomAttributeType": (-1, -1, 0x06, 0x0A, -1),
    "ResolutionScope": (0x00, 0x1A, 0x23, 0x01),
}
# Columns of each table: bytes, a heap ("S" strings, "G" GUIDs, "B" blobs), a table "#NN", or a coded index.
_TABLES = {
    0x00: "2 S G G G",
    0x01: "ResolutionScope S S",
    0x02: "4 S S TypeDefOrRef #04 #06",
    0x03: "#04",
    0x04: "2 S B",
    0x05: "#06",
    0x06: "4 2 2 S B #08",
    0x07: "#08",
    0x08: "2 2 S",
    0x09: "#02 TypeDefOrRef",
    0x0A: "MemberRefParent S B",
    0x0B: "2 HasConstant B",
    0x0C: "HasCustomAttribute CustomAttributeType B",
    0x0D: "HasFieldMarshal B",
    0x0E: "2 HasDeclSecurity B",
    0x0F: "2 4 #02",
    0x10: "4 #04",
    0x11: "B",
    0x12: "#02 #14",
    0x13: "#14",
    0x14: "2 S TypeDefOrRef",
    0x15: "#02 #17",
    0x16: "#17",
    0x17: "2 S B",
    0x18: "2 #06 HasSemantics",
    0x19: "#02 MethodDefOrRef MethodDefOrRef",
    0x1A: "S",
    0x1B: "B",
    0x1C: "2 MemberForwarded S #1A",
    0x1D: "4 #04",
    0x1E: "4 4",
    0x1F: "4",
    0x20: "4 4 4 4 B S S",
    0x21: "4",
    0x22: "4 4 4",
    0x23: "4 4 4 B S S B",
    0x24: "4 #23",
    0x25: "4 4 4 #23",
    0x26: "4 S B",
    0x27: "4 4 S S Implementation",
    0x28: "4 4 S Implementation",
    0x29: "#02 #02",
}
_HEAP_BITS = {"S": 1, "G": 2, "B": 4}
_EXTRA_DATA = 0x40


class _Table(NamedTuple):
    """Where a table is, how many rows it has, and the (offset, bytes) of its columns."""

    address: int
    rows: int
    row_bytes: int
    columns: tuple[tuple[int, int], ...]


class Metadata:
    """The metadata of one assembly.

    Args:
        memory: The process's memory.
        root: Address of the signature.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, memory: AddressSpace, root: int) -> None:
        self._memory = memory
        streams = _streams(memory, root)
        tables = streams.get("#~") or streams.get("#-")
        strings = streams.get("#Strings")
        if tables is None or strings is None:
            raise ValueError(f"no metadata at 0x{root:x}")
        self._strings, self._strings_bytes = strings
        self._tables = _tables(memory, *tables)

    @cached_property
    def assembly(self) -> str:
        """The assembly's name; "" where it is not in the dump."""
        row = self._row(ASSEMBLY, 1)
        return self._string(row[5]) if row else ""

    def type_name(self, row: int) -> str:
        """The full name of a type as reflection has it, "Space.Outer+Inner"; "" where it is absent."""
        names: list[str] = []
        while len(names) < MAX_NESTING:
            found = self._row(TYPE_DEF, row)
            name = self._string(found[1]) if found else ""
            if not found or not name:
                return ""
            space = self._string(found[2])
            names.append(f"{space}.{name}" if space else name)
            outer = self._outer(row)
            if not outer:
                break
            row = outer
        return "+".join(reversed(names))

    def base_of(self, row: int) -> tuple[int, str]:
        """(TypeDef row, name) of what a type extends: the row of one here, or the name of one elsewhere."""
        found = self._row(TYPE_DEF, row)
        if not found:
            return 0, ""
        kind, number = found[3] & 3, found[3] >> 2
        if kind == 0:
            return number, ""
        other = self._row(TYPE_REF, number) if kind == 1 else None
        if not other:
            return 0, ""
        space, name = self._string(other[2]), self._string(other[1])
        return 0, f"{space}.{name}" if space else name

    def _outer(self, row: int) -> int:
        """The type that encloses a type; 0 where none does."""
        nested, outer = self._nesting
        place = int(np.searchsorted(nested, row))
        return int(outer[place]) if place < len(nested) and nested[place] == row else 0

    @cached_property
    def _nesting(self) -> tuple[np.ndarray, np.ndarray]:
        table = self._tables.get(NESTED_CLASS)
        if table is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        raw = self._memory.read_available(table.address, table.rows * table.row_bytes)
        width = table.columns[0][1]
        pairs = np.frombuffer(raw[: len(raw) // (2 * width) * 2 * width], f"<u{width}")
        return pairs[0::2].astype(np.int64), pairs[1::2].astype(np.int64)

    def _row(self, number: int, row: int) -> tuple[int, ...]:
        """The columns of a row, counted from 1; empty where it is not there."""
        table = self._tables.get(number)
        if table is None or not 0 < row <= table.rows:
            return ()
        raw = self._memory.read_available(
            table.address + (row - 1) * table.row_bytes, table.row_bytes
        )
        if len(raw) < table.row_bytes:
            return ()
        return tuple(int.from_bytes(raw[at : at + size], "little") for at, size in table.columns)

    def _string(self, offset: int) -> str:
        if not 0 < offset < self._strings_bytes:
            return ""
        room = min(MAX_NAME, self._strings_bytes - offset)
        raw, end, _ = self._memory.read_available(self._strings + offset, room).partition(b"\0")
        text = raw.decode("utf-8", "replace")
        return text if end and text.isprintable() else ""


def metadata_root(memory: AddressSpace, base: int) -> int:
    """Where the metadata of the image at an address is, be it mapped or as in its file; 0 without."""
    raw = memory.read_available(base, HEADER_BYTES)
    pe = int.from_bytes(raw[0x3C:0x40], "little")
    if raw[:2] != b"MZ" or raw[pe : pe + 4] != b"PE\0\0" or len(raw) < pe + 24 + 240:
        return 0
    sections, header = struct.unpack_from("<H12xH", raw, pe + 6)
    magic = raw[pe + 24 : pe + 26]
    directories = pe + 24 + (112 if magic == b"\x0b\x02" else 96)
    (cli,) = struct.unpack_from("<I", raw, directories + 14 * 8)
    if not cli:
        return 0
    first = pe + 24 + header
    table = [
        struct.unpack_from("<IIII", raw, at + 8)
        for at in range(first, min(first + 40 * sections, len(raw) - 39), 40)
    ]

    def in_file(rva: int) -> int:
        for size, start, stored, offset in table:
            if start <= rva < start + max(size, stored):
                return int(rva - start + offset)
        return rva

    for place in (lambda rva: rva, in_file):
        head = memory.read_available(base + place(cli), 16)
        if len(head) == 16:
            root = base + place(int.from_bytes(head[8:12], "little"))
            if memory.read_available(root, 4) == SIGNATURE:
                return root
    return 0


def _streams(memory: AddressSpace, root: int) -> dict[str, tuple[int, int]]:
    """(address, bytes) of the streams by name."""
    head = memory.read_available(root, 16)
    if len(head) < 16 or head[:4] != SIGNATURE:
        return {}
    length = min(int.from_bytes(head[12:16], "little"), 0xFF)
    raw = memory.read_available(root + 16 + length, 4 + MAX_STREAMS * 40)
    found: dict[str, tuple[int, int]] = {}
    at = 4
    for _ in range(min(int.from_bytes(raw[2:4], "little"), MAX_STREAMS)):
        name = raw[at + 8 : at + 40].split(b"\0", 1)[0]
        if len(raw) < at + 8 + len(name) + 1:
            break
        offset, size = struct.unpack_from("<II", raw, at)
        found.setdefault(name.decode("latin-1"), (root + offset, size))
        at += 8 + (len(name) // 4 + 1) * 4
    return found


def _tables(memory: AddressSpace, address: int, size: int) -> dict[int, _Table]:
    raw = memory.read_available(address, min(size, 24 + 65 * 4))
    if len(raw) < 24:
        raise ValueError("the table stream is not in the dump")
    heaps, valid = struct.unpack_from("<B1xQ", raw, 6)
    numbers = [number for number in range(64) if valid >> number & 1]
    at = 24 + 4 * len(numbers)
    if len(raw) < at:
        raise ValueError("the table stream is cut")
    rows = dict(zip(numbers, struct.unpack_from(f"<{len(numbers)}I", raw, 24), strict=True))
    at += 4 if heaps & _EXTRA_DATA else 0
    found: dict[int, _Table] = {}
    place = address + at
    for number in numbers:
        if number not in _TABLES:  # those behind NestedClass
            break
        columns, width = [], 0
        for column in _TABLES[number].split():
            bytes_ = _column_bytes(column, heaps, rows)
            columns.append((width, bytes_))
            width += bytes_
        found[number] = _Table(place, min(rows[number], MAX_ROWS), width, tuple(columns))
        place += width * rows[number]
    return found


def _column_bytes(column: str, heaps: int, rows: dict[int, int]) -> int:
    if column.isdigit():
        return int(column)
    if column in _HEAP_BITS:
        return 4 if heaps & _HEAP_BITS[column] else 2
    if column[0] == "#":
        return 4 if rows.get(int(column[1:], 16), 0) > 0xFFFF else 2
    tables = _CODED[column]
    tag = (len(tables) - 1).bit_length()
    most = max(rows.get(table, 0) for table in tables)
    return 4 if most >= 1 << (16 - tag) else 2
