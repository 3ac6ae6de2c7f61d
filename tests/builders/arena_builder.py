"""Writes the memory of allocators other than Windows' own, with numbers of their public sources.

    page = Page(64, used=3, free=2)
    made = mimalloc2([page]); made.used, made.spans

Blocks of a page are in this order: used ones, then those of each list of free blocks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SEGMENT, SLICE, SPAN = 32 << 20, 64 << 10, 256 << 20
HEAP = 0x7001_0000  # where the heap that all pages belong to is described
FILL = b"\xa5"
TABLE = 0x128  # of slices in a segment


@dataclass
class Page:
    """A page to make.

    Attributes:
        size: Bytes of a block.
        used: How many blocks the program has.
        free: Blocks on the page's list.
        local: Blocks on its second list.
        freed: Blocks that other threads freed.
        elsewhere: Blocks on a list of the heap.
        handed: Blocks that the heap hands out next (rpmalloc).
        reserved: Blocks that there is room for besides.
    """

    size: int
    used: int = 3
    free: int = 0
    local: int = 0
    freed: int = 0
    elsewhere: int = 0
    handed: int = 0
    reserved: int = 5

    @property
    def lists(self) -> list[int]:
        return [self.free, self.local, self.freed, self.elsewhere, self.handed]

    @property
    def count(self) -> int:
        return self.used + sum(self.lists)

    def place(self, start: int, memory: bytearray, at: int) -> list[int]:
        """Writes the blocks; gives the head of each list."""
        memory[at : at + self.count * self.size] = FILL * (self.count * self.size)
        heads, number = [], self.used
        for length in self.lists:
            heads.append(start + number * self.size if length else 0)
            for left in range(length - 1, -1, -1):
                following = start + (number + 1) * self.size if left else 0
                struct.pack_into("<Q", memory, at + number * self.size, following)
                number += 1
        return heads

    def blocks(self, start: int) -> dict[int, int]:
        """The used ones, with their sizes."""
        return {start + n * self.size: self.size for n in range(self.used)}


@dataclass
class Made:
    """What was made.

    Attributes:
        memory: By address.
        used: Used blocks with their sizes.
        starts: First block of each page.
    """

    memory: dict[int, bytearray] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)


def mimalloc2(pages: list[Page], base: int = 0x100 * SEGMENT, keys: int = 0) -> Made:
    """One segment; `keys` bytes of keys as secure builds have them."""
    made, memory = Made(), bytearray((len(pages) + 1) * SLICE)
    stride = 96 + keys
    struct.pack_into("<II", memory, TABLE, 1, 0)
    struct.pack_into("<Q", memory, TABLE + 0x28, SLICE)  # the table's own slice
    rest = SEGMENT // SLICE - len(pages) - 1  # slices that are free
    struct.pack_into("<II", memory, TABLE + (len(pages) + 1) * stride, rest, 0)
    delayed, waiting = 0, []
    for number, page in enumerate(pages, 1):
        start = base + number * SLICE + 0x40
        free, local, freed, other, _ = page.place(start, memory, start - base)
        at = TABLE + number * stride
        struct.pack_into("<II", memory, at, 1, 0)
        struct.pack_into("<HH", memory, at + 0xA, page.count, page.count + page.reserved)
        struct.pack_into("<QQ", memory, at + 0x10, free, local)
        in_use = page.count - page.free - page.local
        struct.pack_into("<H", memory, at + 0x20, in_use)
        struct.pack_into("<QQ", memory, at + 0x28, page.size, start)
        struct.pack_into("<QQ", memory, at + 0x38 + keys, freed | (2 if other else 0), HEAP)
        made.used |= page.blocks(start)
        made.starts.append(start)
        if other:
            waiting.append((other, page))
    for other, page in waiting:  # the lists of all pages are one
        last = other + (page.elsewhere - 1) * page.size - base
        struct.pack_into("<Q", memory, last, delayed)
        delayed = other
    heap = bytearray(0x1000)
    struct.pack_into("<QQ", heap, 0, HEAP + 0x800, delayed)  # its thread's data are never zero
    made.memory = {base: memory, HEAP: heap}
    return made


def mimalloc20(pages: list[Page], base: int = 0x100 * SEGMENT) -> Made:
    """One segment as 2.0 has it: 80 bytes a slice, and no address of the first block."""
    made, memory = Made(), bytearray((len(pages) + 1) * SLICE)
    struct.pack_into("<II", memory, TABLE, 1, 0)
    for number, page in enumerate(pages, 1):
        start = base + number * SLICE + 0x10
        free, local, freed, _, _ = page.place(start, memory, start - base)
        at = TABLE + number * 80
        struct.pack_into("<II", memory, at, 1, 0)
        struct.pack_into("<HH", memory, at + 0xA, page.count, page.count + page.reserved)
        in_use = page.count - page.free - page.local
        struct.pack_into("<QII", memory, at + 0x10, free, in_use, page.size)
        struct.pack_into("<QQQ", memory, at + 0x20, local, freed, HEAP)
    made.memory = {base: memory, HEAP: bytearray(0x1000)}
    return made


def mimalloc3(
    pages: list[Page],
    base: int = 0x4000_0000,
    *,
    pointers: bool = False,
    table: bool = False,
    owner: int = 0x38,
) -> Made:
    """Slices of their own, each with its page's description, or one arena with a table of them.

    `pointers`: the start of blocks is an address, as before 3.4; `owner`: where the owning heap stands.
    """
    made = Made()
    size = 0x78 if pointers else 0x70
    arena = bytearray((len(pages) + 4) * SLICE)
    head = 4 * SLICE // SLICE
    for number, page in enumerate(pages):
        slice_ = base + (head + number) * SLICE if table else base + number * 2 * SLICE
        memory = arena if table else bytearray(SLICE)
        into = slice_ - base if table else 0
        start = slice_ + (0 if table else 0x100)
        described = base + 0x1000 + size * (head + number) if table else slice_
        free, local, freed, _, _ = page.place(start, memory, into + start - slice_)
        at = described - base if table else 0
        struct.pack_into("<QQ", memory, at, 0x1234000, free)
        in_use = page.count - page.free - page.local
        struct.pack_into("<HHH", memory, at + 0x10, in_use, page.count, page.count + page.reserved)
        struct.pack_into("<QQQ", memory, at + 0x18, local, freed | 1, page.size)
        told = start if pointers else (start - described) // 8
        struct.pack_into("<Q" if pointers else "<I", memory, at + 0x30, told)
        struct.pack_into("<Q", memory, at + owner, HEAP)
        made.used |= page.blocks(start)
        made.starts.append(start)
        if not table:
            made.memory[slice_] = memory
    if table:
        made.memory[base] = arena
    return made


def rpmalloc2(
    pages: list[Page], base: int = 0x10 * SPAN, huge: int = 0, *, cached: int = 0
) -> Made:
    """One span of small pages, and so many huge blocks of 1 MiB; `cached` says where an image keeps them."""
    made, memory = Made(), bytearray(len(pages) * SLICE)
    heap = bytearray(0x1000)
    struct.pack_into("<Q", heap, 0, 4711)  # the thread
    given = 0
    for number, page in enumerate(pages):
        at = number * SLICE
        start = base + at + 0x80
        free, _, freed, other, handed = page.place(start, memory, at + 0x80)
        free_count = page.free
        room = page.count + page.reserved
        counts = page.count, page.count - free_count, 0, 1 if other else 0, free_count
        struct.pack_into("<8I", memory, at, number + 1, page.size, room, *counts)
        struct.pack_into("<QQ", memory, at + 0x20, free, HEAP)
        index = (freed - start) // page.size if freed else 0
        struct.pack_into("<II", memory, at + 0x40, index, page.freed)
        struct.pack_into("<Q", heap, 8 + 8 * (number + 1), handed)
        if other:
            last = at + 0x80 + (other - start) + (page.elsewhere - 1) * page.size
            struct.pack_into("<Q", memory, last, given)
            given = other
        made.used |= page.blocks(start)
        made.starts.append(start)
    mask = (1 << 64) - SLICE
    row = HEAP, mask, len(pages), SPAN // SLICE, SLICE, 0
    struct.pack_into("<QQIIII", memory, 0x48, *row)
    struct.pack_into("<Q", heap, 1800, given)
    made.memory = {base: memory, HEAP: heap}
    for number in range(huge):
        place = base + (number + 1) * SPAN
        block = bytearray(1 << 20)
        struct.pack_into("<I", block, 0x14, 4)
        struct.pack_into("<I", block, 0x18, 1)
        row = HEAP, (1 << 64) - (16 << 20), 0, len(block) >> 12, 1 << 12, 4
        struct.pack_into("<QQIIII", block, 0x48, *row)
        made.memory[place] = block
        if not cached:
            made.used[place + 0x80] = len(block) - 0x80
        made.starts.append(place + 0x80)
    return made
