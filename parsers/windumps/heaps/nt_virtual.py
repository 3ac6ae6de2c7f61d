"""Large blocks of the NT heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_entries import FLAG_BUSY, I64, U64, Encoding
from windumps.windows.layouts import LayoutRow, Record

STRUCTURE = "_HEAP_VIRTUAL_ALLOC_ENTRY"
MAX_RESERVE = np.uint64(1 << 48)


class VirtualBlocks(NamedTuple):
    """Large blocks as columns.

    Attributes:
        entry: uint64, address of the list entry, where the allocation begins.
        header: uint64, address of the `_HEAP_ENTRY` in front of the user area.
        address: uint64, what the program got.
        size: int64, bytes asked for; `SIZE_UNKNOWN` where the header's record of them is
            impossible.
        commit: int64, bytes committed, the entry included.
        reserve: int64, bytes reserved.
        trace: uint64, address of the recorded stack, or 0.
    """

    entry: U64
    header: U64
    address: U64
    size: I64
    commit: I64
    reserve: I64
    trace: U64


def read_virtual_blocks(
    context: HeapContext, row: LayoutRow, heap: Record, encoding: Encoding
) -> VirtualBlocks:
    """Reads the list of large blocks; an entry that does not check out is left out and said."""
    memory, pointer, granularity = context.memory, context.pointer_size, context.granularity
    nodes, trouble = list_nodes(memory, heap.address_of("VirtualAllocdBlocks"), pointer)
    if trouble is not None:
        context.log.add(
            "virtual-list-cut",
            Severity.WARNING,
            "_HEAP.VirtualAllocdBlocks",
            heap.address,
            f"{trouble}; large blocks may be missing",
        )
    entry = np.array(nodes, np.uint64)
    header = entry + np.uint64(row.offset(STRUCTURE, "BusyBlock"))
    raw, _ = memory.gather(header + np.uint64(granularity - 8), "<u8")
    words = raw.astype(np.uint64)
    stored_low, stored_high = (
        words.astype(np.uint32),
        (words >> np.uint64(32)).astype(np.uint32),
    )
    low = encoding.decode_low(stored_low)
    distance = encoding.decode_high(stored_low, stored_high) >> 16 & np.uint32(0xFF)
    commit, reserve = (
        memory.gather(entry + np.uint64(row.offset(STRUCTURE, name)), f"<u{pointer}")[0].astype(
            np.uint64
        )
        for name in ("CommitSize", "ReserveSize")
    )
    sound = encoding.checks_out(low) & ((low >> 16 & FLAG_BUSY) != 0)
    sound &= (commit >= np.uint64(row.size(STRUCTURE))) & (commit <= reserve)
    sound &= reserve < MAX_RESERVE
    for node in entry[~sound].tolist():
        context.log.add(
            "virtual-block-damaged",
            Severity.WARNING,
            STRUCTURE,
            node,
            "its header or sizes do not check out; this large block is left out",
        )
    header, low, distance = header[sound], low[sound], distance[sound]
    committed, reserved = commit[sound].astype(np.int64), reserve[sound].astype(np.int64)
    size = committed - (low & np.uint32(0xFFFF)).astype(np.int64)  # Size: bytes not the program's
    # With a recorded stack SegmentOffset is the distance to a secondary header, and the user area
    # begins behind that one (seen on Windows 7 to 11; without one SegmentOffset is 0).
    extended = distance != 0
    skip = (distance * np.uint32(granularity)).astype(np.uint64)
    trace = np.zeros(len(header), np.uint64)
    trace[extended], _ = memory.gather(header[extended] + np.uint64(granularity), f"<u{pointer}")
    return VirtualBlocks(
        entry[sound],
        header,
        header + skip + np.uint64(granularity),
        np.where(size >= 0, size, SIZE_UNKNOWN),
        committed,
        reserved,
        trace,
    )
