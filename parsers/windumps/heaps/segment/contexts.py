"""Segment heap, the back-end contexts and their lists of page segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from windumps.arrays import ADDRESS_LIMIT
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.memory.lists import list_nodes

UNITS = 256  # descriptors, hence units, of a page segment
CONTEXT_SEARCH_BYTES = 0x800
_UNIT_SHIFTS = (12, 16)  # small and large segments, on every build seen


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
        damage: What of it contradicts the rest; "" when nothing does.
    """

    index: int
    address: int
    segment_bytes: int
    unit_shift: int
    first_unit: int
    list_head: int
    segment_count: int
    damage: str


def read_contexts(memory: AddressSpace, row: LayoutRow, heap: int) -> list[SegContext]:
    """The heap's contexts as one layout has them; those that make no sense are left out.

    Where a layout's contexts are not at their place, the header is searched for them: between some builds
    nothing but that place differs.

    Raises:
        MemoryReadError: the heap's header is not in the dump.
    """
    count = row.offset("constants", "Contexts")
    usual = row.offset("_SEGMENT_HEAP", "SegContexts")
    step = row.size("_HEAP_SEG_CONTEXT")
    found = [_read_context(memory, row, heap, heap + usual + i * step, i) for i in range(count)]
    usable = [context for context in found if context is not None]
    if len([c for c in usable if not c.damage]) == count or not row.has(
        "_HEAP_SEG_CONTEXT", "Heap"
    ):
        return usable
    for place in range(0, CONTEXT_SEARCH_BYTES, row.pointer_size):
        found = [_read_context(memory, row, heap, heap + place + i * step, i) for i in range(count)]
        sound = [context for context in found if context is not None and not context.damage]
        if len(sound) == count:
            return sound
    return usable


def _read_context(
    memory: AddressSpace, row: LayoutRow, heap: int, address: int, index: int
) -> SegContext | None:
    """One context; its mask, its unit shift and its pointer to the heap say the same thrice."""
    name = "_HEAP_SEG_CONTEXT"
    head = address + row.offset(name, "SegmentListHead")
    count = row.read_field(memory, name, "SegmentCount", address)
    if not row.has(name, "SegmentMask"):
        shift, first = (
            row.offset("constants", key) for key in ("UnitShift", "FirstDescriptorIndex")
        )
        return SegContext(index, address, UNITS << shift, shift, first, head, count, "")
    mask, shift, first, back = (
        row.read_field(memory, name, key, address)
        for key in ("SegmentMask", "UnitShift", "FirstDescriptorIndex", "Heap")
    )
    unit_by_mask = ((1 << 8 * row.pointer_size) - mask) // UNITS
    units = {1 << usual for usual in _UNIT_SHIFTS} & {unit_by_mask, 1 << min(shift, 63)}
    if len(units) != 1:
        return None
    (unit,) = units
    expected = max(row.size("_HEAP_PAGE_SEGMENT") // unit, 1)
    good = {
        "SegmentMask": unit_by_mask == unit,
        "UnitShift": 1 << min(shift, 63) == unit,
        "FirstDescriptorIndex": first == expected,
        "Heap": back == heap,
    }
    wrong = [field for field, agrees in good.items() if not agrees]
    if len(wrong) > 1:
        return None
    shift = unit.bit_length() - 1
    damage = (
        f"{', '.join(wrong)} of the context at 0x{address:x} contradict the rest" if wrong else ""
    )
    return SegContext(index, address, UNITS << shift, shift, expected, head, count, damage)


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
        found |= _named_twice(memory, row, context, nodes) - segments
        segments |= found
        reason = trouble or f"it holds {len(nodes)} of {context.segment_count} segments"
        still = max(context.segment_count - len(segments), 0)
        log.add(
            "segment-list-broken",
            Severity.WARNING,
            "_HEAP_SEG_CONTEXT.SegmentListHead",
            context.list_head,
            f"{reason}; {len(found)} segments found without it, {still} missing",
            still * context.segment_bytes if trouble is not None else 0,
        )
    return sorted(segments)


def _named_twice(
    memory: AddressSpace, row: LayoutRow, context: SegContext, nodes: list[int]
) -> set[int]:
    """Segments whose own links are not in the dump, and whose neighbours in the list both name them."""
    pointer = row.pointer_size
    ahead, back = (
        {
            memory.read_uint(node + link, pointer)
            for node in [context.list_head, *nodes]
            if memory.bytes_from(node + link, pointer) == pointer
        }
        for link in (0, pointer)
    )
    mask = context.segment_bytes - 1
    return {
        place
        for place in ahead & back
        if place and not place & mask and memory.bytes_from(place, 1) == 0
    }


def possible_segments(memory: AddressSpace, context: SegContext) -> Iterator[int]:
    """All addresses in the dump where a segment of this context could start."""
    step = context.segment_bytes
    pieces = memory.extents(0, ADDRESS_LIMIT)
    for address, size in zip(pieces.address.tolist(), pieces.size.tolist(), strict=True):
        yield from range(-(-address // step) * step, address + size, step)
