"""Segment heap, the back end: page segments and the ranges their descriptors describe.

A page segment starts with 256 descriptors, one a unit. The first descriptor of a range tells its use and
length; those of the other units count their distance from it, which is how damage to either is found.
Each descriptor also says how many pages of its unit are committed: that, and not readability, is what the
heap holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment.contexts import UNITS, SegContext
from windumps.heaps.segment.tiling import Tiling, Use, tile_all
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

PAGE_SHIFT = 12
SEGMENTS_A_BATCH = 8
BATCH_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 24
MOST_UNUSED = 0x10100  # of a block of whole units, what is the heap's own included


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
    aligned = not (committed | reserved) & (PAGE_SIZE - 1)
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
        part = into & (PAGE_SIZE - 1)
        inside = self._page[np.minimum(page, len(self._page) - 1)]
        result: I64 = self._before[page] * PAGE_SIZE + np.where(inside, part, 0)
        return result

    def committed_bytes(self, start: U64, size: I64) -> I64:
        """Committed bytes of each [start, start + size); each lies in one segment of the batch."""
        segment = np.searchsorted(self._segments, start, "right") - 1
        end = start + size.astype(np.uint64)
        return self._below(end, segment) - self._below(start, segment)

    def committed_blocks(self, start: U64, size: I64, owner: I64, whole: NDArray[np.bool_]) -> I64:
        """Committed bytes of blocks in page ranges, which cost nothing where ranges are `whole`.

        Args:
            start: uint64, of blocks.
            size: int64, their bytes.
            owner: int64, the range each lies in.
            whole: bool, a row for each range: all of it is committed.
        """
        if whole.all():
            return size
        committed = size.copy()
        rows = np.flatnonzero(~whole[owner])
        committed[rows] = self.committed_bytes(start[rows], size[rows])
        return committed


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


def _descriptors(
    memory: AddressSpace, address: int, dtype: np.dtype[np.void]
) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
    """A segment's descriptors, zeros where they are absent, and which are in the dump."""
    size = UNITS * dtype.itemsize
    raw, held = np.zeros(size, np.uint8), np.zeros(size, np.bool_)
    pieces_ = memory.extents(address, address + size)
    for start, count, offset in zip(*(column.tolist() for column in pieces_), strict=True):
        at = start - address
        raw[at : at + count] = memory.data[offset : offset + count]
        held[at : at + count] = True
    whole: NDArray[np.bool_] = held.reshape(UNITS, dtype.itemsize).min(axis=1)
    return raw.view(dtype), whole


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


class _Tables(NamedTuple):
    """Descriptors of the segments of a batch that are in the dump, a row a segment.

    Attributes:
        segments: uint64, their addresses.
        descriptors: As they stand in memory; zeros where they are absent.
        held: bool, which are in the dump.
        lost_bytes: What is in the dump of segments without any.
    """

    segments: U64
    descriptors: NDArray[np.void]
    held: NDArray[np.bool_]
    lost_bytes: int


def _read_tables(
    memory: AddressSpace,
    row: LayoutRow,
    context: SegContext,
    addresses: list[int],
    log: DiagnosticLog,
) -> _Tables:
    dtype = _descriptor_dtype(row)
    lost_bytes = 0
    found = []
    for address in addresses:
        table, held = _descriptors(memory, address, dtype)
        absent = int((~held).sum())
        if absent:
            log.add(
                "segment-absent",
                Severity.WARNING,
                "_HEAP_PAGE_SEGMENT",
                address,
                f"{absent} descriptors of the segment at 0x{address:x} are not in the dump",
                context.segment_bytes * absent // UNITS,
            )
        if held[context.first_unit :].any():
            found.append((address, table, held))
        else:
            # What is in the dump was committed; what else was, nobody says.
            lost_bytes += memory.present_bytes(address, address + context.segment_bytes)
    shape = len(found), UNITS
    return _Tables(
        np.array([address for address, _, _ in found], np.uint64),
        np.array([table for _, table, _ in found], dtype).reshape(shape),
        np.array([held for _, _, held in found], np.bool_).reshape(shape),
        lost_bytes,
    )


