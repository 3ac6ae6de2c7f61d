"""Which blocks nothing points to: everything reachable from the roots is kept, the rest is unreferenced.

Conservative (see `references`): by chance a word may look like a pointer to a block nobody needs, and so
hide it. Never the other way round, as long as all roots are in the dump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import PointerGraph, closure, distinct
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.roots import Root, RootKind, Roots
from windumps.memory import AddressSpace

# Memory of which nobody knows what it holds. In a 32-bit process any text in it may look like pointers:
# there, only those to a block's very start count.
_UNKNOWN_CONTENTS = (RootKind.PRIVATE, RootKind.MAPPED)
_NARROW = 4

_RELEASE_EVERY = 8  # pieces of a scan after which mapped pages are given back


@dataclass(frozen=True)
class Reachability:
    """What a scan from the roots found, one row a block of the index.

    Attributes:
        reachable: The block can be reached from a root.
        referenced: Something else points to the block, be it reachable itself or not.
    """

    reachable: NDArray[np.bool_]
    referenced: NDArray[np.bool_]


def root_edges(
    memory: AddressSpace, roots: Roots, index: BlockIndex
) -> Iterator[tuple[Root, Edges]]:
    """The pointers from each root that is memory, piece by piece."""
    for root in roots.memory:
        for width, edges in index.edges_from(memory, root.start, root.end):
            if root.kind in _UNKNOWN_CONTENTS and width == _NARROW:
                exact = edges.value == index.address[edges.target]
                yield root, Edges(*(column[exact] for column in edges))
            else:
                yield root, edges


class PointerWatcher(Protocol):
    """Is shown every pointer that a scan finds."""

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        ...

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        ...

    def add_registers(self, targets: NDArray[np.int64]) -> None:
        """Blocks that registers point to."""
        ...


def scan_pointers(
    memory: AddressSpace,
    roots: Roots,
    index: BlockIndex,
    watcher: PointerWatcher | None = None,
    release: Callable[[], None] = lambda: None,
) -> PointerGraph:
    """Scans all roots and all used blocks for pointers.

    Args:
        memory: The process's memory.
        roots: Where to start.
        index: The used blocks.
        watcher: Is shown all pointers.
        release: Called from time to time, to give mapped pages back.
    """
    sources, targets = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for number, edges in enumerate(index.edges_among_blocks(memory)):
        others = edges.source != edges.target
        sources.append(edges.source[others].astype(np.int32))
        targets.append(edges.target[others].astype(np.int32))
        if watcher is not None:
            watcher.add_blocks(edges)
        if number % _RELEASE_EVERY == _RELEASE_EVERY - 1:
            release()
    kept = []
    for root, edges in root_edges(memory, roots, index):
        kept.append(edges.target.astype(np.int32))
        if watcher is not None:
            watcher.add_root(root, edges)
    held = index.find(np.array(roots.registers, np.uint64))
    held = held[held >= 0]
    if watcher is not None:
        watcher.add_registers(held)
    kept.append(held.astype(np.int32))
    return PointerGraph(
        len(index),
        np.concatenate(sources),
        np.concatenate(targets),
        distinct(len(index), np.concatenate(kept)),
    )


def find_reachable(
    memory: AddressSpace,
    roots: Roots,
    index: BlockIndex,
    watcher: PointerWatcher | None = None,
    release: Callable[[], None] = lambda: None,
) -> Reachability:
    """Scans all roots and all used blocks, and follows what they point to.

    Arguments as `scan_pointers` has them.
    """
    return reachability_of(scan_pointers(memory, roots, index, watcher, release))


def reachability_of(graph: PointerGraph) -> Reachability:
    """What can be reached in a graph."""
    referenced = np.zeros(graph.count, np.bool_)
    referenced[graph.held] = True
    referenced[graph.target] = True
    return Reachability(closure(graph.count, graph.source, graph.target, graph.held), referenced)
