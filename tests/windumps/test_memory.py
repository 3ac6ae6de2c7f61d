"""Addresses in, bytes out: runs of a file as an address space, regions, and modules by address."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windumps.errors import PageNotInDumpError, PartialReadError
from windumps.images.modules import Module, ModuleMap, PdbIdentity, file_name, parse_codeview
from windumps.memory import Presence, Regions, RunMemory
from windumps.memory.address_space import AddressSpace

TOP = 1 << 64


def _memory(
    runs: list[tuple[int, bytes]], gap: int = 3, regions: Regions | None = None
) -> RunMemory:
    """Runs at addresses; in the file `gap` foreign bytes follow each."""
    data, offsets = b"", []
    for _, raw in runs:
        offsets.append(len(data))
        data += raw + b"\xee" * gap
    return RunMemory(
        np.frombuffer(data, np.uint8),
        np.array([address for address, _ in runs], np.uint64),
        np.array([len(raw) for _, raw in runs], np.int64),
        np.array(offsets, np.int64),
        regions,
    )


def _regions(*rows: tuple[int, int, int]) -> Regions:
    base, size, state = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    narrow = state.astype(np.uint32)
    kind = np.full(len(rows), 0x20000, np.uint32)
    return Regions(base, base, size, narrow, np.full(len(rows), 4, np.uint32), kind)


def _pieces(memory: AddressSpace, start: int, end: int) -> list[tuple[int, int, int]]:
    address, size, offset = memory.extents(start, end)
    return list(zip(address.tolist(), size.tolist(), offset.tolist(), strict=True))


def _addresses(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


# -- view and read -------------------------------------------------------------------------------


def test_bytes_in_one_piece_are_read_without_a_copy_and_cannot_be_written() -> None:
    memory = _memory([(0x1000, b"0123456789")])
    view = memory.view(0x1002, 5)
    assert view.tobytes() == b"23456"
    assert np.shares_memory(view, memory.data)
    assert not view.flags.writeable


def test_a_read_over_two_runs_that_touch_gives_both() -> None:
    memory = _memory([(0x1000, b"abcd"), (0x1004, b"efgh")])
    view = memory.view(0x1002, 4)
    assert view.tobytes() == b"cdef"
    assert not view.flags.writeable


def test_runs_contiguous_in_memory_and_file_become_one() -> None:
    memory = _memory([(0x1004, b"efgh"), (0x1000, b"abcd"), (0x1008, b"ijkl")], gap=0)
    assert memory.runs.address.tolist() == [0x1000, 0x1004, 0x1008]
    memory = _memory([(0x1000, b"abcd"), (0x1004, b"efgh"), (0x1008, b"ijkl")], gap=0)
    assert memory.runs.address.tolist() == [0x1000]
    assert memory.runs.size.tolist() == [12]
    assert np.shares_memory(memory.view(0x1002, 8), memory.data)


@pytest.mark.parametrize("address", [0, 0xFFF, 0x1004, 0x2000, TOP - 1, TOP, TOP + 0x1000, -1])
def test_a_read_that_begins_outside_says_that_the_page_is_absent(address: int) -> None:
    memory = _memory([(0x1000, b"abcd")])
    with pytest.raises(PageNotInDumpError) as caught:
        memory.read(address, 2)
    assert caught.value.address == address
    assert memory.read_available(address, 2) == b""


def test_a_read_that_runs_into_a_hole_says_how_much_there_was() -> None:
    memory = _memory([(0x1000, b"abcd"), (0x1004, b"ef"), (0x1008, b"ij")])
    with pytest.raises(PartialReadError) as caught:
        memory.read(0x1001, 9)
    assert (caught.value.wanted, caught.value.got) == (9, 5)
    assert memory.read_available(0x1001, 9) == b"bcdef"
    assert memory.read_available(0x1008, 1 << 63) == b"ij"


def test_a_read_of_nothing_gives_nothing_anywhere() -> None:
    memory = _memory([(0x1000, b"abcd")])
    for address in (0, 0x1000, 0x1004, TOP - 1, TOP):
        assert memory.read(address, 0) == b""
    assert _memory([]).read(0, 0) == b""


def test_integers_are_little_endian_and_unsigned() -> None:
    memory = _memory([(0x1000, b"\x01\x02\xff\xff\xff\xff\xff\xff\xff\xff")])
    assert memory.read_uint(0x1000, 2) == 0x201
    assert memory.read_uint(0x1002, 8) == TOP - 1


def test_the_last_bytes_of_the_address_space_can_be_read_and_nothing_wraps_to_zero() -> None:
    memory = _memory([(TOP - 4, b"last"), (0, b"first")])
    assert memory.read(TOP - 4, 4) == b"last"
    assert memory.read(TOP - 1, 1) == b"t"
    with pytest.raises(PartialReadError) as caught:
        memory.read(TOP - 2, 4)
    assert caught.value.got == 2
    values, present = memory.gather(_addresses(TOP - 4, TOP - 3, TOP - 2, TOP - 1, 0), "<u4")
    assert present.tolist() == [True, False, False, False, True]
    assert values.tolist() == [int.from_bytes(b"last", "little"), 0, 0, 0, 0x73726966]
    assert _pieces(memory, TOP - 2, TOP + 5) == [(TOP - 2, 2, 2)]


# -- extents, locate, presence -------------------------------------------------------------------


def test_extents_are_clipped_to_the_range_asked_for() -> None:
    memory = _memory([(0x3000, b"c" * 16), (0x1000, b"a" * 16), (0x2000, b"b" * 16)])
    assert _pieces(memory, 0, TOP) == [(0x1000, 16, 19), (0x2000, 16, 38), (0x3000, 16, 0)]
    assert _pieces(memory, 0x1004, 0x3008) == [(0x1004, 12, 23), (0x2000, 16, 38), (0x3000, 8, 0)]
    assert _pieces(memory, 0x1004, 0x1008) == [(0x1004, 4, 23)]
    assert _pieces(memory, 0x1010, 0x2000) == []
    assert _pieces(memory, 0x100F, 0x1011) == [(0x100F, 1, 34)]
    assert _pieces(memory, 0x2000, 0x2000) == []
    assert _pieces(memory, 0x3000, 0x1000) == []
    assert _pieces(memory, -5, 0x1001) == [(0x1000, 1, 19)]
    assert _pieces(memory, TOP, TOP + 9) == []
    assert memory.present_bytes(0x1008, 0x2008) == 16
    assert memory.total_bytes == 48


def test_a_value_is_located_only_where_all_of_it_is_in_one_piece() -> None:
    memory = _memory([(0x1000, bytes(8)), (0x1008, bytes(8))])
    wanted = _addresses(0xFFF, 0x1000, 0x1004, 0x1005, 0x1008, 0x100C, 0x100D, 0x1010, TOP - 1)
    assert memory.locate(wanted, 4).tolist() == [-1, 0, 4, -1, 11, 15, -1, -1, -1]
    assert memory.locate(wanted, 9).tolist() == [-1] * 9
    assert memory.locate(wanted[:0], 4).tolist() == []


def test_presence_tells_absent_from_not_mapped_where_the_dump_lists_regions() -> None:
    regions = _regions((0x1000, 0x2000, 0x1000), (0x3000, 0x1000, 0x2000))
    memory = _memory([(0x1000, b"abcd")], regions=regions)
    assert memory.presence(0x1003) is Presence.PRESENT
    assert memory.presence(0x1004) is Presence.ABSENT
    assert memory.presence(0x3000) is Presence.NOT_MAPPED  # only reserved
    assert memory.presence(0x9000) is Presence.NOT_MAPPED  # in no region
    assert _memory([(0x1000, b"abcd")]).presence(0x9000) is Presence.ABSENT
    for impossible in (-1, TOP, TOP + 0x1000):
        assert memory.presence(impossible) is Presence.NOT_MAPPED
        assert _memory([]).presence(impossible) is Presence.NOT_MAPPED


def test_an_address_space_without_memory_answers_everything_with_absent() -> None:
    memory = _memory([])
    values, present = memory.gather(_addresses(0, 1, TOP - 1), "<u8")
    assert (values.tolist(), present.tolist()) == ([0, 0, 0], [False] * 3)
    assert _pieces(memory, 0, TOP) == []
    assert memory.presence(0) is Presence.ABSENT
    assert (memory.total_bytes, memory.overlapping_bytes) == (0, 0)


# -- overlaps ------------------------------------------------------------------------------------


def test_where_runs_overlap_the_one_that_starts_lower_counts() -> None:
    memory = _memory([(0x1004, b"BBBBBBBB"), (0x1000, b"AAAAAAAA")])
    assert memory.read(0x1000, 12) == b"AAAAAAAABBBB"
    assert memory.overlapping_bytes == 4


def test_of_two_runs_at_one_address_the_first_counts_and_the_longer_adds_its_rest() -> None:
    memory = _memory([(0x1000, b"AAAA"), (0x1000, b"BBBBBB"), (0x1001, b"C")])
    assert memory.read(0x1000, 6) == b"AAAABB"
    assert memory.overlapping_bytes == 5


# -- gather --------------------------------------------------------------------------------------


def test_values_are_gathered_unsorted_unaligned_and_in_any_shape() -> None:
    memory = _memory([(0x1000, bytes(range(16)))])
    wanted = _addresses(0x1008, 0x1001, 0x5000, 0x100F).reshape(2, 2)
    values, present = memory.gather(wanted, "<u2")
    assert values.tolist() == [[0x908, 0x201], [0, 0]]
    assert present.tolist() == [[True, True], [False, False]]


def test_a_value_that_straddles_runs_far_apart_in_the_file_is_put_together() -> None:
    memory = _memory([(0x2000, b"\x11" * 4), (0x1FFE, b"\x22\x22"), (0x2004, b"\x33")])
    wanted = _addresses(0x1FFE, 0x1FFF, 0x2000, 0x2001, 0x2002)
    values, present = memory.gather(wanted, "<u4")
    assert present.tolist() == [True, True, True, True, False]
    assert values.tolist() == [0x11112222, 0x11111122, 0x11111111, 0x33111111, 0]


def test_records_are_gathered_also_when_they_straddle() -> None:
    record = np.dtype([("a", "<u2"), ("b", "<u4")])
    memory = _memory([(0x1000, b"\x01\x00\x02\x00"), (0x1004, b"\x03\x00\x04\x00\x05\x00")])
    values, present = memory.gather(_addresses(0x1000, 0x1004, 0x1006), record)
    assert present.tolist() == [True, True, False]
    assert values["a"].tolist() == [1, 3, 0]
    assert values["b"].tolist() == [0x30002, 0x50004, 0]


def test_a_value_larger_than_the_whole_file_is_absent() -> None:
    memory = _memory([(0x1000, b"ab"), (0x1002, b"c")], gap=0)
    values, present = memory.gather(_addresses(0x1000, 0x1001), "<u8")
    assert (values.tolist(), present.tolist()) == ([0, 0], [False, False])


def test_a_million_absent_values_are_not_looked_at_one_by_one() -> None:
    class Counting(RunMemory):
        calls = 0

        def locate(self, addresses: np.ndarray, size: int) -> np.ndarray:
            Counting.calls += 1
            return super().locate(addresses, size)

        def extents(self, start: int, end: int) -> None:  # type: ignore[override]
            raise AssertionError("gather went through single reads")

    memory = Counting(
        np.zeros(64, np.uint8), _addresses(0x1000), np.array([64], np.int64), np.zeros(1, np.int64)
    )
    wanted = np.arange(1_000_000, dtype=np.uint64) * np.uint64(16) + np.uint64(0x2000)
    wanted[::2] = 0x103C  # half of them begin inside and end outside
    _, present = memory.gather(wanted, "<u8")
    assert not present.any()
    assert Counting.calls == 2 + 8


_RUNS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 60), st.integers(TOP - 60, TOP - 1)),
        st.binary(min_size=0, max_size=24),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(_RUNS, st.integers(0, 4), st.sampled_from(["<u1", "<u2", "<u4", "<u8"]))
def test_every_way_to_read_agrees_with_a_plain_dictionary_of_bytes(
    runs: list[tuple[int, bytes]], gap: int, dtype: str
) -> None:
    runs = [(address, raw[: TOP - address]) for address, raw in runs]
    memory = _memory(runs, gap)
    truth: dict[int, int] = {}
    for address, raw in sorted(runs, key=lambda run: run[0]):
        for index, byte in enumerate(raw):
            truth.setdefault(address + index, byte)
    assert memory.total_bytes == len(truth)
    assert memory.total_bytes + memory.overlapping_bytes == sum(len(raw) for _, raw in runs)

    size = np.dtype(dtype).itemsize
    every = [*range(100), *range(TOP - 100, TOP)]
    values, present = memory.gather(_addresses(*every), dtype)
    for address, value, there in zip(every, values.tolist(), present.tolist(), strict=True):
        raw = bytes(truth.get(address + i, 0) for i in range(size))
        assert there == all(address + i in truth for i in range(size))
        assert value == (int.from_bytes(raw, "little") if there else 0)
        got = 0
        while got < size and address + got in truth:
            got += 1
        assert memory.read_available(address, size) == raw[:got]
        assert (memory.presence(address) is Presence.PRESENT) == (address in truth)
    assert memory.present_bytes(20, 50) == sum(20 <= address < 50 for address in truth)


# -- regions -------------------------------------------------------------------------------------


def test_a_region_is_found_by_any_address_in_it() -> None:
    regions = _regions((0x1000, 0x1000, 0x1000), (0x3000, 0x1000, 0x10000))
    assert [regions.row_of(a) for a in (0, 0xFFF, 0x1000, 0x1FFF, 0x2000)] == [-1, -1, 0, 0, -1]
    assert [regions.row_of(a) for a in (0x3FFF, 0x4000, TOP - 1, TOP, -1)] == [1, -1, -1, -1, -1]
    assert [regions.is_unmapped(a) for a in (0x1000, 0x2000, 0x3000)] == [False, True, True]


def test_without_regions_nothing_counts_as_unmapped() -> None:
    assert not Regions.empty().is_unmapped(0x1000)
    assert Regions.empty().committed_bytes() == 0


def test_committed_bytes_are_counted_by_type() -> None:
    regions = _regions((0x1000, 0x1000, 0x1000), (0x2000, 0x4000, 0x1000), (0x9000, 1, 0x2000))
    assert regions.committed_bytes() == 0x5000
    assert regions.committed_bytes(0x20000) == 0x5000
    assert regions.committed_bytes(0x1000000) == 0


# -- modules -------------------------------------------------------------------------------------


def _module(name: str, base: int, size: int, pdb: PdbIdentity | None = None) -> Module:
    return Module(name, f"C:\\{name}", base, size, 0x5F3759DF, pdb=pdb)


def test_addresses_find_their_module() -> None:
    modules = ModuleMap(
        [
            _module("b", 0x5000, 0x1000),
            _module("a", 0x1000, 0x1000),
            _module("no size", 0x1800, 0),
            _module("top", TOP - 0x1000, 0x1000),
        ]
    )
    wanted = _addresses(0, 0xFFF, 0x1000, 0x1FFF, 0x2000, 0x5000, 0x6000, TOP - 0x1001, TOP - 1)
    found = [modules.modules[i].name if i >= 0 else "" for i in modules.index_of(wanted).tolist()]
    assert found == ["", "", "a", "a", "", "b", "", "", "top"]
    top = modules.at(TOP - 1)
    assert top is not None
    assert top.name == "top"
    assert [modules.at(a) for a in (TOP, -1, 0x2000)] == [None, None, None]
    assert ModuleMap([]).index_of(wanted).tolist() == [-1] * 9


def test_a_module_is_named_by_its_pdb_or_else_by_time_stamp_and_size() -> None:
    pdb = PdbIdentity("a.pdb", "00112233445566778899AABBCCDDEEFF", 0x1F)
    assert _module("a", 0, 0x1000, pdb).identity == "00112233445566778899AABBCCDDEEFF1F"
    assert _module("a", 0, 0x1000).identity == "5F3759DF1000"
    assert _module("a", 0, 0x1000, PdbIdentity("", "0" * 32, 1)).identity == "5F3759DF1000"


def test_codeview_records_give_name_guid_and_age() -> None:
    raw = b"RSDS" + bytes(range(16)) + b"\x0b\0\0\0" + b"d:\\build\\app.pdb\0rest"
    assert parse_codeview(raw) == PdbIdentity("app.pdb", "030201000504070608090A0B0C0D0E0F", 11)
    raw = b"NB10" + b"\0\0\0\0" + b"\x78\x56\x34\x12" + b"\x02\0\0\0" + b"old.pdb\0"
    assert parse_codeview(raw) == PdbIdentity("old.pdb", "12345678", 2)


@pytest.mark.parametrize(
    "raw", [b"", b"RSDS", b"RSDS" + bytes(19), b"NB10" + bytes(11), b"BpEL" + bytes(20), bytes(40)]
)
def test_other_and_short_codeview_records_give_none(raw: bytes) -> None:
    assert parse_codeview(raw) is None


def test_a_codeview_name_that_is_no_utf8_still_gives_guid_and_age() -> None:
    found = parse_codeview(b"RSDS" + bytes(20) + b"\xff\xfe.pdb")
    assert found is not None
    assert found.name == "\ufffd\ufffd.pdb"


def test_file_names_are_cut_from_windows_and_unix_paths() -> None:
    assert file_name("C:\\Windows\\System32\\ntdll.dll") == "ntdll.dll"
    assert file_name("/usr/lib/libc.so") == "libc.so"
    assert file_name("plain.exe") == "plain.exe"
    assert file_name("") == ""
