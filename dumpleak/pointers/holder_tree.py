"""What many blocks hang on, put together: a tree of who holds whom, by class and field, up to the roots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.explanation import HolderNode
from dumpleak.pointers.paths import NO_ROOT, PointerLog
from dumpleak.pointers.pointer_graph import I32, PointerGraph
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.shortest_ways import shortest_ways
from windumps.arrays import I64, U64

DEPTH = 12  # steps of a way that are told apart
MOST_BRANCHES = 5  # of one step, the largest
LEAST_SHARE = 0.01  # of all blocks, or their bytes, that a branch has; so trees stay small
MOST_FIELDS = 8  # what holds pointers at more places is an array: places say nothing
_ROOM = np.int64(1 << 40)


class FieldLog(PointerLog):
    """Also keeps where in its block every pointer of the graph stands.

    Args:
        index: The blocks.
        wanted: As `PointerLog` has it.
    """

    def __init__(self, index: BlockIndex, wanted: NDArray[np.bool_]) -> None:
        super().__init__(wanted)
        self._index = index
        self._offsets: list[I64] = [np.empty(0, np.int64)]

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        super().add_blocks(edges)
        others = edges.source != edges.target
        start = self._index.address[edges.source[others]]
        self._offsets.append((edges.place[others] - start).astype(np.int64))

    @property
    def offsets(self) -> I64:
        """By edge of the graph."""
        return np.concatenate(self._offsets)


@dataclass(frozen=True)
class Namer:
    """What holders are called.

    Attributes:
        names: Of blocks, each once.
        of_block: By block, the number of its name.
        root: Names roots: (rank, lowest and highest place of their pointers).
    """

    names: Sequence[str]
    of_block: I64
    root: Callable[[int, int, int], str]


class HolderTrees:
    """Puts together what blocks hang on.

    Args:
        graph: The pointers among the blocks.
        log: Where they stand, and what roots hold.
        size: int64, bytes by block.
        namer: What holders are called.
    """

    def __init__(self, graph: PointerGraph, log: FieldLog, size: I64, namer: Namer) -> None:
        self._log, self._size, self._namer = log, size, namer
        self._least, self._least_bytes = 0.0, 0.0
        self._before, edge = shortest_ways(graph)
        held = log.rank < NO_ROOT
        inside = (edge >= 0) & ~held
        rows = np.flatnonzero(inside)
        name = namer.of_block[self._before[rows]]
        offset = _fields(name, log.offsets[edge[rows]], len(namer.names))
        # What holds a block, and at which place; then the ranks of roots.
        self._label = np.full(graph.count, -1, np.int64)
        self._label[rows] = name * _ROOM + offset + 1
        self._label[held] = (len(namer.names) + log.rank[held].astype(np.int64)) * _ROOM
        self._top = self._run_ends(rows)

    def tree(self, blocks: I32) -> tuple[HolderNode, ...]:
        """Who holds some blocks, the largest share first; blocks that no root leads to are left out."""
        mine = blocks[self._before[blocks] >= 0]
        self._least = LEAST_SHARE * len(mine)
        self._least_bytes = LEAST_SHARE * int(self._size[mine].sum())
        return self._branches(mine, mine, 0)

    def _branches(self, blocks: I32, at: I32, depth: int) -> tuple[HolderNode, ...]:
        """The next steps of the ways to some blocks.

        Args:
            blocks: The blocks that are counted.
            at: How far the way of each was followed.
            depth: How many steps that was.
        """
        if not len(blocks) or depth == DEPTH:
            return ()
        labels, inverse = np.unique(self._label[at], return_inverse=True)
        bytes_ = np.bincount(inverse, self._size[blocks]).astype(np.int64)
        counts = np.bincount(inverse)
        order = np.lexsort((labels, -counts, -bytes_))
        found = []
        for number in order[:MOST_BRANCHES].tolist():
            rows = inverse == number
            if counts[number] < self._least and bytes_[number] < self._least_bytes:
                continue
            ends = self._top[at[rows]]
            name, field = divmod(int(labels[number]), int(_ROOM))
            totals = int(counts[number]), int(bytes_[number])
            if name >= len(self._namer.names):
                places: U64 = self._log.place[ends]
                root = name - len(self._namer.names)
                told = self._namer.root(root, int(places.min()), int(places.max()))
                found.append(HolderNode(told, None, *totals))
                continue
            found.append(
                HolderNode(
                    self._namer.names[name],
                    field - 1 if field else None,
                    *totals,
                    is_chain=bool((ends != at[rows]).any()),
                    holders=self._branches(blocks[rows], self._before[ends], depth + 1),
                )
            )
        return tuple(found)

    def _run_ends(self, rows: I64) -> I32:
        """By block the last one of a run of steps that are alike, as between members of a list."""
        top = np.arange(len(self._before), dtype=np.int32)
        before = self._before[rows]
        alike = self._label[before] == self._label[rows]
        top[rows[alike]] = before[alike]
        while True:
            further = top[top]
            if (further == top).all():
                return top
            top = further


def _fields(name: I64, offset: I64, count: int) -> I64:
    """The places of pointers, -1 in blocks of a name that holds them at many places."""
    pairs = np.sort(name * _ROOM + offset)
    first = np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]
    many = np.bincount(pairs[first] // _ROOM, minlength=count) > MOST_FIELDS
    return np.where(many[name], -1, offset)
