"""Single pointers: who holds one to a block, and a shortest way from a root to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32, WIDE, PointerGraph, edges_of, leads_of
from dumpleak.pointers.references import Edges
from dumpleak.pointers.roots import Root, RootKind
from windumps.arrays import I64, U64

# Of several roots that hold one block, the one that says most comes first.
RANKS = (
    RootKind.GLOBALS,
    RootKind.THREAD,
    RootKind.STACK,
    RootKind.MAPPED,
    RootKind.HEAP,
    RootKind.PRIVATE,
)
REGISTER = len(RANKS)
NO_ROOT = REGISTER + 1


class PointerLog:
    """Keeps pointers while a scan finds them; see `PointerWatcher`.

    Args:
        wanted: bool, by block: all pointers to it are kept.

    Attributes:
        rank: uint8, by block: which kind of root holds it, the one that says most; `NO_ROOT` for none.
        place: uint64, by block: where the pointer in that root stands.
    """

    def __init__(self, wanted: NDArray[np.bool_]) -> None:
        self._wanted = wanted
        none = np.empty(0, np.int64)
        self._kept: list[tuple[I64, U64, I64]] = [(none, none.astype(np.uint64), none)]
        self.rank = np.full(len(wanted), NO_ROOT, np.uint8)
        self.place = np.zeros(len(wanted), np.uint64)

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        kept = self._wanted[edges.target] & (edges.source != edges.target)
        self._kept.append((edges.target[kept], edges.place[kept], edges.source[kept]))

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        rank = RANKS.index(root.kind)
        target, first = np.unique(edges.target, return_index=True)
        place, known = edges.place[first], self.rank[target]
        better = (rank < known) | ((rank == known) & (place < self.place[target]))
        self.rank[target[better]], self.place[target[better]] = rank, place[better]
        kept = self._wanted[edges.target]
        self._kept.append((edges.target[kept], edges.place[kept], edges.source[kept]))

    def add_registers(self, targets: I64) -> None:
        """Blocks that registers point to."""
        self.rank[targets] = np.minimum(self.rank[targets], REGISTER)

    def holders(self, block: int) -> tuple[U64, I64]:
        """All pointers to a block that was wanted: their places, and the blocks they are in or -1."""
        target, place, source = (np.concatenate(c) for c in zip(*self._kept, strict=True))
        self._kept = [(target, place, source)]
        mine = target == block
        return place[mine], source[mine]


class WayFinder:
    """Finds ways from roots to blocks.

    Args:
        graph: The pointers among blocks.
        log: What roots hold.
    """

    def __init__(self, graph: PointerGraph, log: PointerLog) -> None:
        self._held = np.zeros(graph.count, np.bool_)
        self._held[graph.held] = True
        self._first, self._leads = leads_of(graph.count, graph.target, graph.source)
        self._log = log

    def way(self, block: int) -> list[int]:
        """The blocks of a shortest way, from one that a root holds to the block; empty without any."""
        next_one = np.full(len(self._held), -1, np.int32)
        next_one[block] = block
        front, is_held = [block], self._held.data
        while front:
            held = [node for node in front if is_held[node]]
            if held:
                return self._down(self._best(held), next_one)
            # Long lists have many levels of one block each.
            back = self._back_singly if len(front) < WIDE else self._back
            front = back(front, next_one)
        return []

    def _best(self, held: list[int]) -> int:
        log = self._log
        return min(held, key=lambda block: (log.rank[block], log.place[block], block))

    @staticmethod
    def _down(start: int, next_one: I32) -> list[int]:
        way = [start]
        while int(next_one[way[-1]]) != way[-1]:
            way.append(int(next_one[way[-1]]))
        return way

    def _back(self, front: list[int], next_one: I32) -> list[int]:
        """The blocks that hold those in front, and were not seen before."""
        nodes = np.array(front, np.int32)
        sources = self._leads[edges_of(self._first, nodes)]
        to = np.repeat(nodes, self._first[nodes + 1] - self._first[nodes])
        new = next_one[sources] < 0
        next_one[sources[new]] = to[new]
        found: list[int] = np.unique(sources[new]).tolist()
        return found

    def _back_singly(self, front: list[int], next_one: I32) -> list[int]:
        first, leads, known = self._first.data, self._leads.data, next_one.data
        found = []
        for node in front:
            for edge in range(first[node], first[node + 1]):
                source = leads[edge]
                if known[source] < 0:
                    known[source] = node
                    found.append(source)
        return found
