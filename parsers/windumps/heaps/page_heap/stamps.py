"""Page heap's blocks by the stamps in front of them, where a root or a normal heap is lost.

The header in front of a block names the root it belongs to. That of a light block tells its state; that of a
full one does not on XP, where a freed block may keep the stamps of a live one, so it only tells whose memory
it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windumps.arrays import ADDRESS_LIMIT, PAGE_SIZE, U64
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.heaps.page_heap.light import (
    FULL_START,
    LIGHT_START,
    read_stamps,
)
from windumps.layouts.rows import LayoutRow

PIECE_BYTES = 1 << 24
LEAST_HEADERS = 3  # that name a root of which nothing else is known


class Stamped(NamedTuple):
    """Headers of live blocks, ascending by address.

    Attributes:
        header: uint64, address of the `_DPH_BLOCK_INFORMATION`.
        root: uint64, the root it names.
        full: True where the block has pages of its own.
    """

    header: U64
    root: U64
    full: Mask


@dataclass
class Stamps:
    """Looks through the process's memory for stamped headers, once, when somebody asks.

    Attributes:
        context: The process.
        row: Any layout of the architecture: all have the same header.
    """

    context: HeapContext
    row: LayoutRow
    _found: Stamped | None = None

    def light(self, root: int) -> U64:
        """Headers of the light blocks that name a root."""
        return self._naming(root, full=False)

    def full(self, root: int) -> U64:
        """Headers in front of blocks with pages of their own that name a root."""
        return self._naming(root, full=True)

    def _naming(self, root: int, *, full: bool) -> U64:
        found = self._all()
        header: U64 = found.header[(found.root == np.uint64(root)) & (found.full == full)]
        return header

    def roots(self) -> list[int]:
        """Roots that several headers name, ascending."""
        roots, counts = np.unique(self._all().root, return_counts=True)
        return [int(root) for root in roots[counts >= LEAST_HEADERS]]

    def roots_in(self, start: int, end: int) -> list[int]:
        """Roots that headers of light blocks in [start, end) name, the most frequent first."""
        found = self._all()
        end = min(end, ADDRESS_LIMIT - 1)  # of a damaged heap
        inside = (found.header >= np.uint64(start)) & (found.header < np.uint64(end)) & ~found.full
        roots, counts = np.unique(found.root[inside], return_counts=True)
        return [int(root) for root in roots[np.argsort(-counts, kind="stable")]]

    def _all(self) -> Stamped:
        if self._found is None:
            self._found = self._search()
        return self._found

    def _search(self) -> Stamped:
        memory, step = self.context.memory, self.context.granularity
        headers = [np.empty(0, np.uint64)]
        limit = 1 << (8 * self.context.pointer_size)
        extents = memory.extents(0, limit)
        for address, size in zip(extents.address.tolist(), extents.size.tolist(), strict=True):
            first = -(-address // step) * step
            for low in range(first, address + size, PIECE_BYTES):
                length = (min(low + PIECE_BYTES, address + size) - low) // step * step
                words = memory.view(low, length).view("<u4")[:: step // 4]
                hits = np.flatnonzero((words == LIGHT_START) | (words == FULL_START))
                headers.append(np.uint64(low) + (hits * step).astype(np.uint64))
        header = np.concatenate(headers)
        stamps = read_stamps(self.context, self.row, header)
        full = stamps.start == FULL_START
        # A light block names its root with the highest bit flipped.
        bias = np.where(full, np.uint64(0), np.uint64(limit >> 1))
        root = stamps.heap ^ bias
        sound = (
            stamps.sound & (root & np.uint64(PAGE_SIZE - 1) == 0) & (root > np.uint64(PAGE_SIZE))
        )
        return Stamped(header[sound], root[sound], full[sound])
