"""The free lists of the XP heap: a second record of which blocks are free."""

from __future__ import annotations

import numpy as np

from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_entries import U64
from windumps.windows.layouts import LayoutRow, Record


def free_list_headers(context: HeapContext, row: LayoutRow, heap: Record) -> U64:
    """Header addresses of all blocks on `_HEAP.FreeLists`, ascending."""
    head_size = 2 * context.pointer_size
    start = heap.address_of("FreeLists")
    found: list[int] = []
    for head in range(start, start + row.field_size("_HEAP", "FreeLists"), head_size):
        nodes, trouble = list_nodes(context.memory, head, context.pointer_size)
        found += nodes
        if trouble is not None:
            context.log.add("free-list-cut", Severity.WARNING, "_HEAP.FreeLists", head, trouble)
    return np.unique(np.array(found, np.uint64) - np.uint64(context.granularity))
