"""The sites of one dump, numbered, and what an attributor is."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.sites import Site
from dumpleak.process.session import HeapSource
from windumps.blocks import Blocks


class SiteTable:
    """Numbers sites by key."""

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self._index: dict[str, int] = {}

    def index_of(self, site: Site) -> int:
        """The number of a site; the same key always gives the same number."""
        index = self._index.setdefault(site.key, len(self.sites))
        if index == len(self.sites):
            self.sites.append(site)
        return index


class Attributor(Protocol):
    """Names blocks by one kind of evidence."""

    def assign(self, source: HeapSource, blocks: Blocks) -> NDArray[np.int64]:
        """Site numbers (int64, shape (n,)); -1 for blocks this evidence does not name.

        Args:
            source: A heap of the view that the blocks lie in.
            blocks: Of heaps of that view; `Blocks.heap` tells of which.
        """
        ...
