"""The XP heap against made heaps: x86 and x64, in every form that has no dump in the repository."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders.xp_heap_builder import XpHeapBuilder
from heaps_walked import Walked, walked

from windumps.blocks import Kind, State
from windumps.heaps.xp import heap as xp_heap
from windumps.heaps.xp.heap import open_xp_heap
from windumps.layouts.xp_heap import XP_HEAP_ROWS

bits = pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])


def _walk(heap: XpHeapBuilder, build: int = 3790) -> Walked:
    return walked(open_xp_heap, heap.build(), heap.address, heap.x64, build)


def _kinds(result: Walked) -> dict[int, str]:
    blocks = result.blocks
    return {
        address: Kind(kind).label
        for address, kind in zip(blocks.address.tolist(), blocks.kind.tolist(), strict=True)
    }


def _committed(heap: XpHeapBuilder) -> int:
    holes = sum(size for holes in heap.holes for _, size in holes)
    large = sum(len(raw) for raw in heap.large_pieces().values())
    return sum(len(memory) for _, memory in heap.segments) - holes + large


@bits
@pytest.mark.parametrize("extra", [False, True], ids=["plain", "ust"])
def test_blocks_of_segments_holes_and_large_ones_come_with_size_and_trace(
    x64: bool, extra: bool
) -> None:
    heap = XpHeapBuilder(x64, extra=extra)
    for number in range(60):
        heap.used_block(number * 7)
        if number % 5 == 0:
            heap.free_block(40 + number)
        if number == 20:
            heap.hole(3)
        if number == 40:
            heap.new_segment()
    large = [heap.large_block(600_000), heap.large_block(1_000_001)]
    result = _walk(heap)
    assert result.used == heap.used
    assert result.traces == dict.fromkeys(heap.used, 0) | heap.traces
    assert result.said == []
    account = result.heap.account
    assert account.unwalked_bytes == 0
    assert account.committed_bytes == _committed(heap)
    assert {_kinds(result)[address] for address in large} == {"nt-virtual"}


@bits
def test_a_block_on_a_look_aside_list_is_free_and_the_lists_themselves_are_used(x64: bool) -> None:
    heap = XpHeapBuilder(x64)
    heap.used_block(40)
    cached = [heap.cached_block(24 + 32 * (number % 3)) for number in range(9)]
    heap.used_block(40)
    result = _walk(heap)
    assert result.used == heap.used
    assert heap.table in result.used
    free = result.blocks.select(result.blocks.kind == Kind.NT_LOOKASIDE)
    assert set(free.address.tolist()) == set(cached)
    assert (free.state == State.FREE).all()
    assert result.said == []


@bits
def test_the_lfh_yields_the_blocks_of_its_areas_and_not_the_areas(x64: bool) -> None:
    heap = XpHeapBuilder(x64, lookaside=False)
    unit = heap.unit
    heap.used_block(10)
    heap.lfh_area(5, [20, None, 5 * unit - 8, unit, None, 0])
    heap.lfh_area(9, [60, 61, None])
    heap.lfh_area(40, [0, 40 * unit - 16, None, 30, 1])  # sizes that stand at the block's end
    result = _walk(heap)
    assert result.used == heap.used
    assert not heap.areas.keys() & result.used.keys()
    inside = [a for a, kind in _kinds(result).items() if kind == "nt-lfh"]
    assert len(inside) == sum(
        any(area < user < area + heap.headers[area][1] for area in heap.areas)
        for user in heap.headers
    )
    assert result.said == []
    assert result.heap.front_end == "lfh"


@bits
def test_more_unused_bytes_than_a_byte_holds_stand_in_the_blocks_last_word(x64: bool) -> None:
    heap = XpHeapBuilder(x64)
    for spare in (200, 247, 300, 4000):
        heap.used_block(1000, spare=spare)
        heap.used_block(50)
    result = _walk(heap)
    assert result.used == heap.used
    assert result.said == []


@bits
def test_an_area_that_is_kept_for_reuse_is_one_used_block(x64: bool) -> None:
    heap = XpHeapBuilder(x64, lookaside=False)
    area = heap.lfh_area(5, [20, None, 30])
    header_at, size = heap.headers[area]
    for address in (*heap.used, *heap.freed):
        if area < address < area + size:
            heap.used.pop(address, None)
    # The signature is taken away, and no subsegment names it.
    heap.write(area + 3 * heap.pointer, bytes(heap.pointer))
    heap.write(heap.areas[area] + heap.pointer, bytes(heap.pointer))
    result = _walk(heap)
    assert result.used == heap.used | {area: size - heap.unit}
    assert header_at == area - heap.unit


@bits
def test_a_block_that_only_looks_like_an_area_is_one_used_block(x64: bool) -> None:
    heap = XpHeapBuilder(x64, lookaside=False)
    heap.lfh_area(5, [20, None, 30])
    (area,) = heap.areas
    start, _ = heap.segments[0]
    copied = bytes(heap.segments[0][1][area - start : area - start + 0x80])
    heap.used_block(0x400 - heap.unit, copied)  # a power of two, but not the one the copy names
    result = _walk(heap)
    assert result.used == heap.used
    assert result.said == []


@bits
@pytest.mark.parametrize("build", [0, 2195, 2600, 3790, 6002, 27000])
def test_the_layout_is_found_whatever_the_build_is_said_to_be(x64: bool, build: int) -> None:
    heap = XpHeapBuilder(x64)
    heap.used_block(100)
    result = _walk(heap, build)
    assert result.used == heap.used
    covered = [r for r in XP_HEAP_ROWS if r.architecture == ("x64" if x64 else "x86")]
    own = any(row.first_build <= build <= row.last_build for row in covered)
    assert ("the build's own row" if own else "probed") in result.heap.layout


def test_without_the_row_of_xp_that_of_2003_does(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(replace(row, first_build=3790) for row in XP_HEAP_ROWS)
    monkeypatch.setattr(xp_heap, "XP_HEAP_ROWS", rows)
    heap = XpHeapBuilder()
    heap.used_block(100)
    result = _walk(heap, 2600)
    assert result.used == heap.used
    assert "probed" in result.heap.layout


def test_a_walk_can_be_repeated() -> None:
    heap = XpHeapBuilder()
    heap.used_block(100)
    heap.cached_block(40)
    opened = _walk(heap).heap
    before = opened.account
    again = [piece for piece in opened.blocks() if len(piece)]
    assert before == opened.account
    assert np.concatenate([piece.address for piece in again]).size == before.used_count + (
        before.free_count
    )
