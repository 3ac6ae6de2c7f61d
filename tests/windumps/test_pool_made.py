"""Pools written byte by byte: every layout, and what no dump of the collection has."""

from __future__ import annotations

import random
import struct
from collections import Counter
from typing import Any

import numpy as np
import pytest
from builders.pool_builder import (
    PAGE,
    TRACKERS,
    PoolMemory,
    home,
    pool_header,
    pool_page,
    tag,
)
from numpy.typing import NDArray

from windumps.blocks import Blocks, State
from windumps.pool_tags import Pool, is_printable, plain_tags, tag_text
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.pages.chain import FORM_X64, resume
from windumps.pools.pages.stale import uncounted_pages
from windumps.pools.segment.recovery import accepted

_KEYS = [tag(a + b + c + d) for a in "AbC" for b in "xyz" for c in "0123" for d in "kL"]


def trackers_of(made: PoolMemory, slots: int, tables: list[dict[int, tuple[int, ...]]]) -> None:
    """One table a processor, all with the same keys in the same slots."""
    keys = [key for key in _KEYS if any(key in rows for rows in tables)]
    places = []
    for number, rows in enumerate(tables):
        raw = made.tracker(slots, rows, keys)
        places.append(made.put(made.pool + number * 0x40000, raw))
    made.variable("PoolTrackTable", places[0])
    made.variable("ExPoolTagTables", *places)
    made.processors = len(tables)


@pytest.mark.parametrize("named", [True, False], ids=["named", "searched"])
@pytest.mark.parametrize("layout", TRACKERS, ids=lambda layout: f"{layout[1]}-{layout[0]}")
def test_every_layout_is_recognised_and_added_up(layout: tuple[str, int], named: bool) -> None:
    made = PoolMemory(*layout)
    tables: list[dict[int, tuple[int, ...]]] = [{}, {}, {}]
    expected = {}
    for number, key in enumerate(_KEYS):
        # Allocated on one processor, freed on another: its table goes below zero.
        tables[0][key] = (1000 + number, 10, 64 * (990 + number), 7, 3, 128)
        tables[1][key] = (5, 900, -64 * 895, 0, 2, -64)
        expected[key] = (1005 + number, 910, 64 * (95 + number), 7, 5, 64)
        if number % 2:
            tables[2][key] = (0, 0, 0, 50, 50, 0)
            expected[key] = (*expected[key][:3], 57, 55, 64)
    trackers_of(made, 128, tables)
    if not named:
        made.variables.clear()
    pools = KernelPools(made.kernel())
    totals = pools.trackers
    found = {
        key: tuple(
            int(getattr(totals, f"{pool}_{name}")[row])
            for pool in ("nonpaged", "paged")
            for name in ("allocs", "frees", "bytes")
        )
        for row, key in enumerate(totals.tag.tolist())
    }
    assert found == expected
    assert totals.complete.all()
    assert totals.table_count == 3


@pytest.mark.parametrize("layout", [("x64", 14393), ("x86", 7601)])
def test_counters_that_wrapped_still_give_what_is_held(layout: tuple[str, int]) -> None:
    made = PoolMemory(*layout)
    rows = dict.fromkeys(_KEYS, (5, 3, 64, 0, 0, 0))
    rows[_KEYS[0]] = ((1 << 32) + 40, (1 << 32) - 2, 4096, 0, 0, 0)
    trackers_of(made, 128, [rows])
    totals = KernelPools(made.kernel()).trackers
    row = totals.row(_KEYS[0])
    assert row is not None
    assert int(totals.nonpaged_count[row]) == 42
    assert totals.counter_bits == 32
    assert totals.is_consistent.all()


