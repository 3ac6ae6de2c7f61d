"""The free lists of the XP heap: a second record of which blocks are free.

A header's busy bit has no checksum, so where the two records differ the block's state is not known.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import U64
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory.lists import list_nodes


def contradicted(
    context: HeapContext, row: LayoutRow, heap: Record, header: U64, busy: Mask
) -> U64:
    """Headers, of all that were walked, whose busy bit the free lists contradict.

    Where a list is cut a block is free when its neighbours on the list point back to it.
    """
    listed, whole = _listed(context, row, heap)
    wrong = np.isin(header, listed) == busy
    missing = np.flatnonzero(wrong & ~busy)
    if not whole and len(missing):
        wrong[missing] = ~_is_linked(context, header[missing])
    found = header[wrong]
    for address in found[: context.log.limit + 1].tolist():
        context.log.add(
            "heap-free-list-differs",
            Severity.WARNING,
            "_HEAP_ENTRY.Flags",
            address,
            "whether this block is free is told differently by its header and by the heap's free lists",
        )
    return np.sort(found)


def _is_linked(context: HeapContext, header: U64) -> Mask:
    pointer = f"<u{context.pointer_size}"
    user = header + np.uint64(context.granularity)
    width = np.uint64(context.pointer_size)
    following, _ = context.memory.gather(user, pointer)
    before, _ = context.memory.gather(user + width, pointer)
    back, there = context.memory.gather(following.astype(np.uint64) + width, pointer)
    forth, here = context.memory.gather(before.astype(np.uint64), pointer)
    return np.asarray(there & here & (back == user) & (forth == user))


def _listed(context: HeapContext, row: LayoutRow, heap: Record) -> tuple[U64, bool]:
    """Headers of all blocks on `_HEAP.FreeLists`, ascending, and whether no list is cut."""
    head_size = 2 * context.pointer_size
    start = heap.address_of("FreeLists")
    found: list[int] = []
    whole = True
    for head in range(start, start + row.field_size("_HEAP", "FreeLists"), head_size):
        nodes, trouble = list_nodes(context.memory, head, context.pointer_size)
        found += nodes
        if trouble is not None:
            whole = False
            context.log.add("free-list-cut", Severity.WARNING, "_HEAP.FreeLists", head, trouble)
    return np.unique(np.array(found, np.uint64) - np.uint64(context.granularity)), whole
