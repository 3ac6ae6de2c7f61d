"""Segments of the XP heap, their uncommitted ranges, and the memory that holds records of those."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt_segments import PAGE_SIZE, SEGMENT_SIGNATURE, ranges_between
from windumps.windows.layouts import LayoutRow, Record

MAX_RANGES = 1 << 16


def segments(context: HeapContext, row: LayoutRow, heap: Record) -> Iterator[tuple[int, Record]]:
    """(index, `_HEAP_SEGMENT`) of each segment; those that do not check out cost themselves only."""
    slots = np.frombuffer(heap.bytes_of("Segments"), f"<u{context.pointer_size}").tolist()
    for index, address in enumerate(slots):
        if not address:
            continue
        if address in slots[:index]:
            _say(context, "segment-damaged", "_HEAP.Segments", address, "two slots name it")
            continue
        try:
            segment = row.read(context.memory, "_HEAP_SEGMENT", address)
        except MemoryReadError as error:
            _say(context, "segment-absent", "_HEAP_SEGMENT", address, str(error))
            continue
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
            continue
        yield index, segment
    expected = sum(1 for address in slots[: heap["LastSegmentIndex"] + 1] if address)
    if expected < heap["LastSegmentIndex"] + 1:
        _say(
            context,
            "segment-list-cut",
            "_HEAP.Segments",
            heap.address,
            f"only {expected} of the first {heap['LastSegmentIndex'] + 1} slots name a segment",
        )


def committed_ranges(
    context: HeapContext, row: LayoutRow, segment: Record
) -> list[tuple[int, int]]:
    """A segment's pages but those on its list of uncommitted ranges, as (start, end)."""
    base = segment["BaseAddress"]
    end = base + segment["NumberOfPages"] * PAGE_SIZE
    holes: list[tuple[int, int]] = []
    trouble = ""
    seen: set[int] = set()
    node = segment["UnCommittedRanges"]
    while node and not trouble:
        if node in seen or len(seen) >= MAX_RANGES:
            trouble = f"the list runs in a circle at 0x{node:x}"
            break
        seen.add(node)
        try:
            record = row.read(context.memory, "_HEAP_UNCOMMMTTED_RANGE", node)
        except MemoryReadError as error:
            trouble = str(error)
            break
        start, size = record["Address"], record["Size"]
        if base <= start < start + size <= end and not (start | size) & (PAGE_SIZE - 1):
            holes.append((start, start + size))
        else:
            _say(
                context,
                "ucr-damaged",
                "_HEAP_UNCOMMMTTED_RANGE",
                node,
                f"it does not lie in the segment at 0x{segment.address:x}",
            )
        node = record["Next"]
    if trouble:
        _say(
            context,
            "ucr-list-cut",
            "_HEAP_SEGMENT.UnCommittedRanges",
            segment.address,
            f"{trouble}; uncommitted pages may be taken for absent ones",
        )
    pages = sum(stop - start for start, stop in holes) // PAGE_SIZE
    if not trouble and pages != segment["NumberOfUnCommittedPages"]:
        _say(
            context,
            "ucr-count-differs",
            "_HEAP_SEGMENT.NumberOfUnCommittedPages",
            segment.address,
            f"the segment counts {segment['NumberOfUnCommittedPages']} uncommitted pages, its list {pages}",
        )
    return ranges_between(base, end, holes)


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
