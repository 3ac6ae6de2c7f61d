"""`_HEAP_ENTRY` of Windows XP and 2003 as columns: stored in the clear, in another order than later.

UnusedBytes is a plain count of the bytes that are not the program's, the header among them; 255 says that
the count stands in the block's last word (seen on blocks of the LFH and of the back end, of XP x86 and of
2003 x64).
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import I64, U8, U32, U64
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.layouts.rows import LayoutRow

UNUSED_IN_TAIL = 0xFF
LEAST_UNUSED = 8  # the header; on x64 half of it, since the next one lends its first half
SIZE = np.uint32(0xFFFF)  # the bits of Size, and of PreviousSize, in a word of `rearranged`


def rearranged(stored_low: U32, stored_high: U32) -> tuple[U32, U32]:
    """The two words of XP headers in the field order of Vista.

    XP stores Size, PreviousSize | SmallTagIndex, Flags, UnusedBytes, SegmentIndex; the rest of the heap code
    expects Size, Flags, SmallTagIndex | PreviousSize, SegmentIndex, UnusedBytes.
    """
    flags = (stored_high >> 8) & np.uint32(0xFF)
    unused = (stored_high >> 16) & np.uint32(0xFF)
    tag = stored_high & np.uint32(0xFF)
    low = (stored_low & SIZE) | (flags << 16) | (tag << 24)
    high = (stored_low >> 16) | ((stored_high >> 24) << 16) | (unused << 24)
    return low.astype(np.uint32, copy=False), high.astype(np.uint32, copy=False)


def unused_bytes(context: HeapContext, header: U64, block_bytes: I64, unused: U8) -> I64:
    """Bytes of each block that are not the program's; more than the block has where that cannot be read."""
    count = unused.astype(np.int64)
    tail = np.flatnonzero(unused == UNUSED_IN_TAIL)
    # On x64 the last word that is the block's own, and not the one behind it as on Vista.
    at = header[tail] + (block_bytes[tail] - context.pointer_size).astype(np.uint64)
    word, present = context.memory.gather(at, f"<u{context.pointer_size}")
    word = np.minimum(word.astype(np.uint64), np.uint64(1 << 40))
    readable = present & (word >= UNUSED_IN_TAIL)
    count[tail] = np.where(readable, word.astype(np.int64), block_bytes[tail] + 1)
    return count


def traces(context: HeapContext, row: LayoutRow, block_end: U64, has_extra: Mask) -> U64:
    """AllocatorBackTraceIndex of each block, from the `_HEAP_ENTRY_EXTRA` at its end; 0 without one."""
    index = np.zeros(len(block_end), np.uint64)
    at = block_end[has_extra] - np.uint64(row.size("_HEAP_ENTRY_EXTRA"))
    index[has_extra], _ = context.memory.gather(at, "<u2")
    return index
