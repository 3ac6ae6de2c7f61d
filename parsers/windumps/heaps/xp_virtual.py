"""Large blocks of the XP heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`."""

from __future__ import annotations

import numpy as np

from windumps.heaps.base import HeapContext
from windumps.heaps.nt_entries import FLAG_BUSY
from windumps.heaps.nt_virtual import STRUCTURE, VirtualBlocks, read_entries
from windumps.windows.layouts import LayoutRow, Record


def read_virtual_blocks(context: HeapContext, row: LayoutRow, heap: Record) -> VirtualBlocks:
    """Reads the list of large blocks; an entry that does not check out is left out and said.

    Size of the entry's header counts the bytes that are not the program's, as on Vista. `trace` is an index,
    and stands in the entry whether or not the header's flags say so.
    """
    found, cut = read_entries(context, row, heap, context.memory)
    unused = found.words & np.uint64(0xFFFF)
    # Without a checksum bounds are all there is: the count lies in the block, and sizes are whole pages.
    sound = (found.words >> np.uint64(40) & np.uint64(FLAG_BUSY)) != 0
    sound &= (unused <= found.commit) & ((found.commit | found.reserve) & np.uint64(0xFFF) == 0)
    entry, header, words, commit, reserve = found.take(context, row, sound)
    trace, _ = context.memory.gather(entry + np.uint64(row.offset(STRUCTURE, "ExtraStuff")), "<u2")
    committed = commit.astype(np.int64)
    return VirtualBlocks(
        entry,
        header,
        header + np.uint64(context.granularity),
        committed - (words & np.uint64(0xFFFF)).astype(np.int64),
        committed,
        reserve.astype(np.int64),
        trace.astype(np.uint64),
        cut,
    )
