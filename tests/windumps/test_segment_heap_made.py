"""Segment heaps laid out by the builder: what no truth dump holds, and damage to it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from builders.segment_heap_builder import HEAP, METADATA, PAGE, SegmentHeapBuilder
from segment_heaps import context_for, used_sizes, walk

from windumps.blocks import SIZE_UNKNOWN, Kind, State
from windumps.diagnostics import Diagnostic
from windumps.memory import RunMemory

LARGE = [3 << 20, 5_000_001, 1 << 24, 0x7F0001, 4096, 12_345_678, 9_999_999]


def _mixed(**options: bool) -> SegmentHeapBuilder:
    made = SegmentHeapBuilder(**options)  # type: ignore[arg-type]
    for number in range(40):
        made.vs([24, 100, None, 17, 3000 + number, 1, 0, 999, None, 4095, 33])
        made.lfh(48, [48, None, 47, 20, *[32 + number % 16] * 60])
        made.lfh(1024, [1000, 1024, None, 700] * 3, pages=4)
        made.pages(150_000 + number)
    for request in LARGE:
        made.large(request)
    return made


def _found(memory: RunMemory) -> tuple[dict[int, int], list[Diagnostic]]:
    heap, blocks, said = walk(context_for(memory), HEAP)
    assert heap.account.residual_bytes == 0
    return used_sizes(blocks), said


def _patched(memory: RunMemory, address: int, raw: bytes) -> RunMemory:
    data = memory.data.copy()
    (offset,) = memory.locate(np.array([address], np.uint64), len(raw))
    data[offset : offset + len(raw)] = np.frombuffer(raw, np.uint8)
    runs = memory.runs
    return RunMemory(data, runs.address, runs.size, runs.offset)


@pytest.mark.parametrize("encoded", [False, True])
def test_all_kinds_of_blocks_come_out_with_their_requested_sizes(encoded: bool) -> None:
    made = _mixed(encoded_tree=encoded)
    heap, blocks, said = walk(context_for(made.build()), HEAP)
    assert used_sizes(blocks) == made.used
    assert said == []
    used = blocks.kind[blocks.state == State.USED]
    assert set(used.tolist()) == {
        Kind.SEGMENT_VS,
        Kind.SEGMENT_LFH,
        Kind.SEGMENT_PAGES,
        Kind.SEGMENT_LARGE,
    }
    account = heap.account
    assert account.residual_bytes == account.unwalked_bytes == 0
    assert account.used_bytes == sum(made.used.values())


@pytest.mark.parametrize(("heap_key", "lfh_key"), [(0, 0), (2**64 - 1, 2**32 - 1), (1 << 63, 5)])
def test_any_keys_are_found(heap_key: int, lfh_key: int) -> None:
    made = SegmentHeapBuilder(heap_key, lfh_key)
    made.vs([10, 20, 30, None, 40])
    made.lfh(64, [64, 1, None])
    made.lfh(160, [150, None])
    made.lfh(2048, [2000] * 6, pages=8)
    heap, blocks, said = walk(context_for(made.build()), HEAP)
    assert used_sizes(blocks) == made.used
    assert said == []
    assert heap.fit.key is not None
    assert heap.fit.key.value == heap_key
    assert heap.fit.lfh_key is not None
    assert heap.fit.lfh_key.value == lfh_key


def test_a_key_that_the_heap_leaves_open_is_not_guessed() -> None:
    made = SegmentHeapBuilder()
    made.vs([100])
    vs_only = dict(made.used)
    # One subsegment of few blocks: many block sizes would fit it.
    made.lfh(8192, [8000], pages=16)
    heap, blocks, said = walk(context_for(made.build()), HEAP)
    assert used_sizes(blocks) == vs_only
    (item,) = said
    assert (item.code, item.structure) == ("no-key", "_HEAP_LFH_SUBSEGMENT")
    assert item.bytes_affected == heap.account.unwalked_bytes == 16 * PAGE


def test_a_heap_without_a_segment_is_a_heap_without_blocks() -> None:
    heap, blocks, said = walk(context_for(SegmentHeapBuilder().build()), HEAP)
    assert len(blocks) == 0
    assert said == []
    assert heap.account.committed_bytes == heap.account.overhead_bytes == 2 * PAGE


def test_a_heap_of_large_blocks_only_needs_no_key() -> None:
    made = SegmentHeapBuilder()
    address = made.large(1 << 21)
    found, said = _found(made.build())
    assert found == {address: 1 << 21}
    assert said == []


def test_chunks_whose_free_is_put_off_are_free() -> None:
    made = SegmentHeapBuilder()
    made.vs([100, 200, None, 300])
    made.vs([400, 500, 600], delay=True)
    made.vs([700])
    found, said = _found(made.build())
    assert found == made.used
    assert said == []
    assert len(made.delayed) == 3


def test_a_list_of_delayed_frees_in_a_circle_ends() -> None:
    made = SegmentHeapBuilder()
    made.vs([400, 500, 600], delay=True)
    memory = made.build()
    first = made.delayed[0]
    found, said = _found(_patched(memory, first, struct.pack("<Q", made.delayed[-1])))
    assert found == {}
    (item,) = said
    assert item.code == "delay-free-list-broken"
    assert item.structure == "_HEAP_VS_DELAY_FREE_CONTEXT"


@pytest.mark.parametrize("encoded", [False, True])
def test_a_tree_in_a_circle_costs_nothing(encoded: bool) -> None:
    made = _mixed(encoded_tree=encoded)
    memory = made.build()
    ordered = [made.nodes[address] for address, _ in sorted(made.large_blocks)]
    root, leaf = ordered[len(ordered) // 2], ordered[0]
    link = root ^ leaf if encoded else root
    found, said = _found(_patched(memory, leaf, struct.pack("<Q", link)))
    assert found == made.used
    assert {item.code for item in said} == {"large-tree-broken"}
    assert {item.structure for item in said} == {"_HEAP_LARGE_ALLOC_DATA"}


@pytest.mark.parametrize("encoded", [False, True])
def test_a_tree_without_its_root_link_is_entered_from_its_least_node(encoded: bool) -> None:
    made = _mixed(encoded_tree=encoded)
    memory = made.build()
    found, said = _found(_patched(memory, HEAP + 0x48, struct.pack("<Q", 0x1234567000)))
    assert found == made.used
    assert [item.code for item in said] == ["large-tree-broken"]


def test_a_cut_branch_is_found_by_its_parent_link() -> None:
    made = _mixed()
    memory = made.build()
    ordered = [made.nodes[address] for address, _ in sorted(made.large_blocks)]
    root = ordered[len(ordered) // 2]
    found, said = _found(_patched(memory, root + 8, struct.pack("<Q", 0x666000)))
    assert found == made.used
    assert [item.code for item in said] == ["large-tree-broken"]


def test_a_damaged_node_costs_its_block_only() -> None:
    made = _mixed()
    memory = made.build()
    address = sorted(made.large_blocks)[3][0]
    found, said = _found(_patched(memory, made.nodes[address] + 0x18, bytes(8)))
    assert found == {a: s for a, s in made.used.items() if a != address}
    assert {item.code: item.address for item in said} == {
        "large-tree-broken": made.nodes[address],
        "large-blocks-missing": HEAP,
    }


def test_absent_nodes_cost_the_large_blocks_only() -> None:
    made = _mixed()
    memory = _without(made.build(), [METADATA])
    heap, blocks, said = walk(context_for(memory), HEAP)
    large = {address for address, _ in made.large_blocks}
    assert used_sizes(blocks) == {a: s for a, s in made.used.items() if a not in large}
    assert {item.code for item in said} == {"large-tree-broken", "large-blocks-missing"}
    # The heap counts the pages of all its large blocks.
    assert heap.account.unwalked_bytes == sum(-(-size // PAGE) * PAGE for size in LARGE)
    assert heap.account.residual_bytes == 0


@pytest.mark.parametrize("more", [1 << 32, PAGE, -PAGE, 1 << 46])
def test_a_large_block_whose_size_its_memory_does_not_bear_out_is_unwalked(more: int) -> None:
    made = SegmentHeapBuilder()
    first, second = made.large(2_500_000), made.large(3_000_001)
    memory = made.build()
    at = min(made.nodes.values()) + 0x20
    damaged = _patched(memory, at, struct.pack("<Q", memory.read_uint(at, 8) + more))
    heap, blocks, said = walk(context_for(damaged), HEAP)
    assert used_sizes(blocks) == {second: made.used[second]}
    assert heap.account.unwalked_bytes == -(-made.used[first] // PAGE) * PAGE
    assert {item.code for item in said} == {"large-tree-broken", "large-blocks-missing"}


def test_a_segment_that_no_list_leads_to_is_counted_by_the_heap() -> None:
    made = _mixed()
    memory = made.build()
    head = HEAP + 0x100 + 0x48
    # The list is empty and its count 0, as where a page of the header was overwritten.
    damaged = _patched(memory, head, struct.pack("<QQQ", head, head, 0))
    sound, _, _ = walk(context_for(memory), HEAP)
    heap, blocks, said = walk(context_for(damaged), HEAP)
    assert used_sizes(blocks).items() <= made.used.items()
    assert heap.account.committed_bytes == sound.account.committed_bytes
    if len(blocks.used) < len(made.used):
        assert heap.account.unwalked_bytes > 0
        assert "segments-missing" in {item.code for item in said}


def test_a_heap_of_nothing_but_records_of_large_blocks_is_ntdlls_own() -> None:
    made = SegmentHeapBuilder()
    large = [made.large(size) for size in (2_500_000, 3_000_001, 1 << 21)]
    base = made.lfh(48, [40] * len(large))
    memory = made.build()
    blocks_at = sorted(a for a in made.used if base <= a < base + PAGE)
    for at, address in zip(blocks_at, large, strict=True):
        size = -(-made.used[address] // PAGE) * PAGE
        record = struct.pack("<QQ", address | size - made.used[address], size)
        memory = _patched(memory, at + 0x18, record)
    heap, blocks, said = walk(context_for(memory), HEAP)
    assert len(blocks.used) == 0
    assert said == []
    assert heap.account.residual_bytes == 0


def test_two_flipped_chunks_cost_themselves_and_not_what_lies_between_them() -> None:
    made = SegmentHeapBuilder()
    base = made.vs([100] * 200)
    made.vs([50] * 200)
    memory = made.build()
    chunk = 128
    flipped = [base + 0x30 + number * chunk for number in (60, 120)]
    for header in flipped:
        memory = _patched(memory, header + 2, b"\x77\x77")
    found, said = _found(memory)
    lost = {header + 16 for header in flipped}
    assert found == {a: s for a, s in made.used.items() if a not in lost}
    assert [(item.code, item.address) for item in said] == [
        ("vs-chunk-damaged", header) for header in flipped
    ]
    assert [item.bytes_affected for item in said] == [chunk, chunk]


@pytest.mark.parametrize("holes", [[5], [5, 9], [2, 3, 12]])
def test_a_chain_goes_on_behind_absent_pages(holes: list[int]) -> None:
    made = SegmentHeapBuilder()
    base = made.vs([200] * 250)
    made.vs([50] * 20)
    memory = made.build()
    absent = [base + number * PAGE for number in holes]
    heap, blocks, said = walk(context_for(_without(memory, absent)), HEAP)
    inside = {a for a in made.used if any(page <= a - 16 < page + PAGE for page in absent)}
    found = used_sizes(blocks)
    assert found.keys() == made.used.keys() - inside
    # What says how much was asked for stands at the end of a block.
    wrong = {a for a in found if found[a] not in (made.used[a], SIZE_UNKNOWN)}
    assert not wrong
    assert heap.account.residual_bytes == 0
    assert heap.account.unwalked_bytes >= 0xF00 * len(holes)
    assert {item.code for item in said} == {"vs-chunk-damaged", "requested-size-unknown"}


def test_a_page_of_zeros_in_a_chain_is_as_good_as_absent() -> None:
    made = SegmentHeapBuilder()
    base = made.vs([200] * 250)
    page = base + 5 * PAGE
    heap, blocks, _ = walk(context_for(_patched(made.build(), page, bytes(PAGE))), HEAP)
    found = used_sizes(blocks)
    inside = {a for a in made.used if page <= a - 16 < page + PAGE}
    assert found.keys() == made.used.keys() - inside
    assert not {a for a in found if found[a] not in (made.used[a], SIZE_UNKNOWN)}
    assert heap.account.unwalked_bytes > 0


def _without(memory: RunMemory, pages: list[int]) -> RunMemory:
    """The memory without some pages."""
    runs = memory.runs
    kept = [
        (a + at, min(PAGE, s - at), o + at)
        for a, s, o in zip(
            runs.address.tolist(), runs.size.tolist(), runs.offset.tolist(), strict=True
        )
        for at in range(0, s, PAGE)
        if a + at not in pages
    ]
    address, size, offset = (list(column) for column in zip(*kept, strict=True))
    return RunMemory(
        memory.data,
        np.array(address, np.uint64),
        np.array(size, np.int64),
        np.array(offset, np.int64),
    )


def test_what_is_left_of_old_chunks_inside_a_free_one_is_not_taken_for_blocks() -> None:
    made = SegmentHeapBuilder()
    base = made.vs([100] * 200)
    memory = made.build()
    # Chunks 60 to 119 were freed and became one; their old headers are still there.
    chunk = 128
    start = base + 0x30 + 60 * chunk
    word = 60 * chunk // 16 << 16 | chunk // 16 << 32
    memory = _patched(memory, start, struct.pack("<Q", word ^ made.heap_key ^ start))
    end = start + 60 * chunk
    word = chunk // 16 << 16 | 60 * chunk // 16 << 32 | 1 << 48
    memory = _patched(memory, end, struct.pack("<Q", word ^ made.heap_key ^ end))
    freed = {start + number * chunk + 16 for number in range(60)}
    expected = {a: s for a, s in made.used.items() if a not in freed}
    assert _found(memory) == (expected, [])
    # And when the big chunk's own header is flipped, they still are none.
    found, said = _found(_patched(memory, start + 2, b"\x77\x77"))
    assert found == expected
    assert [item.code for item in said] == ["vs-chunk-damaged"]


def test_a_damaged_subsegment_header_costs_nothing_while_its_chunks_hold() -> None:
    made = SegmentHeapBuilder()
    base = made.vs([100] * 20)
    made.vs([50] * 20)
    found, said = _found(_patched(made.build(), base + 0x20, b"\x01\x00"))
    assert found == made.used
    (item,) = said
    assert (item.code, item.address) == ("vs-subsegment-damaged", base)


def test_a_flipped_signature_of_the_only_segment_does_not_turn_free_into_used() -> None:
    made = SegmentHeapBuilder()
    made.vs([100, None, 50, None, 70, 80])
    memory = made.build()
    signature = 0x1_5000_0000 + 0x10
    value = memory.read_uint(signature, 8)
    for bit in (0, 20, 40, 48, 55, 60):
        found, _ = _found(_patched(memory, signature, struct.pack("<Q", value ^ 1 << bit)))
        assert found == made.used


def test_a_range_of_an_unknown_use_is_said_to_be_unread() -> None:
    made = SegmentHeapBuilder()
    made.vs([100])
    made.pages(200_000)
    made.lfh(64, [60, 61, 62])
    memory = made.build()
    # The block of pages: allocated, first, and of a type no layout has.
    page_block = next(a for a in made.used if a & 0xFFF == 0)
    descriptor = (page_block & ~0xFFFFF) + ((page_block & 0xFFFFF) >> 12) * 0x20
    found, said = _found(_patched(memory, descriptor + 0x18, b"\x07"))
    assert found == {a: s for a, s in made.used.items() if a != page_block}
    (item,) = said
    assert (item.code, item.address) == ("page-range-unknown", page_block)
    assert item.bytes_affected == 49 * PAGE


def test_a_small_range_that_says_it_is_one_block_is_not_believed() -> None:
    made = SegmentHeapBuilder()
    made.vs([100])
    base = made.lfh(64, [60, 61, 62])
    made.lfh(128, [120] * 10)
    memory = made.build()
    descriptor = (base & ~0xFFFFF) + ((base & 0xFFFFF) >> 12) * 0x20
    inside = {a for a in made.used if base <= a < base + PAGE}
    found, said = _found(_patched(memory, descriptor + 0x18, b"\x03"))
    assert found == {a: s for a, s in made.used.items() if a not in inside}
    assert [item.code for item in said] == ["page-range-damaged"]
