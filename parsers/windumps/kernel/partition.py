"""nt!MiSystemPartition found by what it holds, where no symbols name it.

KUSER_SHARED_DATA says how many pages of memory the machine has, and so does the partition. Where the kernel's
image has that number, the counters around it must fit: what is available and committed, and the limit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from windumps.errors import MemoryReadError
from windumps.kernel.kernel import SHARED_DATA, Kernel

_PHYSICAL_PAGES = 0x2E8  # of KUSER_SHARED_DATA, Windows 7 and later: four bytes
_LEAST_PAGES = 1 << 12
_MAX_IMAGE = 64 << 20
_ALIGNED = 0x40  # the variable begins a line of the cache
_MOST_LIMIT = 256  # times the memory of a machine that its page files make of it


def find_partition(kernel: Kernel, offsets: Mapping[str, int]) -> int | None:
    """Address of the variable; None unless exactly one place fits.

    Args:
        kernel: The kernel.
        offsets: Of its counters in this build, by the names that `counters` gives them.
    """
    if kernel.image is None or not all(
        offsets.get(name) for name in ("physical_memory", "committed")
    ):
        return None
    try:
        pages = kernel.memory.read_uint(SHARED_DATA[kernel.architecture] + _PHYSICAL_PAGES, 4)
    except MemoryReadError:
        return None
    if pages < _LEAST_PAGES:
        return None
    places = (hit - offsets["physical_memory"] for hit in _holding(kernel, pages))
    found = [place for place in places if _fits(kernel, place, offsets, pages)]
    return found[0] if len(found) == 1 else None


def _holding(kernel: Kernel, value: int) -> list[int]:
    """Where the image holds a number of a pointer's size."""
    size = kernel.pointer_size
    memory = kernel.memory
    bytes_ = kernel.image.size_bytes if kernel.image is not None else 0
    end = kernel.base + min(bytes_, _MAX_IMAGE)
    found: list[int] = []
    for start, length, offset in zip(*memory.extents(kernel.base, end), strict=True):
        count = int(length) // size
        raw = memory.data[int(offset) : int(offset) + count * size]
        words = np.ndarray((count,), f"<u{size}", buffer=raw)
        found += [int(start) + size * at for at in np.flatnonzero(words == value).tolist()]
    return found


def _fits(kernel: Kernel, place: int, offsets: Mapping[str, int], pages: int) -> bool:
    if place % _ALIGNED or place < kernel.base:
        return False
    try:
        available, committed, limit, peak = (
            kernel.memory.read_uint(place + offsets[name], kernel.pointer_size)
            for name in ("available", "committed", "commit_limit", "peak_commit")
        )
    except (MemoryReadError, KeyError):
        return False
    return (
        0 < available < pages
        and 0 < committed <= peak
        and committed <= limit
        and pages // 2 < limit < _MOST_LIMIT * pages
    )
