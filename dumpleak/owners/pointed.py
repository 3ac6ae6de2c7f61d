"""What single blocks point to: code of images, device and driver objects, other blocks of the pools."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.listed_blocks import Pointed
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.owners.contents import DEVICE, driver_objects
from windumps.arrays import I64, U64
from windumps.images.modules import ModuleMap
from windumps.kernel.kernel import Kernel
from windumps.pool_tags import tag_text

MAX_BYTES = 0x1000  # of each block
LOWEST = 0x10000  # no kernel address lies below
CHUNK = 256  # blocks whose words are looked at at once
_FIRST = {"device": 0, "driver": 1, "code": 2, "block": 3}


def pointed_to(
    kernel: Kernel, blocks: PoolBlocks, address: U64, size: I64
) -> list[tuple[Pointed, ...] | None]:
    """For each block what its words point to, objects first; the same thing is named once, with a count.

    None of a block whose contents are not in the dump.

    Args:
        kernel: The kernel.
        blocks: All used blocks of the dump.
        address: Where the blocks lie.
        size: Their bytes.
    """
    images = ModuleMap(list(kernel.drivers))
    found: list[tuple[Pointed, ...] | None] = []
    for start in range(0, len(address), CHUNK):
        rows = slice(start, start + CHUNK)
        found += _of_some(kernel, images, blocks, address[rows], size[rows])
    return found


def _of_some(
    kernel: Kernel, images: ModuleMap, blocks: PoolBlocks, address: U64, size: I64
) -> list[tuple[Pointed, ...] | None]:
    rows, words, there = _words(kernel, address, size)
    counts: list[dict[tuple[str, str], int]] = [{} for _ in address]

    def add(row: int, kind: str, name: str) -> None:
        counts[row][kind, name] = counts[row].get((kind, name), 0) + 1

    starts, kinds = driver_objects(kernel, words)
    owner = images.index_of(starts)
    whole = owner >= 0
    # A driver object names the start of its image: anything else only looks like one.
    bases = np.array([image.base_address for image in images.modules] or [0], np.uint64)
    whole[whole] = bases[owner[whole]] == starts[whole]
    for row, image, kind in zip(*(c[whole].tolist() for c in (rows, owner, kinds)), strict=True):
        add(row, "device" if kind == DEVICE else "driver", images.modules[image].name)
    inside = images.index_of(words)
    code = inside >= 0
    for row, image, word in zip(*(c[code].tolist() for c in (rows, inside, words)), strict=True):
        module = images.modules[image]
        add(row, "code", f"{module.name}+0x{word - module.base_address:x}")
    tags = blocks.tags_at(words)
    elsewhere = (tags >= 0) & ~whole & ~code
    for row, tag in zip(*(c[elsewhere].tolist() for c in (rows, tags)), strict=True):
        add(row, "block", tag_text(tag))
    return [
        tuple(
            Pointed(kind, name, count)
            for (kind, name), count in sorted(
                each.items(), key=lambda item: (_FIRST[item[0][0]], -item[1])
            )
        )
        if is_there
        else None
        for each, is_there in zip(counts, there.tolist(), strict=True)
    ]


def _words(kernel: Kernel, address: U64, size: I64) -> tuple[I64, U64, NDArray[np.bool_]]:
    """(row, word) of all words of blocks that may be pointers, but for those into the block itself.

    Returns:
        These, and which blocks have any word in the dump.
    """
    width = kernel.pointer_size
    length = np.minimum(size, MAX_BYTES)
    offsets = np.arange(0, int(length.max(initial=0)) - width + 1, width)
    places = address[:, None] + offsets.astype(np.uint64)
    words, inside = kernel.memory.gather(places, f"<u{width}")
    inside &= offsets + width <= length[:, None]
    there: NDArray[np.bool_] = np.any(inside, axis=1)
    inside &= words >= np.uint64(LOWEST)
    rows, words = np.nonzero(inside)[0], words[inside].astype(np.uint64)
    own = words - address[rows] < size[rows].astype(np.uint64)
    return rows[~own], words[~own], there
