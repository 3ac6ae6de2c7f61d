"""Lays out a small NT heap of Vista or later, with its own numbers.

One segment, no front end, no uncommitted ranges: enough for what lives inside such a heap.
"""

from __future__ import annotations

import struct

PAGE = 0x1000
ENCODED = 0x100000  # in the low word of a header
KEY = 0x5A17_9C3D_2B1E_7744

# Heap signature, large blocks, segments, front end, its type, reserved; public types of 6.0 and 6.2.
_PLACES = {
    ("vista", False): (0x64, 0xA0, 0xA8, 0xD4, 0xDA, 0xDC),
    ("vista", True): (0xA0, 0x118, 0x128, 0x178, 0x182, 0x188),
    ("8", False): (0x60, 0x9C, 0xA4, 0xD0, 0xD6, 0x1E0),
    ("8", True): (0x98, 0x110, 0x120, 0x170, 0x17A, 0x210),
}


class NtHeapBuilder:
    """See the module.

    Args:
        form: "vista" or "8".
        x64: Else x86.
        address: The heap's handle.
        pages: Bytes of the heap in pages.
    """

    def __init__(self, form: str, x64: bool, address: int, pages: int = 16) -> None:
        self.address, self.pointer, self.unit = address, 8 if x64 else 4, 16 if x64 else 8
        self.memory = bytearray(pages * PAGE)
        self.free_bytes = 0
        self.headers: dict[int, tuple[int, int]] = {}  # user address -> header address, block bytes
        self._at = self._first = address + 0x800
        self._previous = 0
        self._places = _PLACES[form, x64]

    def used_block(self, requested: int, content: bytes = b"") -> int:
        """A block of the program; returns its address."""
        units = -(-(requested + self.unit) // self.unit)
        unused = units * self.unit - requested
        user = self._entry(units, 1, unused) + self.unit
        self.write(user, content)
        return user

    def free_block(self, room: int) -> None:
        """A free block."""
        units = -(-room // self.unit) + 1
        self._entry(units, 0, 0)
        self.free_bytes += units * self.unit

    def build(self) -> dict[int, bytes]:
        """Memory by address."""
        end = self.address + len(self.memory)
        if self._at < end:
            self.free_block(end - self._at - self.unit)
        signature, large, segments, front_end, type_, reserved = self._places
        p = self.pointer
        self.write(self.address + 2 * p, struct.pack("<I", 0xFFEEFFEE))
        link = self.address + (0x18 if p == 8 else 0x10)
        self._ring(self.address + segments, link)
        for offset, value in (
            (0x28 if p == 8 else 0x18, self.address),
            (0x30 if p == 8 else 0x1C, self.address),
            (0x40 if p == 8 else 0x24, self._first),
            (0x48 if p == 8 else 0x28, end),
        ):
            self._pointer(self.address + offset, value)
        self.write(
            self.address + (0x38 if p == 8 else 0x20), struct.pack("<I", len(self.memory) // PAGE)
        )
        self._ring(self.address + (0x60 if p == 8 else 0x38))
        self.write(self.address + (0x7C if p == 8 else 0x4C), struct.pack("<I", ENCODED))
        self.write(self.address + (0x88 if p == 8 else 0x50), struct.pack("<Q", KEY))
        self.write(self.address + signature, struct.pack("<I", 0xEEFFEEFF))
        self._ring(self.address + large)
        self._pointer(self.address + front_end, 0)
        self.write(self.address + type_, b"\0")
        self._pointer(self.address + reserved, len(self.memory))
        self._pointer(self.address + reserved + p, len(self.memory))
        return {self.address: bytes(self.memory)}

    def write(self, address: int, raw: bytes) -> None:
        """Puts bytes at an address."""
        at = address - self.address
        assert 0 <= at <= len(self.memory) - len(raw), "the made heap is too small"
        self.memory[at : at + len(raw)] = raw

    def _entry(self, units: int, flags: int, unused: int) -> int:
        header, self._at = self._at, self._at + units * self.unit
        check = units & 0xFF ^ units >> 8 ^ flags
        raw = struct.pack("<HBBHBB", units, flags, check, self._previous, 0, unused)
        stored = int.from_bytes(raw, "little") ^ KEY
        self.write(header + self.unit - 8, stored.to_bytes(8, "little"))
        self.headers[header + self.unit] = (header, units * self.unit)
        self._previous = units
        return header

    def _pointer(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(self.pointer, "little"))

    def _ring(self, *entries: int) -> None:
        for index, entry in enumerate(entries):
            self._pointer(entry, entries[(index + 1) % len(entries)])
            self._pointer(entry + self.pointer, entries[index - 1])
