"""Allocations of address space that a process took itself, as columns, for telling whose they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_FREE, PAGE_GUARD

HEAD_WORDS = 8
_EXECUTABLE = 0xF0  # PAGE_EXECUTE* of winnt.h
_SMALLEST_STACK = 2  # regions: the guard page and what is committed above it


@dataclass(frozen=True)
class Allocations:
    """Private allocations, one row each, ascending.

    Attributes:
        memory: The process's memory.
        width: Pointer size.
        base: uint64.
        size: int64, bytes reserved.
        head: uint64, shape (n, HEAD_WORDS): the words it begins with; 0 where they are not in the dump.
        executable: Some of it is committed as code.
        stack: It is laid out as a stack: nothing below a guard page, committed from there to its end.
    """

    memory: AddressSpace
    width: int
    base: U64
    size: I64
    head: U64
    executable: NDArray[np.bool_]
    stack: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.base)

    def of(self, addresses: U64) -> I64:
        """The row of the allocation each address lies in, -1 for none."""
        if not len(self):
            return np.full(len(addresses), -1, np.int64)
        row = np.searchsorted(self.base, addresses, "right") - 1
        safe = np.maximum(row, 0)
        inside = (row >= 0) & (addresses - self.base[safe] < self.size[safe].astype(np.uint64))
        return np.where(inside, row, -1)

    def having(self, addresses: U64, least: int = 1) -> NDArray[np.bool_]:
        """True for the allocations that so many of the addresses lie in."""
        rows = self.of(addresses)
        return np.bincount(rows[rows >= 0], minlength=len(self)) >= least


def allocations_at(memory: AddressSpace, base: U64, width: int) -> Allocations:
    """The allocations that begin at addresses.

    Args:
        memory: The process's memory, whose regions are listed.
        base: uint64, ascending.
        width: Pointer size.
    """
    regions = memory.regions
    rows = np.flatnonzero(np.isin(regions.allocation_base, base) & (regions.state != MEM_FREE))
    owner = np.searchsorted(base, regions.allocation_base[rows])
    sizes = regions.region_size[rows].astype(np.int64)
    size = np.bincount(owner, sizes, len(base)).astype(np.int64)
    code = (regions.protect[rows] & np.uint32(_EXECUTABLE) != 0) & (
        regions.state[rows] == MEM_COMMIT
    )
    executable = np.bincount(owner, code, len(base)) > 0
    places = base[:, None] + np.arange(HEAD_WORDS, dtype=np.uint64) * np.uint64(width)
    head, _ = memory.gather(places, f"<u{width}")
    stack = _stacks(memory, rows, owner, len(base))
    return Allocations(memory, width, base, size, head.astype(np.uint64), executable, stack)


def _stacks(memory: AddressSpace, rows: I64, owner: I64, count: int) -> NDArray[np.bool_]:
    """True for allocations that end with a guard page and committed memory, one region each."""
    regions = memory.regions
    state, protect = regions.state[rows], regions.protect[rows]
    guard = (state == MEM_COMMIT) & (protect & np.uint32(PAGE_GUARD) != 0)
    plain = (state == MEM_COMMIT) & (protect == _READ_WRITE)
    guards, plains = np.bincount(owner, guard, count), np.bincount(owner, plain, count)
    committed = np.bincount(owner, state == MEM_COMMIT, count)
    last = np.zeros(count, np.int64)
    last[owner] = np.arange(len(rows))  # regions ascend: the last is written last
    before = np.maximum(last - 1, 0)
    if not len(rows):
        return np.zeros(count, np.bool_)
    ends = plain[last] & guard[before] & (owner[before] == np.arange(count))
    fits: NDArray[np.bool_] = ends & (guards == 1) & (plains == 1) & (committed <= 3)
    return fits


_READ_WRITE = 0x04  # PAGE_READWRITE
