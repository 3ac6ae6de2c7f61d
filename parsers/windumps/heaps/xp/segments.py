"""Segments of the XP heap, their committed ranges, and the memory that holds records of uncommitted ones.

What the heap's own records do not tell is taken from the dump's list of regions: where a segment whose
header is lost is committed, and where a list of uncommitted ranges that is cut or contradicted has holes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from windumps.arrays import PAGE_SIZE
from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.committed import allocation_starts, committed_around
from windumps.heaps.nt.segments import SEGMENT_SIGNATURE, ranges_between
from windumps.layouts.rows import LayoutRow, Record

HEAP_SIGNATURE = 0xEEFFEEFF
MAX_RANGES = 1 << 16


class Segment(NamedTuple):
    """One segment.

    Attributes:
        number: Its slot, and what every header's SegmentIndex must be.
        base: First address.
        first_entry: Header of the first block; of a segment without a readable header `base`.
        reserved: Bytes of address space.
        committed: Committed ranges as (start, end), ascending.
        own: Addresses of headers of the segment's own structures, which are no blocks.
    """

    number: int
    base: int
    first_entry: int
    reserved: int
    committed: list[tuple[int, int]]
    own: tuple[int, ...] = ()


def segments(context: HeapContext, row: LayoutRow, heap: Record) -> tuple[list[Segment], int]:
    """All segments, and how many the heap has besides, of which nothing is known."""
    slots = np.frombuffer(heap.bytes_of("Segments"), f"<u{context.pointer_size}").tolist()
    found: dict[int, Segment] = {}
    unread: list[tuple[int, int]] = []
    for index, address in enumerate(slots):
        if not address:
            continue
        if address in slots[:index]:
            _say(context, "segment-damaged", "_HEAP.Segments", address, "two slots name it")
            continue
        segment = _read(context, row, heap, index, address)
        if segment is None:
            unread.append((index, address))
        else:
            found[index] = segment
    counted = heap["LastSegmentIndex"] + 1
    expected = sum(1 for address in slots[:counted] if address)
    if expected < counted:
        _say(
            context,
            "segment-list-cut",
            "_HEAP.Segments",
            heap.address,
            f"only {expected} of the first {counted} slots name a segment",
        )
    if len(found) < min(counted, len(slots)):
        for segment in _searched(context, row, heap, [s.base for s in found.values()]):
            found.setdefault(segment.number, segment)
    bases = {segment.base for segment in found.values()}
    for index, address in unread:
        parts = committed_around(context.memory, address)
        if index not in found and _may_be_ours(context, row, heap, address, parts, bases):
            found[index] = _without_header(context, heap, index, address, parts)
    missing = max(min(counted, len(slots)) - len(found), 0)
    return [found[index] for index in sorted(found)], missing


def _read(
    context: HeapContext, row: LayoutRow, heap: Record, index: int, address: int
) -> Segment | None:
    try:
        segment = row.read(context.memory, "_HEAP_SEGMENT", address)
    except MemoryReadError as error:
        _say(context, "segment-absent", "_HEAP_SEGMENT", address, str(error))
        return None
    base, pages = segment["BaseAddress"], segment["NumberOfPages"]
    end = base + pages * PAGE_SIZE
    if (
        segment["Signature"] != SEGMENT_SIGNATURE
        or segment["Heap"] != heap.address
        or segment["LastValidEntry"] != end
        or not base <= address < segment["FirstEntry"] <= end
    ):
        _say(
            context,
            "segment-damaged",
            "_HEAP_SEGMENT",
            address,
            "its signature, heap pointer or bounds are wrong",
        )
        return None
    ranges = committed_ranges(context, row, segment)
    return Segment(index, base, segment["FirstEntry"], pages * PAGE_SIZE, ranges)


def _searched(
    context: HeapContext, row: LayoutRow, heap: Record, known: list[int]
) -> Iterator[Segment]:
    """Segments that no slot names any more, known by their signature and the heap they name."""
    starts = np.setdiff1d(allocation_starts(context.memory), np.array(known, np.uint64))
    fields = row.dtype("_HEAP_SEGMENT", "Signature", "Heap", "BaseAddress")
    head, present = context.memory.gather(starts, fields)
    ours = present & (head["Signature"] == SEGMENT_SIGNATURE) & (head["Heap"] == heap.address)
    ours &= head["BaseAddress"].astype(np.uint64) == starts
    for address in starts[ours].tolist():
        index = context.memory.read_uint(address + context.granularity - 1, 1)
        segment = _read(context, row, heap, index, address)
        if segment is not None:
            _say(
                context,
                "segment-found",
                "_HEAP_SEGMENT",
                address,
                "the heap's list does not name this segment any more; found by its signature",
            )
            yield segment


def _may_be_ours(
    context: HeapContext,
    row: LayoutRow,
    heap: Record,
    address: int,
    parts: list[tuple[int, int]],
    known: set[int],
) -> bool:
    """True where an allocation begins that is neither a known segment nor another heap's."""
    base = parts[0][0] if parts else 0
    if not base or base in known or address != base != heap.address:
        return False
    if base == heap.address:
        return True
    try:
        segment = row.read(context.memory, "_HEAP_SEGMENT", base)
    except MemoryReadError:
        return True
    named = segment["Signature"] == SEGMENT_SIGNATURE and segment["Heap"] != heap.address
    return not named and segment["Signature"] != HEAP_SIGNATURE


