"""Where the ways to unreferenced blocks begin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32, PointerGraph, follow, leads_of


def entries_of(graph: PointerGraph, reachable: NDArray[np.bool_]) -> tuple[I32, I32]:
    """The entries of what no root leads to: the fewest blocks from which all of it can be reached.

    An entry is a block that nothing points to, or one of a circle of blocks that hold each other and that
    nothing else points into.

    Returns:
        The entries, ascending, and by block the one that stands for it: the entry of its circle, or itself.
    """
    stands_for = np.arange(graph.count, dtype=np.int32)
    lost = ~reachable[graph.source]
    source, target = graph.source[lost], graph.target[lost]
    entry = ~reachable
    entry[target] = False
    first, leads = leads_of(graph.count, source, target)
    seen = reachable | entry
    follow(first, leads, np.flatnonzero(entry).astype(np.int32), seen)
    rest = np.flatnonzero(~seen).astype(np.int32)
    if len(rest):
        # All edges into the rest come from it: whatever leads into it is in it.
        back_first, back_leads = leads_of(graph.count, target, source)
        for start in _last_starts(rest, first, leads, seen):
            entry[start] = True
            circle = _reached(start, back_first, back_leads)
            stands_for[circle] = start
    return np.flatnonzero(entry).astype(np.int32), stands_for


def _last_starts(
    rest: I32, first: NDArray[np.int64], leads: I32, seen: NDArray[np.bool_]
) -> list[int]:
    """One block of each circle that nothing else leads into.

    Of the blocks that a search in any order has to begin at, those that no later one leads to (Kosaraju).
    """
    before = seen.copy()
    starts = []
    for node in rest.tolist():
        if not seen[node]:
            starts.append(node)
            seen[node] = True
            follow(first, leads, np.array([node], np.int32), seen)
    last = []
    for node in reversed(starts):
        if not before[node]:
            last.append(node)
            before[node] = True
            follow(first, leads, np.array([node], np.int32), before)
    return last


def _reached(start: int, first: NDArray[np.int64], leads: I32) -> list[int]:
    """The nodes that can be reached from one, itself included."""
    found, left = {start}, [start]
    while left:
        node = left.pop()
        new = set(leads[first[node] : first[node + 1]].tolist()) - found
        found |= new
        left += new
    return list(found)
