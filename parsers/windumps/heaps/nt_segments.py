"""Segments of an NT heap, and which of their pages are committed."""

from __future__ import annotations

from collections.abc import Iterator

from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.lists import list_nodes
from windumps.windows.layouts import LayoutRow, Record

SEGMENT_SIGNATURE = 0xFFEEFFEE
PAGE_SIZE = 0x1000


def read_segments(context: HeapContext, row: LayoutRow, heap: Record) -> Iterator[Record]:
    """The heap's segments, itself first; those that do not check out cost themselves only."""
    link = row.offset("_HEAP_SEGMENT", "SegmentListEntry")
    nodes, trouble = list_nodes(
        context.memory, heap.address_of("SegmentList"), context.pointer_size
    )
    if trouble is not None:
        _say(
            context,
            "segment-list-cut",
            "_HEAP.SegmentList",
            heap.address,
            f"{trouble}; segments may be missing",
        )
    addresses = [node - link for node in nodes]
    if heap.address not in addresses:
        addresses.insert(0, heap.address)
    for address in addresses:
        try:
            segment = row.read(context.memory, "_HEAP_SEGMENT", address)
        except MemoryReadError as error:
            _say(context, "segment-absent", "_HEAP_SEGMENT", address, str(error))
            continue
        if segment["SegmentSignature"] != SEGMENT_SIGNATURE or segment["Heap"] != heap.address:
            _say(
                context,
                "segment-damaged",
                "_HEAP_SEGMENT",
                address,
                "its signature or heap pointer is wrong",
            )
            continue
        yield segment


def committed_ranges(
    context: HeapContext, row: LayoutRow, segment: Record
) -> list[tuple[int, int]]:
    """Committed ranges of a segment: all its pages but those on its list of uncommitted
    ranges.
    """
    base = segment.address
    end = base + segment["NumberOfPages"] * PAGE_SIZE
    link = row.offset("_HEAP_UCR_DESCRIPTOR", "SegmentEntry")
    nodes, trouble = list_nodes(
        context.memory, segment.address_of("UCRSegmentList"), context.pointer_size
    )
    if trouble is not None:
        _say(
            context,
            "ucr-list-cut",
            "_HEAP_SEGMENT.UCRSegmentList",
            base,
            f"{trouble}; uncommitted pages may be taken for absent ones",
        )
    holes = []
    for node in nodes:
        try:
            descriptor = row.read(context.memory, "_HEAP_UCR_DESCRIPTOR", node - link)
        except MemoryReadError as error:
            _say(context, "ucr-absent", "_HEAP_UCR_DESCRIPTOR", node - link, str(error))
            continue
        start, size = descriptor["Address"], descriptor["Size"]
        if size and base <= start <= start + size <= end:
            holes.append((start, start + size))
        elif size:
            _say(
                context,
                "ucr-damaged",
                "_HEAP_UCR_DESCRIPTOR",
                node - link,
                "it lies outside its segment",
            )
    pages = sum(b - a for a, b in holes) // PAGE_SIZE
    if trouble is None and pages != segment["NumberOfUnCommittedPages"]:
        _say(
            context,
            "ucr-count-differs",
            "_HEAP_SEGMENT.NumberOfUnCommittedPages",
            base,
            f"the segment counts {segment['NumberOfUnCommittedPages']} uncommitted pages, "
            f"its list {pages}",
        )
    return ranges_between(base, end, holes)


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
