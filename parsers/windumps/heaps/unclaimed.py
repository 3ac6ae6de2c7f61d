"""Memory of an allocator that no page of it claims: free, or of pages whose descriptions were lost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import U64
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

# PAGE_NOACCESS and PAGE_GUARD of winnt.h: nothing of a program is there, and no writer takes it.
NOT_DUMPED = np.uint32(0x101)


class Claims(NamedTuple):
    """What pages cover.

    Attributes:
        low: uint64, where each begins.
        high: uint64, where it ends.
        own: uint64, places of pages in front of which all memory is pages': what describes them is not apart.
    """

    low: U64
    high: U64
    own: U64


def unclaimed_bytes(
    memory: AddressSpace, ranges: list[tuple[int, int]], claims: Claims, unit: int
) -> int:
    """Committed bytes that may be pages': of allocations where any unclaimed memory is not blank, all of it.

    Memory that was never used is zeros and lies behind all pages. Where something is written or absent, or a
    page follows, a description is lost, and nothing tells how far its page reached.

    Args:
        memory: The process's memory.
        ranges: (start, bytes) of allocations.
        claims: Of all pages.
        unit: Bytes, a power of two: pages begin and end on multiples.
    """
    order = np.argsort(claims.low)
    low = claims.low[order] & ~np.uint64(unit - 1)
    high = np.maximum.accumulate(claims.high[order]) if len(order) else claims.high
    total = 0
    for start, size in ranges:
        place = np.arange(start, start + size, unit).astype(np.uint64)
        before = np.searchsorted(low, place, "right") - 1
        place = place[(before < 0) | (high[np.maximum(before, 0)] <= place)] if len(low) else place
        spans = _committed_in(memory, place.tolist(), unit)
        mine = claims.own[(claims.own >= np.uint64(start)) & (claims.own < np.uint64(start + size))]
        last = int(mine.max(initial=0))
        if any(first < last or not _is_blank(memory, first, end) for first, end in spans):
            total += sum(end - first for first, end in spans)
    return total


def claimed_bytes(memory: AddressSpace, claims: Claims, unit: int) -> int:
    """Committed bytes of claims, which begin and end on multiples of `unit` and share none."""
    places = [
        place
        for low, high in zip(claims.low.tolist(), claims.high.tolist(), strict=True)
        for place in range(low, high, unit)
    ]
    return sum(end - first for first, end in _committed_in(memory, places, unit))


def absent_beginnings(memory: AddressSpace, unit: int) -> U64:
    """Private allocations on multiples of a unit that begin with memory the dump lacks: they may be pages."""
    regions = memory.regions
    rows = (regions.base_address == regions.allocation_base) & (regions.state == MEM_COMMIT)
    rows &= (regions.type == MEM_PRIVATE) & (regions.base_address % np.uint64(unit) == 0)
    rows &= (regions.protect & NOT_DUMPED) == 0
    address = regions.base_address[rows]
    return np.asarray(address[memory.locate(address, 1) < 0])


def _committed_in(memory: AddressSpace, places: list[int], unit: int) -> list[tuple[int, int]]:
    """(start, end) of the committed parts of units; of all where the dump does not list its regions."""
    regions = memory.regions
    if not len(regions):
        return [
            (place, place + unit) for place in places if memory.present_bytes(place, place + unit)
        ]
    begin = regions.base_address
    spans = []
    for place in places:
        row = max(int(np.searchsorted(begin, np.uint64(place), "right")) - 1, 0)
        while row < len(regions) and int(begin[row]) < place + unit:
            end = min(int(begin[row]) + int(regions.region_size[row]), place + unit)
            first = max(int(begin[row]), place)
            if regions.state[row] == MEM_COMMIT and first < end:
                spans.append((first, end))
            row += 1
    return spans


def _is_blank(memory: AddressSpace, start: int, end: int) -> bool:
    found = memory.read_available(start, end - start)
    return len(found) == end - start and not any(found)
