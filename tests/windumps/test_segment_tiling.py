"""How the descriptors of many page segments are told at once, against hopping over each."""

from __future__ import annotations

import numpy as np

from windumps.heaps.segment.contexts import UNITS, SegContext
from windumps.heaps.segment.tiling import Use, tile, tile_all
from windumps.memory.address_space import values_at

CONTEXT = SegContext(0, 0x1000, UNITS << 12, 12, 2, 0x1000, 40, "")
SEGMENTS = 40
PAGES_ABOVE = 0x4000


def _descriptors(random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Sound descriptors: uses, sizes, offsets and committed pages of segments full of ranges."""
    uses = np.full((SEGMENTS, UNITS), Use.INSIDE, np.uint8)
    sizes, offsets, pages = (np.zeros((SEGMENTS, UNITS), np.int64) for _ in range(3))
    pages[:] = 1
    for row in range(SEGMENTS):
        unit = 2
        while unit < UNITS:
            length = min(int(random.integers(1, 20)), UNITS - unit)
            use = Use(int(random.choice([Use.FREE, Use.PAGES, Use.LFH, Use.VS])))
            if use == Use.PAGES and length << 12 <= PAGES_ABOVE:
                use = Use.VS
            end = unit + length
            uses[row, unit:end] = Use.FREE_INSIDE if use == Use.FREE else Use.INSIDE
            uses[row, unit], sizes[row, unit] = use, length
            offsets[row, unit:end] = np.arange(length)
            unit = end
    return uses, sizes, offsets, pages


def test_segments_told_at_once_have_the_ranges_that_hopping_over_each_finds() -> None:
    random = np.random.default_rng(5)
    uses, sizes, offsets, pages = _descriptors(random)
    for row in range(0, SEGMENTS, 2):  # every second one is damaged
        for _ in range(int(random.integers(1, 40))):
            column, highest = [(uses, 9), (sizes, 30), (offsets, 30), (pages, 2)][
                int(random.integers(4))
            ]
            column[row, int(random.integers(2, UNITS))] = int(random.integers(highest))
    found = tile_all(uses, sizes, offsets, pages, CONTEXT, PAGES_ABOVE)
    hopped = [
        tile(uses[row], sizes[row], offsets[row], pages[row], CONTEXT, PAGES_ABOVE)
        for row in range(SEGMENTS)
    ]
    assert found == hopped
    assert all(not tiling.gaps and not tiling.repaired for tiling in found[1::2])
    assert any(tiling.gaps for tiling in found[::2])
    assert any(tiling.repaired for tiling in found[::2])


def test_values_are_the_same_at_aligned_and_at_other_offsets() -> None:
    data = np.random.default_rng(6).integers(0, 256, 259, np.uint8)
    for dtype, size in (("<u8", 8), ("<u4", 4), ("<u2", 2), ("V3", 3)):
        last = len(data) - size
        aligned = np.arange(0, last // size * size + 1, size)
        for offsets in (aligned, np.arange(last + 1), np.empty(0, np.int64)):
            expected = [data[at : at + size].tobytes() for at in offsets.tolist()]
            assert [value.tobytes() for value in values_at(data, offsets, dtype)] == expected
