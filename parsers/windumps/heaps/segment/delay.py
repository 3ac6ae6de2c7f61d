"""Segment heap, chunks that were freed but whose free is put off (`_HEAP_VS_DELAY_FREE_CONTEXT`).

Such chunks still say that they are allocated; they hang on an SLIST of the VS context.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.heaps.segment.contexts import SegContext
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

MAX_ENTRIES = 1 << 16  # an SLIST counts its entries in 16 bits


def delayed_frees(
    memory: AddressSpace, row: LayoutRow, contexts: list[SegContext], log: DiagnosticLog
) -> NDArray[np.uint64]:
    """Addresses of the list entries, each inside the freed chunk, ascending; none where a build has no list.

    SLIST_HEADER: x64 depth in the first 16 bits, the first entry's address in the second word, its low four
    bits not part of it; x86 the first entry's address, then the depth.
    """
    if not contexts or not row.has("_HEAP_VS_CONTEXT", "DelayFreeContext"):
        return np.empty(0, np.uint64)
    pointer = row.pointer_size
    head = contexts[0].address
    entries: dict[int, None] = {}
    trouble = ""
    try:
        vs_context = row.read_field(memory, "_HEAP_SEG_CONTEXT", "VsContext", head)
        head = vs_context + row.offset("_HEAP_VS_CONTEXT", "DelayFreeContext")
        first, second = (memory.read_uint(head + at, pointer) for at in (0, pointer))
        depth, entry = (first, second & ~0xF) if pointer == 8 else (second, first)
        depth &= 0xFFFF
        while entry and not trouble:
            if entry in entries or len(entries) >= MAX_ENTRIES:
                trouble = f"the list runs in a circle at 0x{entry:x}"
                break
            entries[entry] = None
            entry = memory.read_uint(entry, pointer)
    except MemoryReadError as error:
        trouble = str(error)
    else:
        if not trouble and depth != len(entries):
            trouble = f"the list has {len(entries)} entries and says {depth}"
    if trouble:
        log.add(
            "delay-free-list-broken",
            Severity.WARNING,
            "_HEAP_VS_DELAY_FREE_CONTEXT",
            head,
            f"{trouble}; chunks whose free is put off may count as used",
        )
    return np.array(sorted(entries), np.uint64)
