"""Used blocks added up by group, and what a page shows of one besides: sizes, and where some blocks lie.

Only reports that show these details ask for them: they cost memory for each group of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.totals import Totals
from windumps.blocks import Blocks

MAX_SAMPLES = 5
# Sizes are counted by powers of two: bin n holds sizes from 2**(n-1) to 2**n - 1, bin 0 those of 0.
SIZE_BINS = 48
_BIN_ENDS = np.uint64(1) << np.arange(SIZE_BINS - 1, dtype=np.uint64)


@dataclass(frozen=True)
class SiteDetail:
    """Blocks of one site in one dump.

    Attributes:
        sizes: (bytes, blocks): how many blocks have this size or more, and less than twice it; bins
            without blocks are left out.
        samples: Addresses of some blocks, the first the walk met.
        pointer_size: 4 or 8, for the width of addresses.
    """

    sizes: tuple[tuple[int, int], ...]
    samples: tuple[int, ...]
    pointer_size: int


class DetailSums:
    """Collects details by group number, in columns that grow as groups appear."""

    def __init__(self) -> None:
        self._sizes = np.zeros((0, SIZE_BINS), np.int64)
        self._samples = np.zeros((0, MAX_SAMPLES), np.uint64)
        self._taken = np.zeros(0, np.int64)
        self._pointer_size = np.zeros(0, np.uint8)

    def add(self, groups: NDArray[np.int64], blocks: Blocks, pointer_size: int) -> None:
        """Adds used blocks.

        Args:
            groups: Group of each block, shape (n,).
            blocks: The blocks, n of them.
            pointer_size: Of the heap they are in.
        """
        if not len(groups):
            return
        self._grow(int(groups.max()) + 1)
        bins = np.searchsorted(_BIN_ENDS, blocks.counted_bytes.astype(np.uint64), "right")
        np.add.at(self._sizes, (groups, bins), 1)
        self._pointer_size[groups] = pointer_size
        wanting = self._taken[groups] < MAX_SAMPLES
        if wanting.any():
            self._sample(groups[wanting], blocks.address[wanting])

    def details(self, count: int) -> list[SiteDetail]:
        """One for each of the first `count` groups."""
        self._grow(count)
        lows = [0, *_BIN_ENDS.tolist()]
        found = []
        for group in range(count):
            used = np.flatnonzero(self._sizes[group]).tolist()
            found.append(
                SiteDetail(
                    tuple((lows[size], int(self._sizes[group, size])) for size in used),
                    tuple(self._samples[group, : self._taken[group]].tolist()),
                    int(self._pointer_size[group]) or 8,
                )
            )
        return found

    def _sample(self, groups: NDArray[np.int64], addresses: NDArray[np.uint64]) -> None:
        order = np.argsort(groups, kind="stable")
        ranked, starts = groups[order], np.zeros(len(order), np.int64)
        first = np.flatnonzero(np.diff(ranked, prepend=-1))
        starts[first] = first
        place = np.arange(len(order)) - np.maximum.accumulate(starts) + self._taken[ranked]
        kept = place < MAX_SAMPLES
        self._samples[ranked[kept], place[kept]] = addresses[order][kept]
        np.add.at(self._taken, ranked[kept], 1)

    def _grow(self, count: int) -> None:
        have = len(self._taken)
        if count <= have:
            return
        more = max(count, 2 * have) - have
        self._sizes = np.pad(self._sizes, ((0, more), (0, 0)))
        self._samples = np.pad(self._samples, ((0, more), (0, 0)))
        self._taken = np.pad(self._taken, (0, more))
        self._pointer_size = np.pad(self._pointer_size, (0, more))


class GroupSums:
    """Adds used blocks up by group number, in columns that grow as groups appear."""

    def __init__(self) -> None:
        self._sums = np.zeros((4, 0), np.int64)

    def add(
        self, groups: NDArray[np.int64], counted: NDArray[np.int64], block_bytes: NDArray[np.int64]
    ) -> None:
        """Adds some blocks.

        Args:
            groups: Their numbers.
            counted: Bytes asked for where known, else block bytes.
            block_bytes: With header and padding.
        """
        size = int(groups.max()) + 1
        if size > self._sums.shape[1]:
            grown = np.zeros((4, max(size, 2 * self._sums.shape[1])), np.int64)
            grown[:, : self._sums.shape[1]] = self._sums
            self._sums = grown
        np.add.at(self._sums[0], groups, 1)
        np.add.at(self._sums[1], groups, counted)
        np.add.at(self._sums[2], groups, block_bytes)
        np.maximum.at(self._sums[3], groups, counted)

    @property
    def count(self) -> int:
        """Numbers below this have a sum."""
        return int(self._sums.shape[1])

    def totals(self, group: int) -> Totals:
        """Of one group."""
        return Totals(*(int(value) for value in self._sums[:, group]))

    def overall(self) -> Totals:
        """Of all groups."""
        largest = int(self._sums[3].max()) if self._sums.size else 0
        count, counted, block_bytes = (int(value) for value in self._sums[:3].sum(axis=1))
        return Totals(count, counted, block_bytes, largest)
