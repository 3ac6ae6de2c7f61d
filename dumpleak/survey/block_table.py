"""Used blocks collected while the heaps are walked, as columns for survival."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.content_shape import content_shapes
from dumpleak.model.block_table import BlockTable, shape_identity
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks


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
