"""Segment heap, how the descriptors of one page segment tile it: each first one says how far its range goes.

Those of the other units count their distance from it, which is how damage to either is found. Those that are
not in the dump speak neither for a range nor against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from windumps.arrays import I64, U8
from windumps.heaps.segment.contexts import UNITS, SegContext


class Use(IntEnum):
    """What a page range is; the last four do not start one."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    UNKNOWN = 4
    INSIDE = 5  # of an allocated range
    FREE_INSIDE = 6
    DAMAGED = 7
    ABSENT = 8


@dataclass
class Tiling:
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

    def give_up(self, unit: int) -> None:
        """Makes a range of one unit a gap; nothing where no range begins."""
        if unit in self.starts and self.lengths[at := self.starts.index(unit)] == 1:
            del self.starts[at], self.lengths[at]
            self.gaps.append((unit, unit + 1))


def tile_all(
    uses: U8, sizes: I64, offsets: I64, pages: I64, context: SegContext, pages_above: int
) -> list[Tiling]:
    """Each segment's ranges, one row of descriptors a segment; see `tile`.

    Where all descriptors of a segment agree that is seen at once; only the others are hopped over.
    """
    width = UNITS - context.first_unit
    use, size, offset, held = (
        column[:, context.first_unit :].ravel() for column in (uses, sizes, offsets, pages)
    )
    starts = use <= Use.UNKNOWN
    begins = starts.copy()
    begins[::width] = True
    at = np.flatnonzero(begins)
    length = np.diff(at, append=len(use))
    is_free, is_single = use[at] == Use.FREE, use[at] == Use.PAGES
    wrong = ~starts[at] | (size[at] != length)
    wrong |= is_single & (
        (length << context.unit_shift <= pages_above) | (held[at + length - 1] == 0)
    )
    inner = np.repeat(np.where(is_free, Use.FREE_INSIDE, Use.INSIDE), length)
    into = np.arange(len(use)) - np.repeat(at, length)
    agree = starts | ((use == inner) & ((inner == Use.FREE_INSIDE) | (offset == into)))
    doubtful = ~agree.reshape(-1, width).all(axis=1)
    doubtful[at[wrong] // width] = True
    edges = np.searchsorted(at, np.arange(len(uses) + 1) * width).tolist()
    units = (at % width + context.first_unit).tolist()
    lengths = length.tolist()
    return [
        tile(uses[row], sizes[row], offsets[row], pages[row], context, pages_above)
        if hard
        else Tiling(units[first:end], lengths[first:end])
        for row, (hard, first, end) in enumerate(
            zip(doubtful.tolist(), edges[:-1], edges[1:], strict=True)
        )
    ]


def tile(
    uses: U8, sizes: I64, offsets: I64, pages: I64, context: SegContext, pages_above: int
) -> Tiling:
    """Hops over one segment's descriptors; single blocks of at most `pages_above` are not believed."""
    use_of, size_of, offset_of = uses.tolist(), sizes.tolist(), offsets.tolist()
    page_count = pages.tolist()
    tiling = Tiling()
    unit = context.first_unit
    while unit < UNITS:
        length = _range_length(unit, use_of, size_of, offset_of)
        end = unit + length
        if use_of[unit] == Use.PAGES and length:
            # Such a range is large and committed to its end, else it is something else's, damaged.
            # Nothing in it proves it, so that no other descriptor may stand in for its first one.
            large = length << context.unit_shift > pages_above
            if not large or not page_count[end - 1] or length != size_of[unit]:
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
    free = use_of[unit] == Use.FREE
    expected = Use.FREE_INSIDE if free else Use.INSIDE
    wrong = 0
    for k in range(1, length):
        use = use_of[unit + k]
        if use != Use.ABSENT:
            wrong += use != expected or (not free and offset_of[unit + k] != k)
    return wrong


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
