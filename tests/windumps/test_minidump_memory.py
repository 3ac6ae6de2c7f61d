"""Memory lists and memory info of a minidump, also where they claim what is not there."""

from __future__ import annotations

import struct

import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from builders.opening import only, open_bytes

from windumps.memory import Presence

TOP = 1 << 64


def test_memory_of_both_lists_is_read_back() -> None:
    dump = open_bytes(
        MinidumpBuilder()
        .memory(0x7FF0_0000_0000, b"high")
        .memory(0x1_0000, b"low")
        .memory(0x2_0000, b"")
        .memory_list(0x3_0000, b"small")
        .build()
    )
    assert dump.memory.read(0x7FF0_0000_0000, 4) == b"high"
    assert dump.memory.read(0x1_0000, 3) == b"low"
    assert dump.memory.read(0x3_0000, 5) == b"small"
    assert dump.memory.total_bytes == 12
    assert dump.memory.presence(0x2_0000) is Presence.ABSENT
    assert dump.diagnostics == []


def test_a_thread_stack_in_both_lists_is_no_trouble() -> None:
    dump = open_bytes(
        MinidumpBuilder().memory(0x1000, b"0123456789").memory_list(0x1004, b"4567").build()
    )
    assert dump.memory.read(0x1000, 10) == b"0123456789"
    assert dump.diagnostics == []


def test_regions_are_read_back_in_order_of_address() -> None:
    dump = open_bytes(
        MinidumpBuilder()
        .region(0x5000, 0x3000, state=0x2000, protect=0, allocation_base=0x4000)
        .region(0x1000, 0x2000, protect=0x20, kind=0x1000000)
        .build()
    )
    regions = dump.memory.regions
    assert regions.base_address.tolist() == [0x1000, 0x5000]
    assert regions.allocation_base.tolist() == [0x1000, 0x4000]
    assert regions.region_size.tolist() == [0x2000, 0x3000]
    assert regions.state.tolist() == [0x1000, 0x2000]
    assert regions.protect.tolist() == [0x20, 0]
    assert regions.type.tolist() == [0x1000000, 0x20000]
    assert dump.memory.presence(0x1000) is Presence.ABSENT
    assert dump.memory.presence(0x5000) is Presence.NOT_MAPPED


