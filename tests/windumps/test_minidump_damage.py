"""A damaged, duplicated or unknown part of a minidump costs itself only."""

from __future__ import annotations

import struct

import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place, stream_row
from builders.opening import codes, only, open_bytes

from windumps.dumps.minidump.structures import detect
from windumps.errors import CorruptDumpError, TruncatedDumpError

GUID = "0123456789ABCDEF0123456789ABCDEF"


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0x43500001, 0x43500002, 65520, 0x47670001, 20, 0xFFFFFFFF])
def test_streams_of_other_writers_are_listed_and_left_alone(kind: int) -> None:
    dump = open_bytes(
        MinidumpBuilder().stream(kind, b"anything").stream(kind, b"twice").memory(1, b"m").build()
    )
    assert [row for row in dump.streams if row[0] == kind] == [(kind, 8), (kind, 5)]
    assert dump.memory.read(1, 1) == b"m"
    assert dump.diagnostics == []


def test_of_two_streams_of_a_type_the_first_counts() -> None:
    first = struct.pack("<I", 1) + struct.pack("<IIIIQ", 11, 0, 0, 0, 0x1000) + bytes(24)
    dump = open_bytes(MinidumpBuilder().stream(3, first).thread(22, 0x2000).build())
    assert [t.thread_id for t in dump.threads] == [11]
    assert only(dump, "duplicate-stream").structure == "ThreadListStream"


def test_an_empty_first_stream_gives_way_to_a_second_with_content() -> None:
    dump = open_bytes(MinidumpBuilder().stream(3, b"").thread(22, 0x2000).build())
    assert [t.thread_id for t in dump.threads] == [22]
    assert dump.diagnostics == []


def test_unused_directory_rows_are_no_streams() -> None:
    data = MinidumpBuilder().stream(0, b"").memory(0x1000, b"a").build()
    assert [kind for kind, _ in open_bytes(data).streams] == [7, 9]


def test_a_dump_without_system_info_says_so() -> None:
    dump = open_bytes(MinidumpBuilder(with_system_info=False).memory(0x1000, b"a").build())
    assert (dump.architecture, dump.os_version) == ("", (0, 0, 0))
    assert only(dump, "no-system-info").structure == "MINIDUMP_SYSTEM_INFO"
    assert dump.memory.read(0x1000, 1) == b"a"


@pytest.mark.parametrize(
    ("kind", "least"), [(3, 4), (4, 4), (5, 4), (7, 32), (9, 16), (14, 12), (15, 24), (16, 16)]
)
def test_a_stream_too_short_for_its_own_head_costs_itself_only(kind: int, least: int) -> None:
    builder = MinidumpBuilder(with_system_info=kind != 7).stream(kind, bytes(least - 1))
    dump = open_bytes(builder.comment("still here").build())
    assert only(dump, "stream-too-short").message == (
        f"it needs at least {least} bytes and has {least - 1}"
    )
    assert dump.comments == ["still here"]


def test_the_directory_must_be_in_the_file() -> None:
    data = MinidumpBuilder().build()
    with pytest.raises(TruncatedDumpError, match=r"stream directory at file offset 0xffffff00"):
        open_bytes(patched(data, 12, struct.pack("<I", 0xFFFFFF00)))
    with pytest.raises(TruncatedDumpError):
        open_bytes(data[:40])


def test_a_directory_that_is_cut_gives_the_streams_that_are_there() -> None:
    data = MinidumpBuilder().memory(0x1000, b"a").build()
    dump = open_bytes(patched(data, 8, struct.pack("<I", 0xFFFFFFFF)))
    assert [kind for kind, _ in dump.streams][:2] == [7, 9]
    assert "4294967295 streams" in only(dump, "stream-directory-cut").message
    assert dump.memory.read(0x1000, 1) == b"a"


def test_a_header_without_streams_is_an_empty_dump() -> None:
    dump = open_bytes(struct.pack("<4sIIIIIQ", b"MDMP", 0xA793, 0, 0, 0, 0, 0))
    assert (dump.streams, dump.modules, dump.memory.total_bytes) == ([], [], 0)
    assert codes(dump) == ["no-system-info"]


