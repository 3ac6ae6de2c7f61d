"""Groups of blocks of other allocators, for answers that have them beside blocks of heaps."""

from __future__ import annotations

import numpy as np

from dumpleak.attribution.grouping import Grouping
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.sites import Site, SiteKind, key_site
from dumpleak.process.session import HeapSource, Session
from windumps.arrays import I64
from windumps.blocks import Blocks

# Groupings that look at blocks alone; others ask the process's heaps.
_OF_BLOCKS = ("size", "kind", "type", "module", "stack", "source")


class ArenaSites:
    """Numbers the group of each block, in the table of a grouping of blocks of heaps.

    Args:
        session: The dump.
        by: A key of `GROUPINGS`.
        grouping: What that gave.
    """

    def __init__(self, session: Session, by: str, grouping: Grouping) -> None:
        self._by, self._grouping = by, grouping
        self._types = TypeAttributor(session, grouping.table) if by == "site" else None

    def assign(self, source: HeapSource, used: Blocks) -> I64:
        """Indices into the grouping's sites (int64, shape (n,))."""
        if self._by in _OF_BLOCKS:
            return self._grouping.assign(source, used)
        table, allocator = self._grouping.table, source.entry.kind
        if self._types is None:
            name = allocator if self._by == "heap" else f"(no {self._by})"
            return np.full(len(used), table.index_of(key_site(self._by, name)), np.int64)
        found = self._types.assign(source, used)
        rest = np.flatnonzero(found < 0)
        sizes, which = np.unique(used.counted_bytes[rest], return_inverse=True)
        numbers = [
            table.index_of(
                Site(
                    SiteKind.SHAPE,
                    f"{SiteKind.SHAPE}|{allocator}|{allocator}|{size}|",
                    f"{size} bytes in {allocator}",
                )
            )
            for size in sizes.tolist()
        ]
        found[rest] = np.array(numbers, np.int64)[which]
        return found
