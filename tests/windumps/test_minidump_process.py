"""What minidumps say of a process as a whole: open handles, and what Windows counted of it."""

from __future__ import annotations

import lzma
import struct
from collections import Counter

import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place, stream_row
from builders.opening import codes, open_bytes
from truth import REAL

from windumps.dump import Dump, VmCounters
from windumps.process.handles import Handles

HANDLES, COUNTERS = 12, 22
MIB = 1 << 20
ROWS = [
    (4, "Event", ""),
    (8, "File", "\\Device\\HarddiskVolume3\\log.txt"),
    (12, "Event", "\\BaseNamedObjects\\ready"),
    (16, "", ""),
    (20, "Event", ""),
]


def _listed(dump: Dump) -> Handles:
    assert dump.handles is not None
    return dump.handles


@pytest.mark.parametrize("size", [32, 40])
def test_handles_of_both_descriptor_sizes_come_with_types_and_names(size: int) -> None:
    handles = _listed(open_bytes(MinidumpBuilder().handles(ROWS, size).build()))
    assert (len(handles), handles.whole, handles.names_whole) == (5, True, True)
    assert handles.types.counts() == [("Event", 3), ("", 1), ("File", 1)]
    assert [handles.names.texts[n] for n in handles.names.index.tolist()] == [
        name for _, _, name in ROWS
    ]


def test_a_dump_without_the_streams_knows_neither_handles_nor_counters() -> None:
    dump = open_bytes(MinidumpBuilder().build())
    assert (dump.handles, dump.vm_counters) == (None, None)


def test_a_count_of_handles_beyond_the_stream_is_cut_and_said() -> None:
    data = MinidumpBuilder().handles(ROWS).build()
    at, _ = stream_place(data, HANDLES)
    dump = open_bytes(patched(data, at + 8, struct.pack("<I", 0xFFFFFFFF)))
    handles = _listed(dump)
    assert (len(handles), handles.whole) == (5, False)
    assert "count-too-large" in codes(dump)


@pytest.mark.parametrize(("offset", "value"), [(4, 0), (4, 31), (0, 0), (0, 15), (0, 0xFFFFFFF0)])
def test_impossible_sizes_make_the_list_damaged_and_never_empty(offset: int, value: int) -> None:
    data = MinidumpBuilder().handles(ROWS).build()
    at, _ = stream_place(data, HANDLES)
    dump = open_bytes(patched(data, at + offset, struct.pack("<I", value)))
    handles = _listed(dump)
    assert (len(handles), handles.whole) == (0, False)
    assert "bad-entry-size" in codes(dump)


def test_a_stream_shorter_than_its_header_is_damaged() -> None:
    data = MinidumpBuilder().handles(ROWS).build()
    row = stream_row(data, HANDLES)
    dump = open_bytes(patched(data, row + 4, struct.pack("<I", 12)))
    assert (len(_listed(dump)), _listed(dump).whole) == (0, False)
    assert "stream-too-short" in codes(dump)


@pytest.mark.parametrize("place", [0xFFFFFFFF, 0xFFFFFFF0, -1, -4])
def test_a_name_outside_the_file_is_unknown_and_said_and_the_handle_counts(place: int) -> None:
    data = MinidumpBuilder().handles(ROWS).build()
    at, _ = stream_place(data, HANDLES)
    rva = place if place > 0 else len(data) + place
    for field in (8, 12):  # of the second handle
        data = patched(data, at + 16 + 32 + field, struct.pack("<I", rva))
    dump = open_bytes(data)
    handles = _listed(dump)
    assert (len(handles), handles.whole, handles.names_whole) == (5, True, False)
    assert handles.types.counts() == [("Event", 3), ("", 2)]
    assert "bad-string" in codes(dump)


def test_names_that_share_bytes_of_the_file_are_read_up_to_a_limit() -> None:
    text = "x" * 0x7FFF
    rows = [(4 * n, "Event", text if not n else "") for n in range(1200)]
    data = MinidumpBuilder().handles(rows).build()
    at, _ = stream_place(data, HANDLES)
    first = struct.unpack_from("<I", data, at + 16 + 12)[0]
    # A length word everywhere in the text, each with a string of 64 KB less what is behind it.
    long = struct.pack("<I", 0x8000)
    body = patched(data, first + 4, long * 0x2000)
    for n in range(1200):
        body = patched(body, at + 16 + 32 * n + 12, struct.pack("<I", first + 4 + 4 * n))
    dump = open_bytes(body)
    handles = _listed(dump)
    assert not handles.names_whole
    assert sum(map(len, handles.names.texts)) * 2 <= 32 * MIB
    assert "bad-string" in codes(dump)


