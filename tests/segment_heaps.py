"""Opens segment heaps by address, in dumps and in made memory."""

from __future__ import annotations

import numpy as np

from windumps import Dump
from windumps.blocks import Blocks
from windumps.diagnostics import Diagnostic, DiagnosticLog
from windumps.heaps.base import HeapContext
from windumps.heaps.segment.heap import SegmentHeap, open_segment_heap
from windumps.memory import AddressSpace, RunMemory
from windumps.process.views import process_views


def context_of(dump: Dump, build: int | None = None) -> HeapContext:
    """What a heap reader gets to know of a dump's process."""
    tebs = [thread.teb for thread in dump.threads]
    view = process_views(dump.memory, dump.architecture, dump.build, tebs, dump.modules)[0]
    return HeapContext(
        dump.memory,
        view.architecture,
        dump.build if build is None else build,
        view.ntdll(),
        view.nt_global_flag or 0,
        DiagnosticLog(),
    )


def context_for(memory: AddressSpace, architecture: str = "x64", build: int = 19041) -> HeapContext:
    """The same for made memory, x64 of build 19041 unless told otherwise."""
    return HeapContext(memory, architecture, build, None, 0, DiagnosticLog())


def walk(context: HeapContext, address: int) -> tuple[SegmentHeap, Blocks, list[Diagnostic]]:
    """The heap, all its blocks, and what was said of damage."""
    heap = open_segment_heap(context, address, 1)
    blocks = Blocks.concatenate(heap.blocks())
    said = [item for item in context.log.collect() if item.severity != "info"]
    return heap, blocks, said


def used_sizes(blocks: Blocks) -> dict[int, int]:
    """Address → requested size of used blocks; each must have come once."""
    used = blocks.used
    found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
    assert len(found) == len(used), "a block came twice"
    return found


def committed_in_regions(memory: RunMemory, ranges: list[tuple[int, int]]) -> int:
    """Committed bytes of address ranges as the dump's list of regions says."""
    regions = memory.regions
    start = regions.base_address[regions.state == 0x1000].astype(np.int64)
    end = start + regions.region_size[regions.state == 0x1000].astype(np.int64)
    total = 0
    for low, size in ranges:
        total += int(np.maximum(np.minimum(end, low + size) - np.maximum(start, low), 0).sum())
    return total
