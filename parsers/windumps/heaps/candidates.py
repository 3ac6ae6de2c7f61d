"""Where an allocator's structures may lie: aligned addresses in memory that a process took."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, U64
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE, Regions

MOST_CANDIDATES = 1 << 24  # 64 KiB apart, that is a TiB of memory in one file


def aligned_addresses(memory: AddressSpace, alignment: int) -> U64:
    """Multiples of a power of two that are in the dump and, as far as it says, in private memory."""
    runs = memory.runs
    unit = np.uint64(alignment)
    up = np.uint64(alignment - 1)
    safe = runs.address < np.uint64(ADDRESS_LIMIT - alignment)
    start = (runs.address[safe] + up) // unit
    end = (runs.address[safe] + runs.size[safe].astype(np.uint64) + up) // unit
    count = (end - start).astype(np.int64)
    count[np.cumsum(count) > MOST_CANDIDATES] = 0
    first = np.repeat(start, count)
    into = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    found = (first + into.astype(np.uint64)) * unit
    return found[is_private(memory.regions, found)]


def is_private(regions: Regions, addresses: U64) -> NDArray[np.bool_]:
    """True for addresses in committed private memory; for all where the dump does not list its regions."""
    if not len(regions):
        return np.ones(len(addresses), np.bool_)
    row = np.searchsorted(regions.base_address, addresses, "right") - 1
    safe = np.maximum(row, 0)
    inside = (row >= 0) & (addresses - regions.base_address[safe] < regions.region_size[safe])
    taken = (regions.state[safe] == MEM_COMMIT) & (regions.type[safe] == MEM_PRIVATE)
    private: NDArray[np.bool_] = inside & taken
    return private


def most_common(values: NDArray[np.int64]) -> tuple[int, int]:
    """The value that occurs most often, and how often; (0, 0) of none."""
    if not len(values):
        return 0, 0
    distinct, count = np.unique(values, return_counts=True)
    best = int(count.argmax())
    return int(distinct[best]), int(count[best])