def _committed_pages(row: LayoutRow, context: SegContext, descriptors: NDArray[np.void]) -> I64:
    """int64: committed pages of each unit, as its descriptor says."""
    per_unit = 1 << (context.unit_shift - PAGE_SHIFT)
    counted = descriptors["CommittedPageCount"].astype(np.int64)
    counted >>= row.offset("constants", "CommitShift")
    pages: I64 = np.minimum(counted & row.offset("constants", "CommitMask"), per_unit)
    # The units in front hold the descriptors themselves, whose own entries are overlaid.
    header_pages = row.size("_HEAP_PAGE_SEGMENT") >> PAGE_SHIFT
    for unit in range(context.first_unit):
        pages[:, unit] = min(max(header_pages - unit * per_unit, 0), per_unit)
    return pages


def _read_batch(
    memory: AddressSpace,
    row: LayoutRow,
    context: SegContext,
    addresses: list[int],
    log: DiagnosticLog,
) -> SegmentBatch:
    tables = _read_tables(memory, row, context, addresses, log)
    shift = context.unit_shift
    pages = _committed_pages(row, context, tables.descriptors)
    uses = _uses(row, tables.descriptors, context.first_unit)
    for index, unit in np.argwhere(~tables.held).tolist():
        if unit >= context.first_unit:
            start = int(tables.segments[index]) + (unit << shift)
            uses[index, unit] = Use.ABSENT
            pages[index, unit] = memory.bytes_from(start, 1 << shift) >> PAGE_SHIFT
    # A range that holds a subsegment has its header, whatever its descriptor's commit count says.
    headless = ((uses == Use.LFH) | (uses == Use.VS)) & (pages == 0)
    pages[headless] = 1
    commit = CommitMap(tables.segments, context, pages)
    sizes, offsets = (
        tables.descriptors[name].astype(np.int64) for name in ("UnitSize", "UnitOffset")
    )
    above = row.offset("constants", "PagesAbove")
    tilings = list(tile_all(uses, sizes, offsets, pages, context, above))
    for index, tiling in enumerate(tilings):
        tiling.repaired += np.flatnonzero(headless[index]).tolist()
    # A block of one unit has a single descriptor, and nothing confirms it: what it says must be possible.
    wrong = (uses == Use.PAGES) & (sizes == 1) & (tables.descriptors["UnusedBytes"] > 1 << shift)
    for index, unit in np.argwhere(wrong).tolist():
        tilings[index].give_up(unit)
    lost_bytes, absent = _lost(memory, context, tables, tilings, pages, log)
    counts = np.array([len(tiling.starts) for tiling in tilings], np.int64)
    segment = np.repeat(np.arange(len(tilings), dtype=np.int64), counts)
    first = np.array([unit for tiling in tilings for unit in tiling.starts], np.int64)
    units = np.array([count for tiling in tilings for count in tiling.lengths], np.int64)
    chosen = tables.descriptors[segment, first]
    unused = chosen["UnusedBytes"]
    address = tables.segments[segment] + (first << shift).astype(np.uint64)
    ranges = PageRanges(
        address,
        units << shift,
        uses[segment, first],
        np.where(unused < MOST_UNUSED, unused.astype(np.int64), SIZE_UNKNOWN),
        (chosen["ExtraPresent"] & 1) != 0,
        commit.committed_bytes(address, units << shift),
    )
    return SegmentBatch(
        addresses,
        int(pages[:, : context.first_unit].sum()) * PAGE_SIZE,
        tables.lost_bytes + lost_bytes,
        absent,
        ranges,
        commit,
    )


def _lost(
    memory: AddressSpace,
    context: SegContext,
    tables: _Tables,
    tilings: list[Tiling],
    pages: I64,
    log: DiagnosticLog,
) -> tuple[int, int]:
    """Committed bytes in units that no range explains, and how many of them are not in the dump.

    Says what was repaired, too.
    """
    lost_bytes = absent = 0
    size = tables.descriptors.dtype.itemsize
    for index, (tiling, segment) in enumerate(zip(tilings, tables.segments.tolist(), strict=True)):
        for first in tiling.repaired:
            log.add(
                "page-range-repaired",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                segment + first * size,
                f"a descriptor of the range at unit {first} of the segment at "
                f"0x{segment:x} was wrong; what else is there tells how",
            )
        for first, end in tiling.gaps:
            lost = int(pages[index, first:end].sum()) * PAGE_SIZE
            lost_bytes += lost
            low, high = (segment + (edge << context.unit_shift) for edge in (first, end))
            absent += absent_bytes(memory, low, high, lost)
            log.add(
                "page-range-damaged",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                segment + first * size,
                f"descriptors {first} to {end - 1} of the segment at 0x{segment:x} "
                "contradict each other or themselves",
                lost,
            )
    return lost_bytes, absent
