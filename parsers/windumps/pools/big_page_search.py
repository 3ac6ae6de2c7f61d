"""Finds the table of large allocations: by name, else by what it holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.memory.address_space import U64
from windumps.pools.kernel_words import LOWEST, PAGE, KernelWords
from windumps.pools.probing import (
    home_slots,
    page_keys,
    share_in_place,
    shifted_home_slots,
    xored_home_slots,
)
from windumps.pools.tags import is_printable, tag_number
from windumps.windows.kernel import Kernel
from windumps.windows.layouts import LayoutRow, candidates
from windumps.windows.pool_layouts import BIG_PAGE_LAYOUTS

BIG = "_POOL_TRACKER_BIG_PAGES"
SMALLEST, LARGEST = 8, 22  # 2**n slots
SURE = 0.95
MIN_USED = 4
_PROBED = 128
_SEARCHED = 1 << 17  # slots looked at before a table is given up
_POOL_TAG = tag_number("Pool")


class BigTable(NamedTuple):
    """One table, proven.

    Attributes:
        address: Of its first slot.
        entry_count: Slots, a power of two.
        row: Its layout.
        score: Share of its entries that stand in place.
        source: How it was found, for people.
    """

    address: int
    entry_count: int
    row: LayoutRow
    score: float
    source: str

    def slots(self) -> U64:
        """uint64: addresses of all slots."""
        return _slots(self.address, self.row, self.entry_count)


def _slots(base: int, row: LayoutRow, count: int) -> U64:
    return np.uint64(base) + np.arange(count, dtype=np.uint64) * np.uint64(row.size(BIG))


def find_big_table(kernel: Kernel, words: KernelWords) -> BigTable | None:
    """The table and its layout; None when nothing proves to be it."""
    rows = candidates(BIG_PAGE_LAYOUTS, kernel.architecture, kernel.build)
    named = kernel.find_symbol("PoolBigPageTable")
    base = kernel.value("PoolBigPageTable")
    if named is not None and base:
        size = kernel.value("PoolBigPageTableSize")
        known = size if size and _is_size(size) else None
        found = _best(kernel, base, rows, known, f"from {named.detail}")
        if found is not None:
            return found
        if known and not kernel.memory.present_bytes(base, base + known * rows[0].size(BIG)):
            return BigTable(base, known, rows[0], 0.0, f"from {named.detail}, not in the dump")
    tables = [
        found
        for address in _candidates(kernel, words, rows).tolist()
        if (found := _best(kernel, address, rows, None, "found by what it holds")) is not None
    ]
    # Several can only be a table and one it has outgrown; the kernel uses the larger.
    return max(tables, key=lambda table: (table.entry_count, table.score), default=None)


def _is_size(value: int) -> bool:
    return value & (value - 1) == 0 and 1 << SMALLEST <= value <= 1 << LARGEST


def _best(
    kernel: Kernel, base: int, rows: list[LayoutRow], size: int | None, source: str
) -> BigTable | None:
    """The first layout that fits entirely, else the best; None when none does."""
    best: BigTable | None = None
    for row in rows:
        if row.pointer_size != kernel.pointer_size:
            continue
        count, score = _fit(kernel, base, row, size)
        if count and score >= SURE and (best is None or score > best.score):
            best = BigTable(base, count, row, score, source)
    return best


def _fit(kernel: Kernel, base: int, row: LayoutRow, size: int | None) -> tuple[int, float]:
    """Slots of the table under a layout and the share of entries in place; (0, 0) when none fit."""
    best = (0, 0.0)
    if size is None:
        own = _own_size(kernel, base, row)
        if own:
            address, present = kernel.memory.gather(
                _slots(base, row, own), f"<u{kernel.pointer_size}"
            )
            share = _share(address.astype(np.uint64), present, own)
            # The table's own row proves its size even where the hash is not known.
            return (own, max(share, SURE)) if share is not None else (0, 0.0)
    sizes = [size] if size is not None else [1 << n for n in range(SMALLEST, LARGEST + 1)]
    for count in sizes:
        address, present = kernel.memory.gather(
            _slots(base, row, count), f"<u{kernel.pointer_size}"
        )
        share = _share(address.astype(np.uint64), present, count)
        if share is not None and (share >= SURE or size is not None):
            best = (count, share)
        elif best[0] or count >= _SEARCHED:
            break
    return best


def _own_size(kernel: Kernel, base: int, row: LayoutRow) -> int:
    """Slots by the table's own allocation, which it lists under the tag "Pool"; 0 when it does not."""
    if not row.has(BIG, "NumberOfBytes"):
        return 0
    count = 1 << SMALLEST
    record = row.dtype(BIG, "Va", "Key", "NumberOfBytes")
    while count <= 1 << LARGEST:
        slots = _slots(base, row, count)
        records, present = kernel.memory.gather(slots[count // 2 :], record)
        if count == 1 << SMALLEST:
            records, present = kernel.memory.gather(slots, record)
        if not present.any():
            return 0
        used = present & (records["Va"] > 1)
        if np.count_nonzero(is_printable(records["Key"][used])) < SURE * used.sum():
            return 0
        mine = np.flatnonzero(present & (records["Va"] == base) & (records["Key"] == _POOL_TAG))
        if len(mine):
            entries = int(records["NumberOfBytes"][mine[0]]) // row.size(BIG)
            size = 1 << max(entries.bit_length() - 1, 0)
            return size if _is_size(size) else 0
        count *= 2
    return 0


def _share(address: U64, present: NDArray[np.bool_], count: int) -> float | None:
    """Share of entries in place, by the best of the known hashes; None when it can be no such table."""
    page = address & ~np.uint64(1)
    is_used = present & (page != 0)
    used = np.flatnonzero(is_used)
    if len(used) < MIN_USED:
        return None
    aligned = page[used] & np.uint64(PAGE - 1) == 0
    if aligned.mean() < SURE:
        return None
    used = used[aligned]
    keys = page_keys(page[used])
    empty = present & ~is_used
    return max(
        share_in_place(used, hashed(keys, count - 1), empty)
        for hashed in (home_slots, shifted_home_slots, xored_home_slots)
    )


def _candidates(kernel: Kernel, words: KernelWords, rows: list[LayoutRow]) -> U64:
    """Tables the image points to whose first slots could all be such entries."""
    tables = words.tables()
    good = np.zeros(len(tables), np.bool_)
    index = np.arange(_PROBED, dtype=np.uint64)
    lowest = np.uint64(LOWEST[kernel.pointer_size])
    for size in sorted({row.size(BIG) for row in rows if row.pointer_size == kernel.pointer_size}):
        address, present = kernel.memory.gather(
            tables[:, None] + index * np.uint64(size), f"<u{kernel.pointer_size}"
        )
        address = address.astype(np.uint64)
        page = address & ~np.uint64(1)
        fits = (page == 0) | ((page & np.uint64(PAGE - 1) == 0) & (page >= lowest))
        fits |= ~present
        # Of a table whose first page is not in the dump, later ones may be.
        good |= fits.all(axis=1) & ((address != 0).any(axis=1) | ~present[:, 0])
    return tables[good]
