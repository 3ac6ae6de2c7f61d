"""Column types and what every room counts with: array aliases, pages, and values looked up once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U16 = NDArray[np.uint16]
U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

ADDRESS_LIMIT = 1 << 64
PAGE_BITS = 12
PAGE_SIZE = 1 << PAGE_BITS  # of every Windows that is read here


class ColumnCache:
    """Remembers the result for every value seen so far, in two sorted columns.

    Columns of blocks hold few distinct values (vftables, sizes), many times over; looking them up
    is much cheaper than sorting every column to find out which there are.

    Args:
        resolve: Gives an int64 for each of an ascending uint64 column without repetitions.
    """

    def __init__(self, resolve: Callable[[NDArray[np.uint64]], NDArray[np.int64]]) -> None:
        self._resolve = resolve
        self._values = np.empty(0, np.uint64)
        self._results = np.empty(0, np.int64)

    def __call__(self, values: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The result for each value (int64, shape (n,))."""
        if not len(values):
            return np.empty(0, np.int64)
        place, known = self._find(values)
        if not known.all():
            new = np.unique(values[~known])
            results = self._resolve(new)
            at = np.searchsorted(self._values, new)
            self._values = np.insert(self._values, at, new)
            self._results = np.insert(self._results, at, results)
            place, _ = self._find(values)
        return self._results[place]

    def _find(self, values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not len(self._values):
            return np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
        place = np.minimum(np.searchsorted(self._values, values), len(self._values) - 1)
        return place, self._values[place] == values
