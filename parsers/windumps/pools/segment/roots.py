"""The segment heaps of the kernel's pool (Windows 10 1903 and later): where they are, what each is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, PAGE_SIZE, U64
from windumps.heaps.segment.heap import SIGNATURE
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import (
    POOL_NODE_BYTES,
    POOL_NODE_HEAPS,
    POOL_STATE_LAYOUTS,
)
from windumps.layouts.rows import candidates
from windumps.memory import AddressSpace, PageTableMemory
from windumps.pool_tags import Pool
from windumps.pools.coverage import page_rows
from windumps.pools.image_words import LOWEST, KernelWords

STATE = "_EX_POOL_HEAP_MANAGER_STATE"
MAX_NODES = 64
MAX_HEAPS = 4 * MAX_NODES + 8
# What the heaps of a node are for, in their order; the last holds prototype PTEs.
_POOLS = (Pool.NONPAGED, Pool.NONPAGED_NX, Pool.PAGED, Pool.PAGED)


@dataclass(frozen=True)
class PoolHeap:
    """One heap of the pool.

    Attributes:
        address: Of its `_SEGMENT_HEAP`.
        pool: What it is for; `Pool.UNKNOWN` where only its blocks tell.
        source: How it was found, for people.
    """

    address: int
    pool: Pool
    source: str


def pool_heaps(kernel: Kernel, words: KernelWords) -> list[PoolHeap]:
    """All heaps of the pool; none where nothing leads to them."""
    state = kernel.find_symbol("ExPoolState")
    if state is not None:
        found = _by_state(kernel, state.address, f"ExPoolState, {state.detail}")
        if found:
            return found
    found = _by_words(kernel, words)
    return found or _by_signature(kernel)


def _is_heap(memory: AddressSpace, addresses: U64, pointer_size: int) -> NDArray[np.bool_]:
    values, _ = memory.gather(addresses + np.uint64(2 * pointer_size), "<u4")
    found: NDArray[np.bool_] = (values == SIGNATURE) & (addresses & np.uint64(PAGE_SIZE - 1) == 0)
    return found


def _by_state(kernel: Kernel, state: int, source: str) -> list[PoolHeap]:
    """The heaps ExPoolState names, by the layout whose pointers lead to heaps."""
    for row in candidates(POOL_STATE_LAYOUTS, kernel.architecture, kernel.build):
        first = state + row.offset(STATE, "PoolNode")
        special = state + row.offset(STATE, "SpecialHeaps")
        found = _nodes(kernel, first, source)
        if found:
            return found + _pointed(
                kernel, special, POOL_NODE_HEAPS, Pool.UNKNOWN, f"{source}, special", found
            )
    return []


def _nodes(kernel: Kernel, first: int, source: str) -> list[PoolHeap]:
    """Heaps of all nodes, until one has none."""
    found: list[PoolHeap] = []
    for number in range(MAX_NODES):
        place = first + number * POOL_NODE_BYTES
        here = [
            heap
            for index, pool in enumerate(_POOLS)
            for heap in _pointed(
                kernel, place + index * kernel.pointer_size, 1, pool, source, found
            )
        ]
        if not here:
            break
        found += here + _lost(kernel, place, source, [*found, *here])
    return found


def _lost(kernel: Kernel, place: int, source: str, known: list[PoolHeap]) -> list[PoolHeap]:
    """Heaps that a node names and that are not in the dump, or overwritten."""
    size = kernel.pointer_size
    places = np.uint64(place) + np.arange(len(_POOLS), dtype=np.uint64) * np.uint64(size)
    values, present = kernel.memory.gather(places, f"<u{size}")
    named = present & (values.astype(np.uint64) >= np.uint64(LOWEST[size]))
    old = {heap.address for heap in known}
    return [
        PoolHeap(int(values[number]), _POOLS[number], source)
        for number in np.flatnonzero(named).tolist()
        if int(values[number]) not in old
    ]


def _pointed(
    kernel: Kernel, place: int, count: int, pool: Pool, source: str, known: list[PoolHeap]
) -> list[PoolHeap]:
    """Heaps that `count` pointers at a place lead to, without those already known."""
    size = kernel.pointer_size
    places = np.uint64(place) + np.arange(count, dtype=np.uint64) * np.uint64(size)
    values, _ = kernel.memory.gather(places, f"<u{size}")
    targets = values.astype(np.uint64)
    good = targets[_is_heap(kernel.memory, targets, size) & (targets >= LOWEST[size])]
    old = {heap.address for heap in known}
    return [
        PoolHeap(address, pool, source)
        for address in np.unique(good).tolist()
        if address not in old
    ]


def _by_words(kernel: Kernel, words: KernelWords) -> list[PoolHeap]:
    """Pointers to segment heaps in the kernel's image: a node has four side by side."""
    size = kernel.pointer_size
    tables = words.tables()
    heaps = tables[_is_heap(kernel.memory, tables, size)]
    if not len(heaps) or len(heaps) > MAX_HEAPS:
        return []
    at = np.flatnonzero(np.isin(words.value, heaps))
    places = words.address[at]
    run = 0
    source = "found by what it holds"
    found: list[PoolHeap] = []
    for number in range(1, len(places) + 1):
        # A run of pointers side by side ends here.
        if number < len(places) and int(places[number] - places[number - 1]) == size:
            continue
        if number - run >= 3 and not found:
            found = _nodes(kernel, int(places[run]), source)
        run = number
    known = {heap.address for heap in found}
    return found + [
        PoolHeap(address, Pool.UNKNOWN, source)
        for address in heaps.tolist()
        if address not in known
    ]


def _by_signature(kernel: Kernel) -> list[PoolHeap]:
    """Every page in the dump that bears the signature, where the kernel's own data is missing."""
    memory, size = kernel.memory, kernel.pointer_size
    if not isinstance(memory, PageTableMemory):
        return []
    found: list[int] = []
    end = 1 << 32 if size == 4 else ADDRESS_LIMIT
    for piece in memory.pieces(LOWEST[size], end):
        page, _ = page_rows(*piece)
        found += page[_is_heap(memory, page, size)].tolist()
    return [
        PoolHeap(address, Pool.UNKNOWN, "found by its signature") for address in found[:MAX_HEAPS]
    ]
