"""The NT heap of Windows Vista to 11 24H2: segments, uncommitted ranges, the back end, large
blocks.

A segment's committed ranges are decoded a window at a time as arrays; only the hop from block to
block is sequential, over integers. Uncommitted ranges come from the segment's own list and not from
readability: a page can be absent from the dump though it is committed, and the other way round.

A header that does not check out ends the chain; the walk takes it up again where two links in a
row hold, and what lies between is said to be lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.nt_backend import BackendWalker
from windumps.heaps.nt_base import NtHeapBase, report_unclear_sizes
from windumps.heaps.nt_entries import (
    FLAG_BUSY,
    FLAG_INTERNAL,
    UNUSED_HEADER,
    UNUSED_SENTINEL,
    Encoding,
    Entries,
    user_extents,
)
from windumps.heaps.nt_lfh import LfhReader
from windumps.heaps.nt_segments import (
    PAGE_SIZE,
    SEGMENT_SIGNATURE,
    committed_ranges,
    read_segments,
)
from windumps.heaps.nt_virtual import read_virtual_blocks
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow, Record, choose_layout
from windumps.windows.nt_heap_layouts import NT_HEAP_ROWS

NAME = "nt"
HEAP_SIGNATURE = 0xEEFFEEFF
FRONT_END_LFH = 2
DETECT_BYTES = 0x100  # of the header; the signature was seen at 0x60 to 0xA0
LEAST_SCORE = 0.5  # below this a heap is not read
FRONT_END_BYTES = 0x20000  # at most; 1A000h (x64) and E000h (x86) reserved were seen
BATCH_BYTES = 4 << 20  # heap memory whose blocks are handed on together


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True when a heap handle has the segment signature of Vista and later, and somewhere in its
    header, where depends on the build, the heap signature.
    """
    try:
        if memory.read_uint(address + 2 * pointer_size, 4) != SEGMENT_SIGNATURE:
            return False
    except MemoryReadError:
        return False
    head = memory.read_available(address, DETECT_BYTES)
    words = np.frombuffer(head[: len(head) // 4 * 4], "<u4")
    return bool((words == HEAP_SIGNATURE).any())


def open_nt_heap(context: HeapContext, address: int, ordinal: int) -> NtHeap:
    """Opens an NT heap, choosing the layout that fits best.

    Raises:
        HeapError: the heap's header is not in the dump, or no layout fits it.
    """
    choice = choose_layout(
        NT_HEAP_ROWS,
        context.architecture,
        context.build,
        lambda row: (_score(context, row, address), None),
        context.exact_layouts.get("NT heap"),
    )
    if choice is None or choice.score < LEAST_SCORE:
        raise HeapError(
            f"the NT heap at 0x{address:x} fits no known layout; its header is damaged or not in the dump",
            address,
        )
    return NtHeap(context, address, ordinal, choice)


@dataclass
class NtHeap(NtHeapBase):
    """One NT heap; see `windumps.heaps.base.Heap`."""

    kind: str = NAME

    def __post_init__(self) -> None:
        super().__post_init__()
        encoding = self._heap.bytes_of("Encoding")[-8:]
        self._encoding = Encoding(
            self._heap["EncodeFlagMask"],
            int.from_bytes(encoding[:4], "little"),
            int.from_bytes(encoding[4:], "little"),
        )
        self.account.counters = {
            name: self._heap[name]
            for name in ("TotalMemoryReserved", "TotalMemoryCommitted", "TotalFreeSize")
        }
        self._lfh = LfhReader(
            self.context,
            self.row,
            self.address,
            self._heap["FrontEndHeap"] if self.front_end == "lfh" else 0,
            self.ordinal,
        )

    @property
    def front_end(self) -> str:
        """See `Heap`."""
        return "lfh" if self._heap["FrontEndHeapType"] == FRONT_END_LFH else ""

    def blocks(self) -> Iterator[Blocks]:
        """See `Heap`."""
        self.account = HeapAccount(counters=self.account.counters)
        for piece in self._batches():
            yield from self._piece_blocks(piece)
        self._audit()
        large = read_virtual_blocks(self.context, self.row, self._heap, self._encoding)
        # The front end's own object can be such a block.
        yield from self._large_blocks(large, self._lfh.front_end)

    def _batches(self) -> Iterator[Entries]:
        """Pieces of all segments, small ones put together: a column of ten blocks costs as much as one
        of ten thousand.
        """
        batch: list[Entries] = []
        size = 0
        for segment in read_segments(self.context, self.row, self._heap):
            for piece in self._segment_pieces(segment):
                batch.append(piece)
                size += int(piece.units.sum()) * self.context.granularity
                if size >= BATCH_BYTES:
                    yield Entries.join(batch)
                    batch, size = [], 0
        if batch:
            yield Entries.join(batch)

    # -- segments
    # ----------------------------------------------------------------------------------------

    def _segment_pieces(self, segment: Record) -> Iterator[Entries]:
        account = self.account
        reserved = segment["NumberOfPages"] * PAGE_SIZE
        account.reserved_bytes += reserved
        account.ranges.append((segment.address, reserved))
        first_entry = segment["FirstEntry"]
        for start, end in committed_ranges(self.context, self.row, segment):
            account.committed_bytes += end - start
            if start <= first_entry < end and start == segment.address:
                account.overhead_bytes += first_entry - start
                start = first_entry
            walker = BackendWalker(self.context, self._encoding, start, end)
            yield from walker.pieces()
            account.unwalked_bytes += walker.lost_bytes
            account.absent_bytes += walker.absent_bytes

    def _piece_blocks(self, piece: Entries) -> Iterator[Blocks]:
        account, granularity = self.account, self.context.granularity
        size = piece.units.astype(np.int64) * granularity
        busy = (piece.flags & FLAG_BUSY) != 0
        own = busy & ((piece.unused == UNUSED_HEADER) | (piece.unused == UNUSED_SENTINEL))
        address = piece.header + np.uint64(granularity)
        asked = np.full(len(size), SIZE_UNKNOWN, np.int64)
        trace = np.zeros(len(size), np.uint64)
        claimed = busy & ~own
        extents = user_extents(
            self.context.memory,
            self.context.pointer_size,
            piece.header[claimed],
            size[claimed],
            piece.unused[claimed],
        )
        address[claimed] = extents.address
        asked[claimed] = np.where(extents.valid, extents.size, SIZE_UNKNOWN)
        trace[claimed] = extents.trace
        internal = busy & ((piece.flags & FLAG_INTERNAL) != 0)
        own |= internal | (claimed & (address == np.uint64(self._lfh.front_end)))
        unclear = claimed & ~own & (asked == SIZE_UNKNOWN)
        report_unclear_sizes(self.context, piece.header[unclear])
        shown = ~own
        yield account.count(
            Blocks.build(
                address[shown],
                asked[shown],
                size[shown],
                busy[shown],
                Kind.NT_BACKEND,
                self.ordinal,
                trace[shown],
            )
        )
        account.overhead_bytes += int(size[own].sum())
        inside = np.flatnonzero(internal)
        areas = inside[self._lfh.is_area(address[inside])]
        if len(areas):
            room = size[areas] - (address[areas] - piece.header[areas]).astype(np.int64)
            yield self._area_blocks(address[areas], room)

    # -- audit ---------------------------------------------------------------------------------

    def _audit(self) -> None:
        """Holds the segments walked against the heap's own counters (which leave large blocks out).

        From Windows 8 on the front end's own object is an allocation beside the segments that the
        counters include: what is left over and lies there is that; any other rest is memory of the
        heap that was not found, and counts as committed and not walked.
        """
        account, counters = self.account, self.account.counters
        rest = counters["TotalMemoryCommitted"] - account.committed_bytes
        front_end = self._lfh.front_end
        beside = front_end and not any(a <= front_end < a + s for a, s in account.ranges)
        if beside and rest > 0:
            own = min(rest, self.context.memory.bytes_from(front_end, FRONT_END_BYTES))
            reserved = counters["TotalMemoryReserved"] - account.reserved_bytes
            reserved = max(own, min(reserved, FRONT_END_BYTES))
            account.committed_bytes += own
            account.overhead_bytes += own
            account.reserved_bytes += reserved
            account.ranges.append((front_end, reserved))
            rest -= own
        if rest:
            self._say(
                "heap-counters-differ",
                "_HEAP.Counters",
                self.address,
                f"the heap counts {abs(rest)} bytes {'more' if rest > 0 else 'less'} committed than "
                "its segments add up to" + ("; they were not found" if rest > 0 else ""),
                abs(rest),
            )
        if rest > 0:
            account.committed_bytes += rest
            account.unwalked_bytes += rest


def _field(memory: AddressSpace, row: LayoutRow, name: str, heap: int) -> int | None:
    try:
        return row.read_field(memory, "_HEAP", name, heap)
    except MemoryReadError:
        return None


def _score(context: HeapContext, row: LayoutRow, address: int) -> float:
    """Share of the self-consistency checks that a heap passes under a layout, 0 when it cannot be
    read.
    """
    memory, pointer = context.memory, context.pointer_size
    try:
        heap = row.read(memory, "_HEAP", address)
        segment = row.read(memory, "_HEAP_SEGMENT", address)
    except MemoryReadError:
        return 0.0
    type_, front_end = heap["FrontEndHeapType"], heap["FrontEndHeap"]
    checks = [
        heap["Signature"] == HEAP_SIGNATURE,
        segment["Heap"] == address,
        segment["SegmentSignature"] == SEGMENT_SIGNATURE,
        heap["EncodeFlagMask"] in (0, 0x100000),
        type_ in (0, FRONT_END_LFH),
        bool(front_end) == (type_ == FRONT_END_LFH),
        _closes(memory, heap.address_of("SegmentList"), pointer),
        _closes(memory, heap.address_of("VirtualAllocdBlocks"), pointer),
        heap["TotalMemoryCommitted"] <= heap["TotalMemoryReserved"],
    ]
    if type_ == FRONT_END_LFH and front_end:
        try:
            owner = row.read_field(memory, "_LFH_HEAP", "Heap", front_end)
            checks.append(owner == address)
        except MemoryReadError:
            pass  # absent from the dump: says nothing about the layout
    return sum(checks) / len(checks)


def _closes(memory: AddressSpace, head: int, pointer_size: int) -> bool:
    """True when a list head's first entry points back to it."""
    try:
        first = memory.read_uint(head, pointer_size)
        return memory.read_uint(first + pointer_size, pointer_size) == head
    except MemoryReadError:
        return False
