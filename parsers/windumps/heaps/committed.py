"""What is committed around an address, where a heap's own account of it is lost: by the list of regions."""

from __future__ import annotations

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE

ALLOCATION_GRANULARITY = 0x10000


def committed_around(memory: AddressSpace, address: int) -> list[tuple[int, int]]:
    """Committed parts of the allocation that holds `address`, as (start, end), ascending.

    Without a list of regions it is the least that can be said: that address's page.
    """
    regions = memory.regions
    row = regions.row_of(address)
    if row >= 0 and int(regions.state[row]) == MEM_COMMIT:
        mine = regions.allocation_base == regions.allocation_base[row]
        mine &= regions.state == MEM_COMMIT
        starts = regions.base_address[mine].tolist()
        parts: list[tuple[int, int]] = []
        for start, size in zip(starts, regions.region_size[mine].tolist(), strict=True):
            if parts and parts[-1][1] == start:
                parts[-1] = (parts[-1][0], start + size)
            else:
                parts.append((start, start + size))
        return parts
    if len(regions):
        return []
    start = address & ~(PAGE_SIZE - 1)
    return [(start, start + PAGE_SIZE)]


def committed_at(memory: AddressSpace, addresses: U64) -> list[tuple[int, int]]:
    """Committed parts of all allocations that hold one of these addresses, as (start, end), ascending."""
    regions = memory.regions
    if not len(regions):
        pages = np.unique(addresses & ~np.uint64(PAGE_SIZE - 1)).tolist()
        return [(page, page + PAGE_SIZE) for page in pages]
    row = np.searchsorted(regions.base_address, addresses, "right") - 1
    row = row[row >= 0]
    bases = np.unique(regions.allocation_base[row[regions.state[row] == MEM_COMMIT]])
    mine = (regions.state == MEM_COMMIT) & np.isin(regions.allocation_base, bases)
    starts, sizes = regions.base_address[mine].tolist(), regions.region_size[mine].tolist()
    return [(start, start + size) for start, size in zip(starts, sizes, strict=True)]


def uncommitted_each(memory: AddressSpace, starts: U64, ends: U64) -> I64:
    """How many bytes of each range [start, end) are not committed, for memory that was given back.

    By the list of regions, which leaves out what it does not cover where it is cut; without one all that is
    not in the file.
    """
    regions = memory.regions
    length = (ends - starts).astype(np.int64)
    if not len(regions):
        return length - memory.present_each(starts, ends)
    size = regions.region_size.astype(np.int64)

    def within(sizes: I64) -> I64:
        """Bytes of regions in each range; `sizes` are those of the regions that count, else 0."""
        before = np.cumsum(sizes) - sizes

        def below(addresses: U64) -> I64:
            row = regions.base_address.searchsorted(addresses, "right") - 1
            safe = np.maximum(row, 0)
            into = addresses - regions.base_address[safe]
            inside = np.minimum(into, sizes[safe].astype(np.uint64)).astype(np.int64)
            return np.where(row >= 0, before[safe] + inside, 0)

        return below(ends) - below(starts)

    committed = within(np.where(regions.state == MEM_COMMIT, size, 0))
    return (length if regions.whole else within(size)) - committed


def allocation_starts(memory: AddressSpace) -> U64:
    """Where allocations of private memory begin, ascending; all places where one may without regions."""
    regions = memory.regions
    if len(regions):
        private = (regions.type == MEM_PRIVATE) & (regions.state == MEM_COMMIT)
        return np.unique(regions.allocation_base[private])
    found = [np.empty(0, np.uint64)]
    for address, size, _ in zip(*memory.runs, strict=True):
        first = -(-int(address) // ALLOCATION_GRANULARITY) * ALLOCATION_GRANULARITY
        end = int(address) + int(size)
        if first < end:
            found.append(np.arange(first, end, ALLOCATION_GRANULARITY, dtype=np.uint64))
    return np.concatenate(found)
