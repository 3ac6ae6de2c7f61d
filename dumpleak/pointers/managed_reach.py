"""Which .NET objects something leads to; the others are garbage that waits for a collection.

Conservative, as for native blocks: by chance a word may look like a pointer, and weak handles look as strong
ones do, so that garbage may pass for reachable, never the other way round.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.units import format_bytes
from dumpleak.pointers.pointer_graph import closure
from dumpleak.process.session import Session
from windumps.heaps.clr.heap import ManagedHeap
from windumps.heaps.clr.references import ObjectIndex
from windumps.heaps.clr.walk import Objects
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE, MEM_PRIVATE

_WRITABLE = (0x04, 0x08, 0x40, 0x80)  # PAGE_* of data that a program may have written to


def reachable_objects(session: Session) -> tuple[Objects, NDArray[np.bool_]]:
    """All objects of a .NET process, and which of them can be reached.

    Raises:
        CannotAnswerError: they cannot be read, or not all that may lead to them is in the dump.
    """
    managed = session.managed
    heap, memory = managed.heap, managed.memory
    if heap is None or memory is None:
        raise CannotAnswerError(f"{session.dump.path}: {managed.why}")
    if why := _why_not(session):
        raise CannotAnswerError(f"{session.dump.path}: what is garbage cannot be told: {why}")
    index = ObjectIndex(heap)
    sources, targets = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
    for links in index.links():
        sources.append(links.source.astype(np.int32))
        targets.append(links.target.astype(np.int32))
    registers = [value for thread in session.dump.threads for value in thread.registers.values()]
    held = index.held(np.array(registers, np.uint64)).astype(np.int32)
    count = len(index.objects.address)
    return index.objects, closure(count, np.concatenate(sources), np.concatenate(targets), held)


NOBODY, SEVERAL = -1, -2  # in place of the number of a MethodTable


def holders_of(heap: ManagedHeap) -> tuple[Objects, NDArray[np.int64]]:
    """All objects that were walked, and of what type the objects are that point to each.

    Returns:
        The objects, and for each the number of a MethodTable, `NOBODY` or `SEVERAL`. An object that is held
        by statics, stacks or handles alone is held by no object.
    """
    index = ObjectIndex(heap)
    table, count = index.objects.table, len(index.objects.table)
    low = np.full(count, len(heap.tables.address), np.int64)
    high = np.full(count, NOBODY, np.int64)
    for links in index.links():
        np.minimum.at(low, links.target, table[links.source])
        np.maximum.at(high, links.target, table[links.source])
    return index.objects, np.where((high >= 0) & (low != high), SEVERAL, high)


def _why_not(session: Session) -> str:
    """Why what leads to objects is not known as a whole; "" when it is."""
    managed, dump = session.managed, session.dump
    memory = managed.memory
    if memory is None or memory.walked_bytes != memory.committed_bytes:
        return "not all of the .NET heap was walked"
    if managed.heap is not None and managed.heap.marked:
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
