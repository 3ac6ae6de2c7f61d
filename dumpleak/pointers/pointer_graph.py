"""Nodes and edges in columns, and what can be reached over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

I32 = NDArray[np.int32]

# From so many nodes on, whole columns are followed at once. Long lists are followed one by one: a column
# of one row for each of a million members would take minutes.
WIDE = 256


@dataclass(frozen=True)
class PointerGraph:
    """The pointers among used blocks, which are the nodes, by number.

    Attributes:
        count: Blocks.
        source: int32, the block that holds a pointer; one block may hold several to another, none to itself.
        target: int32, the block it leads into.
        held: int32, blocks that roots point to, ascending.
    """

    count: int
    source: I32
    target: I32
    held: I32


def ordered(numbers: NDArray[np.signedinteger]) -> NDArray[np.int64]:
    """What np.argsort(numbers, kind="stable") gives, of numbers from 0 up to 2**31; several times faster."""
    keys = numbers.astype(np.int64) << 32 | np.arange(len(numbers))
    keys.sort()
    return keys & 0xFFFFFFFF


def distinct(count: int, nodes: I32) -> I32:
    """Each of some of `count` nodes once, ascending; np.unique is many times slower."""
    found = np.zeros(count, np.bool_)
    found[nodes] = True
    return np.flatnonzero(found).astype(np.int32)


def leads_of(count: int, source: I32, target: I32) -> tuple[NDArray[np.int64], I32]:
    """Where the edges of each node begin, and where they lead to, in order of the nodes they begin at."""
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(source, minlength=count), out=first[1:])
    return first, target[ordered(source)]


def closure(count: int, source: I32, target: I32, start: I32) -> NDArray[np.bool_]:
    """Which of `count` nodes can be reached from `start` over edges from `source` to `target`."""
    first, leads = leads_of(count, source, target)
    seen = np.zeros(count, np.bool_)
    seen[start] = True
    follow(first, leads, start, seen)
    return seen


def follow(first: NDArray[np.int64], leads: I32, front: I32, seen: NDArray[np.bool_]) -> None:
    """Marks what can be reached.

    Args:
        first: As `leads_of` has it.
        leads: As `leads_of` has it.
        front: Nodes to start from, marked already.
        seen: bool, by node; marked ones are not followed.
    """
    while len(front):
        if len(front) < WIDE:
            front = _follow_singly(front, first, leads, seen)
            continue
        reached = leads[edges_of(first, front)]
        new = np.sort(reached[~seen[reached]])  # np.unique is many times slower here
        front = new[np.append(True, new[1:] != new[:-1])[: len(new)]]
        seen[front] = True


def edges_of(first: NDArray[np.int64], nodes: I32) -> NDArray[np.int64]:
    """The rows of the edges that begin at some nodes."""
    lengths = first[nodes + 1] - first[nodes]
    ends = np.cumsum(lengths)
    count = int(ends[-1]) if len(ends) else 0
    return np.repeat(first[nodes] - ends + lengths, lengths) + np.arange(count)


def _follow_singly(
    front: I32, first: NDArray[np.int64], leads: I32, seen: NDArray[np.bool_]
) -> I32:
    """Follows few nodes until there are none left, or many; gives those still to be followed."""
    begin, targets, known = first.data, leads.data, seen.data
    left = front.tolist()
    while left and len(left) < WIDE:
        node = left.pop()
        for edge in range(begin[node], begin[node + 1]):
            there = targets[edge]
            if not known[there]:
                known[there] = True
                left.append(there)
    return np.array(left, np.int32)
