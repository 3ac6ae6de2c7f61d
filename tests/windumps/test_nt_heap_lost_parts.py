"""What an NT heap lost is found by what else points to it, or counted as not walked.

Made heaps of one build of each form; `intact` is what must be found without damage.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from builders.nt_heap_numbers import COMMON, FRONT_END_7, FRONT_END_8
from builders.whole_nt_heap_builder import WholeNtHeapBuilder, made_memory
from heaps_walked import Walked, lacking, patched, value_at, walked

from windumps.heaps.nt.heap import open_nt_heap

PAGE = 0x1000
FORMS = [(b, x64) for b in (6002, 7600, 9200, 10240, 17763) for x64 in (False, True)]
forms = pytest.mark.parametrize(
    ("build", "x64"), FORMS, ids=[f"{build}-{'x64' if x64 else 'x86'}" for build, x64 in FORMS]
)
regions = pytest.mark.parametrize("regions", [False, True], ids=["no regions", "regions"])
Pieces = dict[int, bytes]


class Made:
    """A made heap and what can be done to it.

    Attributes:
        heap: The builder.
        large: Addresses of the large blocks of the program.
        middle: Address of a used block in the middle of the first segment.
        area: Address of the LFH area of 40 blocks, every third of them free.
        behind_hole: Address of a block behind the uncommitted pages.
        pieces: The heap's memory.
    """

    def __init__(self, build: int, x64: bool) -> None:
        heap = self.heap = WholeNtHeapBuilder(build, x64)
        blocks = [heap.used_block(300 + 16 * number) for number in range(20)]
        self.middle = blocks[10]
        self.stride = 6 * heap.unit
        requests = [None if i % 3 == 1 else self.stride - 8 - i % 5 for i in range(40)]
        self.area = heap.area(self.stride, requests)
        heap.area(4 * heap.unit, [4 * heap.unit - 8] * 30)
        heap.hole(3)
        self.behind_hole = heap.used_block(5000)
        self.large = [heap.large_block(520_000 + 9000 * number) for number in range(5)]
        self.second = heap.new_segment()
        self.in_second = [heap.used_block(700 + number) for number in range(12)]
        self.pieces = heap.pieces()

    def number(self, name: str) -> int:
        """An offset."""
        front_end = FRONT_END_7 if self.heap.build < 9200 else FRONT_END_8
        return (COMMON.get(name) or front_end[name])[self.heap.x64]

    def walk(self, pieces: Pieces, regions: bool = False) -> Walked:
        """The heap as the reader finds it."""
        memory = made_memory(pieces, regions)
        return walked(open_nt_heap, memory, self.heap.address, self.heap.x64, self.heap.build)

    def junk(self, pieces: Pieces, *places: int) -> Pieces:
        """The pieces with pointers at some places overwritten."""
        for place in places:
            pieces = patched(pieces, place, b"\x5a" * self.heap.pointer)
        return pieces

    def is_told(self, found: Walked) -> bool:
        """Every block that is missing has its memory counted as not walked; none is invented."""
        lost = self.heap.used.keys() - found.used.keys()
        assert found.used.items() <= self.heap.used.items()
        bytes_lost = sum(self.heap.used[address] for address in lost)
        return bool(lost) and found.heap.account.unwalked_bytes >= bytes_lost


# -- large blocks


@forms
@regions
def test_large_blocks_between_two_cuts_of_their_list_are_found_by_their_headers(
    build: int, x64: bool, regions: bool
) -> None:
    made = Made(build, x64)
    entries = made.heap.large
    found = made.walk(made.junk(made.pieces, entries[1], entries[3]), regions)
    assert found.used == made.heap.used
    assert {"virtual-list-cut", "virtual-blocks-recovered"} <= found.codes
    assert found.heap.account.unwalked_bytes == 0


@forms
@regions
def test_a_large_block_without_its_header_counts_as_not_walked(
    build: int, x64: bool, regions: bool
) -> None:
    made = Made(build, x64)
    entry = made.heap.large[2]
    found = made.walk(lacking(made.pieces, entry, PAGE), regions)
    assert made.heap.used.keys() - found.used.keys() == {made.large[2]}
    assert made.is_told(found)
    assert "large-blocks-differ" in found.codes


@forms
def test_a_large_block_whose_size_is_not_what_is_committed_is_used_with_size_unknown(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    at = made.heap.large[1] + made.number("large commit")
    smaller = (64 * PAGE).to_bytes(made.heap.pointer, "little")
    found = made.walk(patched(made.pieces, at, smaller), regions=True)
    assert found.used == made.heap.used | {made.large[1]: -1}
    assert "virtual-size-unclear" in found.codes


@forms
def test_a_counter_of_large_blocks_that_cannot_be_right_bounds_what_is_missing(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    at = made.heap.address + made.heap.numbers.counters + made.number("count large")
    found = made.walk(made.junk(made.pieces, at))
    assert found.used == made.heap.used
    total = sum(len(raw) for raw in made.pieces.values())
    assert 0 < found.heap.account.unwalked_bytes <= total


# -- segments


@forms
@regions
def test_a_segment_that_no_list_leads_to_is_found_by_its_signature(
    build: int, x64: bool, regions: bool
) -> None:
    made = Made(build, x64)
    link = made.number("segment link")
    head = made.heap.address + made.heap.numbers.segments
    pointer = made.heap.pointer
    itself = (made.heap.address + link).to_bytes(pointer, "little")
    pieces = patched(made.pieces, head + pointer, itself)
    pieces = patched(pieces, made.heap.address + link, head.to_bytes(pointer, "little"))
    found = made.walk(pieces, regions)
    assert found.used == made.heap.used
    assert "segment-recovered" in found.codes
    assert found.heap.account.unwalked_bytes == 0


@forms
def test_a_segment_whose_header_is_gone_counts_as_not_walked(build: int, x64: bool) -> None:
    made = Made(build, x64)
    found = made.walk(lacking(made.pieces, made.second, PAGE))
    assert not found.used.keys() & set(made.in_second)
    assert made.is_told(found)


@forms
def test_the_rest_of_a_segment_whose_header_is_gone_is_walked_when_its_extent_is_known(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    at = made.second + made.number("segment signature")
    found = made.walk(patched(made.pieces, at, b"\0\0\0\0"), regions=True)
    assert found.used == made.heap.used
    assert "segment-damaged" in found.codes


@forms
@pytest.mark.parametrize("name", ["segment pages", "segment last"])
@pytest.mark.parametrize("pages", [3, 0x70])
def test_a_segment_whose_length_is_damaged_costs_no_other_segments_blocks(
    build: int, x64: bool, name: str, pages: int
) -> None:
    made = Made(build, x64)
    base = made.heap.address
    value = pages if name == "segment pages" else base + pages * PAGE
    size = 4 if name == "segment pages" else made.heap.pointer
    pieces = patched(made.pieces, base + made.number(name), value.to_bytes(size, "little"))
    found = made.walk(pieces)
    assert found.used == made.heap.used
    assert "segment-damaged" in found.codes


@forms
def test_first_entries_that_lead_into_the_middle_of_a_segment_lose_nothing(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    header, _ = made.heap.headers[made.middle]
    at = made.heap.address + made.number("segment first")
    pieces = patched(made.pieces, at, header.to_bytes(made.heap.pointer, "little"))
    found = made.walk(pieces)
    assert found.used == made.heap.used


# -- uncommitted ranges


@forms
def test_pages_that_are_in_the_dump_are_not_uncommitted(build: int, x64: bool) -> None:
    made = Made(build, x64)
    descriptor, address, size = made.heap.holes[made.heap.address][0]
    larger = (size + 2 * PAGE).to_bytes(made.heap.pointer, "little")
    pieces = patched(made.pieces, descriptor + made.number("ucr size"), larger)
    found = made.walk(pieces)
    assert made.behind_hole in found.used
    assert found.used == made.heap.used
    assert "ucr-count-differs" in found.codes
    assert address not in found.used


@forms
def test_uncommitted_pages_that_the_segment_counts_are_so_even_if_the_dump_has_them(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    _, address, size = made.heap.holes[made.heap.address][0]
    found = made.walk(made.pieces | {address: bytes(size)})
    assert found.used == made.heap.used
    assert found.said == []
    assert found.heap.account.unwalked_bytes == 0


@forms
def test_a_list_of_uncommitted_ranges_that_is_cut_loses_no_block(build: int, x64: bool) -> None:
    made = Made(build, x64)
    head = made.heap.address + made.number("segment ucr")
    found = made.walk(made.junk(made.pieces, head, head + made.heap.pointer))
    assert found.used == made.heap.used
    assert "ucr-list-cut" in found.codes
    # The heap's counters tell that the pages taken for absent ones are not committed.
    assert found.heap.account.unwalked_bytes == 0


# -- the low-fragmentation front end


@forms
@pytest.mark.parametrize("name", ["area signature", "area subsegment"])
def test_an_area_with_a_damaged_header_is_found_by_its_subsegment(
    build: int, x64: bool, name: str
) -> None:
    made = Made(build, x64)
    offset = made.number("area signature") if name == "area signature" else 0
    found = made.walk(patched(made.pieces, made.area + offset, b"\x5a\x5a\x5a\x5a"))
    assert found.used == made.heap.used
    assert "lfh-area-recovered" in found.codes
    assert found.heap.account.unwalked_bytes == 0


@forms
def test_an_area_without_signature_whose_subsegment_is_damaged_too_counts_as_not_walked(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    pieces = patched(made.pieces, made.area, b"\x5a" * (2 * made.heap.unit))
    found = made.walk(made.junk(pieces, made.heap.areas[made.area] + made.number("sub area")))
    assert made.is_told(found)
    assert "lfh-area-unreadable" in found.codes


@forms
def test_an_area_whose_subsegment_is_damaged_counts_as_not_walked(build: int, x64: bool) -> None:
    made = Made(build, x64)
    at = made.heap.areas[made.area] + made.number("sub count")
    found = made.walk(patched(made.pieces, at, b"\xff\xff"))
    assert made.is_told(found)
    assert found.heap.account.unwalked_bytes < 45 * made.stride
    assert "lfh-area-unreadable" in found.codes


def _area_blocks(made: Made) -> list[int]:
    end = made.area + 42 * made.stride
    return sorted(a for a in made.heap.used if made.area < a < end and a in made.heap.headers)


@pytest.mark.parametrize("build", [9200, 10240, 17763])
@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
@pytest.mark.parametrize("bit", [0, 1], ids=["busy", "free"])
def test_a_block_whose_bitmap_and_header_differ_is_of_unknown_state(
    build: int, x64: bool, bit: int
) -> None:
    made = Made(build, x64)
    at = made.area + made.number("area size")
    flipped = value_at(made.pieces, at, 1) ^ 1 << bit
    found = made.walk(patched(made.pieces, at, bytes([flipped])))
    first = _area_blocks(made)[0]
    assert made.heap.used.keys() - found.used.keys() == ({first} if bit == 0 else set())
    assert found.used.items() <= made.heap.used.items()
    assert found.heap.account.unwalked_bytes == made.stride
    assert found.codes == {"lfh-state-unclear"}


@pytest.mark.parametrize("build", [6002, 7600])
@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
def test_where_only_the_subsegments_count_knows_better_as_much_counts_as_not_walked(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    victim = _area_blocks(made)[3]
    found = made.walk(patched(made.pieces, victim - 1, b"\x80"))
    assert made.heap.used.keys() - found.used.keys() == {victim}
    assert found.heap.account.unwalked_bytes == made.stride
    assert found.codes == {"lfh-count-differs"}


@pytest.mark.parametrize("build", [6002, 7600])
@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
def test_a_header_of_which_the_part_without_a_key_is_overwritten_is_damaged(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    first = _area_blocks(made)[0]
    free = first + made.stride  # the second block of the area
    found = made.walk(patched(made.pieces, free - 4, b"\xa3\x92\x24\x89"))
    assert found.used == made.heap.used
    assert found.heap.account.unwalked_bytes == made.stride
    assert found.codes == {"lfh-header-damaged"}


@forms
def test_a_free_count_that_cannot_be_right_costs_no_block(build: int, x64: bool) -> None:
    made = Made(build, x64)
    at = made.heap.areas[made.area] + made.number("sub depth")
    found = made.walk(patched(made.pieces, at, b"\xff\x7f"))
    assert found.used == made.heap.used
    assert 0 < found.heap.account.unwalked_bytes <= 40 * made.stride


@pytest.mark.parametrize("build", [9200, 17763])
@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
def test_without_the_pointer_to_the_front_end_its_blocks_are_still_found(
    build: int, x64: bool
) -> None:
    made = Made(build, x64)
    at = made.heap.address + made.heap.numbers.front_end
    found = made.walk(made.junk(made.pieces, at))
    assert found.used == made.heap.used


# -- single blocks


@forms
@pytest.mark.parametrize("unused", [0, 1, 2, 3, 4, 5, 7, 0x41, 0x7F])
def test_unused_bytes_that_no_used_block_has_make_it_one_of_unknown_state(
    build: int, x64: bool, unused: int
) -> None:
    made = Made(build, x64)
    _, size = made.heap.headers[made.middle]
    found = made.walk(patched(made.pieces, made.middle - 1, bytes([unused])))
    assert made.heap.used.keys() - found.used.keys() == {made.middle}
    assert found.used.items() <= made.heap.used.items()
    assert found.heap.account.unwalked_bytes == size
    assert found.codes == {"heap-header-damaged"}


@forms
def test_a_size_that_the_debug_heaps_pattern_does_not_follow_is_unknown(
    build: int, x64: bool
) -> None:
    heap = WholeNtHeapBuilder(build, x64)
    blocks = [heap.checked_block(90 + number) for number in range(8)]
    pieces = heap.pieces()

    def used(damaged: Pieces) -> dict[int, int]:
        return walked(open_nt_heap, made_memory(damaged), heap.address, x64, build).used

    assert used(pieces) == heap.used
    unused = value_at(pieces, blocks[3] - 1, 1)
    damaged = patched(pieces, blocks[3] - 1, bytes([unused + 4]))
    assert used(damaged) == heap.used | {blocks[3]: -1}


@forms
def test_headers_left_over_in_a_free_block_are_no_blocks(build: int, x64: bool) -> None:
    heap = WholeNtHeapBuilder(build, x64)
    for number in range(10):
        heap.used_block(200 + number)
    free = heap.freed_together([400 + number for number in range(12)])
    for number in range(10):
        heap.used_block(200 + number)
    pieces = heap.pieces()
    header = free - 8

    def walk(damage: Callable[[], Pieces]) -> Walked:
        return walked(open_nt_heap, made_memory(damage()), heap.address, x64, build)

    assert walk(lambda: pieces).used == heap.used
    hurt = walk(lambda: patched(pieces, header, b"\x5a" * 8))
    assert hurt.used == heap.used
    # The damage reaches over the first of the old headers, so that nothing leads back to it.
    wide = walk(lambda: patched(pieces, header, b"\x5a" * 1000))
    assert wide.used == heap.used
    assert wide.heap.account.unwalked_bytes > 0


@forms
@pytest.mark.parametrize("filler", [b"\0", b"\xcc"], ids=["zero", "filler"])
def test_pages_of_filler_are_not_walked(build: int, x64: bool, filler: bytes) -> None:
    made = Made(build, x64)
    page = made.middle & -PAGE
    if page == made.heap.address:
        page += PAGE
    found = made.walk(patched(made.pieces, page, filler * PAGE))
    assert made.is_told(found)


# -- nothing comes twice


@forms
def test_no_damage_makes_used_blocks_overlap(build: int, x64: bool) -> None:
    made = Made(build, x64)
    for header, _ in list(made.heap.headers.values())[4::7]:
        for byte in range(8):
            at = header + made.heap.unit - 8 + byte
            for mask in (1, 0x40, 0xFF):
                raw = bytes([value_at(made.pieces, at, 1) ^ mask])
                used = made.walk(patched(made.pieces, at, raw)).blocks.used
                ends = used.address + used.counted_bytes.astype("u8")
                order = used.address.argsort()
                assert (ends[order][:-1] <= used.address[order][1:]).all()
