"""What blocks keep alive: what would become unreachable if only they were released.

Exact in the graph of pointers that a scan finds: equal to taking the blocks out and scanning again. Of what
can be reached the ways begin at the roots. Of what cannot, they begin at the entries of each island: blocks
nothing points to, or a circle of blocks that hold each other and that nothing else leads into. Such a circle
is one thing with one size, which all of its blocks have.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.dominator_tree import DominatorTree
from dumpleak.pointers.dominators import immediate_dominators
from dumpleak.pointers.islands import entries_of
from dumpleak.pointers.pointer_graph import (
    I32,
    PointerGraph,
    closure,
    distinct,
    edges_of,
    follow,
    leads_of,
    ordered,
)
from windumps.arrays import I64

MOST_EDGES = 100_000_000  # followed for groups, in all; some ten seconds


class Retention:
    """What each block, and what groups of blocks, keep alive.

    Args:
        graph: The pointers among the blocks.
        reachable: bool, by block: a root leads to it.
        size: int64, bytes of each block.

    Attributes:
        bytes: int64, by block: what it keeps alive, itself included.
        count: int64, by block.
        entries: int32, one block of each entry of an island.
    """

    def __init__(self, graph: PointerGraph, reachable: NDArray[np.bool_], size: I64) -> None:
        self.entries, self._stands_for = entries_of(graph, reachable)
        source, target = self._stands_for[graph.source], self._stands_for[graph.target]
        held = np.zeros(graph.count, np.bool_)
        held[graph.held] = held[self.entries] = True
        kept = ~held[target] & (source != target)
        source, target = source[kept], target[kept]
        parent = immediate_dominators(
            graph.count, source, target, np.flatnonzero(held).astype(np.int32)
        )
        own = np.arange(graph.count, dtype=np.int32)
        parent = np.where(self._stands_for == own, parent, self._stands_for)
        self._tree = DominatorTree(parent, size)
        self.bytes: I64 = self._tree.bytes[self._stands_for]
        self.count: I64 = self._tree.count[self._stands_for]
        self._shared = _SharedParts(graph.count, source, target, held, parent)

    def of_blocks(self, blocks: I32) -> tuple[int, int] | None:
        """(bytes, count) of what becomes unreachable when all of some blocks are released, they included.

        None when so much was followed for other groups that this one would take too long.
        """
        blocks = np.unique(self._stands_for[blocks])
        lost = self._shared.lost_with(blocks)
        if lost is None:
            return None
        return self._tree.union(np.concatenate((blocks, lost)))

    def of_groups(self, group: I32, wanted: Iterable[int]) -> dict[int, tuple[int, int] | None]:
        """What groups of blocks retain, as `of_blocks` has it.

        Args:
            group: By block, its group.
            wanted: The groups asked for.
        """
        order = ordered(group).astype(np.int32)
        sorted_ = group[order]
        numbers = np.array(list(wanted), np.int64)
        begins = np.searchsorted(sorted_, numbers).tolist()
        ends = np.searchsorted(sorted_, numbers, "right").tolist()
        return {
            number: self.of_blocks(order[begin:end])
            for number, begin, end in zip(numbers.tolist(), begins, ends, strict=True)
        }


class _SharedParts:
    """The part of the graph in which blocks are lost only together: none of their holders dominates them.

    Everything else is lost with its immediate dominator, or not at all.
    """

    def __init__(
        self, count: int, source: I32, target: I32, held: NDArray[np.bool_], parent: I32
    ) -> None:
        shared = np.zeros(count, np.bool_)
        shared[target] = True
        shared[target[parent[target] == source]] = False
        self._left = MOST_EDGES
        core = closure(count, target, source, distinct(count, source[shared[target]]))
        core |= shared
        self._nodes = np.flatnonzero(core).astype(np.int32)
        self._number = np.full(count, -1, np.int32)
        self._number[self._nodes] = np.arange(len(self._nodes))
        kept = core[target]
        source, target = self._number[source[kept]], self._number[target[kept]]
        self._first, self._leads = leads_of(len(self._nodes), source, target)
        self._back_first, self._back_leads = leads_of(len(self._nodes), target, source)
        self._held = held[self._nodes]
        self._shared = shared[self._nodes]

    def lost_with(self, blocks: I32) -> I32 | None:
        """The shared blocks that are lost with some blocks; None beyond `MOST_EDGES`."""
        gone = self._number[blocks]
        gone = gone[gone >= 0]
        if not len(gone):
            return gone
        if self._left < 0:
            return None
        touched = np.zeros(len(self._nodes), np.bool_)
        touched[gone] = True
        follow(self._first, self._leads, gone, touched)
        rows = np.flatnonzero(touched).astype(np.int32)
        into = edges_of(self._back_first, rows)
        self._left -= 2 * len(into)
        # What something else leads to is left, and all that leads to.
        seen = ~touched
        left = np.repeat(rows, self._back_first[rows + 1] - self._back_first[rows])
        left = left[seen[self._back_leads[into]]]
        left = distinct(len(seen), np.concatenate((left, rows[self._held[rows]])))
        seen[gone] = True
        left = left[~seen[left]]
        seen[left] = True
        follow(self._first, self._leads, left, seen)
        return self._nodes[np.flatnonzero(~seen & self._shared)]
