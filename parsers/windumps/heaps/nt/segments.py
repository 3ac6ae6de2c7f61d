"""Segments of an NT heap, and which of their pages are committed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import PAGE_SIZE
from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.head import Head
from windumps.heaps.nt.scan import allocation_end, allocation_starts
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory.lists import UintReader, list_nodes

SEGMENT_SIGNATURE = 0xFFEEFFEE
MAX_SEGMENT_BYTES = 1 << 32  # 16 MiB grown ones, fixed ones of what HeapCreate was asked for

__all__ = ["PAGE_SIZE", "SEGMENT_SIGNATURE", "Segment", "committed_ranges", "read_segments"]


class Segment(NamedTuple):
    """One segment.

    Attributes:
        base: Where it begins; the heap itself is its first segment.
        end: Behind its last reserved page.
        record: Its header; None when that is absent or damaged.
    """

    base: int
    end: int
    record: Record | None


def read_segments(
    context: HeapContext, row: LayoutRow, heap: Record, head: Head
) -> tuple[list[Segment], bool]:
    """The heap's segments, itself first, none overlapping another.

    Those that the list does not name any more are found by their signatures.

    Returns:
        The segments, and True when the list is cut.
    """
    link = row.offset("_HEAP_SEGMENT", "SegmentListEntry")
    nodes, trouble = list_nodes(head, heap.address_of("SegmentList"), context.pointer_size)
    named = list(dict.fromkeys([heap.address, *(node - link for node in nodes)]))
    found: list[Segment] = []
    for address in named:
        segment = _segment(context, row, heap, address)
        if segment is not None:
            _add(context, found, segment)
    if trouble is not None:
        _say(
            context,
            "segment-list-cut",
            "_HEAP.SegmentList",
            heap.address,
            f"{trouble}; segments may be missing",
        )
    if trouble is not None or len(found) < heap["TotalSegments"]:
        for address in _signed(context, row, heap, found):
            segment = _segment(context, row, heap, address)
            if segment is not None and _add(context, found, segment):
                _say(
                    context,
                    "segment-recovered",
                    "_HEAP_SEGMENT",
                    address,
                    "the heap's list does not lead to this segment; it was found by its signature",
                )
    return found, trouble is not None


def _signed(context: HeapContext, row: LayoutRow, heap: Record, known: list[Segment]) -> list[int]:
    """Addresses in the dump where a segment header of this heap stands, known ones left out."""
    claimed = [(segment.base, segment.end - segment.base) for segment in known]
    starts = allocation_starts(context, claimed)
    at = starts + np.uint64(row.offset("_HEAP_SEGMENT", "SegmentSignature"))
    starts = starts[context.memory.gather(at, "<u4")[0] == SEGMENT_SIGNATURE]
    at = starts + np.uint64(row.offset("_HEAP_SEGMENT", "Heap"))
    owner = context.memory.gather(at, f"<u{context.pointer_size}")[0]
    return [int(start) for start in starts[owner == heap.address].tolist()]


def _add(context: HeapContext, found: list[Segment], segment: Segment) -> bool:
    """Adds a segment; where one reaches into another, it ends where the other begins."""
    if any(segment.base == other.base for other in found):
        return False
    for index, other in enumerate(found):
        if other.base < segment.base < other.end:
            found[index] = _cut(context, other, segment.base)
        elif segment.base < other.base < segment.end:
            segment = _cut(context, segment, other.base)
    found.append(segment)
    return True


def _cut(context: HeapContext, segment: Segment, end: int) -> Segment:
    _say(
        context,
        "segment-damaged",
        "_HEAP_SEGMENT",
        segment.base,
        f"it reaches into the segment at 0x{end:x}; it is read up to there",
    )
    return segment._replace(end=end)


def _segment(context: HeapContext, row: LayoutRow, heap: Record, address: int) -> Segment | None:
    """The segment at an address; one with a damaged header as far as the dump says where it ends."""
    record, trouble = None, ""
    ends: set[int] = set()
    try:
        if address == heap.address:  # the heap is its first segment
            record = Record(row, "_HEAP_SEGMENT", address, heap.raw)
        else:
            record = row.read(context.memory, "_HEAP_SEGMENT", address)
    except MemoryReadError as error:
        _say(context, "segment-absent", "_HEAP_SEGMENT", address, str(error))
    else:
        ends = {address + record["NumberOfPages"] * PAGE_SIZE, record["LastValidEntry"]}
        if record["SegmentSignature"] != SEGMENT_SIGNATURE or record["Heap"] != heap.address:
            trouble = "its signature or heap pointer is wrong"
        elif record["BaseAddress"] != address:
            trouble = "its base address is another"
        elif len(ends) > 1:
            trouble = "NumberOfPages and LastValidEntry contradict each other"
        elif address < min(ends) and not (address | min(ends)) & (PAGE_SIZE - 1):
            return Segment(address, min(ends), record)
    if trouble:
        _say(context, "segment-damaged", "_HEAP_SEGMENT", address, trouble)
    limit = allocation_end(context, address)
    likely = [
        end for end in ends if address < end <= min(limit or end, address + MAX_SEGMENT_BYTES)
    ]
    end = min(likely, default=limit or 0)
    if record is not None and len(likely) > 1:
        end = _last_hole_end(context, row, record, likely) or end
    if address & (PAGE_SIZE - 1) or not address < end <= address + MAX_SEGMENT_BYTES:
        return None
    believed = record is not None and likely and _names(record, heap)
    return Segment(address, end & -PAGE_SIZE, record if believed else None)


def _last_hole_end(
    context: HeapContext, row: LayoutRow, segment: Record, ends: list[int]
) -> int | None:
    """Which of some ends is that of an uncommitted range, as the end of a segment mostly is."""
    for descriptor in _descriptors(context, row, segment, context.memory)[0]:
        end = descriptor["Address"] + descriptor["Size"]
        if end in ends:
            return end
    return None


def _descriptors(
    context: HeapContext, row: LayoutRow, segment: Record, memory: UintReader
) -> tuple[list[Record], str | None]:
    """A segment's uncommitted ranges that are in the dump, and what is wrong with their list."""
    link = row.offset("_HEAP_UCR_DESCRIPTOR", "SegmentEntry")
    nodes, trouble = list_nodes(memory, segment.address_of("UCRSegmentList"), context.pointer_size)
    records = []
    for node in nodes:
        try:
            records.append(row.read(context.memory, "_HEAP_UCR_DESCRIPTOR", node - link))
        except MemoryReadError as error:
            trouble = str(error)
    return records, trouble


