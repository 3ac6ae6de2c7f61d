"""Large blocks of the XP heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`."""

from __future__ import annotations

import numpy as np

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_entries import FLAG_BUSY, U64
from windumps.heaps.nt_virtual import MAX_RESERVE, STRUCTURE, VirtualBlocks
from windumps.windows.layouts import LayoutRow, Record


def read_virtual_blocks(context: HeapContext, row: LayoutRow, heap: Record) -> VirtualBlocks:
    """Reads the list of large blocks; an entry that does not check out is left out and said.

    Size of the entry's header counts the bytes that are not the program's, as on Vista. `trace` is an index,
    and stands in the entry whether or not the header's flags say so.
    """
    memory, granularity = context.memory, context.granularity
    pointer = f"<u{context.pointer_size}"
    nodes, trouble = list_nodes(
        memory, heap.address_of("VirtualAllocdBlocks"), context.pointer_size
    )
    if trouble is not None:
        context.log.add(
            "virtual-list-cut",
            Severity.WARNING,
            "_HEAP.VirtualAllocdBlocks",
            heap.address,
            f"{trouble}; large blocks may be missing",
        )
    entry = np.array(nodes, np.uint64)

    def column(name: str, dtype: str) -> U64:
        at = entry + np.uint64(row.offset(STRUCTURE, name))
        return memory.gather(at, dtype)[0].astype(np.uint64)

    commit, reserve = column("CommitSize", pointer), column("ReserveSize", pointer)
    header = entry + np.uint64(row.offset(STRUCTURE, "BusyBlock"))
    words = memory.gather(header + np.uint64(granularity - 8), "<u8")[0].astype(np.uint64)
    unused = words & np.uint64(0xFFFF)
    busy = (words >> np.uint64(40) & np.uint64(FLAG_BUSY)) != 0
    least = np.uint64(row.size(STRUCTURE))
    # Without a checksum these bounds are all there is: the count covers the entry, and at most what is
    # left of its last page beyond it.
    sound = busy & (commit >= least) & (commit <= reserve) & (reserve < MAX_RESERVE)
    sound &= (unused <= commit) & ((commit | reserve) & np.uint64(0xFFF) == 0)
    for node in entry[~sound].tolist():
        context.log.add(
            "virtual-block-damaged",
            Severity.WARNING,
            STRUCTURE,
            node,
            "its header or sizes do not check out; this large block is left out",
        )
    committed = commit[sound].astype(np.int64)
    size = committed - unused[sound].astype(np.int64)
    return VirtualBlocks(
        entry[sound],
        header[sound],
        header[sound] + np.uint64(granularity),
        np.where(size >= 0, size, SIZE_UNKNOWN),
        committed,
        reserve[sound].astype(np.int64),
        column("ExtraStuff", "<u2")[sound],
    )
