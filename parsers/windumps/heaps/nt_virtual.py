"""Large blocks of the NT heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_entries import FLAG_BUSY, I64, U64, Encoding, Mask
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


class Entries(NamedTuple):
    """Entries of the list of large blocks as they are stored, as columns.

    Attributes:
        entry: uint64, where the allocation begins.
        header: uint64, address of the `_HEAP_ENTRY`.
        words: uint64, its live half.
        commit: uint64, CommitSize.
        reserve: uint64, ReserveSize.
    """

    entry: U64
    header: U64
    words: U64
    commit: U64
    reserve: U64

    def take(self, context: HeapContext, row: LayoutRow, sound: Mask) -> Entries:
        """Those that check out and have possible sizes; the others are said to be left out."""
        sound = sound & (self.commit >= np.uint64(row.size(STRUCTURE)))
        sound &= (self.commit <= self.reserve) & (self.reserve < MAX_RESERVE)
        for node in self.entry[~sound].tolist():
            context.log.add(
                "virtual-block-damaged",
                Severity.WARNING,
                STRUCTURE,
                node,
                "its header or sizes do not check out; this large block is left out",
            )
        return Entries(*(column[sound] for column in self))


def read_entries(context: HeapContext, row: LayoutRow, heap: Record) -> Entries:
    """Reads `_HEAP.VirtualAllocdBlocks`; says so when it is cut."""
    memory = context.memory
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

    def column(name: str) -> U64:
        at = entry + np.uint64(row.offset(STRUCTURE, name))
        return memory.gather(at, f"<u{context.pointer_size}")[0].astype(np.uint64)

    header = entry + np.uint64(row.offset(STRUCTURE, "BusyBlock"))
    words = memory.gather(header + np.uint64(context.granularity - 8), "<u8")[0]
    return Entries(
        entry, header, words.astype(np.uint64), column("CommitSize"), column("ReserveSize")
    )


def read_virtual_blocks(
    context: HeapContext, row: LayoutRow, heap: Record, encoding: Encoding
) -> VirtualBlocks:
    """Reads the list of large blocks; an entry that does not check out is left out and said."""
    found = read_entries(context, row, heap)
    low = encoding.decode_low(found.words.astype(np.uint32))
    sound = encoding.checks_out(low) & ((low >> 16 & FLAG_BUSY) != 0)
    entry, header, words, commit, reserve = found.take(context, row, sound)
    stored_low = words.astype(np.uint32)
    low = encoding.decode_low(stored_low)
    high = encoding.decode_high(stored_low, (words >> np.uint64(32)).astype(np.uint32))
    distance = high >> 16 & np.uint32(0xFF)
    committed = commit.astype(np.int64)
    size = committed - (low & np.uint32(0xFFFF)).astype(np.int64)  # Size: bytes not the program's
    # With a recorded stack SegmentOffset is the distance to a secondary header, and the user area
    # begins behind that one (seen on Windows 7 to 11; without one SegmentOffset is 0).
    extended = distance != 0
    skip = (distance * np.uint32(context.granularity)).astype(np.uint64)
    trace = np.zeros(len(header), np.uint64)
    trace[extended], _ = context.memory.gather(
        header[extended] + np.uint64(context.granularity), f"<u{context.pointer_size}"
    )
    return VirtualBlocks(
        entry,
        header,
        header + skip + np.uint64(context.granularity),
        np.where(size >= 0, size, SIZE_UNKNOWN),
        committed,
        reserve.astype(np.int64),
        trace,
    )
