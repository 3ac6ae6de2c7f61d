"""Used blocks as the columns that tell whether a block of one dump is still there in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.images.modules import Module

NO_SHAPE = 0
# What a shape calls an image: its PDB identity (1, in older snapshot files), or its time stamp and size (2),
# which every list has, that of unloaded images too.
BY_PDB, BY_STAMP = 1, 2


@dataclass(frozen=True)
class BlockTable:
    """Used blocks, ascending by address, as columns of equal length.

    Attributes:
        address: uint64.
        size: int64, bytes asked for; `SIZE_UNKNOWN` where the allocator does not keep it.
        group: int32, index into `keys`.
        shape: uint16, see `content_shapes`.
        keys: Key of each group.
        images: What `shape` calls the images of the dump; empty where that is not known.
        shapes_by: How it calls them, `BY_STAMP` or `BY_PDB`.
    """

    address: NDArray[np.uint64]
    size: NDArray[np.int64]
    group: NDArray[np.int32]
    shape: NDArray[np.uint16]
    keys: tuple[str, ...]
    images: frozenset[str] = frozenset()
    shapes_by: int = BY_STAMP

    def __len__(self) -> int:
        return len(self.address)


def shape_identity(image: Module) -> str:
    """What the shapes of blocks that point into an image call it."""
    return image.stamp_key if image.timestamp else image.identity
