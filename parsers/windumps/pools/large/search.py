"""Finds the table of large allocations: by name, beside the trackers' variable, else by what it holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.layouts.pool import BIG_PAGE_LAYOUTS, BIG_PAGE_VARIABLES
from windumps.layouts.rows import LayoutRow, candidates
from windumps.pool_tags import POOL_TAG, is_printable
from windumps.pools.hash_slots import PAGE_HASHES, best_share, page_keys
from windumps.pools.image_words import LOWEST, KernelWords

BIG = "_POOL_TRACKER_BIG_PAGES"
SMALLEST, LARGEST = 8, 22  # 2**n slots
SURE = 0.95
MIN_USED = 4
_PROBED = 128
_SEARCHED = 1 << 17  # slots looked at before a table is given up
_LEAST_BUDGET = 1 << 22  # slots looked at for all candidates together, at least
_SLOTS_A_BYTE = 4  # and for each byte of the file
_NEAR = 0x100  # bytes around PoolTrackTable in which the table's variable is looked for
_SEEN_PAGES = 32  # of a candidate, one of which must be in the dump


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


@dataclass
class _Search:
    """Looks at candidates for as long as its budget lasts.

    Attributes:
        kernel: The kernel.
        rows: Layouts of an entry, the likeliest first.
        budget: Slots that may still be looked at: without a bound of all candidates together, an
            image full of addresses would cost hours.
    """

    kernel: Kernel
    rows: list[LayoutRow]
    budget: int

    def gather(self, slots: U64, dtype: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Reads slots and takes them off the budget; those on pages of something else count as absent."""
        self.budget -= len(slots)
        values, present = self.kernel.memory.gather(slots, dtype)
        address = values["Va"] if values.dtype.names else values
        return values, present & ~on_strange_pages(slots, address.astype(np.uint64), present)

    def best(self, base: int, size: int | None, source: str) -> BigTable | None:
        """The layout that fits a table best; None when none does."""
        best: BigTable | None = None
        for row in self.rows:
            if self.budget <= 0:
                break
            count, score = self._fit(base, row, size)
            if count and score >= SURE and (best is None or score > best.score):
                best = BigTable(base, count, row, score, source)
        return best

    def largest(self, bases: Iterable[int], source: str) -> BigTable | None:
        """Of several tables the largest: others can only be ones it has outgrown."""
        tables = [found for base in bases if (found := self.best(base, None, source)) is not None]
        return max(tables, key=lambda table: (table.entry_count, table.score), default=None)

    def _fit(self, base: int, row: LayoutRow, size: int | None) -> tuple[int, float]:
        """Slots of the table under a layout and the share of entries in place; (0, 0) when none fit."""
        best = (0, 0.0)
        word = f"<u{self.kernel.pointer_size}"
        if size is None:
            own = _own_size(self, base, row)
            if own:
                address, present = self.gather(_slots(base, row, own), word)
                share = _share(address.astype(np.uint64), present, own)
                # The table's own row proves its size even where the hash is not known.
                return (own, max(share, SURE)) if share is not None else (0, 0.0)
        sizes = [size] if size is not None else [1 << n for n in range(SMALLEST, LARGEST + 1)]
        for count in sizes:
            if self.budget <= 0:
                break
            address, present = self.gather(_slots(base, row, count), word)
            share = _share(address.astype(np.uint64), present, count)
            if share is not None and (share >= SURE or size is not None):
                best = (count, share)
            elif best[0] or count >= _SEARCHED:
                break
        return best


