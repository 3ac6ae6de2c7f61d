"""Which containers there are, and which of them holds each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from dumpleak.pointers.patterns.arrays_of_pointers import find_arrays
from dumpleak.pointers.patterns.chains import find_chains
from dumpleak.pointers.patterns.container import Found
from dumpleak.pointers.patterns.hash_tables import find_hash_tables
from dumpleak.pointers.patterns.pointer_table import PointerTable
from dumpleak.pointers.patterns.rings import find_rings
from dumpleak.pointers.patterns.trees import find_gnu_trees, find_msvc_trees
from dumpleak.pointers.pointer_graph import I32

# What says most comes first: of two that have the same members, the first counts.
RECOGNISERS: tuple[Callable[[PointerTable], Iterator[Found]], ...] = (
    find_msvc_trees,
    find_gnu_trees,
    find_rings,
    find_arrays,
    find_hash_tables,
    find_chains,
)


def find_containers(table: PointerTable) -> list[Found]:
    """All containers that are proven, each once."""
    found: list[Found] = []
    taken = np.zeros(len(table.index), np.bool_)
    for recognise in RECOGNISERS:
        new = [container for container in recognise(table) if not taken[container.members].all()]
        for container in new:
            if not taken[container.members].all():
                found.append(container)
                taken[container.members] = True
    return found


def holders_of(table: PointerTable, found: list[Found]) -> I32:
    """By block, the number of the container that holds it; -1 where none does.

    A container holds its members and what it keeps for itself, and what members alone point to.
    """
    holds = np.full(len(table.index), -1, np.int32)
    order = sorted(range(len(found)), key=lambda number: found[number].count)
    for number in order:  # the largest last
        holds[found[number].members] = number
    for number in order:
        holds[found[number].store] = number
    rows = np.flatnonzero(table.source >= 0)
    rows = rows[(holds[table.source[rows]] >= 0) & (holds[table.target[rows]] < 0)]
    alone = np.bincount(table.target, minlength=len(holds))[table.target[rows]] == 1
    rows = rows[alone]
    held = holds.copy()
    held[table.target[rows]] = holds[table.source[rows]]
    return held
