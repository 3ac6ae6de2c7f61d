"""Attribution: who allocated a block, best evidence first.

Each attributor looks at the blocks nobody before it could name. A new kind of evidence is one file
and one row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.classes import SiteClasses
from dumpleak.attribution.shape import ShapeAttributor
from dumpleak.attribution.source import SourceAttributor
from dumpleak.attribution.stack import StackAttributor
from dumpleak.attribution.table import Attributor, SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks

# Best evidence first; the last one names every block.
ATTRIBUTORS: tuple[Callable[[Session, SiteTable], Attributor], ...] = (
    StackAttributor,
    SourceAttributor,
    TypeAttributor,
    ShapeAttributor,
)


class SiteFinder:
    """Gives every block its site."""

    def __init__(self, session: Session) -> None:
        self.table = SiteTable()
        self._attributors = [make(session, self.table) for make in ATTRIBUTORS]
        self._classes = SiteClasses(session, self.table)

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """Indices into `table.sites`, one for each block (int64, shape (n,))."""
        sites = np.full(len(blocks), -1, np.int64)
        for attributor in self._attributors:
            open_ = sites < 0
            if not open_.any():
                break
            if open_.all():
                sites = attributor.assign(source, blocks)
            else:
                sites[open_] = attributor.assign(source, blocks.select(open_))
        self._classes.add(source, blocks, sites)
        return sites


__all__ = ["ATTRIBUTORS", "Attributor", "SiteFinder", "SiteTable"]
