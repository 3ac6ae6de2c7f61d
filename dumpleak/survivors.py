"""Which blocks of one dump are still there in a later one of the same process life.

A block is taken for the same one when address, size, site and the shape of its contents agree. An address
that another allocation got in between is no survivor: at least one of these differs, unless the very same
site asked for the very same size again and got the address back, which no dump can tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.block_table import BlockTable

ROWS_AT_ONCE = 1 << 20

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Fate:
    """What became of the blocks of one group.

    Attributes:
        kept: Blocks of the base that are still there.
        gone: Blocks of the base that were freed, or whose address another allocation got.
        new: Blocks of the current dump that the base did not have.
    """

    kept: int = 0
    gone: int = 0
    new: int = 0


@dataclass(frozen=True)
class Survivors:
    """What became of the blocks between two dumps of one process life.

    Attributes:
        by_key: For each group.
        total: Over all groups.
        reused: Addresses in use in both dumps, but by another allocation.
        kept: bool, shape (n,): which rows of the base's table are still there.
        known: bool, shape (n,): which rows of the current table the base had.
    """

    by_key: dict[str, Fate]
    total: Fate
    reused: int
    kept: NDArray[np.bool_]
    known: NDArray[np.bool_]


def find_survivors(base: BlockTable, current: BlockTable) -> Survivors:
    """Follows all blocks of the base.

    Args:
        base: The earlier dump's.
        current: The later one's; of the same process life.
    """
    keys = list(dict.fromkeys((*base.keys, *current.keys)))
    number = {key: n for n, key in enumerate(keys)}
    base_number = np.array([number[key] for key in base.keys], np.int32)
    current_number = np.array([number[key] for key in current.keys], np.int32)
    found = np.zeros(len(base), np.bool_)
    taken = np.zeros(len(current), np.bool_)
    reused = 0
    # Both ascend by address: pieces keep what is made on the way small.
    for start in range(0, len(base), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        place = np.searchsorted(current.address, base.address[rows])
        inside = place < len(current)
        place[~inside] = 0
        there = inside & (current.address[place] == base.address[rows]) if len(current) else inside
        rows_there = np.flatnonzero(there)
        row, other = rows_there + start, place[rows_there]
        same = (base.size[row] == current.size[other]) & (base.shape[row] == current.shape[other])
        same &= base_number[base.group[row]] == current_number[current.group[other]]
        found[row[same]] = True
        taken[other[same]] = True
        reused += int((~same).sum())
    count = len(keys)
    in_base = _counts(base.group, base_number, count)
    in_current = _counts(current.group, current_number, count)
    kept = _counts(base.group, base_number, count, found)
    fates = {
        key: Fate(int(k), int(b - k), int(c - k))
        for key, k, b, c in zip(keys, kept, in_base, in_current, strict=True)
    }
    total = Fate(int(kept.sum()), int((in_base - kept).sum()), int((in_current - kept).sum()))
    return Survivors(fates, total, reused, found, taken)


def _counts(
    groups: NDArray[np.int32],
    numbers: NDArray[np.int32],
    count: int,
    mask: NDArray[np.bool_] | None = None,
) -> I64:
    """Blocks of each group, in pieces: whole columns would be copied several times."""
    counts = np.zeros(count, np.int64)
    for start in range(0, len(groups), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        piece = groups[rows] if mask is None else groups[rows][mask[rows]]
        counts += np.bincount(numbers[piece], minlength=count)
    return counts
