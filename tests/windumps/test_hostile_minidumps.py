"""Whatever the bytes: a Dump or a WindumpsError, soon, in little memory, and without a warning.

"A Dump" means one that can be used: everything in it is looked at, and memory is read and gathered
at the edges of all runs, in the ways that readers of heaps do.
"""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from builders.opening import open_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from truth import REAL, TESTDATA

from windumps.dump import Dump
from windumps.dumps import open_dump
from windumps.errors import MemoryReadError, WindumpsError
from windumps.images.modules import ModuleMap
from windumps.memory import Presence

TOP = 1 << 64
GUID = "0123456789ABCDEF0123456789ABCDEF"

MADE = {
    "x64": MinidumpBuilder("x64")
    .misc_info(7, (1_700_000_000, 1, 2))
    .comment("made", wide=True)
    .stream(65520, b"wine")
    .module("C:\\a.exe", 0x400000, 0x3000, version=(1, 2, 3, 4), pdb=("a.pdb", GUID, 1))
    .module("b.dll", 0x500000, 0x1000)
    .unloaded_module("c.dll", 0x600000, 0x1000)
    .thread(1, 0x10000, (0x20000, 64), {"rip": 0x400010, "rsp": 0x20010})
    .region(0x10000, 0x1000)
    .region(0x20000, 0x2000)
    .memory(0x10000, bytes(range(64)))
    .memory(0x10040, b"next to it")
    .memory(0x20000, bytes(64))
    .memory(TOP - 8, b"the last")
    .build(),
    "x86": MinidumpBuilder("x86", padded=True)
    .module("a.exe", 0x400000, 0x3000, pdb=("a.pdb", GUID, 1))
    .thread(1, 0x7FFDE000, (0x20000, 64), {"eip": 0x400010})
    .memory_list(0x20000, bytes(64))
    .memory_list(0x7FFDE000, bytes(32))
    .build(),
}


@cache
def _real_shaped() -> bytes:
    """The smallest dump of the repository: one process of a real allocator, 1 MB."""
    path = min(TESTDATA.rglob("*.dmp.gz"), key=lambda p: p.stat().st_size)
    return gzip.decompress(path.read_bytes())


def _head_size(data: bytes) -> int:
    """Bytes before the memory itself."""
    return struct.unpack_from("<Q", data, stream_place(data, 9)[0] + 8)[0]


def _use(dump: Dump) -> None:
    """Looks at everything a dump gives; raises what must not be raised."""
    memory = dump.memory
    runs = memory.runs
    assert memory.total_bytes <= 2 * len(memory.data)
    assert (runs.offset >= 0).all()
    assert (runs.offset + runs.size <= len(memory.data)).all()
    assert (runs.address[1:] > runs.address[:-1]).all()

    starts, ends = runs.address, runs.address + runs.size.astype(np.uint64)
    edges = np.concatenate([starts, ends, np.array([0, TOP - 1], np.uint64)])
    around = (edges[:, None] + np.arange(-9, 9).astype(np.uint64)).ravel()
    for dtype in ("<u1", "<u4", "<u8", "V20"):
        values, present = memory.gather(around, np.dtype(dtype))
        assert values.shape == present.shape == around.shape
    extents = memory.extents(0, TOP)
    assert int(extents.size.sum()) == memory.present_bytes(0, TOP) == memory.total_bytes
    for address in edges[:8].tolist():
        for start in (address - 8, address - 1, address, address + 1):
            got = memory.read_available(start, 16)
            assert (memory.presence(start) is Presence.PRESENT) == bool(got)
            try:
                assert memory.view(start, 16).tobytes() == got
            except MemoryReadError:
                assert len(got) < 16
    regions = memory.regions
    assert regions.committed_bytes() <= TOP
    assert (regions.base_address[1:] > regions.base_address[:-1]).all()
    assert len(ModuleMap(dump.modules).index_of(around)) == len(around)
    for module in dump.modules + dump.unloaded_modules:
        assert module.name
        assert len(module.identity) < 50
        (module.path + module.version).encode()
    for thread in dump.threads:
        assert 0 <= thread.teb < TOP
        assert all(0 <= value < TOP for value in thread.registers.values())
    "".join(dump.comments).encode()
    for item in dump.diagnostics:
        assert "\n" not in item.message
        assert item.bytes_affected >= 0
        item.message.encode()


