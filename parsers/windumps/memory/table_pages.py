"""How much memory page tables themselves take: pages of all levels, each counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.memory.address_space import AddressSpace
from windumps.memory.paging import Paging

_TABLES_AT_ONCE = 256  # a MiB of entries
MAX_TABLES = 1 << 24  # 64 GiB of page tables


@dataclass(frozen=True)
class TablePages:
    """Pages that are page tables.

    Attributes:
        found: Their number, the roots included.
        absent: Pages of tables that are not in the dump; what they lead to is not known.
        frames: uint64, ascending: physical addresses of the pages found.
    """

    found: int
    absent: int
    frames: U64 = field(default_factory=lambda: np.empty(0, np.uint64), compare=False, repr=False)

    @property
    def bytes(self) -> int | None:
        """What they take; None where a part is not known."""
        return None if self.absent else self.found * PAGE_SIZE


def count_table_pages(physical: AddressSpace, paging: Paging, roots: Sequence[int]) -> TablePages:
    """Counts the tables below some roots.

    Args:
        physical: Physical memory.
        paging: How addresses are translated.
        roots: Physical addresses of roots, without flag bits. The kernel's half is the same in all: it is
            looked at below the first one.
    """
    every = np.unique(np.array(roots, np.uint64))
    if not len(every):
        return TablePages(0, 0)
    # With PAE a root has 32 bytes, and many stand in one page.
    found, absent = len(np.unique(every // np.uint64(PAGE_SIZE))), 0
    whole = np.uint64(roots[0])
    tables = seen = every
    for level in range(len(paging.index_bits) - 1):
        below = [np.empty(0, np.uint64)]
        for start in range(0, len(tables), _TABLES_AT_ONCE):
            piece = tables[start : start + _TABLES_AT_ONCE]
            entries, there = _entries(physical, paging, piece, level)
            absent += int(np.count_nonzero(~there))
            used = paging.is_valid(entries) & ~paging.is_large(entries, level) & there[:, None]
            if level == 0:
                used[piece != whole, entries.shape[1] // 2 :] = False
            below.append(np.unique(paging.frames(entries[used])))
        # Entries that map the tables themselves lead back to tables that were counted.
        tables = np.setdiff1d(np.concatenate(below), seen)
        seen = np.concatenate([seen, tables])
        found += len(tables)
        if found > MAX_TABLES:
            return TablePages(found, absent + 1)
    pages = np.unique(seen // np.uint64(PAGE_SIZE)) * np.uint64(PAGE_SIZE)
    return TablePages(found, absent, pages)


def _entries(
    physical: AddressSpace, paging: Paging, tables: U64, level: int
) -> tuple[U64, NDArray[np.bool_]]:
    """All entries of tables, a row each, and which tables are in the dump."""
    count = 1 << paging.index_bits[level]
    places = np.arange(count, dtype=np.uint64) * np.uint64(paging.entry_size)
    values, there = physical.gather((tables[:, None] + places).ravel(), f"<u{paging.entry_size}")
    shape = len(tables), count
    whole = np.asarray(there, np.bool_).reshape(shape).all(axis=1)
    return values.astype(np.uint64).reshape(shape), np.asarray(whole, np.bool_)