def on_strange_pages(slots: U64, address: U64, present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Slots on pages most of whose slots hold no address of a page: no part of a table, or overwritten."""
    strange = present & (address > 1) & (address & np.uint64(PAGE_SIZE - 2) != 0)
    page = (slots - slots[:1]) // np.uint64(PAGE_SIZE)
    counts = [np.bincount(page.astype(np.int64), weights=rows) for rows in (strange, present)]
    bad: NDArray[np.bool_] = (2 * counts[0] > counts[1])[page.astype(np.int64)]
    return bad


def find_big_table(
    kernel: Kernel, words: KernelWords, track_variables: Iterable[int]
) -> BigTable | None:
    """The table and its layout; None when nothing proves to be it.

    Args:
        kernel: The kernel.
        words: Its image, for a table that nothing names.
        track_variables: Addresses that PoolTrackTable may have; the table's variables stand beside it.
    """
    rows = [
        row
        for row in candidates(BIG_PAGE_LAYOUTS, kernel.architecture, kernel.build)
        if row.pointer_size == kernel.pointer_size
    ]
    if kernel.build:
        # Addresses tell strides apart and no more: of rows with one stride the build's own counts.
        rows = list({row.size(BIG): row for row in reversed(rows)}.values())[::-1]
    budget = max(_LEAST_BUDGET, len(kernel.memory.data) * _SLOTS_A_BYTE)
    search = _Search(kernel, rows, budget)
    named = kernel.find_symbol("PoolBigPageTable")
    base = kernel.value("PoolBigPageTable")
    if named is not None and base:
        size = kernel.value("PoolBigPageTableSize")
        known = size if size and _is_size(size) else None
        found = search.best(base, known, f"from {named.detail}")
        if found is not None:
            return found
        if known and not kernel.memory.present_bytes(base, base + known * rows[0].size(BIG)):
            return BigTable(base, known, rows[0], 0.0, f"from {named.detail}, not in the dump")
    for variable in track_variables:
        for base, known in _named_beside(kernel, variable):
            found = search.best(base, known, "beside PoolTrackTable")
            if found is not None:
                return found
        found = search.largest(_near(kernel, variable), "beside PoolTrackTable")
        if found is not None:
            return found
    return search.largest(_candidates(kernel, words, rows).tolist(), "found by what it holds")


def _named_beside(kernel: Kernel, variable: int) -> Iterator[tuple[int, int]]:
    """(address, slots) of the table by the rows that say where its variables stand."""
    for row in BIG_PAGE_VARIABLES:
        if row.architecture != kernel.architecture:
            continue
        try:
            base = kernel.memory.read_uint(variable + row.table, kernel.pointer_size)
            size = kernel.memory.read_uint(variable + row.size, kernel.pointer_size)
        except MemoryReadError:
            continue
        if base and _is_size(size):
            yield base, size


def _near(kernel: Kernel, variable: int) -> list[int]:
    """What the words around PoolTrackTable point to, the nearest first, where the dump has it."""
    step = kernel.pointer_size
    places = [variable + sign * at for at in range(step, _NEAR, step) for sign in (-1, 1)]
    values, present = kernel.memory.gather(np.array(places, np.uint64), f"<u{step}")
    bases = values[present].astype(np.uint64)
    bases = bases[(bases & np.uint64(PAGE_SIZE - 1) == 0) & (bases >= np.uint64(LOWEST[step]))]
    return list(dict.fromkeys(bases[_is_seen(kernel, bases)].tolist()))


def _is_seen(kernel: Kernel, bases: U64) -> NDArray[np.bool_]:
    """Which candidates have a page in the dump among their first."""
    steps = np.arange(_SEEN_PAGES, dtype=np.uint64) * np.uint64(PAGE_SIZE)
    places = kernel.memory.locate((bases[:, None] + steps).ravel(), 1).reshape(-1, _SEEN_PAGES)
    return np.asarray((places >= 0).any(axis=1))


def _is_size(value: int) -> bool:
    return value & (value - 1) == 0 and 1 << SMALLEST <= value <= 1 << LARGEST


def _own_size(search: _Search, base: int, row: LayoutRow) -> int:
    """Slots by the table's own allocation, which it lists under the tag "Pool"; 0 when it does not."""
    if not row.has(BIG, "NumberOfBytes"):
        return 0
    count = 1 << SMALLEST
    record = row.dtype(BIG, "Va", "Key", "NumberOfBytes")
    while count <= 1 << LARGEST and search.budget > 0:
        slots = _slots(base, row, count)
        new = slots if count == 1 << SMALLEST else slots[count // 2 :]
        records, present = search.gather(new, record)
        if not present.any():
            return 0
        used = present & (records["Va"] > 1)
        if np.count_nonzero(is_printable(records["Key"][used])) < SURE * used.sum():
            return 0
        mine = np.flatnonzero(present & (records["Va"] == base) & (records["Key"] == POOL_TAG))
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
    aligned = page[used] & np.uint64(PAGE_SIZE - 1) == 0
    if aligned.mean() < SURE:
        return None
    used = used[aligned]
    empty = present & ~is_used
    return best_share(used, page_keys(page[used]), empty, PAGE_HASHES)


def _candidates(kernel: Kernel, words: KernelWords, rows: list[LayoutRow]) -> U64:
    """Tables the image points to whose first slots could all be such entries."""
    tables = words.tables()
    tables = tables[_is_seen(kernel, tables)]
    good = np.zeros(len(tables), np.bool_)
    index = np.arange(_PROBED, dtype=np.uint64)
    lowest = np.uint64(LOWEST[kernel.pointer_size])
    for size in sorted({row.size(BIG) for row in rows}):
        address, present = kernel.memory.gather(
            tables[:, None] + index * np.uint64(size), f"<u{kernel.pointer_size}"
        )
        address = address.astype(np.uint64)
        page = address & ~np.uint64(1)
        fits = (page == 0) | ((page & np.uint64(PAGE_SIZE - 1) == 0) & (page >= lowest))
        fits |= ~present
        # Of a table whose first page is not in the dump, later ones may be.
        good |= fits.all(axis=1) & ((address != 0).any(axis=1) | ~present[:, 0])
    return tables[good]
