"""Special pool: one block a page, against a page that is not mapped, to catch writes beyond its end.

Driver Verifier or MmSpecialPoolTag sends blocks there. The page is filled with a pattern; a header
at its start, or at its end when the block stands at its start, says size, pattern and tag. The
pattern proves the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import Blocks, Kind
from windumps.memory import AddressSpace, PageTableMemory
from windumps.memory.address_space import Presence
from windumps.pool_tags import Pool, is_printable, plain_tags
from windumps.pools.coverage import Ranges, page_rows
from windumps.pools.pages.chain import HeaderForm

_SIZE = 0x1FFF
_TRACKED = 0x4000
_PAGED = 0x8000
_MIN_PATTERN = 16  # bytes of pattern that prove a page
MAX_PAGES = 1 << 20


class SpecialBlocks(NamedTuple):
    """Blocks of special pool, as columns.

    Attributes:
        address: uint64, what the caller got.
        size: int64, bytes asked for.
        tag: uint32.
        pool: uint8, `Pool`.
    """

    address: U64
    size: I64
    tag: NDArray[np.uint32]
    pool: NDArray[np.uint8]

    def blocks(self) -> Blocks:
        """These allocations as blocks; each takes a page."""
        count = len(self.address)
        return Blocks.build(
            self.address,
            self.size,
            np.full(count, PAGE_SIZE, np.int64),
            np.ones(count, np.bool_),
            Kind.POOL_BLOCK,
            self.pool,
            tag=self.tag,
        )


def special_blocks(
    memory: AddressSpace, ranges: list[tuple[int, int]], form: HeaderForm, others: Ranges
) -> SpecialBlocks:
    """All blocks of special pool.

    Args:
        memory: Kernel memory.
        ranges: (start, end) parts of it to look at.
        form: How pool headers look.
        others: Ranges that are something else.
    """
    rows = []
    for page, offset in _pages(memory, ranges, others):
        for at_start in (True, False):
            rows += list(_candidates(memory, page, offset, form, at_start))
        if len(rows) > MAX_PAGES:
            break
    rows.sort()
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return SpecialBlocks(
        np.array(columns[0], np.uint64),
        np.array(columns[1], np.int64),
        plain_tags(np.array(columns[2], np.uint32)),
        np.array(columns[3], np.uint8),
    )


def _pages(
    memory: AddressSpace, ranges: list[tuple[int, int]], others: Ranges
) -> Iterator[tuple[U64, I64]]:
    for start, end in ranges:
        pieces = (
            memory.pieces(start, end)
            if isinstance(memory, PageTableMemory)
            else iter([memory.extents(start, end)])
        )
        for piece in pieces:
            page, offset = page_rows(*piece)
            keep = ~others.holds(page)
            yield page[keep], offset[keep]


def _candidates(
    memory: AddressSpace, page: U64, offset: I64, form: HeaderForm, at_start: bool
) -> Iterator[tuple[int, int, int, int]]:
    """(address, size, tag, pool) of the pages whose header is at their start, or at their end."""
    data, unit = memory.data, form.unit
    place = 0 if at_start else PAGE_SIZE - unit
    window = np.ndarray((max(len(data) - 7, 0),), "<u8", buffer=data, strides=(1,))
    raw = window[offset + place]
    size = (raw & np.uint64(_SIZE)).astype(np.int64)
    tag = (raw >> np.uint64(32)).astype(np.uint32)
    fits = (size > 0) & (size <= PAGE_SIZE - unit - _MIN_PATTERN) & is_printable(plain_tags(tag))
    for row in np.flatnonzero(fits).tolist():
        word = int(raw[row])
        address = int(page[row])
        start = int(offset[row])
        rounded = (int(size[row]) + unit - 1) & -unit
        header = unit + (unit // 2 if word & _TRACKED else 0)
        if at_start:
            user, free = PAGE_SIZE - rounded, (header, PAGE_SIZE - rounded)
            guard = address + PAGE_SIZE
        else:
            user, free = 0, (rounded, PAGE_SIZE - header)
            guard = address - 1
        gap = data[start + free[0] : start + free[1]]
        pattern = word >> 16 & 0xFF
        if len(gap) < _MIN_PATTERN or not bool((gap == pattern).all()):
            continue
        if memory.presence(guard) is Presence.PRESENT:
            continue
        pool = Pool.PAGED if word & _PAGED else Pool.NONPAGED
        yield address + user, int(size[row]), int(tag[row]), int(pool)
