"""Writes loaded images with C++ classes byte by byte, with its own numbers.

MSVC's run-time type information as in rttidata.h of the runtime; the Itanium kind as in sections
2.5.2 and 2.9.5 of the C++ ABI. Every image has the same three sections:

    .text 0x1000 to 0x2000, .rdata 0x2000 to 0x5000, .data 0x5000 to 0x8000
"""

from __future__ import annotations

import struct

from builders.minidump_builder import MinidumpBuilder

SIZE = 0x8000
TEXT, RDATA, DATA = 0x1000, 0x2000, 0x5000
_SECTIONS = (
    (b".text", TEXT, 0x1000, 0x60000020),  # code, execute, read
    (b".rdata", RDATA, 0x3000, 0x40000040),  # initialised data, read
    (b".data", DATA, 0x3000, 0xC0000040),  # initialised data, read, write
)


class ImageBuilder:
    """One image in memory; `width` is the pointer size, 4 or 8."""

    def __init__(self, base: int, width: int) -> None:
        self.base = base
        self.width = width
        self.bytes = bytearray(SIZE)
        self.put(0, b"MZ")
        self.put(0x3C, struct.pack("<I", 0x80))
        optional = 0xF0 if width == 8 else 0xE0
        machine = 0x8664 if width == 8 else 0x14C
        self.put(
            0x80, b"PE\0\0" + struct.pack("<HHIIIHH", machine, 3, 0x5F000000, 0, 0, optional, 0x22)
        )
        for index, (name, rva, size, flags) in enumerate(_SECTIONS):
            row = struct.pack("<8sIIIIIIHHI", name, size, rva, size, rva, 0, 0, 0, 0, flags)
            self.put(0x80 + 24 + optional + 40 * index, row)

    def put(self, rva: int, data: bytes) -> int:
        """Writes bytes; gives their address."""
        self.bytes[rva : rva + len(data)] = data
        return self.base + rva

    def words(self, rva: int, *values: int) -> int:
        """Writes pointer-sized words; gives the address of the first."""
        letter = "Q" if self.width == 8 else "I"
        return self.put(rva, struct.pack(f"<{len(values)}{letter}", *values))

    def code(self, index: int = 0) -> int:
        """The address of a function."""
        return self.base + TEXT + 0x10 * index

    def msvc_class(
        self,
        name: bytes,
        vftable: int = RDATA + 0x100,
        descriptor: int = DATA + 0x100,
        offset: int = 0,
        signature: int | None = None,
        self_rva: int | None = None,
    ) -> int:
        """A class with a vftable of two entries; gives the vftable's address.

        The locator lies 0x40 in front of the vftable's pointer to it, the class descriptor 0x20.
        """
        locator, hierarchy = vftable - 0x40, vftable - 0x20
        base = 0 if self.width == 8 else self.base
        fields = [
            (1 if self.width == 8 else 0) if signature is None else signature,
            *(offset, 0, (base + descriptor) % (1 << 32), base + hierarchy),
        ]
        if self.width == 8:
            fields.append(locator if self_rva is None else self_rva)
        self.put(locator, struct.pack(f"<{len(fields)}I", *fields))
        self.words(descriptor, self.code(9), 0)
        self.put(descriptor + 2 * self.width, name)
        self.words(vftable - self.width, self.base + locator, self.code(1), self.code(2))
        return self.base + vftable

    def itanium_class(
        self,
        name: bytes,
        kind: int,
        vtable: int = RDATA + 0x200,
        top: int = 0,
    ) -> int:
        """A class whose type_info has the vtable `kind`; gives where objects' vtable pointers lead."""
        text = self.put(vtable + 0x80, name)
        info = self.words(vtable + 0x60, kind, text)
        offset = top % (1 << 8 * self.width)
        return self.words(vtable, offset, info, self.code(3), self.code(4)) + 2 * self.width

    def itanium_runtime(
        self, name: bytes = b"N10__cxxabiv117__class_type_infoE\0", vtable: int = RDATA + 0x400
    ) -> int:
        """The runtime's own class of plain classes' type_info; gives what `kind` above wants."""
        return self.itanium_class(name, self.base + vtable + 2 * self.width, vtable)

    def add_to(
        self,
        dump: MinidumpBuilder,
        name: str = "app.exe",
        pdb: str = "A" * 32,
        absent: tuple[int, ...] = (),
    ) -> MinidumpBuilder:
        """Lists the image as a module and puts its pages into a dump, but those at RVAs `absent`."""
        dump.module(f"C:\\app\\{name}", self.base, SIZE, pdb=("x.pdb", pdb, 1))
        for rva in range(0, SIZE, 0x1000):
            if rva not in absent:
                dump.memory(self.base + rva, bytes(self.bytes[rva : rva + 0x1000]))
        return dump
