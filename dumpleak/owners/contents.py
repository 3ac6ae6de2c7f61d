"""Which drivers the contents of blocks lead to: likely callers where the kernel allocates for others.

A word of a block that points into a driver's image is a routine or data of that driver (an IRP's completion
routine, say); one that points to a device object leads to the driver that made the device.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import I64, U64
from windumps.images.modules import ModuleMap
from windumps.kernel.kernel import Kernel

MAX_BLOCKS = 512  # a sample, evenly over all
MAX_BYTES = 512  # of each
_DEVICE, _DRIVER = 3, 4  # IO_TYPE_DEVICE, IO_TYPE_DRIVER in wdm.h
# Offsets that wdm.h fixes, by pointer size: DEVICE_OBJECT.DriverObject, DRIVER_OBJECT.DriverStart.
_DRIVER_OBJECT = {4: 8, 8: 8}
_DRIVER_START = {4: 0xC, 8: 0x18}


def drivers_in(kernel: Kernel, addresses: U64, sizes: I64) -> tuple[list[tuple[str, int]], int]:
    """Drivers that blocks lead to, and in how many of how many blocks looked at.

    Args:
        kernel: The kernel; it and its own images are never named.
        addresses: Where the blocks lie.
        sizes: Their bytes.

    Returns:
        (file name, blocks) of each driver, the most blocks first; and how many blocks were looked at.
    """
    step = max(-(-len(addresses) // MAX_BLOCKS), 1)
    chosen = addresses[::step]
    images = ModuleMap([d for d in kernel.drivers if d is not kernel.image])
    rows, words = words_in(kernel, chosen, sizes[::step])
    hits: set[tuple[int, int]] = set()
    for start in (words, _driver_starts(kernel, words)):
        index = images.index_of(start)
        found = index >= 0
        hits.update(zip(index[found].tolist(), rows[found].tolist(), strict=True))
    blocks: dict[int, int] = {}
    for image, _ in hits:
        blocks[image] = blocks.get(image, 0) + 1
    named = [(images.modules[image].name, count) for image, count in blocks.items()]
    return sorted(named, key=lambda row: (-row[1], row[0].lower())), len(chosen)


def words_in(kernel: Kernel, addresses: U64, sizes: I64) -> tuple[I64, U64]:
    """What blocks hold, word by word, up to `MAX_BYTES` of each: (which block, the word)."""
    width, length = kernel.pointer_size, np.minimum(sizes, MAX_BYTES)
    offsets = np.arange(0, int(length.max(initial=0)) - width + 1, width)
    places = addresses[:, None] + offsets.astype(np.uint64)
    words, inside = kernel.memory.gather(places, f"<u{width}")
    inside &= offsets + width <= length[:, None]
    return np.nonzero(inside)[0], words[inside].astype(np.uint64)


def _driver_starts(kernel: Kernel, words: U64) -> U64:
    """Where the image begins of the driver whose device each word points to; 0 for other words."""
    width = kernel.pointer_size
    unique, inverse = np.unique(words, return_inverse=True)
    starts = np.zeros(len(unique), np.uint64)
    rows = np.flatnonzero(unique % np.uint64(width) == 0)
    target = unique[rows]
    for kind, offset in ((_DEVICE, _DRIVER_OBJECT[width]), (_DRIVER, _DRIVER_START[width])):
        types, _ = kernel.memory.gather(target, "<u2")
        rows, target = rows[types == kind], target[types == kind]
        values, present = kernel.memory.gather(target + np.uint64(offset), f"<u{width}")
        rows, target = rows[present], values[present].astype(np.uint64)
    starts[rows] = target
    return starts[inverse.reshape(words.shape)]
