"""The tree of immediate dominators: what stands below each block is what that block keeps alive."""

from __future__ import annotations

import numpy as np

from dumpleak.pointers.pointer_graph import I32, WIDE, ordered
from windumps.arrays import I64


class DominatorTree:
    """A tree of blocks below a root that is none.

    Args:
        parent: int32, by block; the number of blocks stands for the root.
        size: int64, bytes by block.

    Attributes:
        count: int64, blocks below each block, itself included.
        bytes: int64, their bytes.
    """

    def __init__(self, parent: I32, size: I64) -> None:
        self.count = _counts_below(parent)
        self._enter = _places(parent, self.count)
        in_order = np.zeros(len(parent) + 1, np.int64)
        in_order[self._enter + 1] = size
        self._sums = np.cumsum(in_order)  # of all blocks in front of a place
        self.bytes: I64 = self._sums[self._enter + self.count] - self._sums[self._enter]

    def union(self, blocks: I32) -> tuple[int, int]:
        """(bytes, count) of all that is below any of some blocks."""
        enter = self._enter[blocks]
        order = np.argsort(enter)
        blocks, enter = blocks[order], enter[order]
        ends = np.maximum.accumulate(enter + self.count[blocks])
        top = blocks[np.append(True, enter[1:] >= ends[:-1])[: len(blocks)]]
        return int(self.bytes[top].sum()), int(self.count[top].sum())


def _sum_up(parent: I32, value: I64) -> I64:
    """The sum of a value along the way from each block up to the root, itself included."""
    root = len(parent)
    up = np.append(parent, np.int32(root))
    found = np.append(value, 0)
    while (up != root).any():
        found = found + found[up]
        up = up[up]
    return found[:-1]


def _counts_below(parent: I32) -> I64:
    depth = _sum_up(parent, np.ones(len(parent), np.int64))
    order = ordered(depth)
    starts = np.searchsorted(depth[order], np.arange(1, int(depth.max(initial=0)) + 2)).tolist()
    counts = np.ones(len(parent) + 1, np.int64)
    level = len(starts) - 2
    while level >= 0:
        begin, end = starts[level], starts[level + 1]
        level -= 1
        if end - begin >= WIDE:
            rows = order[begin:end]
            np.add.at(counts, parent[rows], counts[rows])
            continue
        # Long lists have many levels of few blocks each.
        while level >= 0 and begin - starts[level] < WIDE:
            begin, level = starts[level], level - 1
        above, total = parent.data, counts.data
        for row in reversed(order[begin:end].tolist()):
            total[above[row]] += total[row]
    return counts[:-1]


def _places(parent: I32, count: I64) -> I64:
    """The place of each block in an order that has all that is below a block right behind it."""
    order = ordered(parent)
    before = np.cumsum(count[order]) - count[order]
    first = np.append(True, parent[order][1:] != parent[order][:-1])[: len(parent)]
    step = np.empty(len(parent), np.int64)
    step[order] = before - np.maximum.accumulate(np.where(first, before, 0)) + 1
    return _sum_up(parent, step) - 1
