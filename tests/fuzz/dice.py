"""Random choices that come out the same for the same names and numbers."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Dice:
    """Choices for one case, trial or pair.

    Args:
        key: What the case is called: its kind, the seed of the run, its number.
    """

    def __init__(self, *key: str | int) -> None:
        words = [zlib.crc32(str(part).encode()) for part in key]
        self._source = np.random.Generator(np.random.PCG64(words))

    def below(self, limit: int) -> int:
        """0 to limit - 1."""
        return int(self._source.integers(limit))

    def between(self, low: int, high: int) -> int:
        """Low to high - 1."""
        return low + self.below(high - low)

    def chance(self, share: float) -> bool:
        """True in this share of all cases."""
        return float(self._source.random()) < share

    def pick(self, items: Sequence[T]) -> T:
        """One of them."""
        return items[self.below(len(items))]

    def weighted(self, rows: Sequence[tuple[int, T]]) -> T:
        """One of them, each as often as its weight says."""
        at = self.below(sum(weight for weight, _ in rows))
        for weight, item in rows:
            at -= weight
            if at < 0:
                return item
        raise ValueError("no rows")

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Different ones of them."""
        chosen = self._source.choice(len(items), min(count, len(items)), replace=False)
        return [items[index] for index in chosen.tolist()]

    def raw(self, size: int) -> bytes:
        """Bytes without meaning."""
        return self._source.bytes(size)
