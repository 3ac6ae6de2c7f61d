"""Segments of the .NET garbage collector, found by their shape.

`heap_segment` begins with the same five words in every version, be it a segment, a region or a frozen
segment (GC.md of dotnet/runtime's data contracts): allocated, committed, reserved, used, mem; flags follow.
An entry is believed when they are in order and a MethodTable stands at `mem`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, I64, PAGE_SIZE, U64
from windumps.heaps.clr.method_tables import MethodTables
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE

_ALLOCATED, _COMMITTED, _RESERVED, _USED, _MEM, _FLAGS, _NEXT, _PLACE = range(8)
_WORDS = 7
# heap_segment.flags
FROZEN, LARGE, PINNED = 0x1, 0x8, 0x200
# winnt.h: PAGE_READWRITE, PAGE_WRITECOPY, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY
WRITABLE = (0x04, 0x08, 0x40, 0x80)
WINDOW = 1 << 24  # bytes looked at in one go
MAX_SEGMENT = 1 << 44
MAX_SEGMENTS = 1 << 20


@dataclass(frozen=True)
class Segment:
    """One stretch of memory that holds objects.

    Attributes:
        entry: Address of its `heap_segment`.
        start: Where the first object is.
        allocated: Where objects end, by its entry.
        committed: Where committed memory ends.
        reserved: Where its address space ends.
        flags: Of the entry.
    """

    entry: int
    start: int
    allocated: int
    committed: int
    reserved: int
    flags: int

    @property
    def kind(self) -> str:
        """What kind of objects it holds."""
        names = {FROZEN: "frozen", LARGE: "large", PINNED: "pinned"}
        return next((name for bit, name in names.items() if self.flags & bit), "small")


def find_segments(tables: MethodTables) -> list[Segment]:
    """All segments of a process, ascending by their memory.

    Where an entry's first object is not there, it is believed if its memory is part of what another one's is,
    or if it leads to another: its memory is the heap's, and what is lost of it has to be said.
    """
    memory, width = tables.memory, tables.pointer_size
    rows = [np.empty((0, _WORDS + 1), np.uint64)]
    for address, words in private_words(tables, _WORDS - 1):
        at = _entries(words, width)
        columns = [words[at + number].astype(np.uint64) for number in range(_WORDS)]
        places = np.uint64(address) + (at * width).astype(np.uint64)
        rows.append(np.stack([*columns, places], axis=1))
    table = np.concatenate(rows)[:MAX_SEGMENTS]
    sure = object_at(tables, table[:, _MEM]) & (table[:, _ALLOCATED] != 0)
    held = np.isin(_allocations(memory, table[:, _MEM]), _allocations(memory, table[sure, _MEM]))
    linked = np.isin(table[:, _NEXT], table[sure, _PLACE]) & (table[:, _FLAGS] & FROZEN != 0)
    kept = table[sure | (held & (len(memory.regions) > 0)) | linked]
    order = np.lexsort((kept[:, _ALLOCATED], kept[:, _MEM]))
    return _apart([_segment(row) for row in kept[order].tolist()])


def _segment(row: list[int]) -> Segment:
    allocated, committed, reserved, _, start, flags, _, place = row
    return Segment(place, start, allocated or start, committed, reserved, flags & 0xFFFFFFFF)


def _allocations(memory: AddressSpace, addresses: U64) -> U64:
    """The allocation that each address is in; of those in none, the address itself."""
    regions = memory.regions
    if not len(regions):
        return addresses
    row = np.maximum(np.searchsorted(regions.base_address, addresses, "right") - 1, 0)
    inside = addresses - regions.base_address[row] < regions.region_size[row]
    return np.where(inside, regions.allocation_base[row], addresses)


def uncovered(memory: AddressSpace, segments: list[Segment]) -> list[tuple[int, int]]:
    """(start, end) of committed memory of the heap that no segment tells of: its entry is lost."""
    regions = memory.regions
    starts = np.array([segment.start for segment in segments], np.uint64)
    mine = np.isin(regions.allocation_base, np.unique(_allocations(memory, starts)))
    mine &= (regions.state == MEM_COMMIT) & (len(regions) > 0)
    lows = [_first_page(segment) for segment in segments]
    found: list[tuple[int, int]] = []
    for start, size in zip(
        regions.base_address[mine].tolist(), regions.region_size[mine].tolist(), strict=True
    ):
        at, end = start, start + size
        first = max(bisect_right(lows, at) - 1, 0)
        for low, segment in zip(lows[first:], segments[first:], strict=True):
            if low >= end:
                break
            if low > at:
                found.append((at, low))
            at = max(at, min(segment.committed, end))
        if at < end:
            found.append((at, end))
    return found


def _first_page(segment: Segment) -> int:
    """Where a segment's memory begins; its entry may stand in front of its objects."""
    before = 0 < segment.start - segment.entry <= PAGE_SIZE
    return (segment.entry if before else segment.start) & ~(PAGE_SIZE - 1)


