"""What large blocks leave of their last page, on systems that let small blocks into it.

Windows Vista and 7 give a large block only the bytes it needs: behind it the rest of its last page
begins with a header of one unit tagged "Frag", whose PreviousSize is 0, and serves other requests
(seen on the genuine kernels of 6002 and 7601, where 6 to 21 % of the small blocks lie there). The
rest stays in use after the large block was freed. It is found by that header, so nothing need be
known of the large block; where one is known, the header must stand right behind it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.memory.address_space import values_at
from windumps.pools.pages.chain import FRAGMENT_TAG, HeaderForm, read_headers

_NO_TAIL = -1


class LargeEnds:
    """Pages in which large blocks end, and where in them.

    Args:
        address: uint64, of the large blocks, page-aligned.
        size: int64, their bytes.
        unit: Bytes that sizes are rounded up to.
    """

    def __init__(self, address: U64, size: I64, unit: int) -> None:
        end = address + ((size + (unit - 1)) & ~(unit - 1)).astype(np.uint64)
        within = (end & np.uint64(PAGE_SIZE - 1)).astype(np.int64)
        inside = within > 0
        page = end[inside] - within[inside].astype(np.uint64)
        order = np.argsort(page, kind="stable")
        self.page: U64 = page[order]
        self._within: I64 = within[inside][order]

    def within(self, pages: U64) -> I64:
        """int64: byte offset in each page where a large block ends; -1 for pages without one."""
        if not len(self.page):
            return np.full(len(pages), _NO_TAIL, np.int64)
        at = np.minimum(np.searchsorted(self.page, pages), len(self.page) - 1)
        return np.where(self.page[at] == pages, self._within[at], _NO_TAIL)


def tail_starts(data: U8, offset: I64, form: HeaderForm, wanted: I64) -> I64:
    """Where the tail of a large block begins in each page.

    Args:
        data: The file's bytes.
        offset: int64, file offset of each page; whole pages must be there.
        form: How headers look.
        wanted: int64, where it must begin; -1 where that is not known.

    Returns:
        int64: byte offset of the first "Frag" header in each page; 0 where there is none.
    """
    starts = np.zeros(len(offset), np.int64)
    place = np.arange(form.unit, PAGE_SIZE, form.unit, dtype=np.int64)
    tags = values_at(data, offset[:, None] + place + 4, "<u4")
    page, index = np.nonzero(tags == np.uint32(FRAGMENT_TAG))
    start = place[index]
    found = read_headers(data, offset[page] + start, form)
    good = (found.size == 1) & (found.previous == 0)
    good &= (wanted[page] < 0) | (wanted[page] == start)
    # The first one counts: rows are in order, so the last written is the lowest.
    page, start = page[good][::-1], start[good][::-1]
    starts[page] = start
    return starts


def is_fragment(tags: NDArray[np.uint32], size: I64, unit: int) -> NDArray[np.bool_]:
    """bool: which blocks are such headers: the pool's own, although they look used."""
    mine: NDArray[np.bool_] = (tags == np.uint32(FRAGMENT_TAG)) & (size == unit)
    return mine