def test_counters_of_both_revisions_are_read() -> None:
    second = MinidumpBuilder().vm_counters(40 * MIB, 4096 * MIB, 30 * MIB).build()
    assert open_bytes(second).vm_counters == VmCounters(40 * MIB, 4096 * MIB, 30 * MIB)
    first = MinidumpBuilder().vm_counters(40 * MIB, 0, 30 * MIB, revision=1).build()
    assert open_bytes(first).vm_counters == VmCounters(40 * MIB, None, 30 * MIB)


def test_a_counter_whose_flag_is_not_set_is_unknown() -> None:
    data = MinidumpBuilder().vm_counters(40 * MIB, 9 * MIB, 30 * MIB, flags=0x5).build()
    assert open_bytes(data).vm_counters == VmCounters(40 * MIB, None, 30 * MIB)


def test_without_any_flag_a_counter_that_is_not_0_was_filled_in() -> None:
    data = MinidumpBuilder().vm_counters(40 * MIB, 0, 30 * MIB, flags=0, size=144).build()
    assert open_bytes(data).vm_counters == VmCounters(40 * MIB, None, 30 * MIB)


@pytest.mark.parametrize(("revision", "size"), [(2, 95), (2, 80), (0, 152), (9, 152)])
def test_counters_of_another_shape_are_ignored_and_said(revision: int, size: int) -> None:
    data = MinidumpBuilder().vm_counters(40 * MIB, size=152).build()
    at, _ = stream_place(data, COUNTERS)
    data = patched(data, at, struct.pack("<H", revision))
    data = patched(data, stream_row(data, COUNTERS) + 4, struct.pack("<I", size))
    dump = open_bytes(data)
    assert dump.vm_counters is None
    assert "bad-vm-counters" in codes(dump)


def test_a_counter_beyond_any_address_space_is_unknown_and_said() -> None:
    dump = open_bytes(MinidumpBuilder().vm_counters((1 << 64) - 1, 9 * MIB).build())
    assert dump.vm_counters == VmCounters(None, 9 * MIB, None)
    assert "bad-vm-counters" in codes(dump)


def _streams(data: bytes) -> dict[int, tuple[int, int]]:
    """Place and size of the first stream of each type, read with nothing but `struct`."""
    count, rva = struct.unpack_from("<II", data, 8)
    found: dict[int, tuple[int, int]] = {}
    for at in range(rva, min(rva + 12 * count, len(data) - 11), 12):
        kind, size, place = struct.unpack_from("<III", data, at)
        if size and place + size <= len(data):
            found.setdefault(kind, (place, size))
    return found


def _handle_types(data: bytes, place: int) -> Counter[str]:
    head, size, count = struct.unpack_from("<III", data, place)
    types: Counter[str] = Counter()
    for row in range(place + head, place + head + size * count, size):
        (rva,) = struct.unpack_from("<I", data, row + 8)
        length = struct.unpack_from("<I", data, rva)[0] if rva else 0
        types[data[rva + 4 : rva + 4 + length].decode("utf-16-le") if rva else ""] += 1
    return types


@pytest.mark.skipif(not REAL.exists(), reason="the shared dumps are not beside the repository")
def test_real_dumps_give_what_a_plain_reader_reads() -> None:
    listed = counted = 0
    for path in sorted(REAL.rglob("*.dmp*")):
        if "user" not in path.parts:
            continue
        data = path.read_bytes()
        data = lzma.decompress(data) if path.suffix == ".xz" else data
        if data[:4] != b"MDMP":
            continue
        streams = _streams(data)
        if HANDLES in streams:
            listed += 1
            handles = _listed(open_bytes(data))
            types = _handle_types(data, streams[HANDLES][0])
            assert dict(handles.types.counts()) == types, path.name
            assert (len(handles), handles.whole) == (types.total(), True)
        if COUNTERS in streams:
            counted += 1
            at = streams[COUNTERS][0]
            working_set, virtual, private = (
                struct.unpack_from("<Q", data, at + offset)[0] for offset in (16, 80, 88)
            )
            assert open_bytes(data).vm_counters == VmCounters(private, virtual, working_set)
    assert listed >= 6
    assert counted >= 12
