"""Segment heap, the back end: page segments and the ranges their descriptors describe.

A page segment starts with 256 descriptors, one a unit. The first descriptor of a range tells its use and
length; those of the other units count their distance from it, which is how damage to either is found.
Each descriptor also says how many pages of its unit are committed: that, and not readability, is what the
heap holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.heaps.segment_contexts import UNITS, SegContext
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

PAGE = 0x1000
PAGE_SHIFT = 12
SEGMENTS_A_BATCH = 8
BATCH_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 24
MOST_UNUSED = 0x10100  # of a block of whole units, what is the heap's own included


class Use(IntEnum):
    """What a page range is; the last three do not start one."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    UNKNOWN = 4
    INSIDE = 5  # of an allocated range
    FREE_INSIDE = 6
    DAMAGED = 7


def pieces(size: I64) -> Iterator[slice]:
    """Slices over ranges of `size` bytes that hold about `BATCH_BYTES` each, and one range at least."""
    total = np.cumsum(size)
    start = 0
    while start < len(size):
        before = int(total[start - 1]) if start else 0
        end = max(int(np.searchsorted(total, before + BATCH_BYTES, "right")), start + 1)
        yield slice(start, end)
        start = end


def absent_bytes(memory: AddressSpace, start: int, end: int, committed: int) -> int:
    """How many of a range's committed bytes are not in the dump."""
    return max(committed - memory.present_bytes(start, end), 0)


def header_bytes(memory: AddressSpace, row: LayoutRow, heap: int) -> tuple[int, int]:
    """Committed and reserved bytes of the heap's own region; zeros where its fields make no sense."""
    committed, reserved = (
        row.read_field(memory, "_SEGMENT_HEAP", name, heap) - heap
        for name in ("UncommittedBase", "ReservedLimit")
    )
    aligned = not (committed | reserved) & (PAGE - 1)
    if aligned and 0 < committed <= reserved <= MAX_HEADER_BYTES:
        return committed, reserved
    return 0, 0


class CommitMap:
    """Which pages of a batch of equal segments the heap has committed.

    Args:
        segments: uint64, ascending segment addresses.
        context: Their context.
        pages: int64 (segments, units), committed pages of each unit, from its start.
    """

    def __init__(self, segments: U64, context: SegContext, pages: I64) -> None:
        self._segments = segments
        per_unit = 1 << (context.unit_shift - PAGE_SHIFT)
        self._per_segment = UNITS * per_unit
        committed = np.arange(per_unit, dtype=np.int64) < pages[:, :, None]
        self._page = committed.reshape(-1)
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._page)])

    def _below(self, address: U64, segment: I64) -> I64:
        """Committed bytes of the batch in front of each address, which lies in or just behind `segment`."""
        into = (address - self._segments[segment]).astype(np.int64)
        page = segment * self._per_segment + (into >> PAGE_SHIFT)
        part = into & (PAGE - 1)
        inside = self._page[np.minimum(page, len(self._page) - 1)]
        result: I64 = self._before[page] * PAGE + np.where(inside, part, 0)
        return result

    def committed_bytes(self, start: U64, size: I64) -> I64:
        """Committed bytes of each [start, start + size); each lies in one segment of the batch."""
        segment = np.searchsorted(self._segments, start, "right") - 1
        end = start + size.astype(np.uint64)
        return self._below(end, segment) - self._below(start, segment)


@dataclass(frozen=True)
class PageRanges:
    """Page ranges, ascending, as columns.

    Attributes:
        address: uint64.
        size: int64, bytes of address space.
        use: uint8, `Use`.
        unused: int64, UnusedBytes of the first descriptor; `SIZE_UNKNOWN` where that cannot be right.
        extra: bool, ExtraPresent.
        committed: int64, bytes.
    """

    address: U64
    size: I64
    use: U8
    unused: I64
    extra: NDArray[np.bool_]
    committed: I64


@dataclass(frozen=True)
class SegmentBatch:
    """Some segments of one context, decoded.

    Attributes:
        segments: Their addresses, also of those that cannot be read.
        header_bytes: Committed bytes in front of the first unit of all of them.
        lost_bytes: Committed bytes in units whose descriptors are damaged or absent.
        absent_bytes: Those of them that are not in the dump.
        ranges: The page ranges.
        commit: Their pages.
    """

    segments: list[int]
    header_bytes: int
    lost_bytes: int
    absent_bytes: int
    ranges: PageRanges
    commit: CommitMap