def _try(data: bytes) -> bool:
    """True for a dump, False for a clear error; anything else is the test's failure."""
    try:
        dump = open_bytes(data)
    except WindumpsError as error:
        assert str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
        return False
    _use(dump)
    return True


@pytest.mark.parametrize("name", MADE)
def test_the_undamaged_dumps_are_read_without_a_diagnostic(name: str) -> None:
    assert open_bytes(MADE[name]).diagnostics == []
    assert _try(MADE[name])
    assert _try(_real_shaped())


@pytest.mark.parametrize("name", MADE)
def test_every_prefix_of_a_small_dump_is_read_or_refused(name: str) -> None:
    data = MADE[name]
    opened = [_try(data[:length]) for length in range(len(data))]
    # A header and one row of the directory are enough: what is there is read.
    assert opened == [length >= 44 for length in range(len(data))]


@pytest.mark.parametrize("name", MADE)
def test_thousands_of_flipped_bits_are_read_or_refused(name: str) -> None:
    rng = random.Random(20)  # noqa: S311
    data = MADE[name]
    opened = 0
    for _ in range(1_500):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        opened += _try(bytes(changed))
    assert opened > 1_300  # nearly all of these break a part only


@pytest.mark.parametrize("name", MADE)
def test_extreme_numbers_in_every_word_of_the_streams_are_read_or_refused(name: str) -> None:
    data = MADE[name]
    for at in range(0, len(data) - 8, 4):
        for word in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x80"):
            _try(patched(data, at, word))
        _try(patched(data, at, b"\xff" * 8))


def test_prefixes_and_flips_of_a_real_shaped_dump_are_read_or_refused() -> None:
    data = _real_shaped()
    head = _head_size(data)
    rng = random.Random(21)  # noqa: S311
    lengths = [*range(0, head + 64, 8), *(rng.randrange(head, len(data)) for _ in range(60))]
    assert sum(_try(data[:length]) for length in lengths) > 700
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 8))):
            changed[rng.randrange(head)] ^= 1 << rng.randrange(8)
        _try(bytes(changed))


def test_a_cut_real_shaped_dump_tells_exactly_what_is_lost() -> None:
    data = _real_shaped()
    whole = open_bytes(data)
    half = open_bytes(data[: len(data) // 2])
    assert [item.code for item in half.diagnostics] == ["memory-cut"]
    lost = half.diagnostics[0].bytes_affected
    assert lost == len(data) - len(data) // 2
    assert half.memory.total_bytes + lost == whole.memory.total_bytes
    for start, size in zip(half.memory.runs.address.tolist(), half.memory.runs.size, strict=True):
        assert half.memory.read(start, int(size)) == whole.memory.read(start, int(size))


_U32 = st.one_of(st.integers(0, 400), st.integers(0, 2**32 - 1), st.just(2**32 - 1))
_U64 = st.one_of(st.integers(0, 400), st.integers(0, TOP - 1), st.sampled_from([TOP - 1, 1 << 63]))
_BODY = st.one_of(
    st.binary(max_size=200),
    st.lists(_U32, max_size=40).map(lambda words: struct.pack(f"<{len(words)}I", *words)),
    st.lists(_U64, max_size=30).map(lambda words: struct.pack(f"<{len(words)}Q", *words)),
)
_STREAM_TYPES = st.sampled_from([0, 3, 4, 5, 7, 9, 10, 11, 14, 15, 16, 17, 65520])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_garbage_behind_a_header_is_read_or_refused(garbage: bytes) -> None:
    _try(struct.pack("<4sI", b"MDMP", 0xA793) + garbage)
    _try(garbage)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(_STREAM_TYPES, _BODY, st.one_of(st.none(), st.tuples(_U32, _U32))), max_size=8
    )
)
def test_any_streams_with_any_content_and_place_are_read(
    streams: list[tuple[int, bytes, tuple[int, int] | None]],
) -> None:
    builder = MinidumpBuilder(with_system_info=False)
    for kind, body, _ in streams:
        builder.stream(kind, body)
    data = builder.build()
    for index, (_, _, place) in enumerate(streams):
        if place is not None:  # size and offset that are not the body's
            data = patched(data, 32 + 12 * index + 4, struct.pack("<II", *place))
    assert _try(data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_U64, _U64), max_size=12), _U64, st.binary(max_size=100))
