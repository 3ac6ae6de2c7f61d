"""Driver Verifier's own records: who allocated each block, where the Verifier watched.

For every driver it watches the Verifier keeps pages of records: address, caller, size and tag of each
block. The pages are allocations of one page, so the table of large allocations leads to them
without symbols; a record proves itself by a caller that lies in a loaded driver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.images.modules import Module
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import (
    VERIFIED_DRIVER,
    VERIFIED_DRIVER_LAYOUTS,
    VERIFIER,
    VERIFIER_ENTRY_BYTES,
    VERIFIER_LAYOUTS,
)
from windumps.layouts.rows import candidates
from windumps.pool_tags import is_printable, plain_tags
from windumps.pools.image_words import LOWEST
from windumps.pools.large.blocks import BigPages

_MAX_BLOCK = 1 << 40
_SURE = 0.8


@dataclass(frozen=True)
class VerifiedDriver:
    """One driver the Verifier watches.

    Attributes:
        driver: The image most of its blocks were allocated from.
        block_count: Its blocks among the records found.
        block_bytes: Their bytes.
        paged_count: Blocks of paged pool by the Verifier's own counter; None when not known.
        nonpaged_count: Blocks of nonpaged pool by the Verifier's own counter; None when not known.
        paged_bytes: Bytes of these blocks.
        nonpaged_bytes: Bytes of these blocks.
    """

    driver: Module
    block_count: int
    block_bytes: int
    paged_count: int | None
    nonpaged_count: int | None
    paged_bytes: int | None
    nonpaged_bytes: int | None


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


def read_verifier(kernel: Kernel, big_pages: BigPages, log: DiagnosticLog) -> VerifierData | None:
    """What Driver Verifier recorded; None when it was off, or nothing tells whether it was on."""
    place = kernel.symbol("MmVerifierData")
    row = VERIFIER_LAYOUTS["x86" if kernel.pointer_size == 4 else "x64"]
    if place is None:
        return None
    try:
        record = row.read(kernel.memory, VERIFIER, place)
    except MemoryReadError:
        log.add(
            "verifier-absent",
            Severity.INFO,
            VERIFIER,
            place,
            "whether Driver Verifier was on is not in the dump",
        )
        return None
    counters = {name: record[name] for name in row.structures[VERIFIER] if name != "sizeof"}
    if not any(counters.values()):
        return None
    return _records(kernel, big_pages, counters)


def _records(kernel: Kernel, big_pages: BigPages, counters: dict[str, int]) -> VerifierData:
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
    module = _modules(kernel, rows["caller"].astype(np.uint64))
    good = (
        present & (module >= 0) & is_printable(plain_tags(rows["tag"].ravel())).reshape(rows.shape)
    )
    good &= (rows["address"] >= LOWEST[size]) & (rows["bytes"] > 0) & (rows["bytes"] < _MAX_BLOCK)
    # `_VI_POOL_PAGE_HEADER`: the next page, or none, and the driver's entry.
    link = heads["address"].astype(np.uint64)
    head = ((link == 0) | (link & np.uint64(PAGE_SIZE - 1) == 0)) & (
        heads["caller"] >= LOWEST[size]
    )
    filled = present & (rows["caller"] != 0)
    share = good.sum(axis=1) / np.maximum(filled.sum(axis=1), 1)
    good &= (head & (share >= _SURE))[:, None]
    entry = np.broadcast_to(heads["caller"].astype(np.uint64)[:, None], good.shape)[good]
    found, module = rows[good], module[good]
    drivers, number = _drivers(kernel, entry, module, found["bytes"].astype(np.int64))
    order = np.argsort(found["address"], kind="stable")
    return VerifierData(
        level=counters["Level"],
        counters=counters,
        drivers=drivers,
        address=found["address"].astype(np.uint64)[order],
        size=found["bytes"].astype(np.int64)[order],
        tag=plain_tags(found["tag"])[order],
        caller=found["caller"].astype(np.uint64)[order],
        driver=number[order],
    )


def _modules(kernel: Kernel, callers: U64) -> I64:
    """Index of the driver each address lies in; -1 where in none."""
    drivers = kernel.drivers
    if not drivers:
        return np.full(callers.shape, -1, np.int64)
    order = sorted(range(len(drivers)), key=lambda number: drivers[number].base_address)
    base = np.array([drivers[number].base_address for number in order], np.uint64)
    size = np.array([drivers[number].size_bytes for number in order], np.uint64)
    at = np.searchsorted(base, callers, "right").astype(np.int64) - 1
    inside = (at >= 0) & (callers - base[np.maximum(at, 0)] < size[np.maximum(at, 0)])
    return np.where(inside, np.array(order, np.int64)[np.maximum(at, 0)], -1)


def _drivers(
    kernel: Kernel, entry: U64, module: I64, size: I64
) -> tuple[list[VerifiedDriver], I64]:
    """The watched drivers, and which of them each record belongs to."""
    entries, number = np.unique(entry, return_inverse=True)
    found = []
    for index, address in enumerate(entries.tolist()):
        mine = number == index
        count, held = int(mine.sum()), int(size[mine].sum())
        driver = kernel.drivers[int(np.bincount(module[mine]).argmax())]
        numbers = _counters(kernel, address, count, held)
        found.append(VerifiedDriver(driver, count, held, *numbers))
    order = sorted(range(len(found)), key=lambda index: -found[index].block_bytes)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return [found[index] for index in order], place[number]


def _counters(
    kernel: Kernel, address: int, count: int, held: int
) -> tuple[int | None, int | None, int | None, int | None]:
    """The Verifier's counters of a driver, under the layout that agrees with the records."""
    names = (
        "CurrentPagedPoolAllocations",
        "CurrentNonPagedPoolAllocations",
        "PagedBytes",
        "NonPagedBytes",
    )
    for row in candidates(VERIFIED_DRIVER_LAYOUTS, kernel.architecture, kernel.build):
        try:
            record = row.read(kernel.memory, VERIFIED_DRIVER, address)
        except MemoryReadError:
            continue
        paged, nonpaged, paged_bytes, nonpaged_bytes = (record[name] for name in names)
        if paged + nonpaged == count and paged_bytes + nonpaged_bytes >= held:
            return paged, nonpaged, paged_bytes, nonpaged_bytes
    return None, None, None, None
