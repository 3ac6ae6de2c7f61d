"""Large allocations: the kernel's table of all that begin a page.

A request of more than a page less a header gets whole pages and has no header in front; tag, size
and pool stand in this table. A freed entry keeps tag and size and only sets the lowest bit of its
address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.builds import LARGE_BLOCK_FLAGS
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.kernel.kernel import Kernel
from windumps.memory.fillers import on_fillers
from windumps.pool_tags import Pool, is_printable, plain_tags
from windumps.pools.image_words import LOWEST, KernelWords
from windumps.pools.large.search import BIG, BigTable, find_big_table, on_strange_pages
from windumps.pools.pool_types import (
    FLAG_QUOTA,
    QUOTA_BIT,
    pools_of_flags,
    pools_of_types,
    share_of_flags,
)

_FLAG_SHARE = 0.9
_HEADERS = (
    4  # units less than a page that a small block can have at most, with room for a kernel's own
)


@dataclass(frozen=True)
class BigPages:
    """Live large allocations, as columns of equal length in the order of their addresses.

    Attributes:
        address: uint64, what the caller got.
        size_bytes: int64, bytes charged: what was asked for, rounded up to pages (to 16 bytes in
            some cases on newer systems).
        tag: uint32.
        pool: uint8, `Pool`.
        is_quota: bool, charged to a process's quota.
        entry_count: Slots of the table.
        free_entries: Slots that name a freed allocation.
        absent_entries: Slots that are not in the dump: how many allocations they held is unknown.
        bad_entries: Slots that hold neither an allocation nor a freed one and are not unused: what they held
            is unknown.
        is_found: A table was found; without one the columns are empty and say nothing.
        source: How it was found, for people.
        layout: Which layout was used and how it was found, for people.
    """

    address: U64
    size_bytes: I64
    tag: U32
    pool: NDArray[np.uint8]
    is_quota: NDArray[np.bool_]
    entry_count: int = 0
    free_entries: int = 0
    absent_entries: int = 0
    bad_entries: int = 0
    is_found: bool = True
    source: str = ""
    layout: str = ""

    @property
    def is_whole(self) -> bool:
        """Every large allocation is known."""
        return self.is_found and not self.absent_entries and not self.bad_entries

    @classmethod
    def nothing(cls, source: str) -> BigPages:
        """No table, with the reason."""
        empty = np.empty(0, np.int64)
        return cls(
            empty.astype(np.uint64),
            empty,
            np.empty(0, np.uint32),
            np.empty(0, np.uint8),
            np.empty(0, np.bool_),
            is_found=False,
            source=source,
        )

    def __len__(self) -> int:
        return len(self.address)

    def bytes_of_tag(self, tag: int) -> dict[int, int]:
        """Size of each allocation of a tag, by address."""
        mine = self.tag == np.uint32(tag)
        return dict(zip(self.address[mine].tolist(), self.size_bytes[mine].tolist(), strict=True))

    def blocks(self) -> Blocks:
        """The allocations as blocks: kind `pool-large`, `heap` the pool."""
        used = np.ones(len(self), np.bool_)
        return Blocks.build(
            self.address,
            np.full(len(self), SIZE_UNKNOWN, np.int64),
            self.size_bytes,
            used,
            Kind.POOL_LARGE,
            self.pool,
            tag=self.tag,
        )


def read_big_pages(
    kernel: Kernel, words: KernelWords, log: DiagnosticLog, track_variables: Iterable[int] = ()
) -> BigPages:
    """Reads the table of large allocations.

    Args:
        kernel: The kernel.
        words: Its image, for a table that nothing names.
        log: Where it is told what is missing.
        track_variables: Addresses that the variable PoolTrackTable may have.
    """
    table = find_big_table(kernel, words, track_variables)
    if table is None:
        message = (
            "the table of large allocations was not found: no symbols name it, and nothing the "
            "kernel points to looks like it"
        )
        log.add("big-pages-not-found", Severity.ERROR, BIG, None, message)
        return BigPages.nothing(message)
    return _read(kernel, table, log)


def _read(kernel: Kernel, table: BigTable, log: DiagnosticLog) -> BigPages:
    row = table.row
    names = [name for name in row.structures[BIG] if name != "sizeof"]
    slots = table.slots()
    records, present = kernel.memory.gather(slots, row.dtype(BIG, *names))
    present &= ~on_fillers(kernel.memory, slots, row.size(BIG))
    address = records["Va"].astype(np.uint64)
    is_free = address & np.uint64(1) == 1
    is_empty = _are_empty(address, present)
    if row.has(BIG, "NumberOfPages"):
        size = records["NumberOfPages"].astype(np.int64) * PAGE_SIZE
    else:
        size = records["NumberOfBytes"].astype(np.uint64).view(np.int64)
    tag = plain_tags(records["Key"])
    sane = present & ~is_empty & _is_sane(kernel, address & ~np.uint64(1), size, tag)
    sane &= ~on_strange_pages(slots, address, present)
    bad = int((present & ~is_empty & ~sane).sum())
    keep = np.flatnonzero(sane & ~is_free)
    keep = keep[np.argsort(address[keep], kind="stable")]
    crossed = _crossed(address[keep], size[keep])
    bad += int(crossed.sum())
    keep = keep[~crossed]
    pool, quota, form = _pools(kernel, records[keep])
    absent = int((~present).sum())
    if absent:
        log.add(
            "big-pages-absent",
            Severity.WARNING,
            BIG,
            table.address,
            f"{absent} of {table.entry_count} slots of the table of large allocations are not in the dump: "
            "which allocations they hold is unknown",
            absent * row.size(BIG),
        )
    if bad:
        log.add(
            "bad-big-pages",
            Severity.WARNING,
            BIG,
            table.address,
            f"{bad} slots of the table of large allocations hold what no slot holds: which allocations they "
            "held is unknown",
            bad * row.size(BIG),
        )
    return BigPages(
        address=address[keep],
        size_bytes=size[keep],
        tag=tag[keep],
        pool=pool,
        is_quota=quota,
        entry_count=table.entry_count,
        free_entries=int((sane & is_free).sum()),
        absent_entries=absent,
        bad_entries=bad,
        source=table.source,
        layout=f"{row.name}, {table.score:.0%} of entries in place{form}",
    )


def _are_empty(address: U64, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slots that were never used: they hold 1 on all systems (seen on genuine kernels of 2600 to 7601).

    Zeros are what was written over such a table, unless no slot of it holds 1.
    """
    ones = present & (address == 1)
    return ones if ones.any() else present & (address <= 1)


