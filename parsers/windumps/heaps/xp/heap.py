"""The NT heap of Windows XP and Server 2003: plain headers, an array of segments, look-aside lists.

See `backend.py` for what stands in for the checksum these headers lack. What the heap allocates from itself
(look-aside lists, tables of the LFH) comes as used blocks, since nothing marks it and the genuine walk lists
it so; areas of the LFH come as the blocks inside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.nt.base import NtHeapBase, report_unclear_sizes
from windumps.heaps.nt.entries import FLAG_BUSY, FLAG_EXTRA, Entries, Mask
from windumps.heaps.xp.backend import PLAIN, XpBackendWalker
from windumps.heaps.xp.entries import LEAST_UNUSED, traces, unused_bytes
from windumps.heaps.xp.free_lists import contradicted
from windumps.heaps.xp.lfh import XpLfhReader
from windumps.heaps.xp.lookaside import (
    LISTS,
    is_lookaside_table,
    may_be_cached,
    read_cached_blocks,
)
from windumps.heaps.xp.segments import HEAP_SIGNATURE, Segment, range_record_memory, segments
from windumps.heaps.xp.virtual import read_virtual_blocks
from windumps.layouts.rows import LayoutRow, choose_layout
from windumps.layouts.xp_heap import XP_HEAP_ROWS
from windumps.memory import AddressSpace

SIGNATURE = HEAP_SIGNATURE
NAME = "nt"  # an NT heap to people; the layout says which form
LEAST_SCORE = 0.5  # below this a heap is not read
FRONT_ENDS = ("", "lookaside", "lfh")


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True when a heap handle has the signature of Windows XP and 2003."""
    try:
        return memory.read_uint(address + 2 * pointer_size, 4) == HEAP_SIGNATURE
    except MemoryReadError:
        return False


def open_xp_heap(context: HeapContext, address: int, ordinal: int) -> XpHeap:
    """Opens an XP heap, choosing the layout that fits best.

    Raises:
        HeapError: the heap's header is not in the dump, or no layout fits it.
    """
    choice = choose_layout(
        XP_HEAP_ROWS,
        context.architecture,
        context.build,
        lambda row: (_score(context, row, address), None),
    )
    if choice is None or choice.score < LEAST_SCORE:
        raise HeapError(
            f"the XP heap at 0x{address:x} fits no known layout; its header is damaged or not in the dump",
            address,
        )
    return XpHeap(context, address, ordinal, choice)


