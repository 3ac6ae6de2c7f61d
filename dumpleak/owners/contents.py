"""Which drivers the contents of blocks lead to: likely callers where the kernel allocates for others.

A word of a block that points into a driver's image is a routine or data of that driver (an IRP's completion
routine, say); one that points to a device object leads to the driver that made the device.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.images.modules import ModuleMap
from windumps.kernel.kernel import Kernel

MAX_BLOCKS = 512  # a sample, evenly over all
MAX_BYTES = 512  # of each
DEVICE, DRIVER = 3, 4  # IO_TYPE_DEVICE, IO_TYPE_DRIVER in wdm.h
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
    for start in (words, driver_objects(kernel, words)[0]):
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


def driver_objects(kernel: Kernel, words: U64) -> tuple[U64, NDArray[np.uint8]]:
    """Of words that point to a device or driver object where that driver's image begins, and which it is.

    Returns:
        (start of the image, `DEVICE` or `DRIVER`) of each word; 0 for words that point to neither.
    """
    width = kernel.pointer_size
    unique, inverse = np.unique(words, return_inverse=True)
    starts, kinds = np.zeros(len(unique), np.uint64), np.zeros(len(unique), np.uint8)
    rows = np.flatnonzero(unique % np.uint64(width) == 0)
    target = unique[rows]
    types, _ = kernel.memory.gather(target, "<u2")
    devices = types == DEVICE
    owner, present = kernel.memory.gather(
        target[devices] + np.uint64(_DRIVER_OBJECT[width]), f"<u{width}"
    )
    for kind, mine, driver in (
        (DEVICE, rows[devices][present], owner[present].astype(np.uint64)),
        (DRIVER, rows[types == DRIVER], target[types == DRIVER]),
    ):
        types, _ = kernel.memory.gather(driver, "<u2")
        mine, driver = mine[types == DRIVER], driver[types == DRIVER]
        start, there = kernel.memory.gather(driver + np.uint64(_DRIVER_START[width]), f"<u{width}")
        starts[mine[there]], kinds[mine[there]] = start[there], kind
    places = inverse.reshape(words.shape)
    return starts[places], kinds[places]
