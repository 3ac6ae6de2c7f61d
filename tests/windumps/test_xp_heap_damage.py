"""A damaged XP heap loses what the damage touches, and says what that was."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from builders.xp_heap_builder import XpHeapBuilder, memory_of
from heaps_walked import Walked, flipped_at, lacking, patched, value_at, walked

from windumps.diagnostics import Diagnostic
from windumps.errors import HeapError
from windumps.heaps.xp_heap import open_xp_heap

bits = pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])


class Made:
    """A heap with everything in it, and places in it."""

    def __init__(self, x64: bool) -> None:
        self.x64 = x64
        heap = self.heap = XpHeapBuilder(x64)
        self.blocks = []
        for number in range(40):
            self.blocks.append(heap.used_block(24 + 8 * number))
            if number % 6 == 0:
                heap.free_block(200)
        self.cached = [heap.cached_block(24) for _ in range(4)]
        heap.hole(2)
        self.second_range = [heap.used_block(100) for _ in range(4)]
        heap.hole(1)
        heap.used_block(90)
        heap.new_segment()
        self.second_segment = [heap.used_block(64) for _ in range(10)]
        self.large = [heap.large_block(600_000 + 5000 * number) for number in range(3)]
        self.pieces = heap.pieces()

    def walk(self, pieces: dict[int, bytes]) -> Walked:
        return walked(open_xp_heap, memory_of(pieces), self.heap.address, self.x64, 3790)

    def flip(self, address: int, mask: int = 0x11) -> Walked:
        value = value_at(self.pieces, address, 1)
        return self.walk(patched(self.pieces, address, bytes([value ^ mask])))

    def write(self, address: int, value: int) -> Walked:
        raw = value.to_bytes(self.heap.pointer, "little")
        return self.walk(patched(self.pieces, address, raw))

    def header(self, user: int) -> int:
        """Where the eight bytes of a block's header lie."""
        return self.heap.headers[user][0] + self.heap.unit - 8

    def lost(self, result: Walked) -> set[int]:
        """Blocks that were not found; nothing else may have changed."""
        expected = self.heap.used
        assert result.used.items() <= expected.items()
        return expected.keys() - result.used.keys()


def _only(said: list[Diagnostic], code: str) -> Diagnostic:
    (item,) = [item for item in said if item.code == code]
    return item


@bits
def test_the_undamaged_heap_loses_nothing(x64: bool) -> None:
    made = Made(x64)
    result = made.walk(made.pieces)
    assert made.lost(result) == set()
    assert result.said == []


@bits
@pytest.mark.parametrize("number", [0, 7, 20, 39])
@pytest.mark.parametrize("byte", [0, 2, 7], ids=["Size", "PreviousSize", "SegmentIndex"])
def test_a_flipped_header_costs_that_block_only(x64: bool, number: int, byte: int) -> None:
    made = Made(x64)
    user = made.blocks[number]
    result = made.flip(made.header(user) + byte)
    assert made.lost(result) == {user}
    header, size = made.heap.headers[user]
    said = _only(result.said, "heap-header-damaged")
    assert (said.structure, said.address, said.bytes_affected) == ("_HEAP_ENTRY", header, size)
    assert result.heap.account.unwalked_bytes == size


@bits
@pytest.mark.parametrize("number", [3, 20, 38])
@pytest.mark.parametrize("further", [1, 2, 3])
def test_a_size_that_leads_to_a_later_block_costs_the_block_that_has_it_only(
    x64: bool, number: int, further: int
) -> None:
    made = Made(x64)
    headers = sorted(set(made.heap.headers.values()) | set(made.heap.free_blocks))
    user = made.blocks[number]
    index = headers.index(made.heap.headers[user])
    units = sum(size for _, size in headers[index : index + 1 + further]) // made.heap.unit
    result = made.walk(patched(made.pieces, made.header(user), units.to_bytes(2, "little")))
    assert made.lost(result) == {user}
    header, size = made.heap.headers[user]
    said = _only(result.said, "heap-header-damaged")
    assert (said.address, said.bytes_affected) == (header, size)


@bits
@pytest.mark.parametrize("number", [3, 20])
def test_a_size_that_leads_into_the_block_itself_costs_that_block_only(
    x64: bool, number: int
) -> None:
    made = Made(x64)
    user = made.blocks[number]
    header, size = made.heap.headers[user]
    # What it leads to could be a header, but for its PreviousSize.
    inner = made.header(user) + 2 * made.heap.unit
    pieces = patched(made.pieces, made.header(user), (2).to_bytes(2, "little"))
    fake = value_at(made.pieces, made.header(made.blocks[number + 1]), 8)
    pieces = patched(pieces, inner, fake.to_bytes(8, "little"))
    result = made.walk(pieces)
    assert made.lost(result) == {user}
    assert _only(result.said, "heap-header-damaged").address == header
    assert result.heap.account.unwalked_bytes == size


