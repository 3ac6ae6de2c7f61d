"""A shortest way from the roots to every block at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32, WIDE, PointerGraph, edges_of, ordered
from windumps.arrays import I64


def shortest_ways(graph: PointerGraph) -> tuple[I32, I64]:
    """The block before each block on a shortest way to it from a root, and the edge that leads on.

    Returns:
        int32, by block: the block before it; itself where a root holds it, -1 where no root leads to it.
        int64, by block: the row of the edge in the graph; -1 where there is none.
    """
    order = ordered(graph.source)
    first = np.zeros(graph.count + 1, np.int64)
    np.cumsum(np.bincount(graph.source, minlength=graph.count), out=first[1:])
    leads, source = graph.target[order], graph.source[order]
    before = np.full(graph.count, -1, np.int32)
    row_of = np.full(graph.count, -1, np.int64)
    before[graph.held] = graph.held
    front = graph.held
    while len(front):
        if len(front) < WIDE:
            front = _singly(front, first, leads, before, row_of)
            continue
        rows = edges_of(first, front)
        rows = rows[before[leads[rows]] < 0]
        there, at = np.unique(leads[rows], return_index=True)
        rows = rows[at]
        before[there], row_of[there] = source[rows], rows
        front = there
    known = row_of >= 0
    row_of[known] = order[row_of[known]]
    return before, row_of


def _singly(front: I32, first: NDArray[np.int64], leads: I32, before: I32, row_of: I64) -> I32:
    """Goes on level by level while there are few blocks in each."""
    begin, targets, known, rows = first.data, leads.data, before.data, row_of.data
    left = front.tolist()
    while left and len(left) < WIDE:
        found = []
        for node in left:
            for row in range(begin[node], begin[node + 1]):
                there = targets[row]
                if known[there] < 0:
                    known[there], rows[there] = node, row
                    found.append(there)
        left = found
    return np.array(left, np.int32)
