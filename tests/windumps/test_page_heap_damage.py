"""A damaged page heap loses what the damage touches, and says what that was."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from builders.page_heap_builder import PageHeapBuilder, memory_of
from builders.xp_heap_builder import regions_of
from heaps_walked import Walked, flipped_at, lacking, patched, value_at, walked

from windumps.diagnostics import Diagnostic
from windumps.errors import HeapError
from windumps.heaps.page_heap.heap import open_page_heap
from windumps.memory.regions import Regions

BUILDS = {"xp": 2600, "vista": 6002, "verifier": 9200}
forms = pytest.mark.parametrize("form", list(BUILDS))
bits = pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
# Places in a node, x86 and x64.
USER = {"xp": (0x10, 0x20), "vista": (0x10, 0x20), "verifier": (0x10, 0x20)}
BLOCK = {"xp": (4, 8), "vista": (0x14, 0x28), "verifier": (0x14, 0x28)}
SIZE = {"xp": (8, 0x10), "vista": (0x18, 0x30), "verifier": (0x18, 0x30)}
REQUESTED = {"xp": (0x14, 0x28), "vista": (0x20, 0x40), "verifier": (0x20, 0x40)}
TRACE = {"xp": (0x24, 0x48), "vista": (0x30, 0x60), "verifier": (0x30, 0x60)}


class Made:
    """A heap with both kinds of blocks, and places in it."""

    def __init__(self, form: str, x64: bool) -> None:
        self.form, self.x64 = form, x64
        heap = self.heap = PageHeapBuilder(form, x64)
        self.full, self.light = [], []
        for number in range(15):
            self.full.append(heap.full_block(100 + number * 61, trace=0x5000000 + 64 * number))
            self.light.append(heap.light_block(9 + number * 17, trace=0x6000000 + 64 * number))
            if number % 4 == 0:
                heap.freed_block(100 + number)
                heap.freed_light_block(30 + number)
        self.pieces = heap.pieces()

    def walk(self, pieces: dict[int, bytes]) -> Walked:
        build = BUILDS[self.form]
        return walked(open_page_heap, memory_of(pieces), self.heap.address, self.x64, build)

    def write(self, address: int, value: int, size: int = 0) -> Walked:
        raw = value.to_bytes(size or self.heap.pointer, "little")
        return self.walk(patched(self.pieces, address, raw))

    def flip(self, address: int, mask: int = 0x11) -> Walked:
        return self.write(address, value_at(self.pieces, address, 1) ^ mask, 1)

    def node(self, user: int, places: dict[str, tuple[int, int]]) -> int:
        """Where a field of a block's node stands."""
        return self.heap.nodes[user] + places[self.form][self.x64]

    def lost(self, result: Walked) -> set[int]:
        """Blocks that were not found; nothing else may have changed."""
        assert result.used.items() <= self.heap.used.items()
        return self.heap.used.keys() - result.used.keys()

    def freed_found(self, result: Walked) -> bool:
        return bool(set(self.heap.freed) & result.used.keys())


def _only(said: list[Diagnostic], code: str) -> Diagnostic:
    (item,) = [item for item in said if item.code == code]
    return item


@forms
@bits
def test_the_undamaged_heap_loses_nothing(form: str, x64: bool) -> None:
    made = Made(form, x64)
    result = made.walk(made.pieces)
    assert made.lost(result) == set()
    assert result.said == []


# Nodes of full blocks.


@forms
@bits
@pytest.mark.parametrize("number", [0, 7, 14])
def test_a_requested_size_that_only_the_node_has_wrong_comes_from_the_header(
    form: str, x64: bool, number: int
) -> None:
    made = Made(form, x64)
    user = made.full[number]
    result = made.write(made.node(user, REQUESTED), 3)
    assert made.lost(result) == set()
    said = _only(result.said, "page-heap-header-differs")
    assert said.structure == "_DPH_BLOCK_INFORMATION"
    assert said.address == user - made.heap.header
    assert hex(made.heap.nodes[user]) in said.message


