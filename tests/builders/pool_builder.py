"""Writes the pool's structures into bare kernel memory, with numbers of its own.

Layouts as published by Microsoft's symbols; nothing here comes from the package under test but its
memory and its kernel.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from windumps.images.modules import Module
from windumps.kernel.kernel import Kernel
from windumps.kernel.variables import KernelSymbols
from windumps.memory import RunMemory

PAGE = 0x1000

# Tracker entries: struct format of a whole entry, and where each number goes in it.
# (key, nonpaged allocs, frees, bytes, paged allocs, frees, bytes) -> arguments of the format.
TRACKERS = {
    ("x64", 14393): ("<IIIxxxxQIIQ", (0, 1, 2, 3, 4, 5, 6)),
    ("x64", 19041): ("<IxxxxQQQQQQ", (0, 3, 1, 2, 6, 4, 5)),
    ("x64", 26100): ("<IxxxxQQQQQQ24x", (0, 3, 1, 2, 6, 4, 5)),
    ("x86", 7601): ("<IIIIIII", (0, 1, 2, 3, 4, 5, 6)),
    ("x86", 19041): ("<IIQQIxxxxQQ", (0, 3, 1, 2, 6, 4, 5)),
    ("x86", 22000): ("<IIQQIxxxxQQ16x", (0, 3, 1, 2, 6, 4, 5)),
}
WIDTH = {"I": 1 << 32, "Q": 1 << 64}


def tag(text: str) -> int:
    return int.from_bytes(text.encode(), "little")


def home(key: int, slots: int) -> int:
    product = key * 0x9E5F
    return ((product & 0xFFFFFFFF) ^ (product >> 32)) % slots


@dataclass
class PoolMemory:
    """A kernel whose memory is what was put there."""

    architecture: str = "x64"
    build: int = 19041
    processors: int = 1
    pieces: dict[int, bytes] = field(default_factory=dict)
    variables: dict[str, int] = field(default_factory=dict)
    drivers: list[Module] = field(default_factory=list)

    def __post_init__(self) -> None:
        is_32bit = self.architecture == "x86"
        self.pointer_size = 4 if is_32bit else 8
        self.image = 0x8200_0000 if is_32bit else 0xFFFF_F800_0200_0000
        self.pool = 0x8500_0000 if is_32bit else 0xFFFF_E000_0100_0000
        self._next_variable = self.image + 0x1000
        self._image = bytearray(0x4000)

    def put(self, address: int, data: bytes) -> int:
        """Bytes at an address; whole pages are written."""
        self.pieces[address] = data + bytes(-len(data) % PAGE)
        return address

    def variable(self, name: str, *values: int, named: bool = True) -> int:
        """Pointer-sized values in the kernel's image."""
        address = self._next_variable
        raw = b"".join(value.to_bytes(self.pointer_size, "little") for value in values)
        self._image[address - self.image : address - self.image + len(raw)] = raw
        self._next_variable += len(raw) + 3 * self.pointer_size
        if named:
            self.variables[name] = address
        return address

    def entry(self, key: int, *numbers: int) -> bytes:
        """One tracker entry: nonpaged allocs, frees, bytes, paged allocs, frees, bytes; all modulo."""
        form, order = TRACKERS[self.architecture, self.build]
        kinds = [kind for kind in form if kind in WIDTH]
        values = (key, *numbers)
        return struct.pack(form, *(values[o] % WIDTH[k] for o, k in zip(order, kinds, strict=True)))

    def tracker(self, slots: int, rows: dict[int, tuple[int, ...]], keys: list[int]) -> bytes:
        """A table: every key of `keys` where its hash puts it, with the numbers of `rows` or none."""
        size = len(self.entry(0, 0, 0, 0, 0, 0, 0))
        placed: dict[int, int] = {}
        for key in keys:
            at = home(key, slots)
            while at in placed:
                at = (at + 1) % slots
            placed[at] = key
        table = bytearray(size * (slots + 1))
        for at, key in placed.items():
            if key in rows:
                table[at * size : (at + 1) * size] = self.entry(key, *rows[key])
        table[slots * size : (slots + 1) * size] = self.entry(tag("Ovfl"), 0, 0, 0, 0, 0, 0)
        return bytes(table)

    def kernel(self) -> Kernel:
        pieces = {**self.pieces, self.image: bytes(self._image)}
        address, size, offset, data = [], [], [], bytearray()
        for start, raw in sorted(pieces.items()):
            address.append(start)
            size.append(len(raw))
            offset.append(len(data))
            data += raw
        memory = RunMemory(
            np.frombuffer(bytes(data), np.uint8),
            np.array(address, np.uint64),
            np.array(size, np.int64),
            np.array(offset, np.int64),
        )
        image = Module("ntoskrnl.exe", "ntoskrnl.exe", self.image, len(self._image), 1)
        symbols = KernelSymbols(self.architecture, self.image, len(self._image), None, None)
        for name, place in self.variables.items():
            symbols.add_search(name, lambda place=place: place)
        return Kernel(
            memory=memory,
            architecture=self.architecture,
            build=self.build,
            base=self.image,
            image=image,
            kdbg=None,
            symbols=symbols,
            drivers=[image, *self.drivers],
            processor_count=self.processors,
        )


def pool_header(architecture: str, previous: int, size: int, kind: int, key: int) -> bytes:
    """A block's header; both sizes in bytes."""
    if architecture == "x86":
        return struct.pack("<HHI", previous // 8, size // 8 | kind << 9, key)
    return struct.pack("<BBBBIQ", previous // 16, 0, size // 16, kind, key, 0)


def pool_page(architecture: str, blocks: list[tuple[int, int, str]]) -> bytes:
    """A page of blocks (bytes, PoolType as stored, tag) that must fill it."""
    assert sum(size for size, _, _ in blocks) == PAGE
    page, previous = b"", 0
    for size, kind, text in blocks:
        header = pool_header(architecture, previous, size, kind, tag(text))
        page += header + b"\xcc" * (size - len(header))
        previous = size
    return page
