"""Writes .NET metadata byte by byte: a root with four tables, and an image that has it.

ECMA-335 partition II, 24.2 (streams) and 22 (tables): Module, TypeRef, TypeDef, Assembly, NestedClass.
All indexes have two bytes.
"""

from __future__ import annotations

import struct

from builders.image_builder import ImageBuilder

PE = 0x80
CLI_HEADER = 0x2000  # in .rdata
ROOT = 0x2100


class MetadataBuilder:
    """The types of one assembly; rows count from 1, and the first is <Module>."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._strings = bytearray(b"\0")
        self._refs: list[tuple[str, str]] = []
        self._types: list[tuple[str, str, int]] = []
        self._nested: list[tuple[int, int]] = []
        self.type("", "<Module>")

    def type(self, space: str, name: str, extends: int = 0, outer: int = 0) -> int:
        """A type; `extends` is a coded index as `base` or `reference` give it. Gives its row."""
        self._types.append((space, name, extends))
        row = len(self._types)
        if outer:
            self._nested.append((row, outer))
        return row

    @staticmethod
    def base(row: int) -> int:
        """The coded index of a type of this assembly."""
        return row << 2

    def reference(self, space: str, name: str) -> int:
        """The coded index of a type of another assembly."""
        self._refs.append((space, name))
        return len(self._refs) << 2 | 1

    def build(self) -> bytes:
        """The metadata."""
        module = struct.pack("<5H", 0, self._text(f"{self.name}.dll"), 1, 0, 0)
        refs = b"".join(
            struct.pack("<3H", 0, self._text(name), self._text(space)) for space, name in self._refs
        )
        types = b"".join(
            struct.pack("<I5H", 1, self._text(name), self._text(space), extends, 1, 1)
            for space, name, extends in self._types
        )
        assembly = struct.pack("<I4HI3H", 0x8004, 1, 0, 0, 0, 0, 0, self._text(self.name), 0)
        nested = b"".join(struct.pack("<2H", *row) for row in sorted(self._nested))
        tables = [
            (0x00, 1, module),
            (0x01, len(self._refs), refs),
            (0x02, len(self._types), types),
            (0x20, 1, assembly),
            (0x29, len(self._nested), nested),
        ]
        there = [table for table in tables if table[1]]
        valid = sum(1 << number for number, _, _ in there)
        stream = struct.pack("<IBBBBQQ", 0, 2, 0, 0, 1, valid, 0)
        stream += b"".join(struct.pack("<I", rows) for _, rows, _ in there)
        stream += b"".join(data for _, _, data in there)
        stream += bytes(-len(stream) % 4)
        strings = bytes(self._strings) + bytes(-len(self._strings) % 4)
        head = b"BSJB" + struct.pack("<HHII", 1, 1, 0, 12) + b"v4.0.30319\0\0"
        head += struct.pack("<HH", 0, 2)
        first = len(head) + 8 + 4 + 8 + 12
        head += struct.pack("<II", first, len(stream)) + b"#~\0\0"
        head += struct.pack("<II", first + len(stream), len(strings)) + b"#Strings\0\0\0\0"
        return head + stream + strings

    def image(self, base: int, width: int) -> ImageBuilder:
        """A loaded image with it."""
        image = ImageBuilder(base, width)
        optional = PE + 24
        image.put(optional, b"\x0b\x02" if width == 8 else b"\x0b\x01")
        image.put(optional + 56, struct.pack("<I", len(image.bytes)))
        directories = optional + (112 if width == 8 else 96)
        image.put(directories - 4, struct.pack("<I", 16))
        image.put(directories + 14 * 8, struct.pack("<II", CLI_HEADER, 72))
        data = self.build()
        image.put(CLI_HEADER, struct.pack("<IHHII", 72, 2, 5, ROOT, len(data)))
        image.put(ROOT, data)
        return image

    def _text(self, text: str) -> int:
        if not text:
            return 0
        at = len(self._strings)
        self._strings += text.encode() + b"\0"
        return at
