"""Used blocks as the columns that tell whether a block of one dump is still there in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.content_shape import BY_STAMP, content_shapes, shape_identity
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks


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


class BlockTableBuilder:
    """Collects the pieces of a walk.

    Args:
        session: The dump that is walked.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pieces: list[tuple[NDArray[np.generic], ...]] = []

    def add(self, source: HeapSource, used: Blocks, groups: NDArray[np.int64]) -> None:
        """Takes in one piece: used blocks of one heap, and their groups."""
        shapes = content_shapes(self._session, source, used)
        self._pieces.append((used.address, used.size, groups.astype(np.int32), shapes))

    def build(self, keys: tuple[str, ...]) -> BlockTable:
        """All pieces in order of address."""
        kinds = (np.uint64, np.int64, np.int32, np.uint16)
        columns = [
            np.concatenate([piece[n] for piece in self._pieces] or [np.empty(0, kind)])
            for n, kind in enumerate(kinds)
        ]
        order = np.argsort(columns[0], kind="stable")
        address, size, group, shape = (column[order] for column in columns)
        images = frozenset(shape_identity(image) for image in self._session.images.modules)
        return BlockTable(address, size, group, shape, keys, images)
