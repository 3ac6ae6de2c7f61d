"""How much memory the kernel stacks of threads take: from StackLimit, the lowest page in use, to StackBase.

A thread that had its stack expanded has pieces; counted is the one it runs on. Whether the fields are what
they should be is checked for each thread: the two pointers into the stack lie in it.

Source: `_KTHREAD` of public kernel symbols and published headers, as in `layouts/kernel.py`. Its first fields
are those of x64 on ARM64, too, which the same check confirms or denies.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.kernel.kernel import Kernel

_MOST_BYTES = 1 << 20
# (architecture, first build, last build): (InitialStack, StackLimit, KernelStack, StackBase).
_PLACES = {
    ("x64", 3790, 3790): (0x28, 0x30, 0x38, 0x240),
    ("x64", 6000, 6003): (0x28, 0x30, 0x38, 0x250),
    ("x64", 7600, 7601): (0x28, 0x30, 0x38, 0x278),
    ("x64", 9200, 26200): (0x28, 0x30, 0x58, 0x38),
    ("x86", 2600, 2600): (0x18, 0x1C, 0x28, 0x168),
    ("x86", 3790, 3790): (0x18, 0x1C, 0x20, 0x158),
    ("x86", 6000, 6003): (0x28, 0x2C, 0x30, 0x174),
    ("x86", 7600, 7601): (0x28, 0x2C, 0x30, 0x190),
    ("x86", 9200, 19045): (0x20, 0x24, 0x48, 0x28),
}


def kernel_stacks(kernel: Kernel, threads: U64) -> I64:
    """Bytes of the kernel stack of each thread; -1 where they are not known.

    Args:
        kernel: The kernel.
        threads: Addresses of `_ETHREAD`s.
    """
    unknown: I64 = np.full(len(threads), -1, np.int64)
    architecture = "x86" if kernel.architecture == "x86" else "x64"
    places = next(
        (
            offsets
            for (arch, first, last), offsets in _PLACES.items()
            if arch == architecture and first <= kernel.build <= last
        ),
        None,
    )
    if places is None:
        return unknown
    found = [
        kernel.memory.gather(threads + np.uint64(place), f"<u{kernel.pointer_size}")
        for place in places
    ]
    initial, limit, current, base = (values.astype(np.uint64) for values, _ in found)
    fits: NDArray[np.bool_] = np.logical_and.reduce([present for _, present in found])
    fits &= ((limit | base) & np.uint64(PAGE_SIZE - 1)) == 0
    fits &= limit >= np.uint64(1 << (8 * kernel.pointer_size - 1))
    fits &= (limit < initial) & (initial <= base) & (limit <= current) & (current <= base)
    fits &= base - limit <= _MOST_BYTES
    return np.where(fits, (base - limit).astype(np.int64), unknown)