def _without_header(
    context: HeapContext, heap: Record, index: int, address: int, parts: list[tuple[int, int]]
) -> Segment:
    """A segment whose header is absent or damaged: what is committed there, read block by block."""
    _say(
        context,
        "segment-without-header",
        "_HEAP_SEGMENT",
        address,
        "its blocks are read by what they say of each other, as far as the dump says where it lies",
    )
    base, end = parts[0][0], parts[-1][1]
    return Segment(index, base, base, end - base, parts, (heap.address, address))


def committed_ranges(
    context: HeapContext, row: LayoutRow, segment: Record
) -> list[tuple[int, int]]:
    """A segment's pages but those on its list of uncommitted ranges, as (start, end)."""
    base = segment["BaseAddress"]
    end = base + segment["NumberOfPages"] * PAGE_SIZE
    holes, trouble, sound = _holes(context, row, segment, base, end)
    pages = sum(stop - start for start, stop in holes) // PAGE_SIZE
    if trouble:
        _say(
            context,
            "ucr-list-cut",
            "_HEAP_SEGMENT.UnCommittedRanges",
            segment.address,
            f"{trouble}; uncommitted pages may be taken for absent ones",
        )
    elif pages != segment["NumberOfUnCommittedPages"]:
        sound = False
        _say(
            context,
            "ucr-count-differs",
            "_HEAP_SEGMENT.NumberOfUnCommittedPages",
            segment.address,
            f"the segment counts {segment['NumberOfUnCommittedPages']} uncommitted pages, its list {pages}",
        )
    if sound and not trouble:
        return ranges_between(base, end, holes)
    # The regions know; without them no memory that the dump has is taken for uncommitted.
    parts = committed_around(context.memory, base) if len(context.memory.regions) else []
    known = [(max(low, base), min(high, end)) for low, high in parts if low < end and high > base]
    return known or ranges_between(base, end, holes)


def _holes(
    context: HeapContext, row: LayoutRow, segment: Record, base: int, end: int
) -> tuple[list[tuple[int, int]], str, bool]:
    """Uncommitted ranges, why their list ended early or "", and whether all entries are sound."""
    holes: list[tuple[int, int]] = []
    seen: set[int] = set()
    sound = True
    node = segment["UnCommittedRanges"]
    while node:
        if node in seen or len(seen) >= MAX_RANGES:
            return holes, f"the list runs in a circle at 0x{node:x}", sound
        seen.add(node)
        try:
            record = row.read(context.memory, "_HEAP_UNCOMMMTTED_RANGE", node)
        except MemoryReadError as error:
            return holes, str(error), sound
        start, size = record["Address"], record["Size"]
        inside = base <= start < start + size <= end and not (start | size) & (PAGE_SIZE - 1)
        if inside and not context.memory.present_bytes(start, start + size):
            holes.append((start, start + size))
        else:
            sound = False
            _say(
                context,
                "ucr-damaged",
                "_HEAP_UNCOMMMTTED_RANGE",
                node,
                "memory it calls uncommitted is in the dump"
                if inside
                else f"it does not lie in the segment at 0x{segment.address:x}",
            )
        node = record["Next"]
    return holes, "", sound


def range_record_memory(
    context: HeapContext, row: LayoutRow, heap: Record
) -> list[tuple[int, int, int]]:
    """(address, bytes reserved, bytes committed) of the memory where records of ranges are kept."""
    found: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    node = heap["UCRSegments"]
    while node and node not in seen and len(seen) < MAX_RANGES:
        seen.add(node)
        try:
            record = row.read(context.memory, "_HEAP_UCR_SEGMENT", node)
        except MemoryReadError as error:
            _say(context, "ucr-segment-absent", "_HEAP_UCR_SEGMENT", node, str(error))
            break
        reserved, committed = record["ReservedSize"], record["CommittedSize"]
        if not 0 < committed <= reserved < 1 << 32:
            _say(context, "ucr-segment-damaged", "_HEAP_UCR_SEGMENT", node, "its sizes are wrong")
            break
        found.append((node, reserved, committed))
        node = record["Next"]
    return found


def _say(context: HeapContext, code: str, structure: str, address: int, message: str) -> None:
    context.log.add(code, Severity.WARNING, structure, address, message)