def read_segments(
    memory: AddressSpace,
    row: LayoutRow,
    context: SegContext,
    segments: list[int],
    log: DiagnosticLog,
) -> Iterator[SegmentBatch]:
    """Decodes the descriptors of segments, some segments at a time."""
    for start in range(0, len(segments), SEGMENTS_A_BATCH):
        yield _read_batch(memory, row, context, segments[start : start + SEGMENTS_A_BATCH], log)


def _descriptor_dtype(row: LayoutRow) -> np.dtype[np.void]:
    name = "_HEAP_PAGE_RANGE_DESCRIPTOR"
    names = [
        "UnusedBytes",
        "ExtraPresent",
        "RangeFlags",
        "CommittedPageCount",
        "UnitSize",
        "UnitOffset",
    ]
    return np.dtype(
        {
            "names": names,
            "formats": [f"<u{row.field_size(name, field)}" for field in names],
            "offsets": [row.offset(name, field) for field in names],
            "itemsize": row.size(name),
        }
    )


def _uses(row: LayoutRow, descriptors: NDArray[np.void], first_unit: int) -> U8:
    """uint8 per descriptor: its `Use`, by RangeFlags alone.

    TreeSignature tells nothing: it stays behind when two ranges become one.
    """

    def flag(name: str) -> int:
        return row.offset("constants", f"Flag{name}")

    flags = descriptors["RangeFlags"] & flag("Mask")
    first = flag("Allocated") | flag("First")
    uses = np.where((flags & first) == first, Use.UNKNOWN, Use.DAMAGED).astype(np.uint8)
    for value, use in (
        (0, Use.FREE_INSIDE),
        (flag("First"), Use.FREE),
        (flag("Allocated"), Use.INSIDE),
        (flag("Pages"), Use.PAGES),
        (flag("Lfh"), Use.LFH),
        (flag("Vs"), Use.VS),
    ):
        uses[flags == value] = use
    uses[..., :first_unit] = Use.INSIDE
    return uses


def _read_batch(
    memory: AddressSpace,
    row: LayoutRow,
    context: SegContext,
    addresses: list[int],
    log: DiagnosticLog,
) -> SegmentBatch:
    dtype = _descriptor_dtype(row)
    lost_bytes = absent = 0
    readable = []
    tables = []
    for address in addresses:
        try:
            raw = memory.view(address, UNITS * dtype.itemsize)
        except MemoryReadError as error:
            log.add(
                "segment-absent",
                Severity.WARNING,
                "_HEAP_PAGE_SEGMENT",
                address,
                f"the descriptors of the segment at 0x{address:x} cannot be read: {error}",
                context.segment_bytes,
            )
            # What is in the dump was committed; what else was, nobody says.
            lost_bytes += memory.present_bytes(address, address + context.segment_bytes)
            continue
        readable.append(address)
        tables.append(np.frombuffer(raw, dtype))
    bases = np.array(readable, np.uint64)
    descriptors = np.array(tables, dtype).reshape(len(readable), UNITS)
    per_unit = 1 << (context.unit_shift - PAGE_SHIFT)
    pages = (
        descriptors["CommittedPageCount"].astype(np.int64) >> row.offset("constants", "CommitShift")
    ) & row.offset("constants", "CommitMask")
    pages = np.minimum(pages, per_unit)
    # The units in front hold the descriptors themselves, whose own entries are overlaid.
    header_pages = row.size("_HEAP_PAGE_SEGMENT") >> PAGE_SHIFT
    for unit in range(context.first_unit):
        pages[:, unit] = min(max(header_pages - unit * per_unit, 0), per_unit)
    uses = _uses(row, descriptors, context.first_unit)
    # A range that holds a subsegment has its header, whatever its descriptor's commit count says.
    headless = ((uses == Use.LFH) | (uses == Use.VS)) & (pages == 0)
    pages[headless] = 1
    commit = CommitMap(bases, context, pages)
    sizes = descriptors["UnitSize"].astype(np.int64)
    offsets = descriptors["UnitOffset"].astype(np.int64)
    rows_of: list[int] = []
    units_of: list[int] = []
    lengths_of: list[int] = []
    for index in range(len(readable)):
        above = row.offset("constants", "PagesAbove")
        tiling = _tile(uses[index], sizes[index], offsets[index], pages[index], context, above)
        tiling.repaired += np.flatnonzero(headless[index]).tolist()
        rows_of += [index] * len(tiling.starts)
        units_of += tiling.starts
        lengths_of += tiling.lengths
        for first in tiling.repaired:
            log.add(
                "page-range-repaired",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                readable[index] + first * dtype.itemsize,
                f"a descriptor of the range at unit {first} of the segment at "
                f"0x{readable[index]:x} was wrong; what else is there tells how",
            )
        for first, end in tiling.gaps:
            lost = int(pages[index, first:end].sum()) * PAGE
            lost_bytes += lost
            low, high = (readable[index] + (edge << context.unit_shift) for edge in (first, end))
            absent += absent_bytes(memory, low, high, lost)
            log.add(
                "page-range-damaged",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                readable[index] + first * dtype.itemsize,
                f"descriptors {first} to {end - 1} of the segment at 0x{readable[index]:x} "
                "contradict each other or themselves",
                lost,
            )
    segment, first_units = np.array(rows_of, np.int64), np.array(units_of, np.int64)
    chosen = descriptors[segment, first_units]
    starts_at = bases[segment] + (first_units << context.unit_shift).astype(np.uint64)
    length = np.array(lengths_of, np.int64) << context.unit_shift
    ranges = PageRanges(
        starts_at,
        length,
        uses[segment, first_units],
        np.where(
            chosen["UnusedBytes"] < MOST_UNUSED,
            chosen["UnusedBytes"].astype(np.int64),
            SIZE_UNKNOWN,
        ),
        (chosen["ExtraPresent"] & 1) != 0,
        commit.committed_bytes(starts_at, length),
    )
    return SegmentBatch(
        addresses,
        int(pages[:, : context.first_unit].sum()) * PAGE,
        lost_bytes,
        absent,
        ranges,
        commit,
    )


