"""Driver Verifier's records of blocks: who allocated each, where it tracks pool.

For every driver it watches the Verifier keeps pages of records: address, caller, size and tag of each
block. The pages are allocations of one page, so the table of large allocations leads to them
without symbols; a record proves itself by a caller that lies in a driver, loaded or unloaded before.

How sure: record, page header and the link of free records are in public symbols; that pages are allocations
of one page, and that the first record of a page is its header, was not seen on a real system yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.kernel.kernel import Kernel
from windumps.layouts.verifier import VERIFIER_ENTRY_BYTES
from windumps.pool_tags import is_printable, plain_tags
from windumps.pools.image_words import LOWEST
from windumps.pools.large.blocks import BigPages
from windumps.pools.verifier.drivers import (
    Suspect,
    VerifiedDriver,
    listed_drivers,
    read_driver,
    without_records,
)
from windumps.pools.verifier.pool_use import PoolUse
from windumps.pools.verifier.settings import VerifierSettings
from windumps.process.stack_traces import CodeMap

MAX_BLOCK = 1 << 40
_SURE = 0.8
_MOST_EMPTIED = 4096  # pages that may be such without a record in use


@dataclass(frozen=True)
class VerifierData:
    """What Driver Verifier recorded.

    Attributes:
        level: Its settings (bit 0: special pool, bit 3: pool tracking).
        counters: Its counters over all drivers, by Microsoft's names.
        drivers: The drivers it watches, those with most bytes first.
        address: uint64, blocks it recorded, ascending: what the caller got.
        size: int64, bytes asked for.
        tag: uint32.
        caller: uint64, address behind the call that allocated each.
        driver: int64, index into `drivers`.
    """

    level: int
    counters: dict[str, int]
    drivers: list[VerifiedDriver]
    address: U64
    size: I64
    tag: U32
    caller: U64
    driver: I64

    def __len__(self) -> int:
        return len(self.address)


class _Found(NamedTuple):
    """Records in use, and the address of the counters of the driver each belongs to."""

    rows: NDArray[Any]
    image: I64
    entry: U64
    emptied: U64  # what pages without a record in use name in that place


def read_verifier(
    kernel: Kernel, big_pages: BigPages, settings: VerifierSettings
) -> VerifierData | None:
    """What Driver Verifier recorded; None when it was off, or nothing tells whether it was on."""
    if not settings.is_on:
        return None
    code = CodeMap(kernel.drivers, kernel.unloaded)
    found = _records(kernel, code, big_pages)
    rows = found.rows
    # Where every block that Verifier counts was found, drivers without records hold nothing.
    others = PoolUse(0, 0, None, None) if settings.block_count == len(rows) else None
    drivers, number = _drivers(kernel, code, found, others)
    order = np.argsort(rows["address"], kind="stable")
    return VerifierData(
        level=settings.level,
        counters=settings.counters,
        drivers=drivers,
        address=rows["address"].astype(np.uint64)[order],
        size=rows["bytes"].astype(np.int64)[order],
        tag=plain_tags(rows["tag"])[order],
        caller=rows["caller"].astype(np.uint64)[order],
        driver=number[order],
    )


def _records(kernel: Kernel, code: CodeMap, big_pages: BigPages) -> _Found:
    """All records of all pages that hold some."""
    size = kernel.pointer_size
    step = VERIFIER_ENTRY_BYTES[size]
    word = f"<u{size}"
    record = np.dtype(
        {
            "names": ["address", "caller", "bytes", "tag"],
            "formats": [word, word, word, "<u4"],
            "offsets": [0, size, 2 * size, 3 * size],
            "itemsize": step,
        }
    )
    pages = big_pages.address[big_pages.size_bytes == PAGE_SIZE]
    index = np.arange(PAGE_SIZE // step, dtype=np.uint64) * np.uint64(step)
    rows, present = kernel.memory.gather(pages[:, None] + index, record)
    heads, rows, present = rows[:, 0], rows[:, 1:], present[:, 1:]
    image = code.index_of(rows["caller"].astype(np.uint64))
    used = present & (rows["caller"] != 0) & ~_are_free(rows["address"].astype(np.uint64), pages)
    good = used & (image >= 0) & is_printable(plain_tags(rows["tag"].ravel())).reshape(rows.shape)
    good &= (rows["address"] >= LOWEST[size]) & (rows["bytes"] > 0) & (rows["bytes"] < MAX_BLOCK)
    # `_VI_POOL_PAGE_HEADER`: the next page, or none, and the driver's entry.
    link = heads["address"].astype(np.uint64)
    head = ((link == 0) | (link & np.uint64(PAGE_SIZE - 1) == 0)) & (
        heads["caller"] >= LOWEST[size]
    )
    share = good.sum(axis=1) / np.maximum(used.sum(axis=1), 1)
    good &= (head & (share >= _SURE))[:, None]
    entries = heads["caller"].astype(np.uint64)
    entry = np.broadcast_to(entries[:, None], good.shape)[good]
    emptied = np.unique(entries[head & present.any(axis=1) & ~used.any(axis=1)])
    return _Found(rows[good], image[good], entry, np.setdiff1d(emptied, entry)[:_MOST_EMPTIED])


def _are_free(address: U64, pages: U64) -> NDArray[np.bool_]:
    """Records that are not in use: the next such one, or nothing, stands in place of a block's address.

    All records are in pages that are allocations of their own, and no other block is inside of one.
    """
    inside = np.isin(address & ~np.uint64(PAGE_SIZE - 1), pages)
    free: NDArray[np.bool_] = (address == 0) | inside & (address % np.uint64(PAGE_SIZE) != 0)
    return free


def _drivers(
    kernel: Kernel, code: CodeMap, found: _Found, others: PoolUse | None
) -> tuple[list[VerifiedDriver], I64]:
    """The watched drivers, and which of them each record belongs to.

    Args:
        kernel: The kernel.
        code: Its images.
        found: The records.
        others: What drivers without records hold of either pool; None where that is not known.
    """
    size = found.rows["bytes"].astype(np.int64)
    entries, number = np.unique(found.entry, return_inverse=True)
    drivers: list[VerifiedDriver] = []
    known: list[Suspect] = []
    for index, address in enumerate(entries.tolist()):
        mine = number == index
        caller = code.modules[int(np.bincount(found.image[mine]).argmax())]
        driver, suspect = read_driver(
            kernel, address, int(mine.sum()), int(size[mine].sum()), caller
        )
        drivers.append(driver)
        known += [suspect] if suspect is not None else []
    for address in found.emptied.tolist():
        driver, suspect = read_driver(kernel, address, 0, 0, None)
        if suspect is not None and driver.counted is not None:  # what a page names may be anything
            drivers.append(driver)
            known.append(suspect)
    order = sorted(range(len(drivers)), key=lambda index: -drivers[index].block_bytes)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    names = {driver.name.lower() for driver in drivers}
    rest = [
        without_records(kernel, suspect, others)
        for suspect in listed_drivers(kernel, known)
        if suspect.name.lower() not in names
    ]
    return [drivers[index] for index in order] + rest, place[number]
