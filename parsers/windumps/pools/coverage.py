"""How much of the pools a walk saw, and what it did not see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.address_space import Presence

REGION = 1 << 21  # of one leaf table of 64-bit and PAE kernels
# Of one entry of the root of 64-bit kernels, which give each to one kind of memory; 32-bit ones have less.
SPAN_BITS = 39


@dataclass
class PoolCoverage:
    """Accounts of a walk over the small blocks; complete once it ran to its end.

    Attributes:
        method: How blocks were found, for people.
        walked_bytes: Pages, or parts of heaps, whose blocks are known.
        used_count: Blocks in use.
        used_bytes: Bytes of these, as the kernel charges them.
        free_count: Blocks not in use.
        cached_count: Of the free ones, those that look used in place and are on some list of freed
            blocks.
        recovered_count: Of the used ones, those whose heap's record is not in the dump: they bear a pool
            header, and the trackers miss as many of their tags.
        damaged_bytes: Parts that could not be walked because of damage.
        absent_pages: Pages of pool that are not in the dump and may hold small blocks.
        absent_large_pages: Pages inside large allocations that are not in the dump, though these are known.
        is_whole: All places where blocks can be are known: what was not walked is counted above.
        doubtful_bytes: Memory among that of the pools, or where tables of it are missing, that may hold
            blocks and does not read so: only counters of all tags can tell that none is lost there.
        is_bounded: All tables of pages that lead to the pools are here.
        fragments: Headers that begin what large blocks leave of their last page, in nonpaged and paged
            pool; each takes one unit, charged to the tag "Frag" while its large block is there.
        orphans: The same where the large block is none any more, or not known, and blocks behind are used.
        notes: What a reader of the numbers must know.
    """

    method: str = ""
    walked_bytes: int = 0
    used_count: int = 0
    used_bytes: int = 0
    free_count: int = 0
    cached_count: int = 0
    recovered_count: int = 0
    damaged_bytes: int = 0
    absent_pages: int = 0
    absent_large_pages: int = 0
    is_whole: bool = True
    doubtful_bytes: int = 0
    is_bounded: bool = True
    fragments: list[int] = field(default_factory=lambda: [0, 0])
    orphans: list[int] = field(default_factory=lambda: [0, 0])
    notes: list[str] = field(default_factory=list)

    @property
    def absent_bytes(self) -> int:
        """Bytes of the absent pages that may hold small blocks."""
        return self.absent_pages * PAGE_SIZE


class Ranges:
    """Address ranges that are something else than small blocks; looked up by column.

    Args:
        ranges: (start, bytes), any order; overlapping ones are joined.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        starts: list[int] = []
        ends: list[int] = []
        for start, size in sorted(ranges):
            if size <= 0:
                continue
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], start + size)
            else:
                starts.append(start)
                ends.append(start + size)
        self._start = np.array(starts, np.uint64)
        self._last = np.array([min(end, 1 << 64) - 1 for end in ends], np.uint64)

    def holds(self, addresses: U64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """bool: which addresses lie in some range."""
        if not len(self._start):
            return np.zeros(addresses.shape, np.bool_)
        at = np.searchsorted(self._start, addresses, "right").astype(np.int64) - 1
        return (at >= 0) & (addresses <= self._last[np.maximum(at, 0)])


def absent_pages(memory: AddressSpace, pages: U64) -> U64:
    """Pages that were mapped and are not in the dump, in the regions that hold some pool page.

    Args:
        memory: Where the pool lies.
        pages: uint64, addresses of pages of the pool.
    """
    if not isinstance(memory, PageTableMemory):
        return np.empty(0, np.uint64)
    found: list[int] = []
    for region in np.unique(pages & ~np.uint64(REGION - 1)).tolist():
        if memory.absent_bytes(region, region + REGION):
            found += [
                page
                for page in range(region, region + REGION, PAGE_SIZE)
                if memory.presence(page) is Presence.ABSENT
            ]
    return np.array(found, np.uint64)


def lost_tables(memory: AddressSpace, pages: U64) -> tuple[int, bool]:
    """What the page tables around some pages do not lead to, though they are there.

    A table that leads to no page of the dump may be one that was overwritten, or could not be read, as well
    as one whose pages are all gone.

    Args:
        memory: Where the pool lies.
        pages: uint64, addresses of pages of the pool.

    Returns:
        Bytes that such tables could map where memory holds pool; and whether there are none elsewhere, where
        another part of the pool may be, and no upper table without any entry.
    """
    if not isinstance(memory, PageTableMemory):
        return 0, True
    first, is_sound = memory.leaf_tables()
    span = first[~is_sound] >> np.uint64(SPAN_BITS)
    among = np.isin(span, pages >> np.uint64(SPAN_BITS))
    is_bounded = bool(among.all()) and not memory.lost_upper_tables()
    return int(among.sum()) * memory.table_bytes, is_bounded


def page_rows(address: U64, size: I64, offset: I64) -> tuple[U64, I64]:
    """Whole pages of pieces of memory: (addresses, file offsets)."""
    into = (-address & np.uint64(PAGE_SIZE - 1)).astype(np.int64)
    count = np.maximum((size - into) // PAGE_SIZE, 0)
    total = int(count.sum())
    piece = np.repeat(np.arange(len(count)), count)
    number = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    within = number * PAGE_SIZE + into[piece]
    return address[piece] + within.astype(np.uint64), offset[piece] + within
