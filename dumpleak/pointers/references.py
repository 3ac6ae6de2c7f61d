"""Who points to a block: the pointers among used blocks, and from everything that may hold one.

A scan is conservative: every aligned word that is an address inside a used block counts as a pointer to
it, whether the program means it so or not. What lies in free blocks and in the heap's own structures is
not looked at.

Everything is done in columns. Memory is read in pieces, words outside all blocks are dropped by one
comparison, and the rest are looked up in the sorted addresses of blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.blocks import Blocks
from windumps.memory import AddressSpace

PIECE_BYTES = 1 << 22  # memory scanned at once; small, so that what is made of it stays in caches
GAP_BYTES = 1 << 16  # blocks nearer to each other than this are read as one stretch


class Edges(NamedTuple):
    """Pointers that lead into used blocks.

    Attributes:
        place: uint64, address of the pointer itself.
        value: uint64, where it leads to.
        source: int64, number of the block that holds it; -1 where no block does.
        target: int64, number of the block it leads into.
    """

    place: U64
    value: U64
    source: I64
    target: I64


class Stretch(NamedTuple):
    """Memory to scan: [start, end) with pointers of `width` bytes."""

    start: int
    end: int
    width: int


class BlockIndex:
    """The used blocks of a process, looked up by address.

    Blocks are numbered by ascending address.

    Args:
        address: uint64, shape (n,), in any order.
        size: int64, bytes of the program, what `Blocks.counted_bytes` gives.
        group: int32, a number that the caller gives each block.
        width: uint8, pointer size of the heap each block is in.

    Attributes:
        address: uint64, ascending.
        size: int64, in the same order.
        group: int32, in the same order.
        width: uint8, in the same order.
        widths: The pointer sizes of the heaps that blocks lie in.
        span: The lowest address of any block, and how far from it the last one reaches.
    """

    def __init__(
        self, address: U64, size: I64, group: NDArray[np.int32], width: NDArray[np.uint8]
    ) -> None:
        order = np.argsort(address, kind="stable")
        self.address: U64 = address[order]
        self.size: I64 = size[order]
        self.group: NDArray[np.int32] = group[order]
        self.width: NDArray[np.uint8] = width[order]
        self.widths: list[int] = np.flatnonzero(np.bincount(self.width)).tolist()
        # A block of no bytes is still pointed to by its address.
        self._room = np.maximum(self.size, 1).astype(np.uint64)
        self.span: tuple[int, int] = (0, 0)
        if len(self.address):
            low = self.address[0]
            self.span = int(low), int((self.address - low + self._room).max())

    def __len__(self) -> int:
        return len(self.address)

    def width_of(self, number: int) -> int:
        """Pointer size of the heap that a block is in."""
        return int(self.width[number])

    def find(self, pointers: U64) -> I64:
        """The number of the block each address lies in, -1 where it lies in none."""
        if not len(self.address):
            return np.full(len(pointers), -1, np.int64)
        number = np.searchsorted(self.address, pointers, "right") - 1
        safe = np.maximum(number, 0)
        inside = (number >= 0) & (pointers - self.address[safe] < self._room[safe])
        return np.where(inside, number, -1)

    def stretches(self) -> list[Stretch]:
        """The memory that blocks lie in, with the holes between those far from each other left out."""
        found = []
        for width in self.widths:
            rows = np.flatnonzero((self.width == width) & (self.size >= width))
            if not len(rows):
                continue
            start = self.address[rows]
            end = np.maximum.accumulate(start + self.size[rows].astype(np.uint64))
            first = np.flatnonzero(np.append(True, start[1:] > end[:-1] + np.uint64(GAP_BYTES)))
            last = np.append(first[1:], len(rows)) - 1
            found += [
                Stretch(low, high, width)
                for low, high in zip(start[first].tolist(), end[last].tolist(), strict=True)
            ]
        return found

    def edges_among_blocks(self, memory: AddressSpace) -> Iterator[Edges]:
        """All pointers from used blocks to used blocks, piece by piece."""
        for stretch in self.stretches():
            for place, value, target in self._pointers(memory, stretch):
                source = self.find(place)
                safe = np.maximum(source, 0)
                behind = place - self.address[safe] + np.uint64(stretch.width)
                keep = (source >= 0) & (behind <= self._room[safe])
                yield Edges(place[keep], value[keep], source[keep], target[keep])

    def edges_from(self, memory: AddressSpace, start: int, end: int) -> Iterator[tuple[int, Edges]]:
        """All pointers from other memory to used blocks, with their size: each that heaps have."""
        for width in self.widths:
            for place, value, target in self._pointers(memory, Stretch(start, end, width)):
                source = self.find(place)
                other = source < 0  # memory may be given that has blocks in it
                yield width, Edges(place[other], value[other], source[other], target[other])

    def place_of_pointer(self, memory: AddressSpace, holder: int, target: int) -> int:
        """Where in a block the first pointer to another one stands; -1 where there is none."""
        start = int(self.address[holder])
        stretch = Stretch(start, start + int(self.size[holder]), self.width_of(holder))
        for place, _, found in self._pointers(memory, stretch):
            hits = place[found == target]
            if len(hits):
                return int(hits[0])
        return -1

    def _pointers(self, memory: AddressSpace, stretch: Stretch) -> Iterator[tuple[U64, U64, I64]]:
        """Places, values and targets of the words in a stretch that lead into blocks."""
        low, reach = self.span
        for start, words in _words(memory, stretch):
            rows = np.flatnonzero(_near(words, low, reach))
            if not len(rows):
                continue
            value = words[rows].astype(np.uint64)
            target = self.find(value)
            hits = target >= 0
            place = np.uint64(start) + rows[hits].astype(np.uint64) * np.uint64(stretch.width)
            yield place, value[hits], target[hits]


class BlockIndexBuilder:
    """Collects the pieces of a walk."""

    def __init__(self) -> None:
        self._pieces: list[tuple[U64, I64, NDArray[np.int32], NDArray[np.uint8]]] = []

    def add(self, used: Blocks, groups: I64, pointer_size: int) -> None:
        """Takes in used blocks of one heap, with the group of each."""
        width = np.full(len(used), pointer_size, np.uint8)
        self._pieces.append((used.address, used.counted_bytes, groups.astype(np.int32), width))

    def build(self) -> BlockIndex:
        """The index of all that was taken in; the builder is empty then."""
        none = (np.empty(0, np.uint64), np.empty(0, np.int64))
        pieces = [(*none, np.empty(0, np.int32), np.empty(0, np.uint8)), *self._pieces]
        self._pieces = []
        address, size, group, width = (np.concatenate(c) for c in zip(*pieces, strict=True))
        del pieces  # millions of blocks are not kept twice while they are sorted
        return BlockIndex(address, size, group, width)


def _near(words: NDArray[np.unsignedinteger], low: int, reach: int) -> NDArray[np.bool_]:
    """True for words from `low` up to `reach` bytes behind it."""
    limit = np.iinfo(words.dtype).max
    if low > limit:
        return np.zeros(len(words), np.bool_)
    kind = words.dtype.type
    near: NDArray[np.bool_] = words - kind(low) < kind(min(reach, limit))
    return near


def _words(
    memory: AddressSpace, stretch: Stretch
) -> Iterator[tuple[int, NDArray[np.unsignedinteger]]]:
    """The aligned words of a stretch that are in the dump: address of the first, and the words."""
    width = stretch.width
    pieces = memory.extents(-(-stretch.start // width) * width, stretch.end)
    torn = []
    for address, size, offset in zip(*(column.tolist() for column in pieces), strict=True):
        lead = -address % width
        if lead:
            torn.append(address - address % width)
        for at in range(lead, size - width + 1, PIECE_BYTES):
            count = min(PIECE_BYTES, size - at) // width
            raw = memory.data[offset + at : offset + at + count * width]
            yield address + at, raw.view(f"<u{width}")
    # Words that begin in one piece of the file and end in the next.
    for address in torn:
        value, present = memory.gather(np.array([address], np.uint64), f"<u{width}")
        if present[0] and address >= stretch.start:
            yield address, value
