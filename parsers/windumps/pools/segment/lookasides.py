"""Look-aside lists of the pool's segment heaps: blocks that were freed and still look used.

A freed block of 0x201 to 0xF80 bytes may go to a list of its size (`_RTL_DYNAMIC_LOOKASIDE`) instead
of its heap. The heap then still calls it busy; the trackers count it as freed. The link is written over its
pool header.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

LOOKASIDE = "_RTL_DYNAMIC_LOOKASIDE"
MAX_BUCKETS = 256
MAX_ENTRIES = 1 << 16  # an SLIST counts its entries in 16 bits


def lookaside_blocks(memory: AddressSpace, row: LayoutRow, address: int, log: DiagnosticLog) -> U64:
    """Headers of all blocks on the lists of one look-aside structure.

    Args:
        memory: Kernel memory.
        row: Layout of the structure.
        address: Of the `_RTL_DYNAMIC_LOOKASIDE`.
        log: Where a list that cannot be followed is told.

    Returns:
        uint64, ascending.
    """
    try:
        count = row.read_field(memory, LOOKASIDE, "BucketCount", address)
    except MemoryReadError:
        log.add(
            "lookasides-absent",
            Severity.WARNING,
            LOOKASIDE,
            address,
            "the look-aside lists are not in the dump: blocks on them count as used",
        )
        return np.empty(0, np.uint64)
    if count > MAX_BUCKETS:
        log.add(
            "lookasides-damaged",
            Severity.WARNING,
            LOOKASIDE,
            address,
            f"{count} look-aside lists cannot be: blocks on them count as used",
        )
        return np.empty(0, np.uint64)
    found: set[int] = set()
    for number in range(count):
        head = address + row.offset(LOOKASIDE, "Buckets") + number * row.size("_RTL_LOOKASIDE")
        _follow(memory, row, head, found, log)
    return np.array(sorted(found), np.uint64)


def _follow(
    memory: AddressSpace, row: LayoutRow, head: int, found: set[int], log: DiagnosticLog
) -> None:
    """One SLIST: x64 the depth and then, in the second word, the first entry; x86 the other way."""
    size = row.pointer_size
    mask = (1 << 8 * size) - (16 if size == 8 else 8)
    try:
        if size == 8:
            depth = memory.read_uint(head, 2)
            entry = memory.read_uint(head + 8, 8) & mask
        else:
            entry = memory.read_uint(head, 4) & mask
            depth = memory.read_uint(head + 4, 2)
        for _ in range(min(depth, MAX_ENTRIES)):
            if not entry or entry in found:
                break
            found.add(entry)
            entry = memory.read_uint(entry, size) & mask
        else:
            return
        trouble = f"it ends before its {depth} entries" if depth else ""
    except MemoryReadError as error:
        trouble = str(error)
    if trouble:
        log.add(
            "lookaside-broken",
            Severity.WARNING,
            LOOKASIDE,
            head,
            f"a look-aside list cannot be followed to its end, blocks on it count as used: {trouble}",
        )