@forms
@bits
def test_a_header_that_is_overwritten_costs_nothing(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.full[4]
    header = user - made.heap.header
    result = made.walk(patched(made.pieces, header, b"A" * made.heap.header))
    assert made.lost(result) == set()
    assert result.traces == made.heap.traces
    assert _only(result.said, "page-heap-header-differs").address == header


@forms
@bits
def test_where_node_and_header_name_two_traces_neither_is_believed(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.full[4]
    result = made.flip(made.node(user, TRACE) + 1)
    assert made.lost(result) == set()
    assert result.traces == made.heap.traces | {user: 0}
    assert "page-heap-header-differs" in result.codes


@forms
@bits
@pytest.mark.parametrize("places", [USER, BLOCK], ids=["pUserAllocation", "pVirtualBlock"])
def test_a_node_that_describes_no_block_costs_that_block_only(
    form: str, x64: bool, places: dict[str, tuple[int, int]]
) -> None:
    made = Made(form, x64)
    user = made.full[4]
    result = made.write(made.node(user, places), 0x123)
    assert made.lost(result) == {user}
    assert any(
        item.code == "page-heap-node-damaged" and item.address == made.heap.nodes[user]
        for item in result.said
    )
    assert result.heap.account.unwalked_bytes > 0 or form == "vista"


@forms
@bits
def test_the_busy_blocks_whose_link_is_damaged_are_found_all_the_same_or_said_lost(
    form: str, x64: bool
) -> None:
    made = Made(form, x64)
    p = made.heap.pointer
    first = sorted(made.heap.nodes[user] for user in made.full)[len(made.full) // 2]
    for offset in (0,) if form == "xp" else (0, p, 2 * p):
        for value in (0x10, first, made.heap.root):
            result = made.write(first + offset, value)
            lost = made.lost(result)
            if form == "vista":
                # There is no second record: what hangs on the node goes with it.
                assert lost
                assert not lost & set(made.light)
                assert result.codes & {"page-heap-tree-damaged", "page-heap-count-differs"}
            else:
                assert lost == set()
                assert result.codes
            assert all(item.structure and item.address for item in result.said)
            assert not made.freed_found(result)


@pytest.mark.parametrize("form", ["vista", "verifier"])
@bits
def test_a_tree_that_runs_in_a_circle_ends(form: str, x64: bool) -> None:
    made = Made(form, x64)
    p = made.heap.pointer
    table = made.heap.root + (0x38 if x64 else 0x20)
    root = value_at(made.pieces, table + 2 * p, p)
    left = value_at(made.pieces, root + p, p)
    for at, value in (
        (table + 2 * p, table),
        (left + p, root),
        (left + 2 * p, left),
        (left + p, table),
    ):
        result = made.write(at, value)
        lost = made.lost(result)
        assert lost == set() or form == "vista"
        assert not lost & set(made.light)
        said = [item for item in result.said if item.code == "page-heap-tree-damaged"]
        assert {item.structure for item in said} == {"_RTL_BALANCED_LINKS"}


@bits
def test_a_busy_list_that_runs_in_a_circle_ends_and_loses_nothing(x64: bool) -> None:
    made = Made("xp", x64)
    nodes = [made.heap.nodes[user] for user in made.full]
    result = made.write(nodes[7], nodes[3])
    assert made.lost(result) == set()
    assert not made.freed_found(result)
    said = _only(result.said, "page-heap-busy-list-cut")
    assert (said.structure, said.address) == (
        "_DPH_HEAP_ROOT.pBusyAllocationListHead",
        made.heap.root,
    )
    assert hex(nodes[3]) in said.message


@bits
def test_a_cut_list_of_neighbours_costs_nothing_that_the_tree_has(x64: bool) -> None:
    made = Made("verifier", x64)
    link = made.heap.nodes[made.full[7]] + (0x48 if x64 else 0x24)
    result = made.write(link, 0x10)
    assert made.lost(result) == set()
    assert "page-heap-region-cut" in result.codes


@forms
@bits
def test_a_cut_list_of_regions_costs_no_block(form: str, x64: bool) -> None:
    made = Made(form, x64)
    result = made.write(made.heap.root + (0x18 if x64 else 0x10), 0x10)
    assert made.lost(result) == set()
    said = _only(result.said, "page-heap-list-cut")
    assert said.structure.startswith("_DPH_HEAP_ROOT.")
    assert said.address == made.heap.root


@forms
@bits
def test_busy_blocks_that_the_root_counts_and_no_list_has_are_unwalked(
    form: str, x64: bool
) -> None:
    heap = PageHeapBuilder(form, x64)
    for number in range(115):
        heap.full_block(number)
    # The last of the nodes are erased.
    at = sorted(heap.nodes.values())[-4]
    pieces = patched(heap.pieces(), at, bytes(heap.root + 0x4000 - at))
    memory = memory_of(pieces, _regions(heap))
    result = walked(open_page_heap, memory, heap.address, x64, BUILDS[form])
    lost = heap.used.keys() - result.used.keys()
    assert 0 < len(lost) < 20
    assert result.heap.account.unwalked_bytes >= len(lost) * 0x1000


def _regions(heap: PageHeapBuilder) -> Regions:
    """The page heap's own range as one allocation, committed throughout."""
    return regions_of([(heap.address, 0x100000, heap.address)])


@bits
def test_the_range_of_a_block_counts_when_no_list_names_it_any_more(x64: bool) -> None:
    made = Made("xp", x64)
    pieces = patched(made.pieces, made.heap.root + (0x18 if x64 else 0x10), b"\x10")
    memory = memory_of(pieces, _regions(made.heap))
    result = walked(open_page_heap, memory, made.heap.address, x64, BUILDS["xp"])
    account = result.heap.account
    assert account.committed_bytes == 0x100000 + made.heap.normal_bytes
    assert account.walked_bytes + account.unwalked_bytes == account.committed_bytes


@forms
@bits
def test_a_node_whose_pages_are_another_blocks_is_no_block(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user, other = made.full[3], made.full[8]
    pieces = made.pieces
    for places in (USER, BLOCK, SIZE, REQUESTED):
        raw = value_at(pieces, made.node(other, places), made.heap.pointer)
        pieces = patched(pieces, made.node(user, places), raw.to_bytes(made.heap.pointer, "little"))
    result = made.walk(pieces)
    assert made.lost(result) <= {user, other}
    assert user not in result.used
    assert "page-heap-node-damaged" in result.codes
    assert result.heap.account.unwalked_bytes > 0


@forms
@bits
def test_a_node_whose_pages_lie_outside_the_heap_is_no_block(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.full[3]
    pieces = made.pieces
    for places in (USER, BLOCK):
        at = made.node(user, places)
        value = value_at(pieces, at, made.heap.pointer) - made.heap.address
        pieces = patched(pieces, at, value.to_bytes(made.heap.pointer, "little"))
    result = made.walk(pieces)
    assert made.lost(result) == {user}
    assert "page-heap-node-damaged" in result.codes
    assert result.heap.account.unwalked_bytes > 0


@forms
@bits
def test_absent_pages_of_a_block_cost_nothing(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.full[4]
    start, size = made.heap.block_pages[user]
    result = made.walk(lacking(made.pieces, start, size))
    assert made.lost(result) == set()
    assert result.traces == made.heap.traces
    assert result.said == []


@forms
@bits
def test_an_absent_page_of_nodes_costs_the_blocks_of_its_nodes(form: str, x64: bool) -> None:
    heap = PageHeapBuilder(form, x64)
    full = [heap.full_block(number) for number in range(115)]
    light = heap.light_block(40)
    page = max(heap.nodes.values()) & ~0xFFF
    here = {user for user in full if page <= heap.nodes[user] < page + 0x1000}
    assert 0 < len(here) < len(full)
    memory = memory_of(lacking(heap.pieces(), page, 0x1000))
    try:
        result = walked(open_page_heap, memory, heap.address, x64, BUILDS[form])
    except HeapError:
        assert form == "vista"  # its tree is all there is, and hardly any of it is left
        return
    assert light in result.used
    assert result.used.items() <= heap.used.items()
    assert not here & result.used.keys()
    if form == "xp":  # nodes are found in their pools
        reaching = {user for user in full if page <= heap.nodes[user] + (0x50 if x64 else 0x28)}
        assert {user for user in full if user not in reaching} <= result.used.keys()
    assert result.said
    assert all(item.structure and item.address for item in result.said)


# Light blocks.


@forms
@bits
@pytest.mark.parametrize("field", ["StartStamp", "EndStamp", "Heap", "RequestedSize", "StackTrace"])
def test_one_damaged_field_of_a_light_header_does_not_cost_the_block(
    form: str, x64: bool, field: str
) -> None:
    made = Made(form, x64)
    user = made.light[5]
    header = user - made.heap.header
    place = {
        "StartStamp": (0, 0),
        "Heap": (4, 8),
        "RequestedSize": (8, 0x10),
        "StackTrace": (0x18, 0x30),
        "EndStamp": (0x1C, 0x3C),
    }[field][x64]
    raw = b"\xa5" * (4 if "Stamp" in field else made.heap.pointer)
    result = made.walk(patched(made.pieces, header + place, raw))
    if field == "StackTrace":  # nothing contradicts it; readers of traces look at what is there
        assert made.lost(result) == set()
        return
    if field == "RequestedSize":  # the size is lost, the block is not
        assert result.used == made.heap.used | {user: -1}
    else:
        assert made.lost(result) == set()
    said = _only(result.said, "page-heap-stamp-damaged")
    assert (said.structure, said.address) == ("_DPH_BLOCK_INFORMATION", header)


@forms
@bits
def test_a_light_header_that_is_gone_costs_that_block_only(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.light[5]
    header = user - made.heap.header
    result = made.walk(patched(made.pieces, header, b"\xa5" * made.heap.header))
    assert made.lost(result) == {user}
    said = _only(result.said, "page-heap-stamp-damaged")
    assert (said.structure, said.address) == ("_DPH_BLOCK_INFORMATION", header)
    assert said.bytes_affected == made.heap.normal.headers[header][1]
    assert result.heap.account.unwalked_bytes == said.bytes_affected


@forms
@bits
def test_one_stamp_alone_does_not_tell_what_a_light_block_is(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user, size = made.light[5], made.heap.header
    freed = next(a for a in made.heap.freed if a > made.heap.normal_address)
    for victim in (user, freed):
        header = victim - size
        result = made.walk(patched(made.pieces, header + 4, b"\xa5" * (size - 4)))
        assert made.lost(result) == {victim} - {freed}
        said = _only(result.said, "page-heap-stamp-damaged")
        assert (said.structure, said.address) == ("_DPH_BLOCK_INFORMATION", header)
        assert "its state is unknown" in said.message
        assert result.heap.account.unwalked_bytes == made.heap.normal.headers[header][1]


@forms
@bits
def test_a_size_that_only_the_normal_heap_has_wrong_is_that_of_page_heap(
    form: str, x64: bool
) -> None:
    made = Made(form, x64)
    user = made.light[5]
    entry, _ = made.heap.normal.headers[user - made.heap.header]
    # UnusedBytes has no part in a header's checksum.
    unused = entry + (6 if form == "xp" else 7) + (8 if x64 else 0)
    result = made.flip(unused, 0x04)
    assert made.lost(result) == set()
    said = _only(result.said, "page-heap-stamp-damaged")
    assert said.address == user - made.heap.header


@forms
@bits
def test_light_blocks_of_a_lost_normal_heap_are_found_by_their_stamps(form: str, x64: bool) -> None:
    made = Made(form, x64)
    start = made.heap.normal_address
    result = made.walk(lacking(made.pieces, start, 0x1000))
    assert made.lost(result) == {
        user for user in made.light if user - made.heap.header < start + 0x1000
    }
    assert result.traces.items() <= made.heap.traces.items()
    assert not made.freed_found(result)
    assert result.heap.account.unwalked_bytes > 0
    said = _only(result.said, "page-heap-normal-heap-unread")
    assert (said.structure, said.address) == ("_DPH_HEAP_ROOT.NormalHeap", start)
    assert f"0x{made.heap.address:x}" in said.message


@forms
@bits
def test_a_light_size_that_normal_heap_and_filling_contradict_is_unknown(
    form: str, x64: bool
) -> None:
    made = Made(form, x64)
    user, other = made.light[5], made.light[9]
    # The sizes of another block's header, which fit each other.
    sizes = made.heap.header // 4
    at = other - made.heap.header + sizes
    raw = value_at(made.pieces, at, sizes).to_bytes(sizes, "little")
    result = made.walk(patched(made.pieces, user - made.heap.header + sizes, raw))
    assert result.used == made.heap.used | {user: -1}
    assert _only(result.said, "page-heap-stamp-damaged").address == user - made.heap.header


@forms
@bits
def test_a_flipped_header_in_the_normal_heap_costs_that_block_only(form: str, x64: bool) -> None:
    made = Made(form, x64)
    user = made.light[5]
    inner = user - made.heap.header
    entry, size = made.heap.normal.headers[inner]
    result = made.flip(entry + (8 if x64 else 0))
    assert made.lost(result) == {user}
    said = _only(result.said, "heap-header-damaged")
    assert (said.structure, said.address) == ("_HEAP_ENTRY", entry)
    assert result.heap.account.unwalked_bytes == size


# The root.


@forms
@bits
def test_a_damaged_root_is_read_as_far_as_it_goes(form: str, x64: bool) -> None:
    made = Made(form, x64)
    for offset in (0, 4, 0x28 if form == "xp" else 0x5C if not x64 else 0xA8):
        result = made.flip(made.heap.root + offset)
        assert made.lost(result) == set()
        assert not made.freed_found(result)


@forms
@bits
def test_a_root_full_of_nonsense_is_refused(form: str, x64: bool) -> None:
    made = Made(form, x64)
    for fill in (b"\0", b"\xee", b"\x41"):
        with pytest.raises(HeapError, match="damaged or not in the dump") as caught:
            made.walk(patched(made.pieces, made.heap.root, fill * 0x168))
        assert f"0x{made.heap.address:x}" in str(caught.value)


@forms
@bits
def test_random_flips_never_stop_the_walk_or_bring_a_freed_block_back(form: str, x64: bool) -> None:
    made = Made(form, x64)
    normal = made.heap.normal_address
    pieces = {
        at: raw if at != normal else raw[:0x4000]
        for at, raw in made.pieces.items()
        if at <= normal or form != "xp"
    }
    memory = memory_of(pieces)
    random = np.random.default_rng(5)
    known = made.heap.used.keys() | set(made.heap.freed)
    strangers = 0
    tracemalloc.start()
    for _ in range(60):
        damaged = flipped_at(memory, random)
        try:
            result = walked(open_page_heap, damaged, made.heap.address, x64, BUILDS[form])
        except HeapError:
            continue
        strangers += len(result.used.keys() - known)
        assert len(result.used.keys() & set(made.heap.freed)) <= 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert strangers <= 2


# Input made to hurt.


@bits
def test_pools_that_claim_the_same_memory_over_and_over_cost_no_more_than_there_is(
    x64: bool,
) -> None:
    made = Made("xp", x64)
    heap, p = made.heap, made.heap.pointer
    size = 0x50 if x64 else 0x28
    first = value_at(made.pieces, heap.root + (0xB8 if x64 else 0x60), p)
    count = 4000
    start = 0x7000000
    raw = bytearray(count * size)
    for number in range(count):
        at = number * size
        following = start + at + size if number + 1 < count else 0
        raw[at : at + p] = following.to_bytes(p, "little")
        raw[at + p : at + 2 * p] = heap.root.to_bytes(p, "little")
        raw[at + 2 * p : at + 3 * p] = (0xF0000).to_bytes(p, "little")
    pieces = made.pieces | {start: bytes(raw)}
    pieces = patched(pieces, first, start.to_bytes(p, "little"))
    pieces = patched(pieces, heap.nodes[made.full[3]], b"\x10" * p)  # so that pools are searched
    tracemalloc.start()
    result = made.walk(pieces)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.lost(result) == set()
    assert peak < 32 << 20
    assert result.said
