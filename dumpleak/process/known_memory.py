"""Stretches of memory that were dealt with, so that none counts twice, whatever the lists of a dump say."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def inside_spans(
    addresses: NDArray[np.uint64], spans: Sequence[tuple[int, int]]
) -> NDArray[np.bool_]:
    """True for addresses inside one of the (start, size) spans."""
    if not spans:
        return np.zeros(len(addresses), bool)
    table = np.array(sorted(spans), np.uint64)
    start, last = table[:, 0], np.minimum(table[:, 1], ~table[:, 0])
    end = np.maximum.accumulate(start + last)
    row = np.searchsorted(start, addresses, "right") - 1
    return np.asarray((row >= 0) & (addresses < end[np.maximum(row, 0)]))


class KnownMemory:
    """Disjoint stretches, ascending."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def taken(self, start: int, end: int) -> list[tuple[int, int]]:
        """The pieces of [start, end) that are known."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return [
            (max(low, start), min(high, end))
            for low, high in zip(self._starts[first:last], self._ends[first:last], strict=True)
        ]

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """The pieces of [start, end) that were not known; they are from now on."""
        if start >= end:
            return []
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        pieces, at = [], start
        for low, high in zip(self._starts[first:last], self._ends[first:last], strict=True):
            if low > at:
                pieces.append((at, low))
            at = max(at, high)
        if at < end:
            pieces.append((at, end))
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last], self._ends[first:last] = [start], [end]
        return pieces
