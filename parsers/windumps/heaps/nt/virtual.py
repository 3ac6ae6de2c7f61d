"""Large blocks of the NT heap: allocations of their own on `_HEAP.VirtualAllocdBlocks`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import FLAG_BUSY, UNUSED_VIRTUAL, Encoding, Mask
from windumps.heaps.nt.scan import Ranges, committed_span, entry_starts
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory.lists import UintReader, list_nodes

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
        cut: True when the list of them is damaged: more of them may not have been found.
    """

    entry: U64
    header: U64
    address: U64
    size: I64
    commit: I64
    reserve: I64
    trace: U64
    cut: bool = False


_NO_ADDRESSES, _NO_SIZES = np.empty(0, np.uint64), np.empty(0, np.int64)
NO_BLOCKS = VirtualBlocks(
    _NO_ADDRESSES,
    _NO_ADDRESSES,
    _NO_ADDRESSES,
    _NO_SIZES,
    _NO_SIZES,
    _NO_SIZES,
    _NO_ADDRESSES,
)


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
            _say_left_out(context, node, "its header or sizes do not check out")
        return Entries(*(column[sound] for column in self))


NO_ENTRIES = Entries(_NO_ADDRESSES, _NO_ADDRESSES, _NO_ADDRESSES, _NO_ADDRESSES, _NO_ADDRESSES)


def read_entries(
    context: HeapContext, row: LayoutRow, heap: Record, head: UintReader
) -> tuple[Entries, bool]:
    """Reads `_HEAP.VirtualAllocdBlocks`, and tells whether it is cut; says so, too."""
    nodes, trouble = list_nodes(head, heap.address_of("VirtualAllocdBlocks"), context.pointer_size)
    if trouble is not None:
        say_list_cut(context, heap, trouble)
    if not nodes:
        return NO_ENTRIES, trouble is not None
    return entries_at(context, row, np.array(nodes, np.uint64)), trouble is not None


def say_list_cut(context: HeapContext, heap: Record, trouble: str) -> None:
    """Says that the list of large blocks does not lead to all of them."""
    context.log.add(
        "virtual-list-cut",
        Severity.WARNING,
        "_HEAP.VirtualAllocdBlocks",
        heap.address,
        f"{trouble}; large blocks may be missing",
    )


def entries_at(context: HeapContext, row: LayoutRow, entry: U64) -> Entries:
    """What stands at addresses, as entries of large blocks."""
    memory = context.memory

    def column(name: str) -> U64:
        at = entry + np.uint64(row.offset(STRUCTURE, name))
        return memory.gather(at, f"<u{context.pointer_size}")[0].astype(np.uint64)

    header = entry + np.uint64(row.offset(STRUCTURE, "BusyBlock"))
    words = memory.gather(header + np.uint64(context.granularity - 8), "<u8")[0]
    return Entries(
        entry, header, words.astype(np.uint64), column("CommitSize"), column("ReserveSize")
    )


def read_virtual_blocks(
    context: HeapContext,
    row: LayoutRow,
    heap: Record,
    encoding: Encoding,
    claimed: Ranges,
    head: UintReader,
) -> VirtualBlocks:
    """Reads the large blocks; an entry that does not check out is left out and said.

    When they are not as many bytes as the heap counts, those that its list does not lead to any more
    are looked for by their headers.

    Args:
        context: The process.
        row: The heap's layout.
        heap: The heap.
        encoding: Of its headers.
        claimed: Memory of the heap's segments.
        head: Reads the process's memory.
    """
    found, cut = read_entries(context, row, heap, head)
    size = heap["TotalSizeInVirtualBlocks"]
    if not len(found.entry) and not size:
        return NO_BLOCKS._replace(cut=cut)
    sound = _sound(encoding, found)
    kept = _apart(context, found.take(context, row, sound), claimed)
    if cut or (int(kept.commit.sum()) < size and not size % PAGE_SIZE):
        kept = _with_unlisted(context, row, encoding, kept, claimed)
    return _decoded(context, encoding, kept)._replace(cut=cut)


