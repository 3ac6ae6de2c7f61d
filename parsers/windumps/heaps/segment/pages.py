"""Segment heap, the back end: page segments and the ranges their descriptors describe.

A page segment starts with 256 descriptors, one a unit. The first descriptor of a range tells its use and
length; those of the other units count their distance from it, which is how damage to either is found.
Each descriptor also says how many pages of its unit are committed: that, and not readability, is what the
heap holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment.contexts import UNITS, SegContext
from windumps.heaps.segment.tiling import Use, tile_all
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


def _unconfirmed(
    uses: U8, first: NDArray[np.void], length: I64, context: SegContext
) -> NDArray[np.bool_]:
    """Blocks of one unit whose descriptor, the only one, says that more is unused than there is.

    Those of more units are confirmed by the descriptors of the others.
    """
    lone: NDArray[np.bool_] = (uses == Use.PAGES) & (length == 1)
    lone &= first["UnusedBytes"] > 1 << context.unit_shift
    return lone


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
    known: list[NDArray[np.bool_]] = []
    for address in addresses:
        table, here = _descriptors(memory, address, dtype)
        if not here.all():
            log.add(
                "segment-absent",
                Severity.WARNING,
                "_HEAP_PAGE_SEGMENT",
                address,
                f"{int((~here).sum())} descriptors of the segment at 0x{address:x} are not in the dump",
                context.segment_bytes * int((~here).sum()) // UNITS,
            )
        if not here[context.first_unit :].any():
            # What is in the dump was committed; what else was, nobody says.
            lost_bytes += memory.present_bytes(address, address + context.segment_bytes)
            continue
        readable.append(address)
        tables.append(table)
        known.append(here)
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
    for index, here in enumerate(known):
        for unit in np.flatnonzero(~here).tolist():
            if unit >= context.first_unit:
                start = readable[index] + (unit << context.unit_shift)
                uses[index, unit] = Use.ABSENT
                pages[index, unit] = memory.bytes_from(start, 1 << context.unit_shift) >> PAGE_SHIFT
    # A range that holds a subsegment has its header, whatever its descriptor's commit count says.
    headless = ((uses == Use.LFH) | (uses == Use.VS)) & (pages == 0)
    pages[headless] = 1
    commit = CommitMap(bases, context, pages)
    sizes = descriptors["UnitSize"].astype(np.int64)
    offsets = descriptors["UnitOffset"].astype(np.int64)
    rows_of: list[int] = []
    units_of: list[int] = []
    lengths_of: list[int] = []
    above = row.offset("constants", "PagesAbove")
    for index, tiling in enumerate(tile_all(uses, sizes, offsets, pages, context, above)):
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
            lost = int(pages[index, first:end].sum()) * PAGE_SIZE
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
    lone = _unconfirmed(uses[segment, first_units], chosen, np.array(lengths_of, np.int64), context)
    for index, unit in zip(segment[lone].tolist(), first_units[lone].tolist(), strict=True):
        lost = int(pages[index, unit]) * PAGE_SIZE
        lost_bytes += lost
        low = readable[index] + (unit << context.unit_shift)
        absent += absent_bytes(memory, low, low + (1 << context.unit_shift), lost)
        log.add(
            "page-range-damaged",
            Severity.WARNING,
            "_HEAP_PAGE_RANGE_DESCRIPTOR",
            readable[index] + unit * dtype.itemsize,
            f"descriptor {unit} of the segment at 0x{readable[index]:x} makes a block with more unused bytes "
            "than it has",
            lost,
        )
    segment, first_units, chosen = segment[~lone], first_units[~lone], chosen[~lone]
    lengths = np.array(lengths_of, np.int64)[~lone]
    starts_at = bases[segment] + (first_units << context.unit_shift).astype(np.uint64)
    length = lengths << context.unit_shift
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
        int(pages[:, : context.first_unit].sum()) * PAGE_SIZE,
        lost_bytes,
        absent,
        ranges,
        commit,
    )
