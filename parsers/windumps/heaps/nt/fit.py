"""How well a layout fits an NT heap: checks that a heap passes under its own layout only."""

from __future__ import annotations

from windumps.arrays import PAGE_SIZE
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.head import Head
from windumps.heaps.nt.segments import SEGMENT_SIGNATURE
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory.lists import UintReader

HEAP_SIGNATURE = 0xEEFFEEFF
FRONT_END_LFH = 2
MAX_SEGMENTS = 0x10000


def fit(context: HeapContext, row: LayoutRow, address: int, head: Head) -> float:
    """Share of the self-consistency checks that a heap passes under a layout, 0 when its header is
    not in the dump.
    """
    pointer = context.pointer_size
    if len(head.raw) < row.size("_HEAP"):
        return 0.0
    heap = Record(row, "_HEAP", address, head.raw)
    segment = Record(row, "_HEAP_SEGMENT", address, heap.raw)  # the heap is its first segment
    type_, front_end = heap["FrontEndHeapType"], heap["FrontEndHeap"]
    reserved, committed = heap["TotalMemoryReserved"], heap["TotalMemoryCommitted"]
    checks = [
        heap["Signature"] == HEAP_SIGNATURE,
        segment["Heap"] == address,
        segment["SegmentSignature"] == SEGMENT_SIGNATURE,
        heap["EncodeFlagMask"] in (0, 0x100000),
        type_ in (0, FRONT_END_LFH),
        bool(front_end) == (type_ == FRONT_END_LFH),
        closes(head, heap.address_of("SegmentList"), pointer),
        closes(head, heap.address_of("VirtualAllocdBlocks"), pointer),
        0 < committed <= reserved and not (committed | reserved) % PAGE_SIZE,
        reserved >= segment["NumberOfPages"] * PAGE_SIZE,
        heap["TotalSegments"] <= MAX_SEGMENTS,
        heap["TotalSizeInVirtualBlocks"] % PAGE_SIZE == 0,
    ]
    if type_ == FRONT_END_LFH and front_end:
        try:
            owner = row.read_field(context.memory, "_LFH_HEAP", "Heap", front_end)
            checks.append(owner == address)
        except MemoryReadError:
            pass  # absent from the dump: says nothing about the layout
    return sum(checks) / len(checks)


def closes(memory: UintReader, head: int, pointer_size: int) -> bool:
    """True when a list head's first entry points back to it."""
    try:
        first = memory.read_uint(head, pointer_size)
        return memory.read_uint(first + pointer_size, pointer_size) == head
    except MemoryReadError:
        return False
