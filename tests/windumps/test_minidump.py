"""What a minidump holds is read back."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from builders.minidump_builder import CONTEXT_FIELDS, MinidumpBuilder, nb10
from builders.opening import codes, only, open_bytes

from windumps.dumps import open_dump
from windumps.errors import (
    DumpError,
    NotADumpError,
    TruncatedDumpError,
    UnsupportedDumpError,
)

GUID = "0123456789ABCDEF0123456789ABCDEF"
TOP = 1 << 64


# -- every field ---------------------------------------------------------------------------------


def test_header_system_and_process_are_read_back() -> None:
    dump = open_bytes(
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
    assert open_bytes(MinidumpBuilder(number).build()).architecture == name


def test_an_unknown_processor_or_platform_is_said() -> None:
    dump = open_bytes(MinidumpBuilder(77).build())
    assert dump.architecture == ""
    assert "77" in only(dump, "unknown-architecture").message
    dump = open_bytes(MinidumpBuilder(platform_id=0x1234).build())
    assert dump.platform == "Windows"
    assert "0x1234" in only(dump, "unknown-platform").message


@pytest.mark.parametrize(("number", "name"), [(0x8101, "macOS"), (0x8201, "Linux"), (2, "Windows")])
def test_other_systems_are_named(number: int, name: str) -> None:
    assert open_bytes(MinidumpBuilder(platform_id=number).build()).platform == name


def test_process_times_and_id_are_none_where_the_flags_say_they_are_unused() -> None:
    dump = open_bytes(MinidumpBuilder().misc_info().build())
    assert (dump.process_id, dump.process_times) == (None, None)
    dump = open_bytes(MinidumpBuilder().misc_info(process_id=9).build())
    assert (dump.process_id, dump.process_times) == (9, None)
    dump = open_bytes(MinidumpBuilder(timestamp=0).build())
    assert (dump.time, dump.process_id) == (None, None)


def test_full_memory_is_what_the_flags_or_a_64_bit_list_say() -> None:
    assert open_bytes(MinidumpBuilder(flags=0x1826).build()).full_memory
    assert not open_bytes(MinidumpBuilder(flags=0x1825 & ~2).build()).full_memory
    assert open_bytes(MinidumpBuilder(flags=0).memory(0x1000, b"a").build()).full_memory


def test_modules_are_read_back_with_their_pdb() -> None:
    dump = open_bytes(
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
    dump = open_bytes(
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
    dump = open_bytes(
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
    dump = open_bytes(
        MinidumpBuilder()
        .comment("procdump -ma café")
        .comment("größer als 2 GB €", wide=True)
        .build()
    )
    assert dump.comments == ["procdump -ma café", "größer als 2 GB €"]


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

    plain, padded = open_bytes(build(False)), open_bytes(build(True))
    assert padded.modules == plain.modules
    assert padded.threads == plain.threads
    assert padded.memory.read(0x1000, 3) == b"abc"
    assert padded.diagnostics == plain.diagnostics == []


def test_a_padded_list_that_the_file_cuts_is_still_read_as_padded() -> None:
    # The directory's size, not what is left of the stream, tells padding from records.
    rows = [struct.pack("<IIIIQ", n, 0, 0, 0, 0x7FFD0000 + n) + bytes(24) for n in (1, 2)]
    data = MinidumpBuilder().stream(3, struct.pack("<II", 2, 0) + b"".join(rows)).build()
    dump = open_bytes(data[:-4])
    assert [(t.thread_id, t.teb) for t in dump.threads] == [(1, 0x7FFD0001)]
    assert {"stream-cut", "count-too-large"} <= set(codes(dump))


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