@pytest.mark.parametrize("present", range(0, 31, 3))
def test_memory_cut_by_the_end_of_the_file_is_there_to_the_last_byte(present: int) -> None:
    data = (
        MinidumpBuilder()
        .memory(0x5000, b"0123456789")
        .memory(0x1000, b"abcdefghij")
        .memory(0x9000, b"ABCDEFGHIJ")
        .build()
    )
    dump = open_bytes(data[: len(data) - 30 + present])
    assert dump.memory.total_bytes == present
    got = [dump.memory.read_available(address, 10) for address in (0x5000, 0x1000, 0x9000)]
    assert b"".join(got) == b"0123456789abcdefghijABCDEFGHIJ"[:present]
    if present < 30:
        cut = only(dump, "memory-cut")
        assert cut.bytes_affected == 30 - present
        assert cut.address == (0x5000, 0x1000, 0x9000)[present // 10]
        assert cut.message.startswith(f"{3 - present // 10} memory ranges reach past the end")
    else:
        assert dump.diagnostics == []


def test_absurd_sizes_are_added_up_exactly_and_hide_only_what_follows() -> None:
    sizes = (4, 2**63, 2**64 - 1, 2**64 - 1, 3)
    starts = (0x1000, 0, 0, 0, 0x9000)
    data = MinidumpBuilder().build()
    base = 44 + 56 + 12 + 16 + 16 * len(sizes)
    rows = b"".join(struct.pack("<QQ", *row) for row in zip(starts, sizes, strict=True))
    data = MinidumpBuilder().stream(9, struct.pack("<QQ", len(sizes), base) + rows).build()
    assert len(data) == base
    dump = open_bytes(data + b"good")
    assert dump.memory.read(0x1000, 4) == b"good"
    assert dump.memory.total_bytes == 4
    assert only(dump, "memory-cut").bytes_affected == sum(sizes[1:])


def test_the_data_may_begin_anywhere_and_outside_means_absent() -> None:
    data = MinidumpBuilder().memory(0x1000, b"abcd").build()
    at = stream_place(data, 9)[0] + 8
    for base in (len(data), len(data) + 1, 2**32, 2**63, 2**64 - 1):
        dump = open_bytes(patched(data, at, struct.pack("<Q", base)))
        assert dump.memory.total_bytes == 0
        assert only(dump, "memory-cut").bytes_affected == 4
    dump = open_bytes(patched(data, at, struct.pack("<Q", 0)))
    assert dump.memory.read(0x1000, 4) == b"MDMP"


def test_a_range_may_end_with_the_address_space_and_is_cut_there() -> None:
    dump = open_bytes(MinidumpBuilder().memory(TOP - 4, b"last").memory(0, b"zero").build())
    assert dump.memory.read(TOP - 4, 4) == b"last"
    assert dump.memory.read(0, 4) == b"zero"
    assert dump.diagnostics == []
    dump = open_bytes(MinidumpBuilder().memory(TOP - 2, b"last").memory(0x10, b"next").build())
    assert dump.memory.read(TOP - 2, 2) == b"la"
    assert dump.memory.read(0x10, 4) == b"next"
    assert dump.memory.presence(0) is Presence.ABSENT
    assert only(dump, "bad-memory-range").bytes_affected == 0


def test_overlapping_ranges_are_said_and_give_each_byte_once() -> None:
    for builder in (
        MinidumpBuilder().memory(0x1000, b"AAAA").memory(0x1002, b"BBBB"),
        MinidumpBuilder().memory_list(0x1002, b"BBBB").memory_list(0x1000, b"AAAA"),
    ):
        dump = open_bytes(builder.build())
        assert dump.memory.read(0x1000, 6) == b"AAAABB"
        assert dump.memory.total_bytes == 6
        assert only(dump, "overlapping-memory").bytes_affected == 2


def test_ranges_that_share_the_file_cannot_make_more_memory_than_the_file_has() -> None:
    count = 1000
    rows = b"".join(struct.pack("<QII", n << 32, 10_000, 0) for n in range(count))
    dump = open_bytes(MinidumpBuilder().stream(5, struct.pack("<I", count) + rows).build())
    assert 0 < dump.memory.total_bytes <= 44 + 12 + 56 + 4 + 16 * count
    lost = only(dump, "bad-memory-range").bytes_affected
    assert lost + dump.memory.total_bytes == count * 10_000


def test_a_region_with_a_damaged_size_costs_itself_only() -> None:
    dump = open_bytes(
        MinidumpBuilder()
        .region(0x1000, 2**64 - 1)
        .region(0x3000, 0x1000)
        .region(0x4000, 0)
        .region(0x5000, 0x1000)
        .region(0x5000, 0x2000)
        .region(TOP - 0x1000, 0x2000)
        .build()
    )
    regions = dump.memory.regions
    assert regions.base_address.tolist() == [0x1000, 0x3000, 0x5000, TOP - 0x1000]
    assert regions.region_size.tolist() == [0x2000, 0x1000, 0x2000, 0xFFF]
    assert regions.committed_bytes() == 0x5FFF
    assert only(dump, "bad-region").message.startswith("3 memory regions")


def test_what_a_cut_list_of_regions_does_not_show_is_not_called_unmapped() -> None:
    data = MinidumpBuilder().region(0x1000, 0x1000).region(0x4000, 0x1000).build()
    whole = open_bytes(data).memory
    assert whole.regions.whole
    assert whole.presence(0x8000) is Presence.NOT_MAPPED
    start, _ = stream_place(data, 16)
    cut = open_bytes(
        patched(data, start + 8, struct.pack("<Q", 3))
    ).memory  # one more than there are
    assert not cut.regions.whole
    assert cut.presence(0x8000) is Presence.ABSENT


@pytest.mark.parametrize(("count", "whole"), [(2, True), (3, False)])
def test_a_list_of_threads_is_whole_or_cut(count: int, whole: bool) -> None:
    data = MinidumpBuilder().thread(1).thread(2).build()
    start, _ = stream_place(data, 3)
    dump = open_bytes(patched(data, start, struct.pack("<I", count)))
    assert (len(dump.threads), dump.threads_whole) == (2, whole)
    assert not open_bytes(MinidumpBuilder().build()).threads_whole