def _sound(encoding: Encoding, found: Entries) -> Mask:
    """Where a header is that of a large block."""
    low = encoding.decode_low(found.words.astype(np.uint32))
    high = encoding.decode_high(
        found.words.astype(np.uint32), (found.words >> np.uint64(32)).astype(np.uint32)
    )
    sound = encoding.checks_out(low) & ((low >> 16 & FLAG_BUSY) != 0)
    sound &= (high >> 24) == UNUSED_VIRTUAL
    sound &= ((found.entry | found.commit | found.reserve) & np.uint64(PAGE_SIZE - 1)) == 0
    return np.asarray(sound)


def _apart(context: HeapContext, entries: Entries, claimed: Ranges) -> Entries:
    """Those that overlap neither one another nor the segments."""
    keep = np.ones(len(entries.entry), bool)
    spans = sorted((start, start + size, -1) for start, size in claimed)
    ends = entries.entry + entries.commit
    spans += list(zip(entries.entry.tolist(), ends.tolist(), range(len(keep)), strict=True))
    end = 0
    for start, stop, row in sorted(spans):
        if row >= 0 and start < end:
            keep[row] = False
            _say_left_out(context, start, "it overlaps other memory of the heap")
        end = max(end, stop if row < 0 or keep[row] else end)
    return Entries(*(column[keep] for column in entries))


def _with_unlisted(
    context: HeapContext, row: LayoutRow, encoding: Encoding, known: Entries, claimed: Ranges
) -> Entries:
    """With the blocks at the beginning of allocations that no heap's list leads to."""
    own = zip(known.entry.tolist(), known.commit.tolist(), strict=True)
    starts = entry_starts(context, sorted([*claimed, *own]))
    found = entries_at(context, row, starts)
    sound = _sound(encoding, found) & (found.commit >= np.uint64(row.size(STRUCTURE)))
    sound &= (found.commit <= found.reserve) & (found.reserve < MAX_RESERVE)
    for index in np.flatnonzero(sound).tolist():
        span = committed_span(context, int(starts[index]))
        sound[index] = span is None or span == int(found.commit[index])
    if not encoding.mask:  # without a checksum the neighbours on the list must confirm it
        sound &= _is_linked(context, starts)
    unlisted = _apart(context, Entries(*(column[sound] for column in found)), claimed)
    if len(unlisted.entry):
        context.log.add(
            "virtual-blocks-recovered",
            Severity.WARNING,
            STRUCTURE,
            int(unlisted.entry[0]),
            f"the heap's list does not lead to {len(unlisted.entry)} large blocks of "
            f"{int(unlisted.commit.sum())} bytes; they were found by their headers",
        )
    return Entries(*(np.concatenate(pair) for pair in zip(known, unlisted, strict=True)))


def _is_linked(context: HeapContext, entry: U64) -> Mask:
    """Where the list entry before or behind points back."""
    pointer = context.pointer_size
    linked = np.zeros(len(entry), bool)
    for link in (0, pointer):
        other = context.memory.gather(entry + np.uint64(link), f"<u{pointer}")[0].astype(np.uint64)
        back = context.memory.gather(other + np.uint64(pointer - link), f"<u{pointer}")[0]
        linked |= back.astype(np.uint64) == entry
    return linked


def _decoded(context: HeapContext, encoding: Encoding, entries: Entries) -> VirtualBlocks:
    entry, header, words, commit, reserve = entries
    stored_low = words.astype(np.uint32)
    low = encoding.decode_low(stored_low)
    high = encoding.decode_high(stored_low, (words >> np.uint64(32)).astype(np.uint32))
    distance = high >> 16 & np.uint32(0xFF)
    committed = commit.astype(np.int64)
    size = committed - (low & np.uint32(0xFFFF)).astype(np.int64)  # Size: bytes not the program's
    for index, address in enumerate(entry.tolist()):
        span = committed_span(context, address)
        if span is not None and span != committed[index]:
            size[index] = SIZE_UNKNOWN
            context.log.add(
                "virtual-size-unclear",
                Severity.WARNING,
                f"{STRUCTURE}.CommitSize",
                address,
                f"the large block says {committed[index]} bytes, of which {span} are committed",
            )
            committed[index] = span
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
        np.maximum(reserve.astype(np.int64), committed),
        trace,
    )


def _say_left_out(context: HeapContext, entry: int, why: str) -> None:
    context.log.add(
        "virtual-block-damaged",
        Severity.WARNING,
        STRUCTURE,
        entry,
        f"{why}; this large block is left out",
    )
