"""A damaged XP heap loses what the damage touches, and says what that was."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from builders.xp_heap_builder import XpHeapBuilder, memory_of
from heaps_walked import Walked, flipped_at, lacking, patched, value_at, walked

from windumps.diagnostics import Diagnostic
from windumps.errors import HeapError
from windumps.heaps.xp.heap import open_xp_heap
from windumps.memory.regions import Regions

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

    def walk(self, pieces: dict[int, bytes], regions: Regions | None = None) -> Walked:
        memory = memory_of(pieces, regions)
        return walked(open_xp_heap, memory, self.heap.address, self.x64, 3790)

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
def test_a_busy_bit_that_the_free_lists_contradict_makes_the_block_unwalked(x64: bool) -> None:
    made = Made(x64)
    user = made.blocks[11]
    result = made.flip(made.header(user) + 5, 0x01)
    assert made.lost(result) == {user}
    header, size = made.heap.headers[user]
    said = _only(result.said, "heap-free-list-differs")
    assert (said.structure, said.address) == ("_HEAP_ENTRY.Flags", header)
    assert result.heap.account.unwalked_bytes == size
    # A free block that its header calls busy is no block of the program.
    free, units = made.heap.free[2]
    result = made.flip(free + made.heap.unit - 8 + 5, 0x01)
    assert made.lost(result) == set()
    assert _only(result.said, "heap-free-list-differs").address == free
    assert result.heap.account.unwalked_bytes == units * made.heap.unit


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
def test_a_segment_that_no_slot_names_is_found_by_its_signature(x64: bool) -> None:
    made = Made(x64)
    slot = made.heap.address + (0xA0 if x64 else 0x58) + made.heap.pointer
    first = value_at(made.pieces, slot - made.heap.pointer, made.heap.pointer)
    for value in (0, 0x1234, made.heap.address, first):
        result = made.write(slot, value)
        assert made.lost(result) == set()
        assert _only(result.said, "segment-found").address == made.heap.segments[1][0]
        assert result.heap.account.unwalked_bytes == 0


@bits
def test_a_segment_without_slot_and_signature_makes_the_heap_unwalked(x64: bool) -> None:
    made = Made(x64)
    slot = made.heap.address + (0xA0 if x64 else 0x58) + made.heap.pointer
    pieces = patched(made.pieces, slot, bytes(made.heap.pointer))
    pieces = patched(pieces, made.heap.segments[1][0] + 2 * made.heap.pointer, bytes(4))
    result = made.walk(pieces)
    assert made.lost(result) == set(made.second_segment)
    assert "segment-list-cut" in result.codes
    assert result.heap.account.unwalked_bytes > 0


@bits
@pytest.mark.parametrize("absent", [False, True], ids=["damaged", "absent"])
def test_a_segment_without_its_header_is_read_where_the_regions_tell_its_place(
    x64: bool, absent: bool
) -> None:
    made = Made(x64)
    segment = made.heap.segments[1][0]
    pieces = patched(made.pieces, segment + 2 * made.heap.pointer, bytes(4))
    touched = set()
    if absent:
        pieces = lacking(made.pieces, segment, 0x1000)
        touched = {user for user in made.second_segment if user < segment + 0x1000}
    result = made.walk(pieces, made.heap.regions())
    assert made.lost(result) == touched
    assert _only(result.said, "segment-without-header").address == segment
    account = result.heap.account
    assert account.absent_bytes == (0x1000 if absent else 0)
    assert account.unwalked_bytes >= account.absent_bytes
    # Without regions nothing tells how far the segment goes: so something of it is missing.
    result = made.walk(pieces)
    assert made.lost(result) <= set(made.second_segment)
    assert result.heap.account.unwalked_bytes > 0


@bits
def test_a_hole_that_holds_memory_is_no_hole(x64: bool) -> None:
    made = Made(x64)
    segment = made.heap.address + (0xC00 if x64 else 0x640)
    record = value_at(made.pieces, segment + (0x50 if x64 else 0x30), made.heap.pointer)
    # The record of the hole in the middle claims the pages before it, too.
    start, _ = made.heap.holes[0][1]
    wrong = (start - 0x1000).to_bytes(made.heap.pointer, "little")
    result = made.walk(patched(made.pieces, record + made.heap.pointer, wrong))
    assert "ucr-damaged" in result.codes
    assert made.lost(result) == set()


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
    assert not set(made.cached) & result.used.keys()
    assert made.lost(result) <= _of_size(made, made.cached[0])
    assert _only(result.said, "lookaside-list-cut").structure == "_HEAP_LOOKASIDE"


def _of_size(made: Made, block: int) -> set[int]:
    """Blocks that may be on one look-aside list with `block`."""
    size = made.heap.headers[block][1]
    return {user for user, (_, bytes_) in made.heap.headers.items() if bytes_ == size}


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
def test_what_may_be_on_a_cut_look_aside_list_is_unwalked_and_not_used(x64: bool) -> None:
    heap = XpHeapBuilder(x64)
    content = b"\x11" * 24
    plain = [heap.used_block(24, content) for _ in range(5)]
    cached = [heap.cached_block(24) for _ in range(4)]
    empty = heap.used_block(24)  # begins with a null pointer, as the last one on the list does
    other = heap.used_block(90)
    pieces = heap.pieces()
    damaged = patched(pieces, cached[1], (0x10).to_bytes(heap.pointer, "little"))
    result = walked(open_xp_heap, memory_of(damaged), heap.address, x64, 3790)
    assert result.used.keys() == heap.used.keys() - {empty}
    assert {*plain, other} <= result.used.keys()
    assert result.heap.account.unwalked_bytes == 3 * heap.headers[empty][1]
    assert "not walked" in _only(result.said, "lookaside-list-cut").message


@bits
def test_a_look_aside_list_whose_head_was_erased_is_known_by_its_counters(x64: bool) -> None:
    heap = XpHeapBuilder(x64)
    cached = [heap.cached_block(24) for _ in range(4)]
    heap.used_block(24, b"\x11" * 24)
    pieces = heap.pieces()
    units = heap.headers[cached[0]][1] // heap.unit
    head = heap.table + units * (0x40 if x64 else 0x30)
    damaged = patched(pieces, head, bytes(2 * heap.pointer))
    result = walked(open_xp_heap, memory_of(damaged), heap.address, x64, 3790)
    assert result.used == heap.used
    assert result.heap.account.unwalked_bytes == 4 * units * heap.unit
    assert _only(result.said, "lookaside-list-cut").address == head


@bits
def test_without_its_look_aside_table_no_block_that_may_be_on_a_list_is_used(x64: bool) -> None:
    made = Made(x64)
    table = made.heap.table
    result = made.walk(lacking(made.pieces, (table + 0xFFF) & ~0xFFF, 0x1000))
    assert not set(made.cached) & result.used.keys()
    assert "lookaside-list-cut" in result.codes


@bits
def test_a_cut_list_of_large_blocks_is_followed_from_its_other_end(x64: bool) -> None:
    made = Made(x64)
    entries = [entry for entry, _, _ in made.heap.large]
    result = made.write(entries[1], 0x10)
    assert made.lost(result) <= {made.large[1], made.large[2]}
    assert made.large[0] in result.used
    said = _only(result.said, "virtual-list-cut")
    assert said.structure == "_HEAP.VirtualAllocdBlocks"
    assert result.heap.account.unwalked_bytes == 0  # both were found
    circle = made.write(entries[1], entries[0])
    assert made.large[0] in circle.used
    assert "virtual-list-cut" in circle.codes


@bits
def test_a_large_block_that_two_erased_entries_hide_is_found_and_those_are_unwalked(
    x64: bool,
) -> None:
    heap = XpHeapBuilder(x64)
    large = [heap.large_block(600_000 + 5000 * number) for number in range(5)]
    pieces = heap.pieces()
    regions = heap.regions()
    entries = [entry for entry, _, _ in heap.large]
    lost = 0
    for number in (1, 3):
        pieces = patched(pieces, entries[number], bytes(0x1000))
        lost += len(pieces[entries[number]])
    result = walked(open_xp_heap, memory_of(pieces, regions), heap.address, x64, 3790)
    assert heap.used.keys() - result.used.keys() == {large[1], large[3]}
    assert _only(result.said, "virtual-block-found").address == entries[2]
    assert result.heap.account.unwalked_bytes == lost


@bits
def test_a_damaged_large_block_costs_itself_only_and_is_unwalked(x64: bool) -> None:
    made = Made(x64)
    entry = made.heap.large[1][0]
    damaged = patched(made.pieces, entry + 4 * made.heap.pointer, b"\x23\x01")
    result = made.walk(damaged, made.heap.regions())
    assert made.lost(result) == {made.large[1]}
    said = _only(result.said, "virtual-block-damaged")
    assert (said.structure, said.address) == ("_HEAP_VIRTUAL_ALLOC_ENTRY", entry)
    assert result.heap.account.unwalked_bytes == len(made.pieces[entry])


@bits
def test_a_large_block_has_no_more_memory_than_is_committed(x64: bool) -> None:
    made = Made(x64)
    entry = made.heap.large[1][0]
    size = len(made.pieces[entry]) + 0x5000
    raw = size.to_bytes(made.heap.pointer, "little") * 2
    result = made.walk(
        patched(made.pieces, entry + 4 * made.heap.pointer, raw), made.heap.regions()
    )
    assert result.used == made.heap.used | {made.large[1]: -1}
    assert _only(result.said, "virtual-size-unclear").address == entry
    assert result.blocks.block_bytes[result.blocks.address == made.large[1]] == len(
        made.pieces[entry]
    )


class MadeLfh:
    """A heap with two LFH areas among other blocks."""

    def __init__(self, x64: bool) -> None:
        heap = self.heap = XpHeapBuilder(x64, lookaside=False)
        heap.used_block(40)
        self.first = heap.lfh_area(5, [20, None, 30, 25])
        before = set(heap.used)
        self.area = heap.lfh_area(6, [20, None, 30, 25])
        self.inside = set(heap.used) - before
        heap.used_block(400)
        self.subsegment = heap.areas[self.area]
        self.pieces = heap.pieces()

    def walk(self, address: int, raw: bytes) -> Walked:
        memory = memory_of(patched(self.pieces, address, raw))
        return walked(open_xp_heap, memory, self.heap.address, self.heap.x64, 3790)


@bits
def test_an_lfh_area_that_its_subsegment_contradicts_is_unwalked(x64: bool) -> None:
    made = MadeLfh(x64)
    heap = made.heap
    result = made.walk(made.subsegment + heap.pointer, b"\x10")
    assert heap.used.keys() - result.used.keys() == made.inside
    said = _only(result.said, "lfh-area-unreadable")
    assert (said.structure, said.address) == ("_HEAP_USERDATA_HEADER", made.area)
    assert result.heap.account.unwalked_bytes == heap.headers[made.area][1] - heap.unit
    # So is one that is said to have fewer blocks than there is room for.
    result = made.walk(made.subsegment + (0x1C if x64 else 0x14), b"\x02\0")
    assert heap.used.keys() - result.used.keys() == made.inside


@bits
def test_a_damaged_header_of_an_lfh_block_costs_that_block_only(x64: bool) -> None:
    made = MadeLfh(x64)
    victim = min(made.inside)
    header = made.heap.headers[victim][0]
    for place in (0, 7):  # its code, and its mark
        result = made.walk(header + made.heap.unit - 8 + place, b"\x55")
        assert made.heap.used.keys() - result.used.keys() == {victim}
        said = _only(result.said, "lfh-header-damaged")
        assert (said.structure, said.address) == ("_HEAP_ENTRY", header)


@bits
@pytest.mark.parametrize("field", [0, 2, 3], ids=["subsegment", "size", "signature"])
def test_an_area_whose_head_is_damaged_is_read_by_the_subsegment_that_names_it(
    x64: bool, field: int
) -> None:
    made = MadeLfh(x64)
    result = made.walk(made.area + field * made.heap.pointer, bytes(made.heap.pointer))
    assert result.used == made.heap.used
    assert result.heap.account.unwalked_bytes == 0


@bits
def test_an_area_that_nothing_names_any_more_is_unwalked_and_no_used_block(x64: bool) -> None:
    made = MadeLfh(x64)
    heap = made.heap
    made.pieces = patched(made.pieces, made.area, bytes(4 * heap.pointer))
    result = made.walk(heap.zones[0], bytes(2 * heap.pointer))
    assert heap.used.keys() - result.used.keys() == made.inside
    assert made.area not in result.used
    assert result.heap.account.unwalked_bytes == heap.headers[made.area][1]
    assert "lfh-zones-cut" in result.codes


@bits
def test_an_lfh_block_whose_state_the_chain_of_free_blocks_contradicts_is_unwalked(
    x64: bool,
) -> None:
    made = MadeLfh(x64)
    heap = made.heap
    victim = min(made.inside)
    header, size = heap.headers[victim]
    result = made.walk(header + heap.unit - 8 + 5, b"\0")  # used, says the chain
    assert heap.used.keys() - result.used.keys() == {victim}
    assert result.heap.account.unwalked_bytes == size
    free = next(u for u in heap.freed if u > made.area)
    header, size = heap.headers[free]
    result = made.walk(header + heap.unit - 8 + 5, b"\x01")
    assert result.used == heap.used
    assert result.heap.account.unwalked_bytes == size


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
