"""Which objects point to which, and what outside the heap points to them.

Conservative: an aligned word that equals where an object begins counts as a pointer to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U64
from windumps.heaps.clr.heap import ManagedHeap
from windumps.heaps.clr.walk import Objects

HAS_POINTERS = 0x01000000  # flag of a MethodTable; strings and arrays of numbers are without
WINDOW = 1 << 24  # bytes looked through in one go
ENTRY_BYTES = 0x100  # of a heap_segment, at most: it names the first object of its segment


class Links(NamedTuple):
    """Pointers between objects, as columns of their numbers."""

    source: I64
    target: I64


class RootLinks(NamedTuple):
    """Pointers to objects from outside the heap: where they stand, and the numbers of the objects."""

    place: U64
    target: I64


class ObjectIndex:
    """All objects of a heap that was walked as a whole, ascending by address.

    Args:
        heap: The heap.

    Attributes:
        objects: All of them.
    """

    def __init__(self, heap: ManagedHeap) -> None:
        none = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
        pieces = [Objects(*none), *heap.objects()]
        self.objects = Objects(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
        self._heap = heap

    def find(self, pointers: U64) -> I64:
        """The object that begins at each address; -1 where none does."""
        address = self.objects.address
        if not len(address):
            return np.full(len(pointers), -1, np.int64)
        place = np.minimum(np.searchsorted(address, pointers), len(address) - 1)
        return np.where(address[place] == pointers, place, -1)

    def roots(self) -> RootLinks:
        """Words outside the heap that point to objects; a segment's entry holds nothing."""
        found = self._heap.pointers
        entries = np.array([segment.entry for segment in self._heap.segments], np.uint64)
        entries.sort()
        before = np.maximum(np.searchsorted(entries, found.place, "right") - 1, 0)
        own = (found.place >= entries[before]) & (found.place - entries[before] < ENTRY_BYTES)
        target = self.find(found.value)
        kept = ~own & (target >= 0)
        return RootLinks(found.place[kept], target[kept])

    def links(self) -> Iterator[Links]:
        """The pointers in objects, piece by piece."""
        tables, address = self._heap.tables, self.objects.address
        if not len(address):
            return
        width = tables.pointer_size
        has = (tables.flags & HAS_POINTERS) != 0
        ends = address + self.objects.size.astype(np.uint64)
        for start, end in self._pieces():
            words = tables.memory.view(start, end - start).view(f"<u{width}")
            near = np.flatnonzero((words >= address[0]) & (words <= address[-1]))
            place = np.uint64(start) + (near * width).astype(np.uint64)
            source = np.maximum(np.searchsorted(address, place, "right") - 1, 0)
            inside = (place > address[source]) & (place < ends[source])
            inside &= has[self.objects.table[source]]
            source = source[inside]
            target = self.find(words[near[inside]].astype(np.uint64))
            keep = (target >= 0) & (target != source)
            yield Links(source[keep], target[keep])
            tables.release()

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """(start, end) of the heap's memory in the dump."""
        memory = self._heap.tables.memory
        for segment, end in zip(self._heap.segments, self._heap.ends, strict=True):
            for address, size, _ in zip(
                *(column.tolist() for column in memory.extents(segment.start, end.address)),
                strict=True,
            ):
                for at in range(address, address + size, WINDOW):
                    whole = (min(at + WINDOW, address + size) - at) & ~7
                    yield at, at + whole
