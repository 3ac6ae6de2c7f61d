"""Segments of an NT heap, and which of their pages are committed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_head import Head
from windumps.heaps.nt_scan import PAGE_SIZE, allocation_end, allocation_starts
from windumps.windows.layouts import LayoutRow, Record

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
    for other in found:
        if segment.base < other.end and other.base < segment.end:
            _say(
                context,
                "segment-damaged",
                "_HEAP_SEGMENT",
                segment.base,
                f"it overlaps the segment at 0x{other.base:x}; it is left out",
            )
            return False
    found.append(segment)
    return True


def _segment(context: HeapContext, row: LayoutRow, heap: Record, address: int) -> Segment | None:
    """The segment at an address; one with a damaged header as far as the dump says where it ends."""
    trouble = ""
    end = 0
    record = None
    try:
        if address == heap.address:  # the heap is its first segment
            record = Record(row, "_HEAP_SEGMENT", address, heap.raw)
        else:
            record = row.read(context.memory, "_HEAP_SEGMENT", address)
    except MemoryReadError as error:
        _say(context, "segment-absent", "_HEAP_SEGMENT", address, str(error))
    else:
        pages = record["NumberOfPages"] * PAGE_SIZE
        ends = {address + pages, record["LastValidEntry"]}
        if record["SegmentSignature"] != SEGMENT_SIGNATURE or record["Heap"] != heap.address:
            trouble = "its signature or heap pointer is wrong"
        elif record["BaseAddress"] != address:
            trouble = "its base address is another"
        elif len(ends) > 1:
            trouble = "NumberOfPages and LastValidEntry contradict each other"
            likely = {end for end in ends if address < end <= address + MAX_SEGMENT_BYTES}
            end = max(likely, default=0)
        elif not pages or address & (PAGE_SIZE - 1):
            trouble = "it has no pages"
        else:
            return Segment(address, address + pages, record)
    if trouble:
        _say(context, "segment-damaged", "_HEAP_SEGMENT", address, trouble)
    end = allocation_end(context, address) or end
    if address & (PAGE_SIZE - 1) or not address < end <= address + MAX_SEGMENT_BYTES:
        return None
    return Segment(address, end, record if record is not None and not trouble else None)


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
    link = row.offset("_HEAP_UCR_DESCRIPTOR", "SegmentEntry")
    nodes, trouble = list_nodes(head, record.address_of("UCRSegmentList"), context.pointer_size)
    if trouble is not None:
        _say(
            context,
            "ucr-list-cut",
            "_HEAP_SEGMENT.UCRSegmentList",
            base,
            f"{trouble}; uncommitted pages may be taken for absent ones",
        )
    holes: list[tuple[int, int]] = []
    for node in nodes:
        try:
            descriptor = row.read(context.memory, "_HEAP_UCR_DESCRIPTOR", node - link)
        except MemoryReadError as error:
            _say(context, "ucr-absent", "_HEAP_UCR_DESCRIPTOR", node - link, str(error))
            trouble = str(error)
            continue
        start, size = descriptor["Address"], descriptor["Size"]
        sound = base <= start <= start + size <= end and not (start | size) & (PAGE_SIZE - 1)
        if size and sound and not context.memory.present_bytes(start, start + size):
            holes.append((start, start + size))
        elif size:
            trouble = "it lies outside its segment" if not sound else "memory of it is in the dump"
            _say(context, "ucr-damaged", "_HEAP_UCR_DESCRIPTOR", node - link, trouble)
    pages = sum(b - a for a, b in holes) // PAGE_SIZE
    if trouble is None and pages != record["NumberOfUnCommittedPages"]:
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
