"""Driver Verifier's records and special pool, written byte by byte."""

from __future__ import annotations

import struct

import pytest
from builders.pool_builder import PAGE, PoolMemory, home, tag

from windumps.blocks import Blocks
from windumps.images.modules import Module
from windumps.pool_tags import Pool, tag_text
from windumps.pools.kernel_pools import KernelPools

DRIVERS = {"x64": 0xFFFF_F800_1000_0000, "x86": 0x8A00_0000}
# Where a driver's own counters are, by build: blocks of paged pool, then bytes of it.
COUNTERS = {
    ("x64", 7601): (0x50, 0x60),
    ("x64", 17763): (0x60, 0x70),
    ("x64", 19041): (0x68, 0x78),
    ("x64", 26100): (0x70, 0x80),
    ("x86", 7601): (0x28, 0x38),
}


def watched(layout: tuple[str, int], blocks: dict[str, list[tuple[int, int, str]]]) -> PoolMemory:
    """Two drivers watched; blocks of each as (address, bytes, tag), all of nonpaged pool."""
    architecture, build = layout
    made = PoolMemory(architecture, build)
    base = DRIVERS[architecture]
    word = "<I" if architecture == "x86" else "<Q"
    width = struct.calcsize(word)
    pages, entries = [], []
    for number, (name, rows) in enumerate(blocks.items()):
        image = base + number * 0x10000
        made.drivers.append(Module(name, name, image, 0x8000, 1))
        entry = made.pool + 0x700000 + number * 0x1000
        counts, held = COUNTERS[layout]
        raw = bytearray(0x200)
        struct.pack_into("<II", raw, counts, 0, len(rows))
        total = sum(size for _, size, _ in rows)
        raw[held : held + 2 * width] = struct.pack(word, 0) + struct.pack(word, total)
        made.put(entry, bytes(raw))
        page = struct.pack(word, 0) + struct.pack(word, entry) + struct.pack(word, 0x98761940)
        page += b"\0" * (-len(page) % (4 * width))
        for index, (address, size, text) in enumerate(rows):
            caller = image + 0x1000 + index
            record = b"".join(struct.pack(word, v) for v in (address, caller, size))
            page += record + struct.pack("<I", tag(text)) + b"\0" * (width - 4)
        # A freed record: it names the next free one and nobody called.
        page += struct.pack(word, made.pool + 0x720000) + b"\0" * (3 * width)
        place = made.put(made.pool + 0x600000 + number * 0x10000, page)
        pages.append(place)
        entries.append(entry)
    head = bytearray(0x80)
    struct.pack_into("<I", head, 0, 9)
    struct.pack_into("<I", head, 0x44, sum(map(len, blocks.values())))
    made.variables["MmVerifierData"] = made.put(made.pool + 0x740000, bytes(head))
    _large(made, pages)
    return made


def _large(made: PoolMemory, pages: list[int]) -> None:
    """A table of large allocations: the Verifier's pages and some that are not."""
    is_32bit = made.architecture == "x86"
    bits = 8 if made.build >= 10240 else 0
    kind = 0x40 if made.build >= 26100 else 0
    size = 16 if is_32bit else 32 if made.build >= 20348 else 24

    def entry(va: int, key: int, length: int) -> bytes:
        if is_32bit:
            return struct.pack("<IIII", va, key, kind << bits, length)
        return struct.pack("<QIIQ", va, key, kind << bits, length) + b"\0" * (size - 24)

    table = bytearray(entry(1, 0, 0) * 256)
    taken: set[int] = set()
    others = [made.put(made.pool + 0x800000 + n * PAGE, b"\x90" * PAGE) for n in range(8)]
    for va in pages + others:
        at = home(va >> 12 & 0xFFFFFFFF, 256)
        while at in taken:
            at = (at + 1) % 256
        taken.add(at)
        table[at * size : (at + 1) * size] = entry(va, tag("VfPT"), PAGE)
    place = made.put(made.pool + 0x500000, bytes(table))
    made.variable("PoolBigPageTable", place)
    made.variable("PoolBigPageTableSize", 256)


