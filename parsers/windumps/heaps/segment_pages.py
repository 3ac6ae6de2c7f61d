"""Segment heap, the back end: page segments and the ranges their descriptors describe.

A page segment starts with 256 descriptors, one a unit. The first descriptor of a range tells its use and
length; those of the other units count their distance from it, which is how damage to either is found.
Each descriptor also says how many pages of its unit are committed: that, and not readability, is what the
heap holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

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
RANGE_SIGNATURE = 0xCCDDCCDD  # TreeSignature of the first descriptor of an allocated range
SEGMENTS_A_BATCH = 8
BATCH_BYTES = 1 << 20


class Use(IntEnum):
    """What a page range is."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    INTERNAL = 4
    INTERIOR = 5  # not the first unit of an allocated range


def pieces(size: I64) -> Iterator[slice]:
    """Slices over ranges of `size` bytes that hold about `BATCH_BYTES` each, and one range at least."""
    total = np.cumsum(size)
    start = 0
    while start < len(size):
        before = int(total[start - 1]) if start else 0
        end = max(int(np.searchsorted(total, before + BATCH_BYTES, "right")), start + 1)
        yield slice(start, end)
        start = end


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
        unused: int64, UnusedBytes of the first descriptor.
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
        segments: How many.
        header_bytes: Committed bytes in front of the first unit of all of them.
        lost_bytes: Committed bytes in units whose descriptors are damaged or absent.
        ranges: The page ranges.
        commit: Their pages.
    """

    segments: int
    header_bytes: int
    lost_bytes: int
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
        "TreeSignature",
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
    """uint8 per descriptor: its `Use`; INTERIOR where an allocated range does not start."""
    flags = descriptors["RangeFlags"] & row.offset("constants", "FlagMask")
    allocated = (flags & row.offset("constants", "FlagAllocated")) != 0
    uses = np.where(allocated, Use.INTERIOR, Use.FREE).astype(np.uint8)
    # A signature alone is nothing: it stays behind when two ranges become one.
    starts = allocated & (descriptors["TreeSignature"] == RANGE_SIGNATURE)
    uses[starts & ((flags & row.offset("constants", "FlagFirst")) != 0)] = Use.INTERNAL
    for name in ("Pages", "Lfh", "Vs"):
        uses[starts & (flags == row.offset("constants", f"Flag{name}"))] = Use[name.upper()]
    uses[..., :first_unit] = Use.INTERIOR
    return uses


def _read_batch(
    memory: AddressSpace,
    row: LayoutRow,
    context: SegContext,
    addresses: list[int],
    log: DiagnosticLog,
) -> SegmentBatch:
    dtype = _descriptor_dtype(row)
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
    commit = CommitMap(bases, context, pages)
    uses = _uses(row, descriptors, context.first_unit)
    sizes = descriptors["UnitSize"].astype(np.int64)
    offsets = descriptors["UnitOffset"].astype(np.int64)
    rows_of: list[int] = []
    units_of: list[int] = []
    lost_bytes = 0
    for index in range(len(readable)):
        starts, gaps = _tile(uses[index], sizes[index], offsets[index], context.first_unit)
        rows_of.extend([index] * len(starts))
        units_of.extend(starts)
        for first, end in gaps:
            lost = int(pages[index, first:end].sum()) * PAGE
            lost_bytes += lost
            log.add(
                "page-range-damaged",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                readable[index] + first * dtype.itemsize,
                f"descriptors {first} to {end - 1} of the segment at 0x{readable[index]:x} "
                "contradict each other",
                lost,
            )
    segment, first_units = np.array(rows_of, np.int64), np.array(units_of, np.int64)
    chosen = descriptors[segment, first_units]
    starts_at = bases[segment] + (first_units << context.unit_shift).astype(np.uint64)
    length = sizes[segment, first_units] << context.unit_shift
    ranges = PageRanges(
        starts_at,
        length,
        uses[segment, first_units],
        chosen["UnusedBytes"].astype(np.int64),
        (chosen["ExtraPresent"] & 1) != 0,
        commit.committed_bytes(starts_at, length),
    )
    return SegmentBatch(
        len(readable),
        int(pages[:, : context.first_unit].sum()) * PAGE,
        lost_bytes,
        ranges,
        commit,
    )


def _tile(
    uses: U8, sizes: I64, offsets: I64, first_unit: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Hops over one segment's descriptors.

    Returns:
        The first units of the ranges, and [first, end) of the units that belong to none.
    """
    use_of, size_of = uses.tolist(), sizes.tolist()
    starts: list[int] = []
    gaps: list[tuple[int, int]] = []
    unit = first_unit
    while unit < UNITS:
        if _starts_range(unit, use_of, size_of, offsets):
            starts.append(unit)
            unit += size_of[unit]
            continue
        end = unit + 1
        while end < UNITS and not (
            use_of[end] not in (Use.FREE, Use.INTERIOR)
            and _starts_range(end, use_of, size_of, offsets)
        ):
            end += 1
        gaps.append((unit, end))
        unit = end
    return starts, gaps


def _starts_range(unit: int, use_of: list[int], size_of: list[int], offsets: I64) -> bool:
    """True when a unit is the first of a range whose other units agree."""
    size = size_of[unit]
    if not 0 < size <= UNITS - unit or use_of[unit] == Use.INTERIOR:
        return False
    inner = slice(unit + 1, unit + size)
    if use_of[unit] == Use.FREE:
        return all(use == Use.FREE for use in use_of[inner])
    return all(use == Use.INTERIOR for use in use_of[inner]) and bool(
        (offsets[inner] == np.arange(1, size)).all()
    )