def _is_sane(kernel: Kernel, address: U64, size: I64, tag: U32) -> NDArray[np.bool_]:
    """Page-aligned in the kernel's half, a size no small block has and that ends there, some tag."""
    lowest = LOWEST[kernel.pointer_size]
    limit = 1 << (32 if kernel.pointer_size == 4 else 47)
    sane: NDArray[np.bool_] = (address & np.uint64(PAGE_SIZE - 1) == 0) & (
        address >= np.uint64(lowest)
    )
    least = PAGE_SIZE - _HEADERS * 2 * kernel.pointer_size
    sane &= (size >= least) & (size & 7 == 0) & (size <= limit) & (is_printable(tag) | (tag != 0))
    last = address + (size - 1).astype(np.uint64)
    sane &= last >= address
    return sane


def _crossed(address: U64, size: I64) -> NDArray[np.bool_]:
    """Which allocations reach into the next one, and those they reach into: one of both is none."""
    crossed = np.zeros(len(address), np.bool_)
    over = address[:-1] + size[:-1].astype(np.uint64) > address[1:]
    crossed[:-1] |= over
    crossed[1:] |= over
    return crossed


def _pools(
    kernel: Kernel, records: NDArray[np.void]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    """Pool and quota of each entry, and which form the type has, for people."""
    names = records.dtype.names or ()
    if "PoolType" in names:
        types = records["PoolType"].astype(np.uint32)
    elif "Bits" in names:
        types = (records["Bits"] >> np.uint32(8)).astype(np.uint32) & np.uint32(0xFFF)
        share = share_of_flags(types)
        if share >= _FLAG_SHARE or (not len(types) and kernel.build in LARGE_BLOCK_FLAGS):
            return pools_of_flags(types), (types & FLAG_QUOTA) != 0, ", types as POOL_FLAGS"
    else:
        pool, how = _pools_of_places(kernel, records["Va"].astype(np.uint64))
        return pool, np.zeros(len(records), np.bool_), how
    return pools_of_types(types), (types & QUOTA_BIT) != 0, ", types as POOL_TYPE"


def _pools_of_places(kernel: Kernel, address: U64) -> tuple[NDArray[np.uint8], str]:
    """Pools of allocations whose table has no types (before Vista), and how they are known, for people."""
    start, end = (kernel.value(f"MmPagedPool{name}") for name in ("Start", "End"))
    if not start or not end or start >= end:
        return np.full(len(address), Pool.UNKNOWN, np.uint8), ", without pool types"
    paged = (address >= np.uint64(start)) & (address <= np.uint64(end))
    pool = np.where(paged, Pool.PAGED, Pool.NONPAGED).astype(np.uint8)
    return pool, ", types from where paged pool lies"