def test_an_overwritten_row_makes_no_table_of_trackers_smaller() -> None:
    made, slots = PoolMemory("x64", 14393), 2048
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    names = [tag(a + b + c + "q") for a in letters for b in letters for c in letters]
    by_home: dict[int, int] = {}
    for key in names:
        by_home.setdefault(home(key, slots) // 64, key)  # far apart, so each is at home
    keys = [by_home[at] for at in sorted(by_home)]
    low = [home(key, slots) for key in keys if home(key, slots) < 512]
    assert 4 < len(low) < 24 < len(keys)
    raw = bytearray(made.tracker(slots, dict.fromkeys(keys, (9, 4, 80, 0, 0, 0)), keys))
    size = len(made.entry(0, 0, 0, 0, 0, 0, 0))
    strange = next(key for key in names if home(key, slots) % 1024 > 600 and key not in keys)
    raw[low[-1] * size : low[-1] * size + 4] = strange.to_bytes(4, "little")
    made.variable("PoolTrackTable", made.put(made.pool, bytes(raw)))
    assert len(KernelPools(made.kernel()).trackers) == len(keys)


def test_a_processor_that_was_never_there_is_no_gap() -> None:
    made = PoolMemory()
    rows = dict.fromkeys(_KEYS, (9, 4, 80, 0, 0, 0))
    table = made.put(made.pool, made.tracker(128, rows, _KEYS))
    other = made.put(made.pool + 0x40000, made.tracker(128, rows, _KEYS))
    made.variable("PoolTrackTable", table)
    made.variable("ExPoolTagTables", table, 0, other)
    made.processors = 3
    totals = KernelPools(made.kernel()).trackers
    assert totals.complete.all()
    assert set(totals.nonpaged_allocs.tolist()) == {18}


def test_without_one_processor_s_table_no_total_is_known_where_the_others_do_not_add_up() -> None:
    made = PoolMemory()
    rows = dict.fromkeys(_KEYS, (9, 4, 80, 0, 0, 0))
    freeing = rows | {_KEYS[0]: (0, 9, -80, 0, 0, 0)}
    table = made.put(made.pool, made.tracker(128, freeing, _KEYS))
    other = made.put(made.pool + 0x40000, made.tracker(128, freeing, _KEYS))
    made.variable("PoolTrackTable", table)
    made.variable("ExPoolTagTables", table, 0, other)
    made.processors = 3
    totals = KernelPools(made.kernel()).trackers
    assert len(totals) == len(_KEYS)
    assert not totals.complete.any()


def test_a_tag_that_holds_less_than_nothing_is_unknown() -> None:
    made = PoolMemory()
    rows = dict.fromkeys(_KEYS, (9, 4, 80, 0, 0, 0))
    trackers_of(made, 128, [rows, rows | {_KEYS[5]: (0, 9, -160, 0, 0, 0)}])
    pools = KernelPools(made.kernel())
    totals = pools.trackers
    assert totals.tag[~totals.complete].tolist() == [_KEYS[5]]
    assert any(entry.code == "trackers-inconsistent" for entry in pools.log.collect())


def test_an_absent_page_of_one_table_costs_only_its_tags() -> None:
    made = PoolMemory()
    rows = dict.fromkeys(_KEYS, (9, 4, 80, 0, 0, 0))
    trackers_of(made, 128, [rows, rows])
    made.pieces[made.pool + 0x40000] = made.pieces[made.pool + 0x40000][:PAGE]
    totals = KernelPools(made.kernel()).trackers
    whole = totals.complete
    assert 0 < int(whole.sum()) < len(totals)
    assert set(totals.nonpaged_allocs[whole].tolist()) == {18}
    assert totals.absent_entries > 0


def test_another_tag_in_the_same_slot_is_not_added() -> None:
    made = PoolMemory()
    rows = dict.fromkeys(_KEYS, (9, 4, 80, 0, 0, 0))
    trackers_of(made, 128, [rows, rows])
    raw = bytearray(made.pieces[made.pool + 0x40000])
    size = len(made.entry(0, 0, 0, 0, 0, 0, 0))
    slot = next(
        n for n in range(128) if raw[n * size : n * size + 4] == struct.pack("<I", _KEYS[3])
    )
    raw[slot * size : slot * size + 4] = b"What"
    made.pieces[made.pool + 0x40000] = bytes(raw)
    pools = KernelPools(made.kernel())
    totals = pools.trackers
    bad = totals.tag[~totals.complete].tolist()
    assert bad == [_KEYS[3]]
    assert any(entry.code == "tracker-keys-differ" for entry in pools.log.collect())


def test_tags_that_found_no_slot_count_too() -> None:
    made = PoolMemory()
    slots = 64
    rows = dict.fromkeys(_KEYS[:64], (9, 4, 80, 0, 0, 0))
    trackers_of(made, slots, [rows])
    late = _KEYS[64:]
    raw = b"".join(made.entry(key, 3, 1, 32, 0, 0, 0) for key in late) + made.entry(*([0] * 7))
    place = made.put(made.pool + 0x80000, raw)
    made.variable("", place, named=False)  # nothing names it
    pools = KernelPools(made.kernel())
    totals = pools.trackers
    assert set(totals.tag.tolist()) == set(_KEYS)
    assert totals.table_count == 2
    row = totals.row(late[0])
    assert row is not None
    assert int(totals.nonpaged_count[row]) == 2


def test_no_table_is_said_and_not_taken_for_an_empty_one() -> None:
    made = PoolMemory()
    made.put(made.pool, b"\0" * PAGE)
    made.variable("PoolTrackTable", made.pool)
    pools = KernelPools(made.kernel())
    assert not pools.trackers.is_found
    assert "0x" in pools.trackers.source
    assert pools.audit.ranking == ""


# Va, key, POOL_TYPE, bytes -> one entry of the table of large allocations.
BIG = {
    ("x86", 2600): lambda va, key, kind, size: struct.pack("<III", va, key, size // PAGE),
    ("x64", 3790): lambda va, key, kind, size: struct.pack("<QIIxxxxxxxx", va, key, size // PAGE),
    ("x86", 7601): lambda va, key, kind, size: struct.pack("<IIII", va, key, kind, size),
    ("x64", 9600): lambda va, key, kind, size: struct.pack("<QIIQ", va, key, kind, size),
    ("x86", 17763): lambda va, key, kind, size: struct.pack(
        "<IIII", va, key, 0x5A | kind << 8 | 3 << 20, size
    ),
    ("x64", 19041): lambda va, key, kind, size: struct.pack(
        "<QIIQ", va, key, 0x5A | kind << 8 | 3 << 20, size
    ),
    ("x64", 22621): lambda va, key, kind, size: struct.pack(
        "<QIIQQ", va, key, 0x5A | kind << 8, size, 0
    ),
}


def big_table(made: PoolMemory, slots: int, rows: list[tuple[int, int, int, int]]) -> None:
    form = BIG[made.architecture, made.build]
    size = len(form(0, 0, 0, 0))
    table = bytearray(form(1, 0, 0, 0) * slots)
    taken: set[int] = set()
    for va, key, kind, length in rows:
        at = home((va & ~1) >> 12 & 0xFFFFFFFF, slots)
        while at in taken:
            at = (at + 1) % slots
        taken.add(at)
        table[at * size : (at + 1) * size] = form(va, key, kind, length)
    place = made.put(made.pool, bytes(table))
    made.variable("PoolBigPageTable", place)
    made.variable("PoolBigPageTableSize", slots)


def test_a_damaged_table_of_large_allocations_is_not_read_by_the_layout_of_another_build() -> None:
    made = PoolMemory("x86", 7601)
    start, slots = made.pool + 0x100000, 4096
    near = [va for va in range(start, start + 0x4000000, PAGE) if home(va >> 12, slots) < 200]
    rows = [(va, _KEYS[n % 5], 1, 2 * PAGE) for n, va in enumerate(near[:60])]
    big_table(made, slots, [*rows, (made.pool, tag("Pool"), 0, slots * 16)])
    table = bytearray(made.pieces[made.pool])
    for page in range(1, 6):
        table[page * PAGE : (page + 1) * PAGE] = random.Random(page).randbytes(PAGE)  # noqa: S311
    made.put(made.pool, bytes(table))
    del made.variables["PoolBigPageTableSize"]
    pages = KernelPools(made.kernel()).big_pages
    sizes = dict(zip(pages.address.tolist(), pages.size_bytes.tolist(), strict=True))
    assert set(sizes.items()) <= {(va, size) for va, _, _, size in rows} | {(made.pool, slots * 16)}
    assert not pages.is_whole


@pytest.mark.parametrize("named", [True, False], ids=["named", "searched"])
@pytest.mark.parametrize("layout", BIG, ids=lambda layout: f"{layout[1]}-{layout[0]}")
def test_large_allocations_of_every_layout(layout: tuple[str, int], named: bool) -> None:
    made = PoolMemory(*layout)
    start = made.pool + 0x100000
    rows = [
        (start + n * 0x10000, _KEYS[n % 5], (0, 1, 0x200, 0x21, 8)[n % 5], PAGE * (n % 7 + 1))
        for n in range(60)
    ]
    freed = [(start + 0x900000 + n * 0x10000 + 1, _KEYS[9], 0, PAGE) for n in range(20)]
    big_table(made, 256, rows + freed)
    if not named:
        made.variables.clear()
    pages = KernelPools(made.kernel()).big_pages
    assert pages.address.tolist() == sorted(row[0] for row in rows)
    assert dict(zip(pages.address.tolist(), pages.size_bytes.tolist(), strict=True)) == {
        row[0]: row[3] for row in rows
    }
    assert pages.tag.tolist() == [row[1] for row in rows]
    assert pages.free_entries == 20
    pool = (Pool.NONPAGED, Pool.PAGED, Pool.NONPAGED_NX, Pool.PAGED_SESSION, Pool.NONPAGED)
    known = layout[1] >= 6000
    expected = [pool[n % 5] if known else Pool.UNKNOWN for n in range(60)]
    assert pages.pool.tolist() == expected
    assert pages.is_quota.tolist() == [known and n % 5 == 4 for n in range(60)]


def test_pool_flags_are_told_from_pool_types() -> None:
    made = PoolMemory("x64", 22621)  # a build without a word on which it has
    start = made.pool + 0x100000
    flags = (0x40, 0x80, 0x100, 0x101)
    rows = [(start + n * 0x10000, _KEYS[0], flags[n % 4], PAGE) for n in range(40)]
    big_table(made, 256, rows)
    pages = KernelPools(made.kernel()).big_pages
    assert pages.pool.tolist() == [Pool.NONPAGED_NX, Pool.NONPAGED, Pool.PAGED, Pool.PAGED] * 10
    assert pages.is_quota.tolist() == [False, False, False, True] * 10
    assert "POOL_FLAGS" in pages.layout


@pytest.mark.parametrize(
    ("layout", "table_at", "size_at"),
    [(("x86", 2600), -3, -4), (("x86", 7601), -5, -6), (("x64", 3790), -6, -7)],
)
def test_the_table_of_large_blocks_is_found_beside_the_trackers_variable(
    layout: tuple[str, int], table_at: int, size_at: int
) -> None:
    made = PoolMemory(*layout)
    start = made.pool + 0x100000
    rows = [(start + n * 0x10000, _KEYS[0], 0, PAGE) for n in range(40)]
    big_table(made, 256, rows)
    table = made.pool
    made.variables.clear()
    words = [0] * 8
    words[7], words[7 + size_at], words[7 + table_at] = made.pool + 0x900000, 256, table
    place = made.variable("", *words, named=False)
    made.variables["PoolTrackTable"] = place + 7 * made.pointer_size
    pages = KernelPools(made.kernel()).big_pages
    assert pages.source == "beside PoolTrackTable"
    assert len(pages) == 40


def test_words_that_lead_nowhere_cost_no_search() -> None:
    made = PoolMemory("x64", 19041)
    made._image = bytearray(0x40000)
    made.variable("", *(0xFFFF_E100_0000_0000 + n * PAGE for n in range(20_000)), named=False)
    kernel = made.kernel()
    asked = 0
    gather = kernel.memory.gather

    def counted(addresses: NDArray[np.uint64], dtype: Any) -> Any:
        nonlocal asked
        asked += addresses.size
        return gather(addresses, dtype)

    kernel.memory.gather = counted  # type: ignore[method-assign]
    assert not KernelPools(kernel).big_pages.is_found
    assert asked < 1 << 23


def walk(made: PoolMemory) -> tuple[KernelPools, Blocks]:
    pools = KernelPools(made.kernel())
    return pools, Blocks.concatenate(pools.blocks())


# (build, PoolType of a used nonpaged block, of a paged one): another bit says so since Vista.
TYPES = [(2600, 5, 6), (3790, 5, 6), (6001, 2, 3), (7601, 2, 3), (17763, 2, 3)]


@pytest.mark.parametrize("architecture", ["x86", "x64"])
@pytest.mark.parametrize(("build", "nonpaged", "paged"), TYPES)
def test_pages_of_blocks(architecture: str, build: int, nonpaged: int, paged: int) -> None:
    made = PoolMemory(architecture, build)
    sizes = [64, 128, 32, 1024, 512]
    rest = PAGE - sum(sizes)
    for number, kind in enumerate((nonpaged, paged)):
        blocks = [(size, kind, "Acme") for size in sizes[:4]]
        blocks += [(sizes[4], 0, "Free"), (rest, kind | 8 if build >= 6000 else kind, "Last")]
        made.put(made.pool + number * 0x10000, pool_page(architecture, blocks))
    made.put(made.pool + 0x30000, bytes(PAGE))
    made.put(made.pool + 0x40000, bytes(range(256)) * 16)
    pools, blocks = walk(made)
    used = blocks.used
    unit = 8 if architecture == "x86" else 16
    expected = []
    for number, pool in enumerate((Pool.NONPAGED, Pool.PAGED)):
        at = made.pool + number * 0x10000
        for size, text in zip([*sizes, rest], ["Acme"] * 4 + ["Free", "Last"], strict=True):
            if text != "Free":
                expected.append((at + unit, size, text, pool))
            at += size
    columns = (used.address, used.block_bytes, used.tag, used.heap)
    found = [
        (a, s, tag_text(t), p) for a, s, t, p in zip(*(c.tolist() for c in columns), strict=True)
    ]
    assert found == expected
    assert Counter(blocks.state.tolist()) == {State.USED: 10, State.FREE: 2}
    assert pools.coverage.walked_bytes == 2 * PAGE


@pytest.mark.parametrize("architecture", ["x86", "x64"])
@pytest.mark.parametrize(("build", "listed"), [(2600, (1, 2)), (3790, (1, 2)), (7601, (4, 5))])
def test_freed_blocks_on_lists_are_not_used(
    architecture: str, build: int, listed: tuple[int, int]
) -> None:
    used = 5 if build < 6000 else 2
    made = PoolMemory(architecture, build)
    blocks = [(256, used, "Acme"), (256, listed[0], "Acme"), (512, listed[1], "Acme")]
    made.put(made.pool, pool_page(architecture, [*blocks, (PAGE - 1024, used, "Last")]))
    _, found = walk(made)
    assert found.used.block_bytes.tolist() == [256, PAGE - 1024]
    assert len(found) == 4


@pytest.mark.parametrize("architecture", ["x86", "x64"])
@pytest.mark.parametrize("freed", [False, True], ids=["in use", "freed"])
def test_blocks_in_the_tail_of_a_large_one_are_found(architecture: str, freed: bool) -> None:
    unit = 8 if architecture == "x86" else 16
    made = PoolMemory(architecture, 9600 if architecture == "x64" else 7601)
    large = made.pool + 0x100000
    rows = [(large + n * 0x10000, _KEYS[0], 0, PAGE + 0x200) for n in range(20)]
    rows[0] = (rows[0][0] | int(freed), *rows[0][1:])
    big_table(made, 256, rows)
    tail = [(unit, 2, "Frag"), (0x100, 2, "Acme"), (0x180, 0, "Free")]
    tail.append((PAGE - 0x200 - sum(size for size, _, _ in tail), 3, "Last"))
    page, previous = b"\x5a" * 0x200, 0
    for size, kind, text in tail:
        header = pool_header(architecture, previous, size, kind, tag(text))
        page += header + b"\xcc" * (size - len(header))
        previous = size
    made.put(large, b"\x5a" * PAGE + page)
    pools, blocks = walk(made)
    small = blocks.used.select(blocks.used.address < np.uint64(large + 0x10000))
    start = large + PAGE + 0x200 + unit
    inside = small.address >= np.uint64(start)
    assert small.address[inside].tolist() == [start + unit, start + unit + 0x280]
    assert [tag_text(t) for t in small.tag[inside].tolist()] == ["Acme", "Last"]
    assert pools.coverage.walked_bytes == PAGE - 0x200
    assert pools.coverage.fragments == [int(not freed), 0]
    assert pools.coverage.orphans == [int(freed), 0]


def test_a_tail_begins_where_its_large_block_ends() -> None:
    # What looks like a tail elsewhere in the last page is contents of the large block.
    made = PoolMemory("x86", 7601)
    large = made.pool + 0x100000
    big_table(made, 256, [(large + n * 0x10000, _KEYS[0], 0, PAGE + 0x800) for n in range(20)])
    page = b"\x5a" * 0x200 + pool_header("x86", 0, 8, 2, tag("Frag"))
    page += pool_header("x86", 8, PAGE - 0x208, 2, tag("Copy"))
    made.put(large, b"\x5a" * PAGE + page.ljust(PAGE, b"\xcc"))
    _, blocks = walk(made)
    assert tag("Copy") not in blocks.tag.tolist()


@pytest.mark.parametrize("architecture", ["x86", "x64"])
@pytest.mark.parametrize("lead", [0, 1], ids=["header aligned", "caller aligned"])
def test_the_callers_pointer_of_a_cache_aligned_block_is_behind_the_second_header(
    architecture: str, lead: int
) -> None:
    unit = 8 if architecture == "x86" else 16
    made = PoolMemory(architecture, 7601 if architecture == "x86" else 9600)
    start, size = 0x60, 0x200
    page = bytearray(
        pool_page(
            architecture,
            [(start, 2, "Plai"), (size, 2, "Acme"), (PAGE - start - size, 0, "Free")],
        )
    )
    inner = 0x80 - lead * unit
    distance = inner - start
    header = pool_header(architecture, distance, size - distance, 2 | 4, tag("Acme"))
    page[inner : inner + len(header)] = header
    made.put(made.pool, bytes(page))
    _, blocks = walk(made)
    assert blocks.used.address.tolist() == [made.pool + unit, made.pool + inner + unit]
    assert blocks.used.block_bytes.tolist() == [start, size]


@pytest.mark.parametrize("named", [True, False], ids=["named", "by the marks"])
def test_freed_blocks_marked_with_the_cookie_are_not_used(named: bool) -> None:
    made = PoolMemory("x64", 9600)
    cookie = 0x1234_5678_9ABC_DEF1
    page = bytearray(pool_page("x64", [(256, 2, "Acme")] * 16))
    for number in (3, 7, 9, 12):
        header = made.pool + number * 256
        page[number * 256 + 8 : number * 256 + 16] = struct.pack("<Q", header ^ cookie)
    made.put(made.pool, bytes(page))
    if named:
        made.variable("ExpPoolQuotaCookie", cookie)
    pools, blocks = walk(made)
    assert len(blocks.used) == 12
    assert pools.coverage.cached_count == 4


def test_a_broken_chain_is_taken_up_behind_the_damage() -> None:
    page = bytearray(pool_page("x64", [(128, 2, "Acme")] * 32))
    page[10 * 128 : 10 * 128 + 4] = b"\xff\xff\xff\xff"
    assert (
        resume(np.frombuffer(bytes(page) + bytes(8), np.uint8), 0, FORM_X64, 10 * 128) == 11 * 128
    )
    made = PoolMemory("x64", 7601)
    made.put(made.pool, bytes(page))
    pools, blocks = walk(made)
    assert len(blocks.used) == 31
    assert pools.coverage.damaged_bytes == 128
    said = pools.log.collect()
    again = Blocks.concatenate(pools.blocks())
    assert again.address.tolist() == blocks.address.tolist()
    assert pools.coverage.damaged_bytes == 128
    assert pools.log.collect() == said  # damage is told once


def test_a_page_in_a_large_allocation_is_not_walked() -> None:
    made = PoolMemory("x64", 9600)
    inside = made.pool + 0x100000
    rows = [(inside + n * 0x10000, _KEYS[0], 0, 2 * PAGE) for n in range(20)]
    big_table(made, 256, rows)
    made.put(inside + PAGE, pool_page("x64", [(256, 2, "Copy")] * 16))
    _, blocks = walk(made)
    assert tag("Copy") not in blocks.used.tag.tolist()
    assert len(blocks.used) == 20


def test_pages_given_back_are_known_by_what_the_trackers_miss() -> None:
    page = np.array([1, 1, 2, 2, 3], np.uint64)
    key = np.array([10, 11, 10, 12, 12], np.int64)
    count = np.array([2, 1, 1, 1, 1], np.int64)
    # Tag 11 is one too many, and all of its blocks are in page 1: that page was given back.
    assert uncounted_pages(page, key, count, set(), {10: 2, 11: 1, 12: 0}) == {1}
    # Nothing too many, nothing given back; not even a page that is on no list.
    assert uncounted_pages(page, key, count, {1, 2}, {10: 0, 11: 0, 12: 0}) == set()
    # One block of tag 12 too many may be in page 2 or 3: neither is taken, ...
    assert uncounted_pages(page, key, count, set(), {10: 1, 11: 0, 12: 1}) == {2}
    assert uncounted_pages(page[4:], key[4:], count[4:], set(), {12: 2}) == set()
    # ... unless its free blocks are on no list.
    assert uncounted_pages(page, key, count, {3}, {10: 1, 11: 0, 12: 1}) == {3}


def test_lost_blocks_come_back_only_as_far_as_the_trackers_miss_them() -> None:
    keys = np.array([1, 1, 2, 3], np.int64)
    sizes = np.array([64, 64, 96, 32], np.int64)
    assert accepted(keys, sizes, {1: (2, 128), 2: (1, 96), 3: (0, 0)}, 32).tolist() == [
        True,
        True,
        True,
        False,
    ]
    # One of two: which cannot be told. Of another size: another block.
    assert not accepted(keys, sizes, {1: (1, 64), 2: (1, 64)}, 32).any()


def test_tags_with_the_bit_of_protected_ones_are_the_same_tags() -> None:
    tags = np.array([tag("Leak") | 1 << 31, tag("Leak"), tag("Io  ")], np.uint32)
    assert [tag_text(t) for t in plain_tags(tags).tolist()] == ["Leak", "Leak", "Io  "]
    odd = np.array([tag("Io"), 0x00410042, 0, 0x07414141, tag("A")], np.uint32)
    assert is_printable(odd).tolist() == [True, False, False, False, True]


def test_a_header_has_the_numbers_of_the_published_structure() -> None:
    assert pool_header("x64", 32, 304, 3, tag("Se  ")).hex() == "0200130353652020" + "00" * 8
    assert pool_header("x86", 488, 2824, 0, tag("Free"))[:4] == bytes.fromhex("3d006101")