@dataclass
class _Tiling:
    """One segment's ranges.

    Attributes:
        starts: First unit of each.
        lengths: Units of each.
        repaired: First units of ranges where one descriptor contradicted the others and was outvoted.
        gaps: [first, end) of the units that belong to none.
    """

    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    repaired: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)


def _tile(
    uses: U8, sizes: I64, offsets: I64, pages: I64, context: SegContext, pages_above: int
) -> _Tiling:
    """Hops over one segment's descriptors; single blocks of at most `pages_above` are not believed."""
    use_of, size_of, offset_of = uses.tolist(), sizes.tolist(), offsets.tolist()
    page_count = pages.tolist()
    tiling = _Tiling()
    unit = context.first_unit
    while unit < UNITS:
        length = _range_length(unit, use_of, size_of, offset_of)
        end = unit + length
        if use_of[unit] == Use.PAGES and length:
            # Such a range is large and committed to its end, else it is something else's, damaged.
            large = length << context.unit_shift > pages_above
            if not large or not page_count[end - 1]:
                tiling.gaps.append((unit, end))
                unit = end
                continue
        if length:
            tiling.starts.append(unit)
            tiling.lengths.append(length)
            if length != size_of[unit] or _against(unit, length, use_of, offset_of):
                tiling.repaired.append(unit)
            unit = end
            continue
        end = unit + 1
        while end < UNITS and (
            use_of[end] == Use.FREE or not _range_length(end, use_of, size_of, offset_of)
        ):
            end += 1
        tiling.gaps.append((unit, end))
        unit = end
    return tiling


def _against(unit: int, length: int, use_of: list[int], offset_of: list[int]) -> int:
    """How many units of a range, but the first, do not say that they belong to it."""
    inner = range(1, length)
    if use_of[unit] == Use.FREE:
        return sum(use_of[unit + k] != Use.FREE_INSIDE for k in inner)
    return sum(use_of[unit + k] != Use.INSIDE or offset_of[unit + k] != k for k in inner)


def _range_length(unit: int, use_of: list[int], size_of: list[int], offset_of: list[int]) -> int:
    """Units of the range that starts at `unit`; 0 when none does.

    A first descriptor's size is believed when at most one of the other units says otherwise; else the other
    units are, when they are consistent and something starts behind them.
    """

    def ends_at(end: int) -> bool:
        return end == UNITS or (end < UNITS and use_of[end] not in (Use.INSIDE, Use.FREE_INSIDE))

    length, use = size_of[unit], use_of[unit]
    if use > Use.UNKNOWN:
        return 0
    if length and ends_at(unit + length):
        tolerated = 1 if length > 2 else 0
        if _against(unit, length, use_of, offset_of) <= tolerated:
            return length
    if use == Use.FREE:
        return 0
    run = 1
    while unit + run < UNITS and use_of[unit + run] == Use.INSIDE and offset_of[unit + run] == run:
        run += 1
    return run if ends_at(unit + run) else 0