def private_words(tables: MethodTables, overlap: int) -> Iterator[tuple[int, U64]]:
    """Memory that is no image's, as (address, words), in windows that overlap by some words."""
    memory, width = tables.memory, tables.pointer_size
    images = memory.regions.type == MEM_IMAGE
    starts = memory.regions.base_address[images]
    sizes = memory.regions.region_size[images]
    for address, size, offset in zip(*(column.tolist() for column in memory.runs), strict=True):
        for low, high in _outside(address, address + size, starts, sizes):
            low += -low % width
            for at in range(low, high, WINDOW):
                end = min(at + WINDOW + overlap * width, high)
                raw = memory.data[offset + at - address : offset + end - address]
                raw = raw[: len(raw) // width * width]
                yield at, np.ndarray((len(raw) // width,), f"<u{width}", buffer=raw)
                if end - at >= WINDOW:
                    tables.release()


def writable_words(tables: MethodTables) -> Iterator[tuple[int, U64]]:
    """The data of images, as (address, words)."""
    memory, width = tables.memory, tables.pointer_size
    regions = memory.regions
    protect = regions.protect & np.uint32(0xFF)
    mine = (regions.type == MEM_IMAGE) & np.isin(protect, WRITABLE)
    for start, size in zip(
        regions.base_address[mine].tolist(), regions.region_size[mine].tolist(), strict=True
    ):
        extents = memory.extents(start, start + size)
        for address, there, offset in zip(*(c.tolist() for c in extents), strict=True):
            raw = memory.data[offset : offset + there // width * width]
            yield address, np.ndarray((len(raw) // width,), f"<u{width}", buffer=raw)


def _outside(low: int, high: int, starts: U64, sizes: U64) -> list[tuple[int, int]]:
    """The parts of a run that no image has."""
    first = int(np.searchsorted(starts, np.uint64(low), "right"))
    last = int(np.searchsorted(starts, np.uint64(min(high, ADDRESS_LIMIT - 1)), "left"))
    parts, at = [], low
    for number in range(max(first - 1, 0), last):
        begin, end = int(starts[number]), int(starts[number]) + int(sizes[number])
        if begin > at:
            parts.append((at, min(begin, high)))
        at = max(at, min(end, high)) if end > low else at
    return [*parts, (at, high)] if at < high else parts


def _entries(words: U64, width: int) -> I64:
    """Where the five words are in order."""
    count = len(words) - _WORDS + 1
    if count <= 0:
        return np.empty(0, np.int64)
    committed = words[_COMMITTED : count + _COMMITTED]
    reserved = words[_RESERVED : count + _RESERVED]
    low = (committed | reserved) & words.dtype.type(PAGE_SIZE - 1)
    at = np.flatnonzero((low == 0) & (committed != 0))
    for less, more in (
        (_COMMITTED, _RESERVED),
        (_MEM, _COMMITTED),
        (_ALLOCATED, _COMMITTED),
        (_USED, _RESERVED),
    ):
        at = at[words[at + less] <= words[at + more]]
    allocated = words[at + _ALLOCATED]  # of a region that is free it is 0
    at = at[(allocated == 0) | (allocated >= words[at + _MEM])]
    start = words[at + _MEM]
    at = at[(start >= 0x10000) & (start % width == 0)]
    near = words[at + _RESERVED] - words[at + _MEM] <= MAX_SEGMENT
    return np.asarray(at[near])


def object_at(tables: MethodTables, starts: U64) -> NDArray[np.bool_]:
    """Where an object begins, by the MethodTable that stands there."""
    firsts, there = tables.memory.gather(starts, f"<u{tables.pointer_size}")
    mask = np.uint64(tables.pointer_size - 1)
    good: NDArray[np.bool_] = there & tables.check(firsts.astype(np.uint64) & ~mask).good
    return good


def _apart(segments: list[Segment]) -> list[Segment]:
    """Segments none of which begins inside another: an entry that was left behind says no more."""
    kept: list[Segment] = []
    for segment in segments:
        if kept and segment.start < kept[-1].reserved:
            if segment.allocated > kept[-1].allocated:
                kept[-1] = segment
            continue
        kept.append(segment)
    return kept
