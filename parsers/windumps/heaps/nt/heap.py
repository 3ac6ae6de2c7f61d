"""The NT heap of Windows Vista to 11 24H2: segments, uncommitted ranges, the back end, large
blocks.

A segment's committed ranges are decoded a window at a time as arrays; only the hop from block to
block is sequential, over integers. Uncommitted ranges come from the segment's own list and not from
readability: a page can be absent from the dump though it is committed, and the other way round.

A header that does not check out ends the chain; the walk takes it up again where two links in a
row hold, and what lies between is said to be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.committed import uncommitted_each
from windumps.heaps.nt.audit import COUNTERS, Found, audit
from windumps.heaps.nt.backend import BackendWalker
from windumps.heaps.nt.base import NtHeapBase, report_unclear_sizes
from windumps.heaps.nt.entries import (
    FLAG_BUSY,
    FLAG_FILLED,
    FLAG_INTERNAL,
    UNUSED_FREE,
    UNUSED_HEADER,
    UNUSED_SENTINEL,
    Encoding,
    Entries,
    Mask,
    UserExtents,
    user_extents,
)
from windumps.heaps.nt.fit import FRONT_END_LFH, HEAP_SIGNATURE, closes, fit
from windumps.heaps.nt.head import Head
from windumps.heaps.nt.lfh import AreaBlocks, LfhReader
from windumps.heaps.nt.segments import SEGMENT_SIGNATURE, Segment, committed_ranges, read_segments
from windumps.heaps.nt.virtual import read_virtual_blocks
from windumps.layouts.nt_heap import MOVED_ROWS, NT_HEAP_ROWS
from windumps.layouts.rows import LayoutChoice, LayoutRow, Record, choose_layout
from windumps.memory import AddressSpace

NAME = "nt"
DETECT_BYTES = 0x100  # of the header; the signature was seen at 0x60 to 0xA0
LEAST_SCORE = 0.5  # below this a heap is not read
HEAP_TAIL_CHECKING = 0x20  # of _HEAP.Flags
TAIL_PATTERN = 0xABABABABABABABAB  # at least so much of it stands behind a block
BATCH_BYTES = 4 << 20  # heap memory whose blocks are handed on together


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True when a heap handle has the segment signature of Vista and later, and somewhere in its
    header, where depends on the build, the heap signature.
    """
    head = memory.read_available(address, DETECT_BYTES)
    if head[2 * pointer_size : 2 * pointer_size + 4] != SEGMENT_SIGNATURE.to_bytes(4, "little"):
        return False
    words = np.frombuffer(head[: len(head) // 4 * 4], "<u4")
    return bool((words == HEAP_SIGNATURE).any())


def open_nt_heap(context: HeapContext, address: int, ordinal: int) -> NtHeap:
    """Opens an NT heap, choosing the layout that fits best.

    Raises:
        HeapError: the heap's header is not in the dump, or no layout fits it.
    """
    head = Head(context.memory, address)

    def chosen(rows: Sequence[LayoutRow]) -> LayoutChoice[None] | None:
        return choose_layout(
            rows,
            context.architecture,
            context.build,
            lambda row: (fit(context, row, address, head), None),
            context.exact_layouts.get("NT heap"),
        )

    choice = chosen(NT_HEAP_ROWS)
    known = any(row.first_build <= context.build <= row.last_build for row in NT_HEAP_ROWS)
    if not known and choice is not None and choice.score < 1:
        moved = chosen(MOVED_ROWS)
        if moved is not None and moved.score == 1:
            heap = Record(moved.row, "_HEAP", address, head.raw)
            choice = moved if heap["TotalSegments"] else choice
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

    _doubtful: int = field(init=False, default=0)
    _given_back: int = field(init=False, default=0)
    _ends: list[int] = field(init=False, default_factory=list)
    _whole: bool = field(init=False, default=True)
    _tables: U64 | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        encoding = self._heap.bytes_of("Encoding")[-8:]
        self._encoding = Encoding(
            self._heap["EncodeFlagMask"],
            int.from_bytes(encoding[:4], "little"),
            int.from_bytes(encoding[4:], "little"),
        )
        self.account.counters = {name: self._heap[name] for name in COUNTERS}
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
        account = self.account = HeapAccount(counters=self.account.counters)
        self._doubtful, self._given_back, self._ends, self._whole = 0, 0, [], True
        head = Head(self.context.memory, self.address)
        segments, cut = read_segments(self.context, self.row, self._heap, head)
        for batch in self._batches(segments, head):
            yield from self._piece_blocks(batch)
        yield from self._counted(self._lfh.left_over())
        large = read_virtual_blocks(
            self.context, self.row, self._heap, self._encoding, sorted(account.ranges), head
        )
        found = Found(len(segments), cut, self._whole, large, self._lfh.front_end)
        audit(self.context, account, found)
        if len(large.entry):
            yield from self._large_blocks(large, self._own_large(large.address))
        account.committed_bytes += self._doubtful
        account.unwalked_bytes += self._doubtful
        # The heap's own counters still have these pages, so they go last.
        account.committed_bytes -= self._given_back
        account.free_block_bytes -= self._given_back

    def _batches(self, segments: list[Segment], head: Head) -> Iterator[Entries]:
        """Pieces of all segments, small ones put together: a column of ten blocks costs as much as one
        of ten thousand.
        """
        batch: list[Entries] = []
        size = 0
        for segment in segments:
            ranges, sure = committed_ranges(self.context, self.row, segment, head)
            self._whole = self._whole and sure
            for piece in self._segment_pieces(segment, ranges):
                batch.append(piece)
                size += int(piece.units.sum()) * self.context.granularity
                if size >= BATCH_BYTES:
                    yield Entries.join(batch)
                    batch, size = [], 0
        if batch:
            yield Entries.join(batch)

    # -- segments
    # ----------------------------------------------------------------------------------------

    def _segment_pieces(self, segment: Segment, ranges: list[tuple[int, int]]) -> Iterator[Entries]:
        account = self.account
        account.reserved_bytes += segment.end - segment.base
        account.ranges.append((segment.base, segment.end - segment.base))
        for start, end in ranges:
            account.committed_bytes += end - start
            self._ends.append(end)
            if start == segment.base:
                first = self._first_entry(segment, end)
                account.overhead_bytes += first - start
                start = first
            walker = BackendWalker(self.context, self._encoding, start, end)
            yield from walker.pieces()
            account.unwalked_bytes += walker.lost_bytes
            account.absent_bytes += walker.absent_bytes

    def _first_entry(self, segment: Segment, end: int) -> int:
        """Where the first block lies: behind the header, which is a block of its own.

        FirstEntry says the same, and stands in where that block's header does not check out.
        """
        granularity = self.context.granularity
        try:
            stored = self.context.memory.read_uint(segment.base + granularity - 8, 4)
        except MemoryReadError:
            stored = 0
        low = self._encoding.decode_low(np.array([stored], np.uint32))
        if self._encoding.checks_out(low)[0]:
            behind = segment.base + int(low[0] & 0xFFFF) * granularity
            if behind <= end and (segment.record is None or self._encoding.mask):
                return behind
        first = segment.record["FirstEntry"] if segment.record is not None else 0
        return first if segment.base < first < end else segment.base

    def _piece_blocks(self, piece: Entries) -> Iterator[Blocks]:
        account, granularity = self.account, self.context.granularity
        size = piece.units.astype(np.int64) * granularity
        busy = (piece.flags & FLAG_BUSY) != 0
        address = piece.header + np.uint64(granularity)
        internal = busy & ((piece.flags & FLAG_INTERNAL) != 0)
        own = internal.copy()
        doubtful = ~busy & (piece.unused != UNUSED_FREE)
        special = np.flatnonzero(busy & ~internal & (piece.unused <= UNUSED_SENTINEL))
        if len(special):
            own[special] = self._are_own(piece, special)
            doubtful[special] = ~own[special]
        asked = np.full(len(size), SIZE_UNKNOWN, np.int64)
        trace = np.zeros(len(size), np.uint64)
        # Areas lie behind a secondary header, too, where stacks are recorded.
        claimed = np.flatnonzero(busy & ~doubtful & (piece.unused > UNUSED_SENTINEL))
        extents = user_extents(
            self.context.memory,
            self.context.pointer_size,
            piece.header[claimed],
            size[claimed],
            piece.unused[claimed],
        )
        address[claimed] = extents.address
        trace[claimed] = extents.trace
        doubtful[claimed] = extents.doubtful
        valid = extents.valid & self._tails_agree(piece.flags[claimed], extents)
        asked[claimed] = np.where(valid, extents.size, SIZE_UNKNOWN)
        unclear = claimed[~valid & ~extents.doubtful]
        report_unclear_sizes(self.context, piece.header[unclear[~own[unclear]]])
        if doubtful.any():
            account.unwalked_bytes += int(size[doubtful].sum())
            self._say_doubtful(piece.header[doubtful], size[doubtful])
        emptied = ~busy & ~doubtful & ((piece.flags & FLAG_INTERNAL) != 0)
        self._given_back += self._pages_given_back(piece.header[emptied], size[emptied])
        shown = ~own & ~doubtful
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
        account.overhead_bytes += int(size[own & ~doubtful].sum())
        internal &= ~doubtful
        if internal.any():
            inside = address[internal]
            room = size[internal] - (inside - piece.header[internal]).astype(np.int64)
            read = self._lfh.sort_out(inside, room)
            yield from self._counted(read)

    def _pages_given_back(self, header: U64, size: I64) -> int:
        """Uncommitted bytes inside free blocks: their whole pages, but for header and links."""
        page, links = np.uint64(PAGE_SIZE - 1), 2 * self.context.granularity
        first = (header + np.uint64(links) + page) & ~page
        end = (header + size.astype(np.uint64)) & ~page
        some = first < end
        if not some.any():
            return 0
        return int(uncommitted_each(self.context.memory, first[some], end[some]).sum())

    def _are_own(self, piece: Entries, rows: NDArray[np.int64]) -> Mask:
        """Which busy blocks without user data are what their UnusedBytes say: the sentinel at the
        end of a committed range, or a table that the heap's header names.
        """
        granularity = np.uint64(self.context.granularity)
        header, unused = piece.header[rows], piece.unused[rows]
        end = header + piece.units[rows].astype(np.uint64) * granularity
        ends = np.isin(end, np.array(self._ends, np.uint64))
        if not self._whole:  # the range may end where memory does
            ends |= self.context.memory.locate(end, 1) < 0
        sentinel = (unused == UNUSED_SENTINEL) & ends
        table = unused == UNUSED_HEADER
        if table.any():
            if self._tables is None:
                self._tables = self._named_addresses()
            table &= np.isin(header, self._tables) | np.isin(header + granularity, self._tables)
        return np.asarray(sentinel | table)

    def _tails_agree(self, flags: U8, extents: UserExtents) -> Mask:
        """False where the debug heap's pattern does not follow what the program asked for: then a
        program wrote past its block, or the size is wrong.
        """
        agrees = np.ones(len(flags), bool)
        if self.flags & HEAP_TAIL_CHECKING:
            filled = np.flatnonzero(((flags & FLAG_FILLED) != 0) & extents.valid)
            tail = extents.address[filled] + extents.size[filled].astype(np.uint64)
            words, present = self.context.memory.gather(tail, "<u8")
            agrees[filled] = ~present | (words == TAIL_PATTERN)
        return agrees

    def _named_addresses(self) -> U64:
        """All that the heap's first page can name."""
        pointer = self.context.pointer_size
        raw = self.context.memory.read_available(self.address, PAGE_SIZE)
        return np.frombuffer(raw[: len(raw) // pointer * pointer], f"<u{pointer}").astype(np.uint64)

    def _say_doubtful(self, header: U64, size: I64) -> None:
        for address, lost in zip(header.tolist(), size.tolist(), strict=True):
            self._say(
                "heap-header-damaged",
                "_HEAP_ENTRY",
                address,
                "this block's header contradicts itself; its state is unknown",
                lost,
            )

    # -- front end and large blocks

    def _counted(self, read: AreaBlocks) -> Iterator[Blocks]:
        """Blocks of LFH areas, which were counted as overhead a moment ago."""
        account = self.account
        account.unwalked_bytes += read.lost
        account.overhead_bytes -= int(read.blocks.block_bytes.sum()) + read.lost
        self._doubtful += read.doubtful
        if len(read.blocks):
            yield account.count(read.blocks)

    def _own_large(self, user: U64) -> int:
        """The large block that is the front end's own object; 0 when none is."""
        pointer = self.context.pointer_size
        at = user + np.uint64(self.row.offset("_LFH_HEAP", "Heap"))
        owner = self.context.memory.gather(at, f"<u{pointer}")[0].astype(np.uint64)
        for address in user[(owner == self.address) | (user == self._lfh.front_end)].tolist():
            zones = address + self.row.offset("_LFH_HEAP", "SubSegmentZones")
            if address == self._lfh.front_end or closes(self.context.memory, zones, pointer):
                return int(address)
        return 0
