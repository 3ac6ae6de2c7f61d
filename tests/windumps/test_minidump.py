"""What a minidump holds is read back; what is damaged in it costs itself only."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from builders.minidump_builder import (
    CONTEXT_FIELDS,
    MinidumpBuilder,
    nb10,
    patched,
    rsds,
    stream_place,
    stream_row,
)

from windumps.diagnostics import Diagnostic
from windumps.dump import Dump
from windumps.dumps import open_dump
from windumps.dumps.minidump import detect, open_minidump
from windumps.errors import (
    CorruptDumpError,
    DumpError,
    NotADumpError,
    TruncatedDumpError,
    UnsupportedDumpError,
)
from windumps.memory import Presence

GUID = "0123456789ABCDEF0123456789ABCDEF"
TOP = 1 << 64


def _open(data: bytes) -> Dump:
    return open_minidump(Path("made.dmp"), np.frombuffer(data, np.uint8))


def _codes(dump: Dump) -> list[str]:
    return [item.code for item in dump.diagnostics]


def _only(dump: Dump, code: str) -> Diagnostic:
    found = [item for item in dump.diagnostics if item.code == code]
    assert len(found) == 1, dump.diagnostics
    return found[0]


# -- every field ---------------------------------------------------------------------------------


def test_header_system_and_process_are_read_back() -> None:
    dump = _open(
        MinidumpBuilder("x64", 22631, (10, 0), timestamp=1_699_999_999)
        .misc_info(4711, (1_699_990_000, 12, 34))
        .build()
    )
    assert (dump.kind, dump.architecture, dump.platform) == ("minidump", "x64", "Windows")
    assert (dump.os_version, dump.build) == ((10, 0, 22631), 22631)
    assert dump.time == datetime(2023, 11, 14, 22, 13, 19, tzinfo=UTC)
    assert dump.process_id == 4711
    assert dump.process_times == (datetime(2023, 11, 14, 19, 26, 40, tzinfo=UTC), 12, 34)
    assert dump.diagnostics == []


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "x86"), (5, "arm"), (6, "ia64"), (9, "x64"), (12, "arm64"), (0x8003, "arm64")],
)
def test_processor_architectures_have_names(number: int, name: str) -> None:
    assert _open(MinidumpBuilder(number).build()).architecture == name


def test_an_unknown_processor_or_platform_is_said() -> None:
    dump = _open(MinidumpBuilder(77).build())
    assert dump.architecture == ""
    assert "77" in _only(dump, "unknown-architecture").message
    dump = _open(MinidumpBuilder(platform_id=0x1234).build())
    assert dump.platform == "Windows"
    assert "0x1234" in _only(dump, "unknown-platform").message


@pytest.mark.parametrize(("number", "name"), [(0x8101, "macOS"), (0x8201, "Linux"), (2, "Windows")])
def test_other_systems_are_named(number: int, name: str) -> None:
    assert _open(MinidumpBuilder(platform_id=number).build()).platform == name


def test_process_times_and_id_are_none_where_the_flags_say_they_are_unused() -> None:
    dump = _open(MinidumpBuilder().misc_info().build())
    assert (dump.process_id, dump.process_times) == (None, None)
    dump = _open(MinidumpBuilder().misc_info(process_id=9).build())
    assert (dump.process_id, dump.process_times) == (9, None)
    dump = _open(MinidumpBuilder(timestamp=0).build())
    assert (dump.time, dump.process_id) == (None, None)


def test_full_memory_is_what_the_flags_or_a_64_bit_list_say() -> None:
    assert _open(MinidumpBuilder(flags=0x1826).build()).full_memory
    assert not _open(MinidumpBuilder(flags=0x1825 & ~2).build()).full_memory
    assert _open(MinidumpBuilder(flags=0).memory(0x1000, b"a").build()).full_memory


def test_modules_are_read_back_with_their_pdb() -> None:
    dump = _open(
        MinidumpBuilder()
        .module(
            "C:\\Programme\\größe.exe",
            0x7FF7_0000_0000,
            0x5000,
            0x5EADBEEF,
            (10, 0, 19041, 3324),
            ("größe.pdb", GUID, 0x1B),
        )
        .module("old.dll", 0x10000000, 0x8000, codeview=nb10("d:\\old.pdb", 0x3B7D8410, 2))
        .module("bare.dll", 0xFFFFFFFF_FFFF0000, 0xFFFF)
        .build()
    )
    first, old, bare = dump.modules
    assert (first.name, first.path) == ("größe.exe", "C:\\Programme\\größe.exe")
    assert (first.base_address, first.size_bytes) == (0x7FF7_0000_0000, 0x5000)
    assert (first.timestamp, first.version) == (0x5EADBEEF, "10.0.19041.3324")
    assert first.end_address == 0x7FF7_0000_5000
    assert first.pdb is not None
    assert (first.pdb.name, first.pdb.guid, first.pdb.age) == ("größe.pdb", GUID, 0x1B)
    assert first.pdb.key == GUID + "1B"
    assert old.pdb is not None
    assert (old.pdb.name, old.pdb.guid, old.pdb.age) == ("old.pdb", "3B7D8410", 2)
    assert (bare.pdb, bare.version, bare.base_address) == (None, "", TOP - 0x10000)
    assert dump.diagnostics == []


def test_unloaded_modules_are_read_back() -> None:
    dump = _open(
        MinidumpBuilder()
        .unloaded_module("gone.dll", 0x6000_0000, 0x3000, 0x4A5BDFE0)
        .unloaded_module("also gone.dll", 0x6000_0000, 0x4000)
        .build()
    )
    assert [(m.name, m.base_address, m.size_bytes) for m in dump.unloaded_modules] == [
        ("gone.dll", 0x6000_0000, 0x3000),
        ("also gone.dll", 0x6000_0000, 0x4000),
    ]
    assert dump.unloaded_modules[0].timestamp == 0x4A5BDFE0
    assert dump.modules == []


@pytest.mark.parametrize("architecture", ["x86", "x64", "arm64"])
def test_threads_are_read_back_with_teb_stack_and_registers(architecture: str) -> None:
    width = 4 if architecture == "x86" else 8
    registers = {
        name: (0xF1E2D3C4B5A60000 + index) % (1 << 8 * width)
        for index, name in enumerate(CONTEXT_FIELDS[architecture])
    }
    dump = _open(
        MinidumpBuilder(architecture)
        .thread(0x1234, 0x7FFD_E000, (0x10_0000, 0x2000), registers)
        .thread(0x5678, 0x7FFD_D000)
        .build()
    )
    first, second = dump.threads
    assert (first.thread_id, first.teb) == (0x1234, 0x7FFD_E000)
    assert (first.stack_start, first.stack_size) == (0x10_0000, 0x2000)
    assert first.registers == registers
    assert (second.thread_id, second.teb, second.registers) == (0x5678, 0x7FFD_D000, {})


def test_both_kinds_of_comment_are_read_back() -> None:
    dump = _open(
        MinidumpBuilder()
        .comment("procdump -ma café")
        .comment("größer als 2 GB €", wide=True)
        .build()
    )
    assert dump.comments == ["procdump -ma café", "größer als 2 GB €"]


def test_memory_of_both_lists_is_read_back() -> None:
    dump = _open(
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
    dump = _open(
        MinidumpBuilder().memory(0x1000, b"0123456789").memory_list(0x1004, b"4567").build()
    )
    assert dump.memory.read(0x1000, 10) == b"0123456789"
    assert dump.diagnostics == []


def test_regions_are_read_back_in_order_of_address() -> None:
    dump = _open(
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


def test_lists_padded_behind_their_count_give_the_same() -> None:
    def build(padded: bool) -> bytes:
        return (
            MinidumpBuilder("x86", padded=padded)
            .module("a.exe", 0x400000, 0x1000)
            .module("b.dll", 0x500000, 0x1000)
            .thread(7, 0x7FFDE000, registers={"eip": 0x401000})
            .memory_list(0x1000, b"abc")
            .build()
        )

    plain, padded = _open(build(False)), _open(build(True))
    assert padded.modules == plain.modules
    assert padded.threads == plain.threads
    assert padded.memory.read(0x1000, 3) == b"abc"
    assert padded.diagnostics == plain.diagnostics == []


def test_a_padded_list_that_the_file_cuts_is_still_read_as_padded() -> None:
    # The directory's size, not what is left of the stream, tells padding from records.
    rows = [struct.pack("<IIIIQ", n, 0, 0, 0, 0x7FFD0000 + n) + bytes(24) for n in (1, 2)]
    data = MinidumpBuilder().stream(3, struct.pack("<II", 2, 0) + b"".join(rows)).build()
    dump = _open(data[:-4])
    assert [(t.thread_id, t.teb) for t in dump.threads] == [(1, 0x7FFD0001)]
    assert {"stream-cut", "count-too-large"} <= set(_codes(dump))


# -- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [0x43500001, 0x43500002, 65520, 0x47670001, 20, 0xFFFFFFFF])
def test_streams_of_other_writers_are_listed_and_left_alone(kind: int) -> None:
    dump = _open(
        MinidumpBuilder().stream(kind, b"anything").stream(kind, b"twice").memory(1, b"m").build()
    )
    assert [row for row in dump.streams if row[0] == kind] == [(kind, 8), (kind, 5)]
    assert dump.memory.read(1, 1) == b"m"
    assert dump.diagnostics == []


def test_of_two_streams_of_a_type_the_first_counts() -> None:
    first = struct.pack("<I", 1) + struct.pack("<IIIIQ", 11, 0, 0, 0, 0x1000) + bytes(24)
    dump = _open(MinidumpBuilder().stream(3, first).thread(22, 0x2000).build())
    assert [t.thread_id for t in dump.threads] == [11]
    assert _only(dump, "duplicate-stream").structure == "ThreadListStream"


def test_an_empty_first_stream_gives_way_to_a_second_with_content() -> None:
    dump = _open(MinidumpBuilder().stream(3, b"").thread(22, 0x2000).build())
    assert [t.thread_id for t in dump.threads] == [22]
    assert dump.diagnostics == []


def test_unused_directory_rows_are_no_streams() -> None:
    data = MinidumpBuilder().stream(0, b"").memory(0x1000, b"a").build()
    assert [kind for kind, _ in _open(data).streams] == [7, 9]


def test_a_dump_without_system_info_says_so() -> None:
    dump = _open(MinidumpBuilder(with_system_info=False).memory(0x1000, b"a").build())
    assert (dump.architecture, dump.os_version) == ("", (0, 0, 0))
    assert _only(dump, "no-system-info").structure == "MINIDUMP_SYSTEM_INFO"
    assert dump.memory.read(0x1000, 1) == b"a"


@pytest.mark.parametrize(
    ("kind", "least"), [(3, 4), (4, 4), (5, 4), (7, 32), (9, 16), (14, 12), (15, 24), (16, 16)]
)
def test_a_stream_too_short_for_its_own_head_costs_itself_only(kind: int, least: int) -> None:
    builder = MinidumpBuilder(with_system_info=kind != 7).stream(kind, bytes(least - 1))
    dump = _open(builder.comment("still here").build())
    assert _only(dump, "stream-too-short").message == (
        f"it needs at least {least} bytes and has {least - 1}"
    )
    assert dump.comments == ["still here"]


def test_the_directory_must_be_in_the_file() -> None:
    data = MinidumpBuilder().build()
    with pytest.raises(TruncatedDumpError, match=r"stream directory at file offset 0xffffff00"):
        _open(patched(data, 12, struct.pack("<I", 0xFFFFFF00)))
    with pytest.raises(TruncatedDumpError):
        _open(data[:40])


def test_a_directory_that_is_cut_gives_the_streams_that_are_there() -> None:
    data = MinidumpBuilder().memory(0x1000, b"a").build()
    dump = _open(patched(data, 8, struct.pack("<I", 0xFFFFFFFF)))
    assert [kind for kind, _ in dump.streams][:2] == [7, 9]
    assert "4294967295 streams" in _only(dump, "stream-directory-cut").message
    assert dump.memory.read(0x1000, 1) == b"a"


def test_a_header_without_streams_is_an_empty_dump() -> None:
    dump = _open(struct.pack("<4sIIIIIQ", b"MDMP", 0xA793, 0, 0, 0, 0, 0))
    assert (dump.streams, dump.modules, dump.memory.total_bytes) == ([], [], 0)
    assert _codes(dump) == ["no-system-info"]


def test_a_wrong_version_is_a_damaged_header() -> None:
    data = patched(MinidumpBuilder().build(), 4, b"\x94")
    with pytest.raises(CorruptDumpError, match="expected 0xa793 in its low word, found 0xa794"):
        _open(data)


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
    dump = _open(patched(data, at + 20, struct.pack("<I", rva)))
    first, second = dump.modules
    assert (first.path, first.name) == ("", "module_400000")
    assert first.pdb is not None
    assert first.pdb.name == "first.pdb"
    assert second.name == "second.dll"
    assert _only(dump, "bad-string").structure == "MINIDUMP_MODULE.ModuleNameRva"


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x10001, 5000])
def test_a_name_that_claims_more_than_there_is_costs_that_name_only(length: int) -> None:
    data, at = _module_dump()
    (rva,) = struct.unpack_from("<I", data, at + 20)
    dump = _open(patched(data, rva, struct.pack("<I", length)))
    assert [m.path for m in dump.modules] == ["", "second.dll"]
    assert _codes(dump) == ["bad-string"]


def test_a_name_of_half_characters_is_read_as_far_as_it_can_be() -> None:
    dump = _open(
        MinidumpBuilder().module("a\ud800b.dll", 0x400000, 0x1000).module("n\0", 0, 1).build()
    )
    assert [m.name for m in dump.modules] == ["a\ufffdb.dll", "n"]


@pytest.mark.parametrize(
    ("size", "rva"), [(40, 0xFFFFFFFF), (0xFFFFFFFF, 100), (0x10001, 100), (40, 5000)]
)
def test_codeview_outside_the_file_costs_that_pdb_only(size: int, rva: int) -> None:
    data, at = _module_dump()
    dump = _open(patched(data, at + 76, struct.pack("<II", size, rva)))
    first, second = dump.modules
    assert (first.name, first.pdb) == ("first.exe", None)
    assert second.pdb is not None
    assert second.pdb.age == 2
    assert _only(dump, "bad-string").structure == "MINIDUMP_MODULE.CvRecord"


def test_a_codeview_record_of_another_kind_is_no_trouble() -> None:
    dump = _open(MinidumpBuilder().module("a.so", 0x1000, 1, codeview=b"BpEL" + bytes(16)).build())
    assert dump.modules[0].pdb is None
    assert dump.diagnostics == []
    assert rsds("a.pdb", GUID, 1)[:4] == b"RSDS"


def test_registers_outside_the_file_cost_themselves_only() -> None:
    data = MinidumpBuilder().thread(1, 0x1000, registers={"rip": 1}).thread(2, 0x2000).build()
    at = stream_place(data, 3)[0] + 4
    dump = _open(patched(data, at + 44, struct.pack("<I", 0xFFFFFFF0)))
    assert [(t.thread_id, t.teb, t.registers) for t in dump.threads] == [
        (1, 0x1000, {}),
        (2, 0x2000, {}),
    ]
    assert "thread 1 " in _only(dump, "bad-thread-context").message


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
    dump = _open(patched(data, stream_place(data, kind)[0], struct.pack("<I", count)))
    assert [t.thread_id for t in dump.threads] == [5]
    assert [m.name for m in dump.modules] == ["a.exe"]
    assert dump.memory.read(0x2000, 6) == b"memory"
    assert f"{count} records claimed" in _only(dump, "count-too-large").message


@pytest.mark.parametrize("count", [2, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_64_bit_counts_beyond_the_stream_give_what_is_there(count: int) -> None:
    data = MinidumpBuilder().memory(0x2000, b"memory").region(0x2000, 0x1000).build()
    for kind, at in ((9, 0), (16, 8)):
        place = stream_place(data, kind)[0] + at
        dump = _open(patched(data, place, struct.pack("<Q", count)))
        assert dump.memory.read(0x2000, 6) == b"memory"
        assert dump.memory.regions.region_size.tolist() == [0x1000]
        assert _codes(dump) == ["count-too-large"]


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
    dump = _open(patched(data, stream_place(data, kind)[0], struct.pack("<II", *head)))
    assert "bad-entry-size" in _codes(dump)
    assert len(dump.memory.regions) == (0 if kind == 16 else 1)
    assert len(dump.unloaded_modules) == (0 if kind == 14 else 1)
    assert dump.memory.read(0x1000, 1) == b"a"


@pytest.mark.parametrize("head", [(0xFFFFFFFF, 48), (16, 0xFFFFFFFF), (1000, 48)])
def test_header_and_entry_sizes_beyond_the_stream_give_no_rows(head: tuple[int, int]) -> None:
    data = MinidumpBuilder().region(0x1000, 0x1000).unloaded_module("u.dll", 1, 1).build()
    for kind in (14, 16):
        changed = patched(data, stream_place(data, kind)[0], struct.pack("<II", *head))
        assert _codes(_open(changed)) == ["count-too-large"]


def test_longer_headers_and_entries_of_newer_writers_are_skipped_over() -> None:
    rows = [
        struct.pack("<QQIIQIIII", base, base, 4, 0, 0x1000, 0x1000, 4, 0x20000, 0) + b"\xee" * 8
        for base in (0x1000, 0x9000)
    ]
    body = struct.pack("<IIQ", 24, 56, 2) + b"\xee" * 8 + b"".join(rows)
    names = struct.pack("<III", 16, 28, 1) + b"\xee" * 4
    names += struct.pack("<QIIII", 0x7000, 0x100, 0, 5, 0) + b"\xee" * 4
    dump = _open(MinidumpBuilder().stream(16, body).stream(14, names).build())
    assert dump.memory.regions.base_address.tolist() == [0x1000, 0x9000]
    assert dump.memory.regions.region_size.tolist() == [0x1000, 0x1000]
    assert [(m.base_address, m.timestamp) for m in dump.unloaded_modules] == [(0x7000, 5)]


# -- memory that is not what the lists claim -----------------------------------------------------


@pytest.mark.parametrize("present", range(0, 31, 3))
def test_memory_cut_by_the_end_of_the_file_is_there_to_the_last_byte(present: int) -> None:
    data = (
        MinidumpBuilder()
        .memory(0x5000, b"0123456789")
        .memory(0x1000, b"abcdefghij")
        .memory(0x9000, b"ABCDEFGHIJ")
        .build()
    )
    dump = _open(data[: len(data) - 30 + present])
    assert dump.memory.total_bytes == present
    got = [dump.memory.read_available(address, 10) for address in (0x5000, 0x1000, 0x9000)]
    assert b"".join(got) == b"0123456789abcdefghijABCDEFGHIJ"[:present]
    if present < 30:
        cut = _only(dump, "memory-cut")
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
    dump = _open(data + b"good")
    assert dump.memory.read(0x1000, 4) == b"good"
    assert dump.memory.total_bytes == 4
    assert _only(dump, "memory-cut").bytes_affected == sum(sizes[1:])


def test_the_data_may_begin_anywhere_and_outside_means_absent() -> None:
    data = MinidumpBuilder().memory(0x1000, b"abcd").build()
    at = stream_place(data, 9)[0] + 8
    for base in (len(data), len(data) + 1, 2**32, 2**63, 2**64 - 1):
        dump = _open(patched(data, at, struct.pack("<Q", base)))
        assert dump.memory.total_bytes == 0
        assert _only(dump, "memory-cut").bytes_affected == 4
    dump = _open(patched(data, at, struct.pack("<Q", 0)))
    assert dump.memory.read(0x1000, 4) == b"MDMP"


def test_a_range_may_end_with_the_address_space_and_is_cut_there() -> None:
    dump = _open(MinidumpBuilder().memory(TOP - 4, b"last").memory(0, b"zero").build())
    assert dump.memory.read(TOP - 4, 4) == b"last"
    assert dump.memory.read(0, 4) == b"zero"
    assert dump.diagnostics == []
    dump = _open(MinidumpBuilder().memory(TOP - 2, b"last").memory(0x10, b"next").build())
    assert dump.memory.read(TOP - 2, 2) == b"la"
    assert dump.memory.read(0x10, 4) == b"next"
    assert dump.memory.presence(0) is Presence.ABSENT
    assert _only(dump, "bad-memory-range").bytes_affected == 0


def test_overlapping_ranges_are_said_and_give_each_byte_once() -> None:
    for builder in (
        MinidumpBuilder().memory(0x1000, b"AAAA").memory(0x1002, b"BBBB"),
        MinidumpBuilder().memory_list(0x1002, b"BBBB").memory_list(0x1000, b"AAAA"),
    ):
        dump = _open(builder.build())
        assert dump.memory.read(0x1000, 6) == b"AAAABB"
        assert dump.memory.total_bytes == 6
        assert _only(dump, "overlapping-memory").bytes_affected == 2


def test_ranges_that_share_the_file_cannot_make_more_memory_than_the_file_has() -> None:
    count = 1000
    rows = b"".join(struct.pack("<QII", n << 32, 10_000, 0) for n in range(count))
    dump = _open(MinidumpBuilder().stream(5, struct.pack("<I", count) + rows).build())
    assert 0 < dump.memory.total_bytes <= 44 + 12 + 56 + 4 + 16 * count
    lost = _only(dump, "bad-memory-range").bytes_affected
    assert lost + dump.memory.total_bytes == count * 10_000


def test_a_region_with_a_damaged_size_costs_itself_only() -> None:
    dump = _open(
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
    assert _only(dump, "bad-region").message.startswith("3 memory regions")


def test_a_stream_that_is_cut_gives_its_first_rows() -> None:
    data = MinidumpBuilder().region(0x1000, 0x1000).region(0x2000, 0x1000).build()
    dump = _open(data[:-1])
    assert dump.memory.regions.base_address.tolist() == [0x1000]
    assert _codes(dump) == ["stream-cut", "count-too-large"]


def test_a_stream_outside_the_file_costs_itself_only() -> None:
    data = MinidumpBuilder().thread(1, 0x1000).memory(0x1000, b"a").build()
    dump = _open(patched(data, stream_row(data, 3) + 8, struct.pack("<I", 0xFFFFFFFF)))
    assert dump.threads == []
    assert dump.memory.read(0x1000, 1) == b"a"
    assert _codes(dump) == ["stream-cut", "stream-too-short"]


# -- files ---------------------------------------------------------------------------------------


def test_a_dump_is_opened_from_a_file_and_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "app.dmp"
    path.write_bytes(MinidumpBuilder().memory(0x1000, b"abcd").build())
    for given in (path, str(path)):
        dump = open_dump(given)
        assert dump.path == path
        assert dump.memory.read(0x1000, 4) == b"abcd"


@pytest.mark.parametrize("length", [4, 31, 40])
def test_errors_of_a_damaged_file_name_the_file(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.dmp"
    path.write_bytes(MinidumpBuilder().build()[:length])
    with pytest.raises(TruncatedDumpError) as caught:
        open_dump(path)
    assert str(caught.value).startswith(f"{path}: the file ends inside")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", NotADumpError, "the file is empty"),
        (b"PAGEDU64" + bytes(100), DumpError, "kernel crash dump"),
        (b"PAGEDUMP" + bytes(100), DumpError, "kernel crash dump"),
        (b"\x7fELF" + bytes(100), UnsupportedDumpError, "ELF"),
        (b"MZ" + bytes(100), UnsupportedDumpError, "program"),
        (b"MDM", NotADumpError, "not a Windows dump"),
        (b"{}", NotADumpError, "procdump -ma"),
    ],
)
def test_other_files_are_named_in_one_line(
    tmp_path: Path, content: bytes, error: type[DumpError], text: str
) -> None:
    path = tmp_path / "some.file"
    path.write_bytes(content)
    with pytest.raises(error, match=text) as caught:
        open_dump(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