@pytest.mark.parametrize("layout", COUNTERS, ids=lambda layout: f"{layout[1]}-{layout[0]}")
def test_the_caller_of_every_watched_block(layout: tuple[str, int]) -> None:
    pool = PoolMemory(*layout).pool
    blocks = {
        "little.sys": [(pool + 0x10, 64, "Litl")],
        "acme.sys": [(pool + 0x1000 + n * 0x100, 96 + n, "Acme") for n in range(20)],
    }
    made = watched(layout, blocks)
    data = KernelPools(made.kernel()).verifier
    assert data is not None
    assert data.level == 9
    assert [d.driver.name for d in data.drivers] == ["acme.sys", "little.sys"]
    acme = data.drivers[0]
    assert acme.block_count == acme.nonpaged_count == 20
    assert acme.nonpaged_bytes == acme.block_bytes == sum(96 + n for n in range(20))
    assert acme.paged_count == 0
    base = DRIVERS[layout[0]]
    expected = [
        (address, size, text, base + number * 0x10000 + 0x1000 + index)
        for number, rows in enumerate(blocks.values())
        for index, (address, size, text) in enumerate(rows)
    ]
    columns = (data.address, data.size, data.tag, data.caller)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    assert [(a, s, tag_text(t), c) for a, s, t, c in rows] == sorted(expected)
    assert [data.drivers[n].driver.name for n in data.driver.tolist()[:2]] == [
        "little.sys",
        "acme.sys",
    ]


def test_counters_that_contradict_the_records_are_not_shown() -> None:
    layout = ("x64", 19041)
    pool = PoolMemory(*layout).pool
    made = watched(layout, {"acme.sys": [(pool, 64, "Acme"), (pool + 64, 64, "Acme")]})
    made.pieces[made.pool + 0x700000] = bytes(PAGE)
    data = KernelPools(made.kernel()).verifier
    assert data is not None
    assert len(data) == 2
    assert data.drivers[0].nonpaged_count is None


def test_a_verifier_that_is_off_says_nothing() -> None:
    made = PoolMemory()
    made.variables["MmVerifierData"] = made.put(made.pool, bytes(0x80))
    assert KernelPools(made.kernel()).verifier is None
    assert KernelPools(PoolMemory().kernel()).verifier is None


@pytest.mark.parametrize("architecture", ["x86", "x64"])
@pytest.mark.parametrize("paged", [False, True])
def test_blocks_of_special_pool(architecture: str, paged: bool) -> None:
    made = PoolMemory(architecture, 7601)
    unit = 8 if architecture == "x86" else 16
    flags = 0x8000 if paged else 0
    overrun = bytearray(b"\x5d" * PAGE)
    overrun[:8] = struct.pack("<HBBI", 100 | flags, 0x5D, 0, tag("Over"))
    overrun[8:unit] = bytes(unit - 8)
    start = PAGE - (100 + unit - 1) // unit * unit
    overrun[start : start + 100] = b"a" * 100
    underrun = bytearray(b"\x33" * PAGE)
    underrun[PAGE - unit : PAGE - unit + 8] = struct.pack("<HBBI", 48 | flags, 0x33, 0, tag("Undr"))
    underrun[:48] = b"b" * 48
    damaged = bytearray(overrun)
    damaged[0x800] ^= 1  # no pattern, no page of special pool
    for number, page in enumerate((overrun, underrun, damaged)):
        made.put(made.pool + number * 2 * PAGE, bytes(page))
    made.variable("MmSpecialPoolTag", tag("Over"))
    used = Blocks.concatenate(KernelPools(made.kernel()).blocks()).used
    pool = Pool.PAGED if paged else Pool.NONPAGED
    assert used.address.tolist() == [made.pool + start, made.pool + 2 * PAGE]
    assert used.size.tolist() == [100, 48]
    assert [tag_text(t) for t in used.tag.tolist()] == ["Over", "Undr"]
    assert used.heap.tolist() == [pool, pool]


def test_without_a_sign_of_special_pool_none_is_looked_for() -> None:
    made = PoolMemory("x64", 7601)
    page = bytearray(b"\x5d" * PAGE)
    page[:8] = struct.pack("<HBBI", 64, 0x5D, 0, tag("Over"))
    page[8:16] = bytes(8)
    made.put(made.pool, bytes(page))
    assert not len(Blocks.concatenate(KernelPools(made.kernel()).blocks()))
