"""Native blocks that only objects of .NET hold: they live as long as these, and are not leaked."""

from __future__ import annotations

import numpy as np

from dumpleak.model.units import format_bytes
from dumpleak.pointers.pointer_graph import I32, PointerGraph, closure
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.roots import Root, RootKind
from dumpleak.process.session import Session
from windumps.arrays import I64
from windumps.diagnostics import Diagnostic, Severity

HELD_BY_MANAGED = "held-by-managed"


class ManagedRoots:
    """Keeps what roots hold while a scan finds it; see `PointerWatcher`.

    Args:
        session: The open dump.
    """

    def __init__(self, session: Session) -> None:
        self._managed = session.managed
        self._others: list[I32] = [np.empty(0, np.int32)]
        self._mine: list[I64] = [np.empty(0, np.int64)]
        self._objects: list[I64] = [np.empty(0, np.int64)]

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in other blocks are in the graph."""

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        if root.kind is not RootKind.PRIVATE or not len(edges.target):
            self._others.append(np.unique(edges.target).astype(np.int32))
            return
        number = self._managed.at(edges.place)
        self._others.append(np.unique(edges.target[number < 0]).astype(np.int32))
        self._mine.append(edges.target[number >= 0])
        self._objects.append(number[number >= 0])

    def add_registers(self, targets: I64) -> None:
        """Pointers in registers."""
        self._others.append(targets.astype(np.int32))

    def told(self, graph: PointerGraph, index: BlockIndex) -> list[Diagnostic]:
        """What is held so; nothing where nothing is."""
        mine, objects = np.concatenate(self._mine), np.concatenate(self._objects)
        if not len(mine):
            return []
        held = np.unique(np.concatenate(self._others))
        others = closure(graph.count, graph.source, graph.target, held)
        everything = closure(graph.count, graph.source, graph.target, graph.held)
        only = everything & ~others
        count = int(np.count_nonzero(only))
        if not count:
            return []
        size = format_bytes(int(index.size[only].sum()))
        direct = np.unique(np.stack([mine, objects])[:, only[mine]], axis=1)[1]
        names, times = np.unique(
            [self._managed.name_of(number) for number in direct.tolist()], return_counts=True
        )
        most = str(names[int(times.argmax())])
        are, they = ("is", "it is") if count == 1 else ("are", "they are")
        message = (
            f"{count:,} of {graph.count:,} used blocks ({size}) {are} held by objects of .NET alone, most by "
            f"{most}: {they} not unreferenced"
        )
        return [Diagnostic(HELD_BY_MANAGED, Severity.INFO, "heap_segment", None, message)]
