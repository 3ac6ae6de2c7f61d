"""Pages of a mapped file are given back once many were read: mapped pages count as memory of the process.

What is read again is mapped again, from the system's cache of the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np

from windumps.arrays import I64, U8

AT_ONCE = 16 << 20  # bytes that may be mapped before they are given back
AROUND = 1 << 16  # the system maps what lies around a page as well
_PIECE = 1 << 16  # values taken at once where they stand in no order


def reach_of(offsets: I64) -> int:
    """How many bytes are mapped at most when one value is read at each of some offsets."""
    if not len(offsets):
        return 0
    return min(int(offsets.max()) - int(offsets.min()), (len(offsets) - 1) * AROUND) + AROUND


def pieces_of(offsets: I64) -> Iterator[slice]:
    """Splits offsets far from each other, so that little is mapped for each piece where they ascend."""
    if not (offsets[1:] >= offsets[:-1]).all():
        yield from (slice(at, at + _PIECE) for at in range(0, len(offsets), _PIECE))
        return
    at = 0
    while at < len(offsets):
        end = int(np.searchsorted(offsets, offsets[at] + AT_ONCE, "left"))
        yield slice(at, end)
        at = end


def give_back(data: U8) -> None:
    """Gives the pages of a mapped file back; does nothing where `data` is none, or the system cannot."""
    file = data.base.obj if isinstance(data.base, memoryview) else None
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        file.madvise(mmap.MADV_DONTNEED)