def test_any_64_bit_memory_list_gives_bytes_of_the_file_or_nothing(
    rows: list[tuple[int, int]], base: int, tail: bytes
) -> None:
    body = struct.pack("<QQ", len(rows), base) + b"".join(struct.pack("<QQ", *r) for r in rows)
    data = MinidumpBuilder().stream(9, body).build() + tail
    dump = open_bytes(data)
    _use(dump)
    # The oracle: Python integers, one byte at a time, lower start first.
    expected: dict[int, int] = {}
    placed, at = [], base
    for start, size in rows:
        placed.append((start, at, min(size, TOP - start, max(len(data) - at, 0))))
        at += size
    for start, at, size in sorted(placed, key=lambda row: row[0]):
        for index in range(size):
            expected.setdefault(start + index, data[at + index])
    assert dump.memory.total_bytes == len(expected)
    for address in list(expected)[:200]:
        assert dump.memory.read(address, 1)[0] == expected[address]


def test_hostile_counts_and_sizes_allocate_next_to_nothing() -> None:
    huge = [
        MinidumpBuilder().stream(9, struct.pack("<QQQQ", 2**63, 0, 0, 2**63)).build(),
        MinidumpBuilder().stream(9, struct.pack("<QQQQ", 2**64 - 1, 2**64 - 1, 1, 1)).build(),
        MinidumpBuilder().stream(5, struct.pack("<IQII", 2**32 - 1, 1, 2**32 - 1, 0)).build(),
        MinidumpBuilder().stream(16, struct.pack("<IIQ", 16, 48, 2**64 - 1)).build(),
        MinidumpBuilder().stream(16, struct.pack("<IIQ", 2**32 - 1, 2**32 - 1, 2**63)).build(),
        MinidumpBuilder().stream(14, struct.pack("<III", 12, 24, 2**32 - 1)).build(),
        MinidumpBuilder().stream(4, struct.pack("<I", 2**32 - 1)).build(),
        MinidumpBuilder().stream(3, struct.pack("<I", 2**32 - 1)).build(),
        patched(MADE["x64"], 8, struct.pack("<I", 2**32 - 1)),
    ]
    for data in huge:
        tracemalloc.start()
        try:
            assert _try(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 2 << 20


def test_many_modules_that_share_one_long_name_do_not_multiply_it() -> None:
    # 20,000 records are 2 MB of file; their common name would be 1.2 GB of strings.
    count = 20_000
    builder = MinidumpBuilder(with_system_info=False)
    name_at = 32 + 12 * 2
    name = struct.pack("<I", 0xFFFE) + b"n\0" * 0x7FFF
    module = struct.pack("<QIIII", 0x1000, 1, 0, 0, name_at) + bytes(84)
    body = struct.pack("<I", count) + module * count
    data = builder.stream(65520, name).stream(4, body).build()
    tracemalloc.start()
    try:
        dump = open_bytes(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(dump.modules) == count
    assert len(dump.modules[0].name) == 0x7FFF
    assert dump.modules[-1].path == ""
    assert dump.diagnostics[1].message == "all names together are longer than MAX_TEXT_BYTES"
    assert peak < 150 << 20


def test_more_threads_than_a_process_can_have_are_read_up_to_a_limit() -> None:
    count = 100_000
    builder = MinidumpBuilder("arm")
    builder.stream(3, struct.pack("<I", count) + bytes(48) * count)
    dump = open_bytes(builder.build())
    assert len(dump.threads) == 0x10000
    assert "at most 65536 are read" in dump.diagnostics[0].message


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared dumps are not beside the repository")
def test_small_real_dumps_survive_cuts_and_flips() -> None:
    rng = random.Random(22)  # noqa: S311
    paths = sorted(REAL.rglob("*.dmp"))
    paths = [path for path in paths if "kernel" not in path.parts]
    assert len(paths) > 60
    for path in paths:
        data = path.read_bytes()
        assert _try(data)
        for _ in range(6):
            _try(data[: rng.randrange(len(data))])
            changed = bytearray(data)
            for _ in range(8):
                changed[rng.randrange(min(len(data), 20_000))] ^= 1 << rng.randrange(8)
            _try(bytes(changed))


def test_a_hostile_file_on_disk_gives_the_same_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "hostile.dmp"
    path.write_bytes(patched(MADE["x64"], 12, b"\xff\xff\xff\xff"))
    with pytest.raises(WindumpsError, match=r"hostile\.dmp: the file ends inside the stream dir"):
        open_dump(path)
