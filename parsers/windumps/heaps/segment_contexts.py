"""Segment heap, the back-end contexts and their lists of page segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.heaps.lists import list_nodes
from windumps.memory import AddressSpace
from windumps.memory.address_space import ADDRESS_LIMIT
from windumps.windows.layouts import LayoutRow

UNITS = 256  # descriptors, hence units, of a page segment
CONTEXT_SEARCH_BYTES = 0x800
_UNIT_SHIFTS = range(12, 21)


@dataclass(frozen=True)
class SegContext:
    """One back-end context of a heap: segments of one size.

    Attributes:
        index: 0 for the small segments, 1 for the large.
        address: Of the context; the heap's own where contexts have no structure.
        segment_bytes: Size and alignment of its segments.
        unit_shift: log2 of the bytes one descriptor stands for.
        first_unit: First unit that can be allocated; those before hold the descriptors.
        list_head: Address of SegmentListHead.
        segment_count: SegmentCount as the heap keeps it.
    """

    index: int
    address: int
    segment_bytes: int
    unit_shift: int
    first_unit: int
    list_head: int
    segment_count: int


def read_contexts(memory: AddressSpace, row: LayoutRow, heap: int) -> list[SegContext]:
    """The heap's contexts as one layout has them; those that make no sense are left out.

    Where a layout's contexts are not at their place, the header is searched for them: between some builds
    nothing but that place differs.

    Raises:
        MemoryReadError: the heap's header is not in the dump.
    """
    usual = row.offset("_SEGMENT_HEAP", "SegContexts")
    found = _contexts_at(memory, row, heap, usual)
    complete = row.offset("constants", "Contexts")
    if len(found) < complete and row.has("_HEAP_SEG_CONTEXT", "Heap"):
        for place in range(0, CONTEXT_SEARCH_BYTES, row.pointer_size):
            other = _contexts_at(memory, row, heap, place)
            if len(other) == complete:
                return other
    return found


def _contexts_at(memory: AddressSpace, row: LayoutRow, heap: int, place: int) -> list[SegContext]:
    name = "_HEAP_SEG_CONTEXT"
    found = []
    for index in range(row.offset("constants", "Contexts")):
        address = heap + place + index * row.size(name)

        def field(field_name: str, at: int = address) -> int:
            return row.read_field(memory, name, field_name, at)

        if row.has(name, "SegmentMask"):
            if field("Heap") != heap:
                continue
            segment_bytes = (1 << 8 * row.pointer_size) - field("SegmentMask")
            unit_shift, first = field("UnitShift"), field("FirstDescriptorIndex")
        else:
            segment_bytes, unit_shift, first = (
                row.offset("constants", key)
                for key in ("SegmentBytes", "UnitShift", "FirstDescriptorIndex")
            )
        if unit_shift not in _UNIT_SHIFTS or segment_bytes != UNITS << unit_shift:
            continue
        if not 0 < first < UNITS or row.size("_HEAP_PAGE_SEGMENT") > first << unit_shift:
            continue
        head = address + row.offset(name, "SegmentListHead")
        count = field("SegmentCount")
        found.append(SegContext(index, address, segment_bytes, unit_shift, first, head, count))
    return found


def segment_key(row: LayoutRow, context: SegContext, segment: int, signature: int) -> int:
    """The HeapKey under which a segment's signature is right."""
    shift = row.offset("constants", "SegmentSignatureShift")
    return (
        signature
        ^ (segment >> shift)
        ^ context.address
        ^ row.offset("constants", "SegmentSignature")
    ) & ((1 << 8 * row.pointer_size) - 1)


def signature_key(
    memory: AddressSpace, row: LayoutRow, context: SegContext, segment: int
) -> int | None:
    """The HeapKey a segment's signature stands for; None when the segment is not in the dump."""
    try:
        signature = row.read_field(memory, "_HEAP_PAGE_SEGMENT", "Signature", segment)
    except MemoryReadError:
        return None
    return segment_key(row, context, segment, signature)


def list_segments(
    memory: AddressSpace, row: LayoutRow, context: SegContext, key: int | None, log: DiagnosticLog
) -> list[int]:
    """Addresses of a context's segments, ascending.

    When the list does not close, all memory is searched for segments that bear the context's signature, so
    a cut list costs no segment that is in the dump.
    """
    nodes, trouble = list_nodes(memory, context.list_head, row.pointer_size)
    mask = context.segment_bytes - 1
    segments = {node for node in nodes if not node & mask}
    lost = max(context.segment_count - len(segments), 0)
    if trouble is not None or lost:
        found: set[int] = set()
        if key is not None:
            found = {
                place
                for place in possible_segments(memory, context)
                if signature_key(memory, row, context, place) == key
            } - segments
        segments |= found
        reason = trouble or f"it holds {len(nodes)} of {context.segment_count} segments"
        still = max(context.segment_count - len(segments), 0)
        log.add(
            "segment-list-broken",
            Severity.WARNING,
            "_HEAP_SEG_CONTEXT.SegmentListHead",
            context.list_head,
            f"{reason}; {len(found)} segments found by their signature, {still} missing",
            still * context.segment_bytes if trouble is not None else 0,
        )
    return sorted(segments)


def possible_segments(memory: AddressSpace, context: SegContext) -> Iterator[int]:
    """All addresses in the dump where a segment of this context could start."""
    step = context.segment_bytes
    pieces = memory.extents(0, ADDRESS_LIMIT)
    for address, size in zip(pieces.address.tolist(), pieces.size.tolist(), strict=True):
        yield from range(-(-address // step) * step, address + size, step)