def test_a_wrong_version_is_a_damaged_header() -> None:
    data = patched(MinidumpBuilder().build(), 4, b"\x94")
    with pytest.raises(CorruptDumpError, match="expected 0xa793 in its low word, found 0xa794"):
        open_bytes(data)


def test_the_signature_decides() -> None:
    assert detect(MinidumpBuilder().build())
    assert not detect(b"PMDM" + bytes(28))
    assert not detect(b"")


# -- names and CodeView --------------------------------------------------------------------------


def _module_dump() -> tuple[bytes, int]:
    """A dump of two modules, and the file offset of the first one's MINIDUMP_MODULE."""
    data = (
        MinidumpBuilder()
        .module("first.exe", 0x400000, 0x1000, pdb=("first.pdb", GUID, 1))
        .module("second.dll", 0x500000, 0x1000, pdb=("second.pdb", GUID, 2))
        .build()
    )
    return data, stream_place(data, 4)[0] + 4


@pytest.mark.parametrize("rva", [0xFFFFFFFF, 0xFFFFFFFC, 0x10000000])
def test_a_name_outside_the_file_costs_that_name_only(rva: int) -> None:
    data, at = _module_dump()
    dump = open_bytes(patched(data, at + 20, struct.pack("<I", rva)))
    first, second = dump.modules
    assert (first.path, first.name) == ("", "module_400000")
    assert first.pdb is not None
    assert first.pdb.name == "first.pdb"
    assert second.name == "second.dll"
    assert only(dump, "bad-string").structure == "MINIDUMP_MODULE.ModuleNameRva"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x10001, 5000])
def test_a_name_that_claims_more_than_there_is_costs_that_name_only(length: int) -> None:
    data, at = _module_dump()
    (rva,) = struct.unpack_from("<I", data, at + 20)
    dump = open_bytes(patched(data, rva, struct.pack("<I", length)))
    assert [m.path for m in dump.modules] == ["", "second.dll"]
    assert codes(dump) == ["bad-string"]


def test_a_name_of_half_characters_is_read_as_far_as_it_can_be() -> None:
    dump = open_bytes(
        MinidumpBuilder().module("a\ud800b.dll", 0x400000, 0x1000).module("n\0", 0, 1).build()
    )
    assert [m.name for m in dump.modules] == ["a\ufffdb.dll", "n"]


@pytest.mark.parametrize(
    ("size", "rva"), [(40, 0xFFFFFFFF), (0xFFFFFFFF, 100), (0x10001, 100), (40, 5000)]
)
def test_codeview_outside_the_file_costs_that_pdb_only(size: int, rva: int) -> None:
    data, at = _module_dump()
    dump = open_bytes(patched(data, at + 76, struct.pack("<II", size, rva)))
    first, second = dump.modules
    assert (first.name, first.pdb) == ("first.exe", None)
    assert second.pdb is not None
    assert second.pdb.age == 2
    assert only(dump, "bad-string").structure == "MINIDUMP_MODULE.CvRecord"


def test_a_codeview_record_of_another_kind_is_no_trouble() -> None:
    dump = open_bytes(
        MinidumpBuilder().module("a.so", 0x1000, 1, codeview=b"BpEL" + bytes(16)).build()
    )
    assert dump.modules[0].pdb is None
    assert dump.diagnostics == []


def test_registers_outside_the_file_cost_themselves_only() -> None:
    data = MinidumpBuilder().thread(1, 0x1000, registers={"rip": 1}).thread(2, 0x2000).build()
    at = stream_place(data, 3)[0] + 4
    dump = open_bytes(patched(data, at + 44, struct.pack("<I", 0xFFFFFFF0)))
    assert [(t.thread_id, t.teb, t.registers) for t in dump.threads] == [
        (1, 0x1000, {}),
        (2, 0x2000, {}),
    ]
    assert "thread 1 " in only(dump, "bad-thread-context").message


# -- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [3, 4, 5])
@pytest.mark.parametrize("count", [2, 1000, 2**32 - 1])
def test_a_count_beyond_the_stream_gives_what_is_there(kind: int, count: int) -> None:
    data = (
        MinidumpBuilder()
        .thread(5, 0x1000)
        .module("a.exe", 0x400000, 0x1000)
        .memory_list(0x2000, b"memory")
        .build()
    )
    dump = open_bytes(patched(data, stream_place(data, kind)[0], struct.pack("<I", count)))
    assert [t.thread_id for t in dump.threads] == [5]
    assert [m.name for m in dump.modules] == ["a.exe"]
    assert dump.memory.read(0x2000, 6) == b"memory"
    assert f"{count} records claimed" in only(dump, "count-too-large").message


