"""Which .NET objects something leads to; the others are garbage that waits for a collection.

Conservative, as for native blocks: by chance a word may look like a pointer, so that garbage may pass for
reachable, never the other way round.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.units import format_bytes
from dumpleak.pointers.pointer_graph import I32, closure
from dumpleak.process.session import Session
from windumps.arrays import U64
from windumps.heaps.clr.handles import weak_handles
from windumps.heaps.clr.references import ObjectIndex, RootLinks
from windumps.heaps.clr.walk import Objects
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE, MEM_PRIVATE

_WRITABLE = (0x04, 0x08, 0x40, 0x80)  # PAGE_* of data that a program may have written to


class ManagedGraph:
    """All objects of a .NET process, and the pointers between them.

    Args:
        session: The open dump.

    Attributes:
        index: The objects, to be looked up.
        objects: All that were walked, ascending by address.
        pointer_size: 4 or 8.
        source: int32, where pointers are.
        target: int32, where they lead to.
        roots: What outside the heap points to objects; weak handles do not count, nor does what is left of
            calls that have returned.
        knows_handles: The runtime's handle table was found, so that weak handles are told from strong ones.
        held: int32, objects that something outside the heap leads to.
        why_not: Why garbage cannot be told from what is used; "" where it can.

    Raises:
        CannotAnswerError: the objects cannot be read.
    """

    def __init__(self, session: Session) -> None:
        managed = session.managed
        heap, memory = managed.heap, managed.memory
        if heap is None or memory is None:
            raise CannotAnswerError(f"{session.dump.path}: {managed.why}")
        self.why_not = _why_not(session)
        self.pointer_size = heap.tables.pointer_size
        index = ObjectIndex(heap)
        self.index = index
        self.objects: Objects = index.objects
        sources, targets = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        for links in index.links():
            sources.append(links.source.astype(np.int32))
            targets.append(links.target.astype(np.int32))
        roots = index.roots()
        weak, handles = weak_handles(heap.tables, roots.place)
        kept = ~weak & ~_below_stacks(session, roots.place)
        self.roots = RootLinks(roots.place[kept], roots.target[kept])
        self.knows_handles = handles > 0
        threads = session.dump.threads
        registers = [value for thread in threads for value in thread.registers.values()]
        found = index.find(np.array(registers, np.uint64))
        held = np.unique(np.concatenate([self.roots.target, found[found >= 0]]))
        self.held: I32 = held.astype(np.int32)
        self.source: I32 = np.concatenate(sources)
        self.target: I32 = np.concatenate(targets)

    @cached_property
    def reached(self) -> NDArray[np.bool_]:
        """The objects that something outside the heap leads to, over others or not."""
        return closure(len(self.objects.address), self.source, self.target, self.held)


def reachable_objects(session: Session) -> tuple[Objects, NDArray[np.bool_]]:
    """All objects of a .NET process, and which of them can be reached.

    Raises:
        CannotAnswerError: they cannot be read, or not all that may lead to them is in the dump.
    """
    graph = ManagedGraph(session)
    if graph.why_not:
        raise CannotAnswerError(
            f"{session.dump.path}: what is garbage cannot be told: {graph.why_not}"
        )
    return graph.objects, graph.reached


def _below_stacks(session: Session, places: U64) -> NDArray[np.bool_]:
    """Which places are on stacks below what is in use."""
    regions = session.dump.memory.regions
    below = np.zeros(len(places), np.bool_)
    for thread in session.dump.threads:
        pointer = next((thread.registers[n] for n in ("rsp", "esp") if n in thread.registers), 0)
        row = regions.row_of(pointer)
        if row < 0 or not thread.stack_start <= pointer < thread.stack_start + thread.stack_size:
            continue
        below |= (places >= regions.base_address[row]) & (places < np.uint64(pointer))
    return below


def _why_not(session: Session) -> str:
    """Why what leads to objects is not known as a whole; "" when it is."""
    managed, dump = session.managed, session.dump
    memory = managed.memory
    if memory is None or memory.walked_bytes != memory.committed_bytes:
        return "not all of the .NET heap was walked"
    if managed.heap is not None and managed.heap.in_collection:
        return "the dump was taken in the middle of a garbage collection"
    if not dump.threads_whole or not dump.threads:
        return "the dump does not list all threads"
    regions = dump.memory.regions
    if not len(regions) or not regions.whole:
        return "the dump does not list the process's memory regions"
    absent = _absent_bytes(session, regions)
    return f"{format_bytes(absent)} of memory that may point to objects are not in it" * bool(
        absent
    )


def _absent_bytes(session: Session, regions: Regions) -> int:
    """Committed memory with data that is not in the dump."""
    written = np.isin(regions.protect & np.uint32(0xFF), _WRITABLE)
    mine = (regions.type == MEM_PRIVATE) | ((regions.type == MEM_IMAGE) & written)
    mine &= (regions.state == MEM_COMMIT) & regions.readable
    start, size = regions.base_address[mine], regions.region_size[mine]
    present = session.dump.memory.present_each(start, start + size)
    return int(size.astype(np.int64).sum() - present.sum())
