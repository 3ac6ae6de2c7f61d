"""What type of .NET objects holds an object, seen through what says nothing: arrays, lists, boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32
from windumps.arrays import I64

NOBODY, SEVERAL = -1, -2  # in place of the number of a type
_ROUNDS = 32  # arrays in lists in arrays; what lies deeper is held by nobody that is known
_HIGHEST = np.iinfo(np.int32).max


class Kinds:
    """What is known of the types of objects, one row a type.

    Args:
        clear: bool, who holds them matters and not they: arrays, lists, boxes, strings.
        plain: bool, of those, what says nothing of itself: strings, arrays, boxes.
    """

    def __init__(self, clear: NDArray[np.bool_], plain: NDArray[np.bool_]) -> None:
        self.clear = clear
        self.plain = plain


def holding_types(number: I64, kinds: Kinds, source: I32, target: I32, held: I32) -> I64:
    """The type of objects that hold each object: a number, `NOBODY` or `SEVERAL`.

    Objects of its own type do not count: a list's nodes hold each other. Roots count as a further type,
    but for plain objects: the key of a dictionary is held by the order that has it as its name.

    Args:
        number: By object, its type.
        kinds: By type.
        source: By pointer, the object it is in.
        target: By pointer, the object it leads to.
        held: Objects that roots lead to.
    """
    number = number.astype(np.int32)
    low = np.full(len(number), _HIGHEST, np.int32)
    high = np.full(len(number), NOBODY, np.int32)
    rooted = np.zeros(len(number), np.bool_)
    rooted[held] = True
    clear = kinds.clear[number[source]]
    first = ~clear & (number[source] != number[target])
    np.minimum.at(low, target[first], number[source[first]])
    np.maximum.at(high, target[first], number[source[first]])
    source, target = source[clear], target[clear]
    for _ in range(_ROUNDS):
        before = low.copy(), high.copy(), rooted.copy()
        rooted[target[rooted[source]]] = True
        known = (high[source] != NOBODY) & (
            (low[source] != number[target]) | (high[source] != number[target])
        )
        np.minimum.at(low, target[known], low[source[known]])
        np.maximum.at(high, target[known], high[source[known]])
        if all(np.array_equal(a, b) for a, b in zip(before, (low, high, rooted), strict=True)):
            break
    several = (high != NOBODY) & ((low != high) | (rooted & ~kinds.plain[number]))
    return np.where(several, SEVERAL, high).astype(np.int64)
