"""Driver Verifier's records and special pool, written byte by byte."""

from __future__ import annotations

import struct

import pytest
from builders.pool_builder import PAGE, PoolMemory, tag
from builders.verifier_memory import COUNTERS, DRIVERS, watched

from windumps.blocks import Blocks
from windumps.pool_tags import Pool, tag_text
from windumps.pools.kernel_pools import KernelPools


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
    assert [d.name for d in data.drivers] == ["acme.sys", "little.sys"]
    acme, total = data.drivers[0], sum(96 + n for n in range(20))
    assert (acme.block_count, acme.block_bytes) == (20, total)
    assert acme.nonpaged == (20, total, 22, total + 888)
    assert acme.paged == (0, 0, 3, 999)
    assert (acme.loads, acme.unloads) == (3, 1)
    base = DRIVERS[layout[0]]
    expected = [
        (address, size, text, base + number * 0x10000 + 0x1000 + index)
        for number, rows in enumerate(blocks.values())
        for index, (address, size, text) in enumerate(rows)
    ]
    columns = (data.address, data.size, data.tag, data.caller)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    assert [(a, s, tag_text(t), c) for a, s, t, c in rows] == sorted(expected)
    assert [data.drivers[n].name for n in data.driver.tolist()[:2]] == [
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
    assert data.drivers[0].nonpaged is None


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
