"""Where an NT heap's allocations can begin, for those that no list names any more.

Only asked when something of a heap is missing: it touches a page of every allocation of the
process.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.heaps.base import HeapContext
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

ALLOCATION_BYTES = 0x10000  # VirtualAlloc's granularity
Ranges = list[tuple[int, int]]  # (start, bytes)


def allocation_starts(context: HeapContext, claimed: Ranges) -> U64:
    """Addresses in the dump where an allocation may begin, outside memory that is accounted for."""
    regions = context.memory.regions
    if len(regions):
        own = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
        starts = np.unique(regions.allocation_base[own])
    else:
        starts = _multiples(context, ALLOCATION_BYTES)
    return _outside(starts, claimed)


def entry_starts(context: HeapContext, claimed: Ranges) -> U64:
    """Addresses in the dump where a large block may begin: from Windows 10 on not at the
    allocation's base, but within its first 64 KiB.
    """
    regions = context.memory.regions
    if len(regions):
        own = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
        own &= regions.base_address - regions.allocation_base < np.uint64(ALLOCATION_BYTES)
        starts = np.unique(regions.base_address[own])
    else:
        starts = _multiples(context, PAGE_SIZE)
    return _outside(starts, claimed)


def committed_span(context: HeapContext, address: int) -> int | None:
    """Bytes committed from an address on in one allocation; None when the dump does not say."""
    regions = context.memory.regions
    row = regions.row_of(address)
    if row < 0:
        return None
    base, end = int(regions.allocation_base[row]), address
    while (
        row < len(regions)
        and int(regions.base_address[row]) <= end
        and int(regions.allocation_base[row]) == base
        and int(regions.state[row]) == MEM_COMMIT
    ):
        end = max(end, int(regions.base_address[row]) + int(regions.region_size[row]))
        row += 1
    return end - address


def allocation_end(context: HeapContext, address: int) -> int | None:
    """Where the allocation that begins at an address ends; None when the dump does not say."""
    regions = context.memory.regions
    rows = np.flatnonzero(regions.allocation_base == np.uint64(address))
    if not len(rows):
        return None
    return int((regions.base_address[rows] + regions.region_size[rows]).max())


def private_bytes(context: HeapContext, claimed: Ranges) -> int | None:
    """Private committed memory of the process outside of `claimed`; None when the dump does not
    say.
    """
    regions = context.memory.regions
    if not len(regions):
        return None
    own = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
    starts = regions.base_address[own]
    return int(regions.region_size[own][~_inside(starts, claimed)].sum())


def _multiples(context: HeapContext, step: int) -> U64:
    """Multiples of `step` that are in the dump."""
    pieces = [np.empty(0, np.uint64)]
    for start, size in zip(*(column.tolist() for column in context.memory.runs[:2]), strict=True):
        first = -(-start // step) * step
        count = max(start + size - first + step - 1, 0) // step
        pieces.append(np.uint64(first) + np.arange(count).astype(np.uint64) * np.uint64(step))
    return np.concatenate(pieces)


def _outside(starts: U64, claimed: Ranges) -> U64:
    return starts[~_inside(starts, claimed)]


def _inside(addresses: U64, claimed: Ranges) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    inside = np.zeros(len(addresses), bool)
    for start, size in claimed:
        low, high = np.searchsorted(addresses, np.array([start, start + size], np.uint64))
        inside[low:high] = True
    return inside
