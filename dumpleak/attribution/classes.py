"""The class of blocks whose site is named by other evidence, so that a stack can say what it allocated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dumpleak.attribution.table import SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.sites import SiteKind
from dumpleak.process.session import HeapSource, Session
from windumps.blocks import Blocks

AGREEMENT = 0.9  # share of a site's blocks that must be of one class before the site says so
_NAMED_OTHERWISE = (SiteKind.STACK, SiteKind.SOURCE)


class SiteClasses:
    """Tells sites their class, where nearly all of their blocks are of one.

    Args:
        session: The dump.
        table: The sites; their `type` is kept up to date.
    """

    def __init__(self, session: Session, table: SiteTable) -> None:
        self._table = table
        self._types = SiteTable()
        self._attributor = TypeAttributor(session, self._types)
        self._wanted = np.zeros(0, np.bool_)  # by site
        self._blocks = np.zeros(0, np.int64)
        self._votes: dict[tuple[int, int], int] = {}  # by site and class

    def add(self, source: HeapSource, blocks: Blocks, sites: NDArray[np.int64]) -> None:
        """Looks at blocks and the numbers of their sites."""
        self._grow()
        rows = np.flatnonzero(self._wanted[sites])
        if not len(rows):
            return
        keep = np.zeros(len(blocks), np.bool_)
        keep[rows] = True
        classes = self._attributor.assign(source, blocks if keep.all() else blocks.select(keep))
        mine = sites[rows]
        self._blocks += np.bincount(mine, minlength=len(self._blocks))
        many = len(self._types.sites) + 1
        codes, counts = np.unique(mine * many + classes + 1, return_counts=True)
        touched = set()
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            site, number = divmod(code, many)
            touched.add(site)
            if number:
                key = site, number - 1
                self._votes[key] = self._votes.get(key, 0) + count
        self._tell(touched)

    def _grow(self) -> None:
        new = self._table.sites[len(self._wanted) :]
        if new:
            wanted = [site.kind in _NAMED_OTHERWISE for site in new]
            self._wanted = np.append(self._wanted, wanted)
            self._blocks = np.append(self._blocks, np.zeros(len(new), np.int64))

    def _tell(self, touched: set[int]) -> None:
        """Brings the types of sites up to date."""
        agreed: dict[int, str | None] = dict.fromkeys(touched)
        for (site, number), count in self._votes.items():
            if site in touched and count >= AGREEMENT * self._blocks[site]:
                agreed[site] = self._types.sites[number].type
        for site, name in agreed.items():
            if self._table.sites[site].type != name:
                self._table.sites[site] = replace(self._table.sites[site], type=name)
