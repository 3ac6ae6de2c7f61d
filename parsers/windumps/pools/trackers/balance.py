"""Blocks walked against blocks counted, by tag and pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64
from windumps.blocks import Blocks
from windumps.pool_tags import Pool
from windumps.pools.trackers.totals import TagTotals


def pool_keys(tags: NDArray[np.uint32], paged: NDArray[np.bool_]) -> I64:
    """One number for a tag in paged or nonpaged pool, as the trackers count them."""
    return tags.astype(np.int64) << 1 | paged


def is_paged(pools: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which `Pool`s the trackers count as paged."""
    paged: NDArray[np.bool_] = (pools == Pool.PAGED) | (pools == Pool.PAGED_SESSION)
    return paged


def is_session(pools: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Which `Pool`s the trackers of sessions count."""
    session: NDArray[np.bool_] = (pools == Pool.PAGED_SESSION) | (pools == Pool.NONPAGED_SESSION)
    return session


class Balance:
    """Adds up used blocks by key; blocks of session pool are not counted here."""

    def __init__(self) -> None:
        self.walked: dict[int, tuple[int, int]] = {}

    def add(self, blocks: Blocks) -> Blocks:
        """Counts blocks and hands them on."""
        used = blocks.used
        keep = ~is_session(used.heap)
        self.count(pool_keys(used.tag, is_paged(used.heap))[keep], used.block_bytes[keep])
        return blocks

    def count(self, keys: I64, sizes: I64) -> None:
        """Counts used blocks given by key and size."""
        unique, index = np.unique(keys, return_inverse=True)
        counts = np.bincount(index, minlength=len(unique))
        held = np.zeros(len(unique), np.int64)
        np.add.at(held, index, sizes)
        for key, count, total in zip(unique.tolist(), counts.tolist(), held.tolist(), strict=True):
            before = self.walked.get(key, (0, 0))
            self.walked[key] = before[0] + count, before[1] + total

    def missing(self, totals: TagTotals) -> dict[int, tuple[int, int]]:
        """Blocks and bytes counted and not walked, by key, for the tags whose totals are known.

        Negative where more was walked than is counted.
        """
        result = {}
        for paged, counts, held in (
            (False, totals.nonpaged_count, totals.nonpaged_bytes),
            (True, totals.paged_count, totals.paged_bytes),
        ):
            keys = pool_keys(totals.tag, np.full(len(totals), paged))[totals.complete]
            rows = zip(
                keys.tolist(),
                counts[totals.complete].tolist(),
                held[totals.complete].tolist(),
                strict=True,
            )
            for key, count, total in rows:
                walked = self.walked.get(key, (0, 0))
                result[key] = count - walked[0], total - walked[1]
        return result
