"""Immediate dominators of graphs that are wide and not deep, in whole columns.

Every node begins with its parent in the tree of a breadth-first search and climbs, all at once, to what the
ways to it have in common, until nothing moves. No node ever climbs over its immediate dominator, and where
all stand still each has it. How often that takes nobody knows before: there is a limit to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32, edges_of, leads_of, ordered

MOST_LEVELS = 256
MOST_ROUNDS = 64
STEPS_AN_EDGE = 64  # climbed, in all; the other algorithm takes about as long as twice of that


def shallow_dominators(count: int, source: I32, target: I32) -> I32 | None:
    """Immediate dominators of nodes that can all be reached from node 0, which has itself.

    Args:
        count: Nodes.
        source: Where edges begin.
        target: Where they lead to; none to node 0.

    Returns:
        int32, shape (count,); None where it would take long.
    """
    order = ordered(target)
    source, target = source[order], target[order]
    found = _breadth_first(count, source, target)
    if found is None:
        return None
    parent, level = found
    left = STEPS_AN_EDGE * len(source)
    for _ in range(MOST_ROUNDS):
        # What the root alone dominates cannot climb.
        open_ = parent[target] != 0
        source, target = source[open_], target[open_]
        if not len(target):
            return parent
        common, steps = _in_common(source, parent[target], parent, level)
        left -= steps
        starts = np.flatnonzero(np.diff(target, prepend=-1))
        # All that is in common with one of the ways lies on the way to the parent: the highest is with all.
        keys = level[common].astype(np.int64) * count + common
        highest = (np.minimum.reduceat(keys, starts) % count).astype(np.int32)
        nodes = target[starts]
        if (parent[nodes] == highest).all():
            return parent
        parent[nodes] = highest
        if left < 0:
            return None
    return None


def _breadth_first(count: int, source: I32, target: I32) -> tuple[I32, I32] | None:
    """By node its parent and its level; None where there are many levels."""
    first, leads = leads_of(count, source, target)
    parent, level = np.full(count, -1, np.int32), np.zeros(count, np.int32)
    parent[0] = 0
    front = np.zeros(1, np.int32)
    for number in range(1, MOST_LEVELS):
        there = leads[edges_of(first, front)]
        above = np.repeat(front, first[front + 1] - first[front])
        new = parent[there] < 0
        if not new.any():
            return parent, level
        parent[there[new]], level[there[new]] = above[new], number
        front = np.flatnonzero(level == number).astype(np.int32)
    return None


def _in_common(one: I32, other: I32, parent: I32, level: I32) -> tuple[NDArray[np.int32], int]:
    """The lowest node on the ways up from two nodes, for many; and how many steps that took."""
    found = other.copy()
    rows = np.flatnonzero(one != other)
    one, other = one[rows], other[rows]
    steps = 0
    while len(rows):
        steps += len(rows)
        low, high = level[one], level[other]
        one, other = (
            np.where(low >= high, parent[one], one),
            np.where(high >= low, parent[other], other),
        )
        found[rows] = other
        apart = one != other
        rows, one, other = rows[apart], one[apart], other[apart]
    return found, steps
