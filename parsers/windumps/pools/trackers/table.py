"""One tracker table: which layout, how many entries, what is in it.

A table is a hash table of 2**n slots and one more for tags that found no place ("Ovfl"). A key lies
in its home slot or, with no empty slot between, behind it. That rule proves the layout and the size
without any symbol. Where no hash that is known explains a table, only printable keys prove its
layout, and the size must come from elsewhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U32, U64
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.memory.fillers import on_fillers
from windumps.pool_tags import OVERFLOW_TAG, is_printable
from windumps.pools.hash_slots import TAG_HASHES, best_share

TRACKER = "_POOL_TRACKER_TABLE"
SMALLEST, LARGEST = 6, 20  # 2**n slots; the registry's override is bounded the same way below
SURE = 0.95
MIN_KEYS = 4
_PROBED = (1 << 9) + 1
_SEARCHED = 1 << 14  # slots looked at before a table is given up
_TELLING = 24  # keys that prove that a table does not go on


class Entries(NamedTuple):
    """Entries of one table.

    Attributes:
        key: uint32; 0 where the slot is empty or absent.
        records: Counters, by Microsoft's names; they say nothing where the slot is absent.
        present: bool, which entries are in the dump.
    """

    key: U32
    records: NDArray[Any]
    present: NDArray[np.bool_]

    def on_empty_pages(self, row: LayoutRow, base: int) -> NDArray[np.bool_]:
        """bool: slots on a page of the table without any key.

        Such a page may be one that could not be read: imaging tools write zeros there.
        """
        page = _addresses(row, base, len(self.key)) // np.uint64(PAGE_SIZE)
        _, index = np.unique(page, return_inverse=True)
        keys = np.bincount(index, weights=(self.key != 0) | ~self.present)
        empty: NDArray[np.bool_] = keys[index] == 0
        return empty


def read_entries(memory: AddressSpace, row: LayoutRow, base: int, count: int) -> Entries:
    """`count` entries from `base` under a layout."""
    names = [name for name in row.structures[TRACKER] if name != "sizeof"]
    addresses = _addresses(row, base, count)
    records, present = memory.gather(addresses, row.dtype(TRACKER, *names))
    present &= ~on_fillers(memory, addresses, row.size(TRACKER))
    key = np.where(present, records["Key"], 0).astype(np.uint32)
    return Entries(key, records, present)


def read_keys(
    memory: AddressSpace, row: LayoutRow, base: int, count: int
) -> tuple[U32, NDArray[np.bool_]]:
    """The keys alone, 0 where they are absent, and which are in the dump."""
    addresses = _addresses(row, base, count)
    keys, present = memory.gather(addresses, "<u4")
    present &= ~on_fillers(memory, addresses, row.size(TRACKER))
    return np.where(present, keys, 0).astype(np.uint32), present


def _addresses(row: LayoutRow, base: int, count: int) -> U64:
    step = np.uint64(row.size(TRACKER))
    return np.uint64(base) + np.arange(count, dtype=np.uint64) * step


def _share(keys: U32, present: NDArray[np.bool_], slots: int) -> float:
    """Share of the keys that stand where a table of so many slots would have put them."""
    used = np.flatnonzero(keys[:slots])
    empty = (keys[:slots] == 0) & present[:slots]
    return best_share(used, keys[used], empty, TAG_HASHES)


def score_layout(memory: AddressSpace, row: LayoutRow, base: int) -> float | None:
    """How well a layout fits the table at `base`, 0 to 1; None when too little is in the dump."""
    keys, _ = read_keys(memory, row, base, _PROBED)
    used = keys[keys != 0]
    if len(used) < MIN_KEYS:
        return None
    printable = float(is_printable(used).mean())
    if printable < SURE:
        return printable / 4
    placed = table_size(memory, row, base) is not None
    return printable * (1.0 if placed else 0.5)


def table_size(memory: AddressSpace, row: LayoutRow, base: int) -> int | None:
    """Entries of the table by the hash rule, "Ovfl" slot included; None when no size obeys it."""
    found = None
    for bits in range(SMALLEST, LARGEST + 1):
        slots = 1 << bits
        keys, present = read_keys(memory, row, base, slots + 1)
        used = keys[keys != 0]
        if not len(used) and slots < _SEARCHED:
            continue
        if np.count_nonzero(is_printable(used)) < SURE * len(used):
            break
        # Every size up to the true one obeys the rule, and no larger one.
        if _share(keys, present, slots) < SURE:
            # Of few keys one that was overwritten is a large share.
            if (found is not None and len(used) >= _TELLING) or slots >= _SEARCHED:
                break
            continue
        if int(keys[slots]) == OVERFLOW_TAG:
            return slots + 1
        if keys[slots] == 0:
            found = slots + 1
    return found


def is_table_size(value: int | None) -> bool:
    """2**n + 1 in the range a tracker table may have."""
    if value is None or value < 3:
        return False
    slots = value - 1
    return slots & (slots - 1) == 0 and SMALLEST <= slots.bit_length() - 1 <= LARGEST
