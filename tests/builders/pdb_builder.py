"""Writes small PDBs byte by byte, with its own numbers (LLVM's pages on the PDB and MSF formats).

data = PdbBuilder().public("key", section=1, offset=0x10).structure("_A", 8, [...]).build()
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from uuid import UUID

MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
GUID = "00112233445566778899AABBCCDDEEFF"


def build_msf(streams: list[bytes], block_size: int = 512, scatter: bool = False) -> bytes:
    """An MSF file; `scatter` puts the blocks of each stream in reverse order."""
    blocks: list[bytes] = []

    def place(data: bytes) -> list[int]:
        pieces = [data[at : at + block_size] for at in range(0, len(data), block_size)]
        numbers = list(range(3 + len(blocks), 3 + len(blocks) + len(pieces)))
        ordered = pieces[::-1] if scatter else pieces
        blocks.extend(piece.ljust(block_size, b"\0") for piece in ordered)
        return numbers[::-1] if scatter else numbers

    places = [place(stream) for stream in streams]
    directory = struct.pack("<I", len(streams))
    directory += b"".join(struct.pack("<I", len(stream)) for stream in streams)
    directory += b"".join(struct.pack(f"<{len(p)}I", *p) for p in places)
    directory_blocks = place(directory)
    map_block = place(struct.pack(f"<{len(directory_blocks)}I", *directory_blocks))[0]
    head = MAGIC + struct.pack("<6I", block_size, 1, 3 + len(blocks), len(directory), 0, map_block)
    return b"".join([head.ljust(block_size, b"\0"), bytes(2 * block_size), *blocks])


def padded(record: bytes) -> bytes:
    """A record with its length in front, padded to four bytes."""
    record += b"\0" * (-(len(record) + 2) % 4)
    return struct.pack("<H", len(record)) + record


def hash_stream(offsets: list[int]) -> bytes:
    records = b"".join(struct.pack("<II", offset + 1, 1) for offset in offsets)
    return struct.pack("<IIII", 0xFFFFFFFF, 0xEFFE0000 + 19990810, len(records), 0) + records


def section(name: str, address: int, size: int) -> bytes:
    return struct.pack("<8sII24x", name.encode(), size, address)


@dataclass
class PdbBuilder:
    guid: str = GUID
    age: int = 1
    info_age: int | None = None
    machine: int = 0x8664
    sections: list[tuple[str, int, int]] = field(
        default_factory=lambda: [(".text", 0x1000, 0x800), (".data", 0x3000, 0x400)]
    )
    original_sections: list[tuple[str, int, int]] = field(default_factory=list)
    omap: list[tuple[int, int]] = field(default_factory=list)
    with_type_index: bool = True
    _records: bytes = b""
    _publics: list[int] = field(default_factory=list)
    _globals: list[int] = field(default_factory=list)
    _types: list[bytes] = field(default_factory=list)

    def public(self, name: str, section: int, offset: int) -> PdbBuilder:
        self._publics.append(len(self._records))
        return self._symbol(0x110E, name, section, offset)

    def static(self, name: str, section: int, offset: int) -> PdbBuilder:
        self._globals.append(len(self._records))
        return self._symbol(0x110C, name, section, offset)

    def _symbol(self, kind: int, name: str, section: int, offset: int) -> PdbBuilder:
        head = struct.pack("<HIIH", kind, 0, offset, section)
        self._records += padded(head + name.encode() + b"\0")
        return self

    def type(self, kind: int, body: bytes) -> int:
        """Adds a record; returns its type index."""
        self._types.append(padded(struct.pack("<H", kind) + body))
        return 0x1000 + len(self._types) - 1

    def field_list(self, *members: bytes) -> int:
        pads = {0: b"", 1: b"\xf1", 2: b"\xf2\xf1", 3: b"\xf3\xf2\xf1"}
        return self.type(0x1203, b"".join(m + pads[-len(m) % 4] for m in members))

    @staticmethod
    def member(name: str, type_index: int, offset: int) -> bytes:
        return struct.pack("<HHIH", 0x150D, 3, type_index, offset) + name.encode() + b"\0"

    def structure(self, name: str, size: int, fields: int, forward: bool = False) -> int:
        number = struct.pack("<H", size) if size < 0x8000 else struct.pack("<HI", 0x8004, size)
        head = struct.pack("<HHIII", 0, 0x80 if forward else 0, fields, 0, 0)
        return self.type(0x1505, head + number + name.encode() + b"\0")

    def build(self, block_size: int = 512, scatter: bool = False) -> bytes:
        info = struct.pack(
            "<III", 20000404, 0, self.age if self.info_age is None else self.info_age
        )
        info += UUID(hex=self.guid).bytes_le
        publics = hash_stream(self._publics)
        streams = [
            b"",
            info,
            self._type_stream(),
            b"",  # DBI, below
            b"",
            hash_stream(self._globals),
            struct.pack("<I24x", len(publics)) + publics,
            self._records,
            b"".join(section(*s) for s in self.sections),
            b"".join(section(*s) for s in self.original_sections),
            b"".join(struct.pack("<II", *pair) for pair in self.omap),
            struct.pack("<II", 0x1000, 0),
        ]
        optional = [0xFFFF] * 11
        optional[5] = 8
        if self.omap:
            optional[4], optional[10] = 10, 9
        debug_header = struct.pack("<11H", *optional)
        streams[3] = (
            struct.pack("<iIIHHHHHH", -1, 19990903, self.age, 5, 0, 6, 0, 7, 0)
            + struct.pack("<8i", 0, 0, 0, 0, 0, 0, len(debug_header), 0)
            + struct.pack("<HHI", 0, self.machine, 0)
            + debug_header
        )
        return build_msf(streams, block_size, scatter)

    def _type_stream(self) -> bytes:
        records = b"".join(self._types)
        head = struct.pack("<5I", 20040203, 56, 0x1000, 0x1000 + len(self._types), len(records))
        index = (0, 8) if self.with_type_index and self._types else (0, 0)
        head += struct.pack("<HHII", 11 if index[1] else 0xFFFF, 0xFFFF, 4, 0x3FFFF)
        head += struct.pack("<iIiIiI", 0, 0, *index, 0, 0)
        return head + records