@bits
def test_a_flipped_busy_bit_is_told_by_the_free_lists(x64: bool) -> None:
    made = Made(x64)
    user = made.blocks[11]
    result = made.flip(made.header(user) + 5, 0x01)
    assert made.lost(result) == {user}
    said = _only(result.said, "heap-free-list-differs")
    assert (said.structure, said.address) == ("_HEAP_ENTRY.Flags", made.heap.headers[user][0])


@bits
def test_an_impossible_count_of_unused_bytes_costs_the_size_only(x64: bool) -> None:
    made = Made(x64)
    user = made.blocks[11]
    result = made.walk(patched(made.pieces, made.header(user) + 6, b"\xfe"))
    header, size = made.heap.headers[user]
    assert size < 0xFE
    assert result.used == made.heap.used | {user: -1}
    assert _only(result.said, "unused-bytes-unclear").address == header


@bits
def test_an_overwritten_stretch_costs_the_blocks_in_it(x64: bool) -> None:
    made = Made(x64)
    first, last = made.blocks[10], made.blocks[15]
    start = made.heap.headers[first][0]
    end = sum(made.heap.headers[last])
    result = made.walk(patched(made.pieces, start, b"\xa5" * (end - start)))
    lost = made.lost(result)
    assert set(made.blocks[10:16]) <= lost <= set(made.blocks[9:17])
    assert _only(result.said, "heap-header-damaged").structure == "_HEAP_ENTRY"
    assert result.heap.account.unwalked_bytes >= end - start


@bits
def test_an_absent_page_costs_the_blocks_in_it(x64: bool) -> None:
    made = Made(x64)
    page = made.blocks[20] & ~0xFFF
    result = made.walk(lacking(made.pieces, page, 0x1000))
    lost = made.lost(result)
    touched = {
        u for u, (h, size) in made.heap.headers.items() if h < page + 0x1000 and h + size > page
    }
    touched &= made.heap.used.keys()
    behind = min((u for u in made.heap.used if u - made.heap.unit >= page + 0x1000), default=0)
    assert made.blocks[20] in lost
    assert lost <= touched | {behind}
    said = _only(result.said, "heap-memory-absent")
    assert said.structure == "_HEAP_ENTRY"
    assert said.address < page + 0x1000
    assert result.heap.account.absent_bytes > 0


@bits
def test_a_cut_segment_costs_its_blocks_only(x64: bool) -> None:
    made = Made(x64)
    slot = made.heap.address + (0xA0 if x64 else 0x58) + made.heap.pointer
    first = value_at(made.pieces, slot - made.heap.pointer, made.heap.pointer)
    for value in (0, 0x1234, made.heap.address, first):
        result = made.write(slot, value)
        assert made.lost(result) == set(made.second_segment)
        assert result.codes & {"segment-list-cut", "segment-absent", "segment-damaged"}
        assert all(item.address for item in result.said)


@bits
def test_a_damaged_segment_header_costs_its_blocks_only(x64: bool) -> None:
    made = Made(x64)
    segment = made.heap.segments[1][0]
    result = made.flip(segment + 2 * made.heap.pointer)
    assert made.lost(result) == set(made.second_segment)
    said = _only(result.said, "segment-damaged")
    assert (said.structure, said.address) == ("_HEAP_SEGMENT", segment)


@bits
def test_a_list_of_uncommitted_ranges_that_runs_in_a_circle_costs_nothing(x64: bool) -> None:
    made = Made(x64)
    segment = made.heap.address + (0xC00 if x64 else 0x640)
    head = segment + (0x50 if x64 else 0x30)
    first = value_at(made.pieces, head, made.heap.pointer)
    last = value_at(made.pieces, first, made.heap.pointer)
    assert last
    result = made.write(last, first)
    assert made.lost(result) == set()
    said = _only(result.said, "ucr-list-cut")
    assert (said.structure, said.address) == ("_HEAP_SEGMENT.UnCommittedRanges", segment)
    assert hex(first) in said.message


@bits
def test_a_cut_list_of_uncommitted_ranges_costs_no_block_behind_the_hole(x64: bool) -> None:
    made = Made(x64)
    segment = made.heap.address + (0xC00 if x64 else 0x640)
    result = made.write(segment + (0x50 if x64 else 0x30), 0x10)
    assert "ucr-list-cut" in result.codes
    assert set(made.blocks) <= result.used.keys()
    assert (
        len(made.lost(result)) <= 2
    )  # behind a hole of unknown size the first header is not believed


