"""Every layout of the segment heap against a heap made with numbers of an independent source."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from builders.segment_heap_builder import PAGE, SEGMENT_SIZE, SegmentHeapBuilder
from builders.segment_numbers import ALL, X64_19041, Numbers
from segment_heaps import context_for, used_sizes, walk
from truth import ROOT

from windumps.errors import HeapError
from windumps.heaps.segment.heap import open_segment_heap
from windumps.layouts.rows import candidates, rows_from
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS
from windumps.memory import RunMemory

LAYOUTS = ROOT.parent / "shared" / "layouts"
# Published types of a kernel or ntdll of the same build.
TYPES = {
    (8, 17763): "nt_x64_10.0.17763.379.json",
    (8, 19041): "full_ntdll_x64_10.0.19041.1288.json",
    (8, 20348): "nt_x64_10.0.20348.288.json",
    (8, 22000): "nt_x64_10.0.22000.318.json",
    (8, 22621): "full_ntdll_x64_10.0.22621.4245.json",
    (4, 19041): "full_wntdll_x86_10.0.19041.2130.json",
}
builds = pytest.mark.parametrize(
    "numbers", ALL, ids=lambda numbers: f"{numbers.architecture}-{numbers.build}"
)


@cache
def _made(numbers: Numbers) -> tuple[SegmentHeapBuilder, RunMemory]:
    made = SegmentHeapBuilder(numbers=numbers)
    for number in range(6):
        made.vs([24, 100, None, 17, 3000 + number, 1, 0, 999, None, 4095, 33, *[200] * 40])
        made.lfh(96, [64, None, 47, 20, *[32 + number % 16] * 20])
        made.lfh(1024, [990, 960, None, 700] * 3, pages=4)
        made.pages(150_000 + number)
    for request in (3 << 19, 1_100_001, 1 << 21):
        made.large(request)
    return made, made.build()


@builds
def test_a_heap_made_with_a_builds_own_numbers_is_read_by_its_own_row(numbers: Numbers) -> None:
    made, memory = _made(numbers)
    context = context_for(memory, numbers.architecture, numbers.build)
    heap, blocks, said = walk(context, made.heap)
    assert used_sizes(blocks) == made.used
    assert said == []
    assert heap.account.residual_bytes == heap.account.unwalked_bytes == 0
    assert heap.layout.endswith("the build's own row, 100% of checks hold")


@builds
@pytest.mark.parametrize("claimed", [0, 16299, 27000])
def test_a_wrong_row_loses_against_the_one_that_fits_better(numbers: Numbers, claimed: int) -> None:
    made, memory = _made(numbers)
    context = context_for(memory, numbers.architecture, claimed)
    heap, blocks, said = walk(context, made.heap)
    assert used_sizes(blocks) == made.used
    assert said == []
    right = candidates(SEGMENT_HEAP_ROWS, numbers.architecture, numbers.build)[0]
    assert heap.row.structures == right.structures or heap.choice.score == 1.0


@builds
def test_without_its_row_a_heap_is_read_exactly_or_refused(numbers: Numbers) -> None:
    made, memory = _made(numbers)
    context = context_for(memory, numbers.architecture, numbers.build)
    others = tuple(
        row
        for row in SEGMENT_HEAP_ROWS
        if not row.first_build <= numbers.build <= row.last_build
        or row.architecture != numbers.architecture
    )
    try:
        heap = open_segment_heap(context, made.heap, 0, others)
    except HeapError:
        return
    found = {
        address: size
        for blocks in heap.blocks()
        for address, size in zip(
            blocks.used.address.tolist(), blocks.used.size.tolist(), strict=True
        )
    }
    assert found.items() <= made.used.items()
    if found != made.used:
        assert heap.account.unwalked_bytes > 0


def test_a_new_build_is_a_row_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = replace(X64_19041, build=30000, tree=0x58, end=0x110, contexts=0x140, delayed=0x300)
    made, memory = _made(numbers)
    context = context_for(memory, "x64", 30000)
    without, _, _ = walk(context, made.heap)
    assert without.choice.score < 1.0
    moved = {
        "LargeAllocMetadata": (0x58, "list"),
        "LargeReservedPages": (0x68, "ptr"),
        "LargeCommittedPages": (0x70, "ptr"),
        "UncommittedBase": (0x110, "ptr"),
        "ReservedLimit": (0x118, "ptr"),
        "SegContexts": (0x140, ""),
    }
    older = candidates(SEGMENT_HEAP_ROWS, "x64", 19041)[0].structures
    row = rows_from(
        "segment heap", "x64", older, [(30000, 30000, "made", {"_SEGMENT_HEAP": moved})]
    )
    monkeypatch.setattr("windumps.heaps.segment.heap.SEGMENT_HEAP_ROWS", (*SEGMENT_HEAP_ROWS, *row))
    heap, blocks, said = walk(context_for(memory, "x64", 30000), made.heap)
    assert used_sizes(blocks) == made.used
    assert said == []
    assert heap.layout.endswith("the build's own row, 100% of checks hold")


def _offset(types: dict[str, Any], structure: str, *names: str) -> int:
    at = 0
    for name in names:
        field = types[structure]["fields"][name]
        at += int(field[0])
        structure = str(field[1])
    return at


@pytest.mark.skipif(not LAYOUTS.is_dir(), reason="published types are beside the checkout only")
@pytest.mark.parametrize(
    "numbers", [n for n in ALL if (n.pointer, n.build) in TYPES], ids=lambda n: f"{n.build}"
)
def test_the_builders_numbers_are_those_of_published_types(numbers: Numbers) -> None:
    path = LAYOUTS / TYPES[numbers.pointer, numbers.build]
    types = json.loads(path.read_text())["types"]
    heap, context = "_SEGMENT_HEAP", "_HEAP_SEG_CONTEXT"
    assert numbers.tree == _offset(types, heap, "LargeAllocMetadata")
    assert numbers.tree + 2 * numbers.pointer == _offset(types, heap, "LargeReservedPages")
    assert numbers.tree + 3 * numbers.pointer == _offset(types, heap, "LargeCommittedPages")
    assert numbers.stats == _offset(types, heap, "MemStats")
    assert numbers.end == _offset(types, heap, "UncommittedBase")
    assert numbers.end + numbers.pointer == _offset(types, heap, "ReservedLimit")
    assert numbers.contexts == _offset(types, heap, "SegContexts")
    assert numbers.context == (
        int(types[context]["size"]),
        *(_offset(types, context, name) for name in ("VsContext", "Heap", "SegmentListHead")),
    )
    descriptor = "_HEAP_PAGE_RANGE_DESCRIPTOR"
    names = ("UnusedBytes", "RangeFlags", "UnitOffset", "UnitSize")
    assert numbers.descriptor == (
        int(types[descriptor]["size"]),
        *(_offset(types, descriptor, name) for name in names),
    )
    names = ("FreeCount", "BlockOffsets", "CommitUnitShift", "BlockBitmap")
    assert numbers.lfh == tuple(_offset(types, "_HEAP_LFH_SUBSEGMENT", name) for name in names)
    names = ("Size", "Signature")
    assert numbers.vs[:2] == tuple(_offset(types, "_HEAP_VS_SUBSEGMENT", name) for name in names)


def test_a_block_of_one_page_whose_only_descriptor_contradicts_itself_is_not_believed() -> None:
    numbers = next(row for row in ALL if (row.architecture, row.build) == ("x64", 14393))
    made = SegmentHeapBuilder(numbers=numbers)
    made.vs([24, 100, None, 17, 3000])
    made.lfh(96, [64, None, 47, 20])
    small = made.pages(3000)
    made.pages(150_000)
    memory = made.build()
    _, blocks, said = walk(context_for(memory, "x64", 14393), made.heap)
    assert (used_sizes(blocks), said) == (made.used, [])
    page = small - small % PAGE
    segment = page - page % SEGMENT_SIZE
    at = segment + (page - segment) // PAGE * numbers.descriptor[0] + numbers.descriptor[1]
    (offset,) = memory.locate(np.array([at], np.uint64), 4)
    data, runs = memory.data.copy(), memory.runs
    data[offset : offset + 4] = 0xB1
    damaged = RunMemory(data, runs.address, runs.size, runs.offset)
    _, blocks, said = walk(context_for(damaged, "x64", 14393), made.heap)
    assert used_sizes(blocks) == {a: s for a, s in made.used.items() if a != small}
    assert [(item.code, item.bytes_affected) for item in said] == [("page-range-damaged", PAGE)]
