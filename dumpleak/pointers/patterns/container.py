"""What a recogniser finds, and the arithmetic that several share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32
from windumps.arrays import I64

MIN_MEMBERS = 16  # fewer are nobody's leak, and may agree by chance
MOST_FOUND = 2000  # of one pattern, the largest

NONE = np.empty(0, np.int32)


@dataclass(frozen=True, eq=False)
class Found:
    """One container, proven.

    Attributes:
        pattern: What it is: "std::list (MSVC)", "list of LIST_ENTRYs".
        place: Where what its owner keeps of it stands: its head, or the pointer to it. 0 where nothing
            in the dump does.
        members: int32, the blocks that are in it.
        count: How many members it has; may be more than there are blocks, where two hold one.
        store: int32, blocks it keeps for itself: an array of pointers, a head.
        notes: What else its memory tells, "load 4.0".
    """

    pattern: str
    place: int
    members: I32
    count: int
    store: I32 = field(default_factory=lambda: NONE)
    notes: tuple[str, ...] = ()


def ends_of(following: I64) -> I64:
    """Where each node comes to when it is followed to the end.

    Args:
        following: int64, the number of the next node; its own number where it is an end.

    Returns:
        The end's number; -1 for nodes that go in a circle.
    """
    found = following.copy()
    for _ in range(max(len(found), 2).bit_length()):
        further = found[found]
        if np.array_equal(further, found):
            break
        found = further
    return np.where(following[found] == found, found, -1)


def circles_of(following: I64) -> I64:
    """Which circle each node is in, by the lowest number in it.

    Args:
        following: int64, the number of the next node, no two the same; -1 where it has none.

    Returns:
        int64; -1 for nodes that are in none.
    """
    count = len(following)
    jump = np.append(np.where(following < 0, count, following), count)
    follow = jump
    label = np.append(np.arange(count), -1)
    for _ in range(max(count, 2).bit_length()):
        label = np.minimum(label, label[jump])
        if np.array_equal(label[follow], label):
            break
        jump = jump[jump]
    return label[:count]


def largest_groups(label: I64) -> list[I64]:
    """The rows of each label from 0 on, of those with enough, the largest first."""
    order = np.argsort(label, kind="stable")
    order = order[int(np.searchsorted(label[order], 0)) :]
    first = np.flatnonzero(np.diff(label[order], prepend=-1))
    sizes = np.diff(np.append(first, len(order)))
    kept = np.argsort(-sizes, kind="stable")[:MOST_FOUND]
    kept = kept[sizes[kept] >= MIN_MEMBERS]
    return [order[first[row] : first[row] + sizes[row]] for row in kept.tolist()]


def distinct(values: NDArray[np.int32]) -> I32:
    """The values in order, each once; for many, sorting is faster than `np.unique`."""
    ordered = np.sort(values)
    found: I32 = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return found


def all_same(values: NDArray[np.generic]) -> bool:
    """There is one value, however often."""
    return bool(len(values)) and bool((values == values[0]).all())