def _names(segment: Record, heap: Record) -> bool:
    """True where the header's list of uncommitted ranges can be believed, whatever else is wrong."""
    return segment["SegmentSignature"] == SEGMENT_SIGNATURE and segment["Heap"] == heap.address


def committed_ranges(
    context: HeapContext, row: LayoutRow, segment: Segment, head: Head
) -> tuple[list[tuple[int, int]], bool]:
    """Committed ranges of a segment: all its pages but those on its list of uncommitted ranges.

    Returns:
        The ranges, and False when the list is damaged: then some of them may not be committed.
    """
    base, end, record = segment
    if record is None:
        return [(base, end)], False
    descriptors, trouble = _descriptors(context, row, record, head)
    if trouble is not None:
        _say(
            context,
            "ucr-list-cut",
            "_HEAP_SEGMENT.UCRSegmentList",
            base,
            f"{trouble}; uncommitted pages may be taken for absent ones",
        )
    holes: list[tuple[int, int]] = []
    for descriptor in descriptors:
        start, size = descriptor["Address"], descriptor["Size"]
        if base <= start <= start + size <= end and not (start | size) & (PAGE_SIZE - 1):
            holes += [(start, start + size)] if size else []
        elif size:
            trouble = "it lies outside its segment"
            _say(context, "ucr-damaged", "_HEAP_UCR_DESCRIPTOR", descriptor.address, trouble)
    pages = sum(b - a for a, b in holes) // PAGE_SIZE
    if pages != record["NumberOfUnCommittedPages"]:
        if trouble is None:
            trouble = (
                f"the segment counts {record['NumberOfUnCommittedPages']} uncommitted pages, "
                f"its list {pages}"
            )
            _say(
                context,
                "ucr-count-differs",
                "_HEAP_SEGMENT.NumberOfUnCommittedPages",
                base,
                trouble,
            )
        # What is in the dump was committed. (Shared sections of the system are, though their lists
        # and counts agree that they are not.)
        holes = [(a, b) for a, b in holes if not context.memory.present_bytes(a, b)]
    return ranges_between(base, end, holes), trouble is None


def ranges_between(start: int, end: int, holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What [start, end) is without the holes, as (start, end), ascending; holes may overlap."""
    ranges, at = [], start
    for low, high in sorted(holes):
        if low > at:
            ranges.append((at, low))
        at = max(at, high)
    if end > at:
        ranges.append((at, end))
    return ranges


def _say(context: HeapContext, code: str, structure: str, address: int, message: str) -> None:
    context.log.add(code, Severity.WARNING, structure, address, message)