@dataclass
class XpHeap(NtHeapBase):
    """One heap of XP or 2003; see `windumps.heaps.base.Heap`.

    The counter `TotalFreeSize` of its account is in units of the granularity, as the heap keeps it, and
    leaves out blocks on look-aside lists.
    """

    kind: str = NAME
    _areas: XpLfhReader = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.account.counters = {"TotalFreeSize": self._heap["TotalFreeSize"]}
        self._front_end, certain = self._told_front_end()
        at = self._heap["FrontEndHeap"]
        self._table = at if self._front_end == "lookaside" else 0
        self._table_certain = certain
        lfh = at if self._front_end == "lfh" else 0
        self._areas = XpLfhReader(self.context, self.row, self.address, lfh, self.ordinal, certain)

    @property
    def front_end(self) -> str:
        """See `Heap`."""
        return self._front_end

    def _told_front_end(self) -> tuple[str, bool]:
        """The front end, and whether the heap's two fields agree on it; else what the pointer leads to."""
        kind, at = self._heap["FrontEndHeapType"], self._heap["FrontEndHeap"]
        if kind < len(FRONT_ENDS) and bool(kind) == bool(at):
            return FRONT_ENDS[kind], True
        if is_lookaside_table(self.context, self.row, at):
            return "lookaside", True
        with suppress(MemoryReadError):
            if self.row.read_field(self.context.memory, "_LFH_HEAP", "Heap", at) == self.address:
                return "lfh", True
        return "", False

    def blocks(self) -> Iterator[Blocks]:
        """See `Heap`."""
        account = self.account = HeapAccount(counters=self.account.counters)
        self._areas.open()
        self._cached = read_cached_blocks(self.context, self.row, self._table)
        if not self._table_certain:
            self._cached.cut[:] = True
        for start, reserved, committed in range_record_memory(self.context, self.row, self._heap):
            account.reserved_bytes += reserved
            account.committed_bytes += committed
            account.overhead_bytes += committed
            account.ranges.append((start, reserved))
        found, missing = segments(self.context, self.row, self._heap)
        # Their size is not known; but a heap that has them is not walked as a whole.
        account.committed_bytes += missing * PAGE_SIZE
        account.unwalked_bytes += missing * PAGE_SIZE
        # What contradicts a header stands elsewhere in the heap: so all are read before any is believed.
        pieces = [piece for segment in found for piece in self._entries(segment)]
        doubtful = self._doubtful(pieces)
        for piece in pieces:
            yield from self._piece_blocks(piece, doubtful)
        large, lost = read_virtual_blocks(self.context, self.row, self._heap)
        account.committed_bytes += lost
        account.unwalked_bytes += lost
        yield from self._large_blocks(large)

    # -- segments

    def _entries(self, segment: Segment) -> Iterator[Entries]:
        account = self.account
        account.reserved_bytes += segment.reserved
        account.ranges.append((segment.base, segment.reserved))
        for start, end in segment.committed:
            account.committed_bytes += end - start
            if start == segment.base:
                first_entry = min(segment.first_entry, end)
                account.overhead_bytes += first_entry - start
                start = first_entry
            walker = XpBackendWalker(self.context, PLAIN, start, end, segment_index=segment.number)
            for entries in walker.pieces():
                own = np.isin(entries.header, np.array(segment.own, np.uint64))
                if own.any():
                    units = int(entries.units[own].sum(dtype=np.int64))
                    account.overhead_bytes += units * self.context.granularity
                    entries = _without(entries, own)
                yield entries
            account.unwalked_bytes += walker.lost_bytes
            account.absent_bytes += walker.absent_bytes

    def _doubtful(self, pieces: list[Entries]) -> U64:
        """Headers of blocks of which the heap does not tell whether they are used, ascending."""
        free = sum(
            int(piece.units[(piece.flags & FLAG_BUSY) == 0].sum(dtype=np.int64)) for piece in pieces
        )
        whole = not self.account.unwalked_bytes and free == self._heap["TotalFreeSize"]
        if (whole and not self._cached.cut.any()) or not pieces:
            return np.empty(0, np.uint64)
        entries = Entries.join(pieces)
        busy = (entries.flags & FLAG_BUSY) != 0
        found = [np.empty(0, np.uint64)]
        if not whole:
            found.append(contradicted(self.context, self.row, self._heap, entries.header, busy))
        if self._cached.cut.any():
            size = entries.units.astype(np.int64) * self.context.granularity
            ranges = self.account.ranges
            found.append(
                may_be_cached(self.context, self._cached, entries.header, size, busy, ranges)
            )
        return np.unique(np.concatenate(found))

    def _piece_blocks(self, piece: Entries, doubtful: U64) -> Iterator[Blocks]:
        account, granularity = self.account, self.context.granularity
        size = piece.units.astype(np.int64) * granularity
        busy = (piece.flags & FLAG_BUSY) != 0
        user = piece.header + np.uint64(granularity)
        areas, perhaps = np.zeros(len(user), bool), np.zeros(len(user), bool)
        areas[busy], perhaps[busy] = self._areas.areas(user[busy], size[busy], piece.unused[busy])
        cached = busy & ~areas & self._is_cached(user, piece.units.astype(np.int64))
        unknown = ~areas & ~cached & (perhaps | np.isin(piece.header, doubtful))
        account.unwalked_bytes += int(size[unknown].sum())
        shown = ~areas & ~cached & ~unknown
        asked = size - unused_bytes(self.context, piece.header, size, piece.unused)
        clear = (asked >= 0) & (asked <= size - LEAST_UNUSED)
        report_unclear_sizes(self.context, piece.header[busy & shown & ~clear])
        extra = busy & ((piece.flags & FLAG_EXTRA) != 0)
        trace = traces(self.context, self.row, piece.header + size.astype(np.uint64), extra)
        yield account.count(
            Blocks.build(
                user[shown],
                np.where(clear, asked, SIZE_UNKNOWN)[shown],
                size[shown],
                busy[shown],
                Kind.NT_BACKEND,
                self.ordinal,
                trace[shown],
            )
        )
        if cached.any():
            free = np.zeros(int(cached.sum()), bool)
            yield account.count(
                Blocks.build(
                    user[cached], asked[cached], size[cached], free, Kind.NT_LOOKASIDE, self.ordinal
                )
            )
        if areas.any():
            account.overhead_bytes += int(size[areas].sum())
            yield self._area_blocks(*self._areas.blocks(user[areas], size[areas] - granularity))

    def are_lookaside_tables(self, blocks: Blocks) -> Mask:
        """Which blocks hold look-aside lists, in use or left over.

        The genuine walk lists them as used blocks, as it does all else that the heap allocates from itself.
        """
        found = blocks.address == np.uint64(self._table or 1)
        fitting = blocks.size == LISTS * self.row.size("_HEAP_LOOKASIDE")
        for index in np.flatnonzero(fitting & ~found).tolist():
            found[index] = is_lookaside_table(self.context, self.row, int(blocks.address[index]))
        return np.asarray(found)

    def _is_cached(self, user: U64, units: I64) -> Mask:
        """Which blocks are on a look-aside list; the list of their own size, or nothing is believed."""
        if not len(self._cached.address):
            return np.zeros(len(user), bool)
        at = np.minimum(np.searchsorted(self._cached.address, user), len(self._cached.address) - 1)
        listed = self._cached.address[at] == user
        fits = self._cached.units[at] == units
        for address in user[listed & ~fits].tolist()[: self.context.log.limit + 1]:
            self._say(
                "lookaside-entry-damaged",
                "_HEAP_LOOKASIDE",
                address,
                "a look-aside list of another block size names this block; it is taken for used",
            )
        return np.asarray(listed & fits)


def _without(entries: Entries, which: Mask) -> Entries:
    header, units, flags, unused = entries
    return Entries(header[~which], units[~which], flags[~which], unused[~which])


def _score(context: HeapContext, row: LayoutRow, address: int) -> float:
    """Share of the self-consistency checks that a heap passes under a layout, 0 when unreadable."""
    memory = context.memory
    try:
        heap = row.read(memory, "_HEAP", address)
        first = int.from_bytes(heap.bytes_of("Segments")[: context.pointer_size], "little")
        segment = row.read(memory, "_HEAP_SEGMENT", first)
    except MemoryReadError:
        return 0.0
    type_, front_end = heap["FrontEndHeapType"], heap["FrontEndHeap"]
    checks = [
        heap["Signature"] == HEAP_SIGNATURE,
        segment["Heap"] == address,
        segment["BaseAddress"] == address,
        segment["LastValidEntry"] == address + segment["NumberOfPages"] * PAGE_SIZE,
        type_ < len(FRONT_ENDS),
        bool(front_end) == bool(type_),
        heap["LastSegmentIndex"] < 64,
    ]
    if type_ == 2:
        # Absent from the dump, it says nothing about the layout.
        with suppress(MemoryReadError):
            checks.append(row.read_field(memory, "_LFH_HEAP", "Heap", front_end) == address)
    return sum(checks) / len(checks)