@bits
def test_a_look_aside_list_that_runs_in_a_circle_ends(x64: bool) -> None:
    made = Made(x64)
    last = made.cached[-1]
    result = made.write(last, made.cached[0])
    assert made.lost(result) == set()
    assert not set(made.cached) & result.used.keys()
    assert _only(result.said, "lookaside-list-cut").structure == "_HEAP_LOOKASIDE"


@bits
def test_a_look_aside_list_that_names_a_block_of_another_size_is_not_believed(x64: bool) -> None:
    made = Made(x64)
    stranger = made.blocks[20]
    pieces = patched(made.pieces, made.cached[1], stranger.to_bytes(made.heap.pointer, "little"))
    pieces = patched(pieces, stranger, bytes(made.heap.pointer))
    result = made.walk(pieces)
    assert stranger in result.used
    said = _only(result.said, "lookaside-entry-damaged")
    assert (said.structure, said.address) == ("_HEAP_LOOKASIDE", stranger)


@bits
def test_a_cut_look_aside_list_is_said(x64: bool) -> None:
    made = Made(x64)
    result = made.write(made.cached[1], 0x10)
    said = _only(result.said, "lookaside-list-cut")
    assert "may be taken for used" in said.message
    taken = result.used.keys() - made.heap.used.keys()
    assert taken <= set(made.cached[2:])


@bits
def test_a_cut_list_of_large_blocks_is_followed_from_its_other_end(x64: bool) -> None:
    made = Made(x64)
    entries = [entry for entry, _, _ in made.heap.large]
    result = made.write(entries[1], 0x10)
    assert made.lost(result) <= {made.large[1], made.large[2]}
    assert made.large[0] in result.used
    said = _only(result.said, "virtual-list-cut")
    assert said.structure == "_HEAP.VirtualAllocdBlocks"
    circle = made.write(entries[1], entries[0])
    assert made.large[0] in circle.used
    assert "virtual-list-cut" in circle.codes


@bits
def test_a_damaged_large_block_costs_itself_only(x64: bool) -> None:
    made = Made(x64)
    entry = made.heap.large[1][0]
    result = made.write(entry + 4 * made.heap.pointer, 0x123)
    assert made.lost(result) == {made.large[1]}
    said = _only(result.said, "virtual-block-damaged")
    assert (said.structure, said.address) == ("_HEAP_VIRTUAL_ALLOC_ENTRY", entry)


@bits
def test_a_damaged_lfh_area_costs_itself_only(x64: bool) -> None:
    heap = XpHeapBuilder(x64, lookaside=False)
    heap.lfh_area(5, [20, None, 30, 25])
    before = set(heap.used)
    heap.lfh_area(6, [20, None, 30, 25])
    second = set(heap.used) - before
    area = list(heap.areas)[1]
    pieces = heap.pieces()
    subsegment = heap.areas[area]
    damaged = patched(pieces, subsegment + heap.pointer, b"\x10")
    result = walked(open_xp_heap, memory_of(damaged), heap.address, x64, 3790)
    assert heap.used.keys() - result.used.keys() == second
    said = _only(result.said, "lfh-area-unreadable")
    assert (said.structure, said.address) == ("_HEAP_USERDATA_HEADER", area)
    victim = min(second)
    header = heap.headers[victim][0] + heap.unit - 8
    damaged = patched(pieces, header + 7, b"\0")
    result = walked(open_xp_heap, memory_of(damaged), heap.address, x64, 3790)
    assert heap.used.keys() - result.used.keys() == {victim}
    said = _only(result.said, "lfh-header-damaged")
    assert (said.structure, said.address) == ("_HEAP_ENTRY", heap.headers[victim][0])


@bits
def test_a_heap_without_its_first_page_is_refused(x64: bool) -> None:
    made = Made(x64)
    with pytest.raises(HeapError, match="damaged or not in the dump"):
        made.walk(lacking(made.pieces, made.heap.address, 0x1000))


@bits
def test_random_flips_never_stop_the_walk(x64: bool) -> None:
    made = Made(x64)
    memory = memory_of({at: raw for at, raw in made.pieces.items() if len(raw) < 0x80000})
    random = np.random.default_rng(11)
    known = made.heap.used.keys() | set(made.heap.freed)
    strangers = 0
    tracemalloc.start()
    for _ in range(60):
        damaged = flipped_at(memory, random)
        try:
            result = walked(open_xp_heap, damaged, made.heap.address, x64, 3790)
        except HeapError:
            continue
        strangers += len(result.used.keys() - known)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert strangers <= 5
