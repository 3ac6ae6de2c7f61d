"""Where the XP heap's LFH keeps its subsegments: a second record of which blocks are areas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import U64
from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.layouts.rows import LayoutRow
from windumps.memory.lists import list_nodes

MAX_ZONE = 1 << 16  # bytes; 3F8h were seen


class Subsegments(NamedTuple):
    """Subsegments that have an area, ascending by it.

    Attributes:
        area: uint64, their UserBlocks.
        address: uint64, of the `_HEAP_SUBSEGMENT`.
        whole: False where others may be missing.
    """

    area: U64
    address: U64
    whole: bool


def read_subsegments(context: HeapContext, row: LayoutRow, front_end: int) -> Subsegments:
    """The subsegments in the zones of the LFH at `front_end`; one that is 0 has none."""
    empty = np.empty(0, np.uint64)
    if not front_end:
        return Subsegments(empty, empty, True)
    pointer = context.pointer_size
    zones, trouble = list_nodes(
        context.memory, front_end + row.offset("_LFH_HEAP", "SubSegmentZones"), pointer
    )
    size = row.size("_HEAP_SUBSEGMENT")
    found = [empty]
    for zone in zones:
        first = zone + row.size("_LFH_BLOCK_ZONE")
        try:
            end = row.read_field(context.memory, "_LFH_BLOCK_ZONE", "FreePointer", zone)
        except MemoryReadError as error:
            trouble, end = trouble or str(error), 0
        if not first <= end <= zone + MAX_ZONE or (end - first) % size:
            trouble = trouble or f"the zone at 0x{zone:x} is damaged"
            continue
        found.append(np.arange(first, end, size, dtype=np.uint64))
    address = np.unique(np.concatenate(found))
    record, present = context.memory.gather(
        address, row.dtype("_HEAP_SUBSEGMENT", "LocalInfo", "UserBlocks")
    )
    area = record["UserBlocks"].astype(np.uint64)
    if trouble is None and not (present & (record["LocalInfo"] != 0)).all():
        trouble = "a subsegment in a zone is absent or damaged"
    if trouble is not None:
        context.log.add(
            "lfh-zones-cut",
            Severity.WARNING,
            "_LFH_HEAP.SubSegmentZones",
            front_end,
            f"{trouble}; blocks that may be areas of the LFH are not walked",
        )
    area, at = np.unique(area, return_index=True)
    used = area != 0
    return Subsegments(area[used], address[at][used], trouble is None)
