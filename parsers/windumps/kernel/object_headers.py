"""Finds the `_OBJECT_HEADER` of kernel objects in their pool blocks, and what it counts.

A pool block of an object begins with optional headers, of which the object's own has a mask; then comes the
`_OBJECT_HEADER` and behind it the object. So a place in a block is a header's where the headers that its mask
names fill exactly what lies before it. Kernels before 7 have no such mask: there only handles, and objects
known otherwise, tell.

Sources: `_OBJECT_HEADER`, `_OBJECT_HEADER_CREATOR_INFO`, …, of public kernel symbols (7601 to 22621) and of
published headers (vergiliusproject.com); the bits of InfoMask are in the order of ObpInfoMaskToOffset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from windumps.arrays import I64, U64
from windumps.builds import OBJECT_INFO_MASK
from windumps.kernel.kernel import Kernel

HEADER_BYTES = {4: 0x18, 8: 0x30}
_INFO_MASK = {4: 0xE, 8: 0x1A}
# By bit: creator, name, handle, quota, process, audit, extended information.
_OPTIONAL = {
    4: (0x10, 0x10, 0x8, 0x10, 0x8, 0x8, 0x8),
    8: (0x20, 0x20, 0x10, 0x20, 0x10, 0x10, 0x10),
}
_MOST_IN_FRONT = 0xC0
_MOST_HANDLES, _MOST_POINTERS = 1 << 24, 1 << 40


@dataclass(frozen=True)
class ObjectHeaders:
    """The headers of some objects.

    Attributes:
        address: uint64, of each object's header; 0 where it was not found.
        handles: int64, how many handles of it are open, as it counts; -1 where not known.
    """

    address: U64
    handles: I64


def find_headers(kernel: Kernel, blocks: tuple[U64, I64], known: U64) -> ObjectHeaders:
    """The header in each of some pool blocks of objects.

    Args:
        kernel: The kernel.
        blocks: (address, bytes); each holds one object.
        known: Headers that are known for certain, in any order.
    """
    start, size = blocks
    found: U64 = np.zeros(len(start), np.uint64)
    ordered = np.unique(known)
    if len(ordered):
        place = np.minimum(np.searchsorted(ordered, start), len(ordered) - 1)
        # An address below the block's wraps around, and is too far as well.
        inside = ordered[place] - start < size.astype(np.uint64)
        found[inside] = ordered[place][inside]
    if kernel.build in OBJECT_INFO_MASK:
        rest = np.flatnonzero(found == 0)
        found[rest] = _by_mask(kernel, start[rest], size[rest])
    handles = np.full(len(start), -1, np.int64)
    there = np.flatnonzero(found)
    counts, valid = header_counts(kernel, found[there])
    handles[there[valid]] = counts[valid]
    return ObjectHeaders(found, handles)


def header_counts(
    kernel: Kernel, headers: U64
) -> tuple[I64, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """(open handles as headers count them, which of these can be true)."""
    width = kernel.pointer_size
    pointers, has_pointers = kernel.memory.gather(headers, f"<i{width}")
    handles, has_handles = kernel.memory.gather(headers + np.uint64(width), f"<i{width}")
    possible = (handles >= 0) & (handles <= _MOST_HANDLES)
    possible &= (pointers > 0) & (pointers <= _MOST_POINTERS)
    return handles.astype(np.int64), has_pointers & has_handles & possible


def _by_mask(kernel: Kernel, start: U64, size: I64) -> U64:
    """The one place in each block whose mask names what lies before it; 0 for none, or several."""
    width = kernel.pointer_size
    lengths = np.array(_OPTIONAL[width], np.int64)
    found: U64 = np.zeros(len(start), np.uint64)
    times: I64 = np.zeros(len(start), np.int64)
    for front in range(0, _MOST_IN_FRONT + 1, 2 * width):
        place = start + np.uint64(front)
        mask, present = kernel.memory.gather(place + np.uint64(_INFO_MASK[width]), "<u1")
        bits = mask[:, None] >> np.arange(len(lengths), dtype=np.uint8) & 1
        fits = present & (mask < 1 << len(lengths)) & (bits @ lengths == front)
        fits &= front + HEADER_BYTES[width] < size
        fits &= header_counts(kernel, place)[1]
        found[fits] = place[fits]
        times += fits
    found[times != 1] = 0
    return found