@pytest.mark.parametrize("count", [2, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_64_bit_counts_beyond_the_stream_give_what_is_there(count: int) -> None:
    data = MinidumpBuilder().memory(0x2000, b"memory").region(0x2000, 0x1000).build()
    for kind, at in ((9, 0), (16, 8)):
        place = stream_place(data, kind)[0] + at
        dump = open_bytes(patched(data, place, struct.pack("<Q", count)))
        assert dump.memory.read(0x2000, 6) == b"memory"
        assert dump.memory.regions.region_size.tolist() == [0x1000]
        assert codes(dump) == ["count-too-large"]


@pytest.mark.parametrize("kind", [14, 16])
@pytest.mark.parametrize("head", [(0, 48), (11, 48), (16, 0), (16, 23), (0xFFFFFFFF, 0)])
def test_entry_and_header_sizes_that_cannot_be_cost_the_stream_only(
    kind: int, head: tuple[int, int]
) -> None:
    data = (
        MinidumpBuilder()
        .region(0x1000, 0x1000)
        .unloaded_module("u.dll", 0x5000, 0x1000)
        .memory(0x1000, b"a")
        .build()
    )
    dump = open_bytes(patched(data, stream_place(data, kind)[0], struct.pack("<II", *head)))
    assert "bad-entry-size" in codes(dump)
    assert len(dump.memory.regions) == (0 if kind == 16 else 1)
    assert len(dump.unloaded_modules) == (0 if kind == 14 else 1)
    assert dump.memory.read(0x1000, 1) == b"a"


@pytest.mark.parametrize("head", [(0xFFFFFFFF, 48), (16, 0xFFFFFFFF), (1000, 48)])
def test_header_and_entry_sizes_beyond_the_stream_give_no_rows(head: tuple[int, int]) -> None:
    data = MinidumpBuilder().region(0x1000, 0x1000).unloaded_module("u.dll", 1, 1).build()
    for kind in (14, 16):
        changed = patched(data, stream_place(data, kind)[0], struct.pack("<II", *head))
        assert codes(open_bytes(changed)) == ["count-too-large"]


def test_longer_headers_and_entries_of_newer_writers_are_skipped_over() -> None:
    rows = [
        struct.pack("<QQIIQIIII", base, base, 4, 0, 0x1000, 0x1000, 4, 0x20000, 0) + b"\xee" * 8
        for base in (0x1000, 0x9000)
    ]
    body = struct.pack("<IIQ", 24, 56, 2) + b"\xee" * 8 + b"".join(rows)
    names = struct.pack("<III", 16, 28, 1) + b"\xee" * 4
    names += struct.pack("<QIIII", 0x7000, 0x100, 0, 5, 0) + b"\xee" * 4
    dump = open_bytes(MinidumpBuilder().stream(16, body).stream(14, names).build())
    assert dump.memory.regions.base_address.tolist() == [0x1000, 0x9000]
    assert dump.memory.regions.region_size.tolist() == [0x1000, 0x1000]
    assert [(m.base_address, m.timestamp) for m in dump.unloaded_modules] == [(0x7000, 5)]


def test_a_stream_that_is_cut_gives_its_first_rows() -> None:
    data = MinidumpBuilder().region(0x1000, 0x1000).region(0x2000, 0x1000).build()
    dump = open_bytes(data[:-1])
    assert dump.memory.regions.base_address.tolist() == [0x1000]
    assert codes(dump) == ["stream-cut", "count-too-large"]


def test_a_stream_outside_the_file_costs_itself_only() -> None:
    data = MinidumpBuilder().thread(1, 0x1000).memory(0x1000, b"a").build()
    dump = open_bytes(patched(data, stream_row(data, 3) + 8, struct.pack("<I", 0xFFFFFFFF)))
    assert dump.threads == []
    assert dump.memory.read(0x1000, 1) == b"a"
    assert codes(dump) == ["stream-cut", "stream-too-short"]
