"""Damaged pools: whatever is written over their structures, a walk ends and says what it left out."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from kernel_truth import KernelTruthDump, kernel_dumps
from pool_truth import COUNTERS, POOLS, PoolCase, open_pools, without_names

from windumps.blocks import Blocks, Kind, State
from windumps.dumps.kernel.dump import KernelDump
from windumps.dumps.kernel.reader import open_kernel_dump
from windumps.errors import DumpError
from windumps.memory import PageTableMemory, RunMemory
from windumps.pool_tags import Pool, tag_number, tag_text
from windumps.pools.coverage import page_rows
from windumps.pools.kernel_pools import KernelPools

_AFTER = [d for d in kernel_dumps("tiny-pair", "traps", "leak-pair") if "after" in d.dump.name]
# One of each kind of pool: pages on 32 and 64 bits, heaps of three generations.
_BUILDS = ("7601-x86pae", "14393-x64", "19041-x64", "22000-arm64", "26100-x64")
_SOURCES = [next(d for d in _AFTER if d.build == build) for build in _BUILDS]
_FLIPS, _SEEDS = 64, 2


class Damaged:
    """A dump whose bytes can be changed before it is opened again."""

    def __init__(self, source: KernelTruthDump) -> None:
        self.case = PoolCase(source, True)
        self.dump = self.case.dump
        self.memory = self.dump.kernel.memory
        self.data = self.dump.memory.data.copy()

    def offset(self, address: int) -> int:
        (offset,) = self.memory.locate(np.array([address], np.uint64), 1).tolist()
        assert offset >= 0
        return int(offset)

    def write(self, address: int, data: bytes) -> None:
        for number, byte in enumerate(data):
            self.data[self.offset(address + number)] = byte

    def pointer(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(self.dump.kernel.pointer_size, "little"))

    def reset(self) -> None:
        self.data = self.dump.memory.data.copy()

    def pools(self, named: bool = True) -> KernelPools:
        dump = open_kernel_dump(Path("damaged.dmp"), self.data)
        assert isinstance(dump, KernelDump)
        return open_pools(dump if named else without_names(dump))


@pytest.fixture(scope="module", params=_SOURCES, ids=lambda source: source.name)
def damaged(request: pytest.FixtureRequest) -> Damaged:
    return Damaged(request.param)


def check(pools: KernelPools) -> Blocks:
    """What holds of every walk, however damaged the pool."""
    blocks = Blocks.concatenate(pools.blocks())
    used = blocks.used
    lowest = 0x8000_0000 if pools.kernel.pointer_size == 4 else 0xFFFF_8000_0000_0000
    assert (used.address >= np.uint64(lowest)).all()
    assert (blocks.block_bytes[blocks.state == State.USED] > 0).all()
    assert (blocks.heap <= max(Pool)).all()
    assert len(np.unique(used.address)) == len(used)
    assert pools.coverage.used_bytes <= len(pools.kernel.memory.data)
    trackers = pools.trackers
    assert (trackers.tag[1:] > trackers.tag[:-1]).all()
    assert len(trackers.complete) == len(trackers.paged_bytes) == len(trackers)
    audit = pools.audit
    assert audit.reason
    # What begins the tails of large blocks is counted by the trackers, and is no block.
    tails = sum(pools.coverage.fragments) + sum(pools.coverage.orphans)
    assert int(audit.walked_count.sum()) <= len(used) + tails
    _ = pools.sessions
    return blocks


def places(damaged: Damaged, kind: str) -> list[int]:
    """Addresses of bytes to damage."""
    truth = damaged.case.truth
    tracker, big = truth["tracker"], truth["big_table"]
    if kind == "trackers":
        bytes_ = tracker["entry_size"] * tracker["size"]
        return [int(t, 16) + n for t in tracker["tables"] for n in range(0, bytes_, 7)]
    if kind == "big pages":
        start = int(big["table"], 16)
        return [start + n for n in range(0, big["entry_size"] * big["size"], 5)]
    if kind == "headers":
        width = 2 * damaged.dump.kernel.pointer_size
        found = []
        for block in truth["small_blocks"]:
            address = int(block["address"], 16)
            if "session" not in block and damaged.case.is_here(address):
                found += range(address, address + width)
        return found
    heaps = truth.get("segment_heap", {}).get("heaps", [])
    return [int(heap, 16) + n for heap in heaps for n in range(0x1000)] or places(
        damaged, "headers"
    )


@pytest.mark.parametrize("kind", ["trackers", "big pages", "headers", "heaps"])
@pytest.mark.parametrize("seed", range(_SEEDS))
def test_flipped_bits_cost_what_they_hit(damaged: Damaged, kind: str, seed: int) -> None:
    damaged.reset()
    chance = random.Random(f"{kind} {seed}")  # noqa: S311
    for place in chance.sample(places(damaged, kind), _FLIPS):
        if damaged.memory.locate(np.array([place], np.uint64), 1)[0] >= 0:
            damaged.data[damaged.offset(place)] ^= 1 << chance.randrange(8)
    pools = damaged.pools()
    check(pools)
    expected = damaged.case.expected_totals()
    if kind != "trackers":
        assert len(pools.trackers) == len(expected)


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_random_bytes_anywhere_never_stop_a_walk(damaged: Damaged, seed: int) -> None:
    damaged.reset()
    chance = np.random.default_rng(seed)
    at = chance.integers(0x2000, len(damaged.data), 4096)
    damaged.data[at] = chance.integers(0, 256, 4096, dtype=np.uint8)
    try:
        pools = damaged.pools(named=seed % 2 == 0)
    except DumpError:
        return  # the dump's own header was hit
    check(pools)


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_missing_pages_of_pool_give_no_wrong_number(damaged: Damaged, share: float) -> None:
    damaged.reset()
    case, dump = damaged.case, damaged.pools().kernel
    memory = dump.memory
    assert isinstance(memory, PageTableMemory)
    used = case.blocks.used
    pages = {
        memory.translate(page) for page in np.unique(used.address & ~np.uint64(0xFFF)).tolist()
    }
    kept = _without_pages(memory.physical, pages - {None}, share)
    dump.memory = PageTableMemory(kept, memory.paging, memory.directory_base, memory.physical_limit)
    pools = KernelPools(dump)
    check(pools)
    expected = case.expected_totals()
    totals = pools.trackers
    columns = [getattr(totals, f"{pool}_{name}") for pool in POOLS for name in COUNTERS]
    for row in totals.complete.nonzero()[0].tolist():
        tag = tag_text(int(totals.tag[row]))
        assert tuple(int(column[row]) for column in columns) == expected[tag]
    large = pools.big_pages
    there = set(zip(large.address.tolist(), large.size_bytes.tolist(), strict=True))
    assert there <= {row[:2] for row in case.expected_large()}
    # A few freed blocks may pass for lost ones: nothing left in the dump tells them apart.
    blocks = Blocks.concatenate(pools.blocks()).used
    truth = {row[0] for row in case.expected_small()} | {row[0] for row in case.lost_small()}
    truth |= {row[0] for row in case.expected_large()}
    extra = ~np.isin(blocks.address, np.array(sorted(truth), np.uint64))
    assert int(extra.sum()) <= len(blocks) // 200


def _without_pages(physical: RunMemory, pages: set[int], share: float) -> RunMemory:
    """Physical memory without some of the pages."""
    runs = physical.runs
    chance = np.random.default_rng(int(share * 1000))
    gone = np.array([page for page in sorted(pages) if chance.random() < share], np.uint64)
    address, offset = page_rows(runs.address, runs.size, runs.offset)
    keep = ~np.isin(address, gone)
    assert not keep.all()
    size = np.full(int(keep.sum()), 0x1000, np.int64)
    return RunMemory(physical.data, address[keep], size, offset[keep])


def test_a_page_of_headers_overwritten_is_said(damaged: Damaged) -> None:
    """Nothing is made up of it, and all other blocks stay."""
    damaged.reset()
    block = next(
        int(b["address"], 16)
        for b in damaged.case.truth["small_blocks"]
        if "session" not in b and damaged.case.is_here(int(b["address"], 16))
    )
    page = block & ~0xFFF
    damaged.write(page, bytes([0xA5]) * 0x1000)
    pools = damaged.pools()
    used = check(pools).used
    before = damaged.case.blocks.used
    inside = (before.address & ~np.uint64(0xFFF)) == np.uint64(page)
    assert inside.any()
    left = set(before.address[~inside].tolist())
    found = set(used.address.tolist())
    assert len(left - found) <= len(left) // 50  # a subsegment whose header was in the page
    assert not found & set(before.address[inside].tolist()) - left
    assert pools.audit.differs.any()


def test_one_broken_header_costs_its_neighbour_at_most(damaged: Damaged) -> None:
    if not damaged.case.is_legacy:
        pytest.skip("pages have no chains from 1903 on")
    damaged.reset()
    unit = 2 * damaged.dump.kernel.pointer_size
    by_page: dict[int, list[int]] = {}
    for b in damaged.case.truth["small_blocks"]:
        if "session" not in b and damaged.case.is_here(int(b["address"], 16)):
            by_page.setdefault(int(b["address"], 16) >> 12, []).append(int(b["address"], 16))
    page = next(sorted(rows) for rows in by_page.values() if len(rows) > 10)
    damaged.write(page[5], b"\xff\xff\xff\xff")
    pools = damaged.pools()
    found = set(check(pools).used.address.tolist())
    assert {address + unit for address in page if address != page[5]} <= found
    assert any(entry.code == "pool-page-broken" for entry in pools.log.collect())
    assert pools.coverage.damaged_bytes > 0


def _variable(damaged: Damaged, name: str) -> int:
    found = damaged.dump.kernel.symbol(name)
    if found is None:
        pytest.skip("this kernel's variables are not in the built-in table")
    return found


@pytest.mark.parametrize("size", [0, 1, 3, 1 << 12 | 7, (1 << 31) + 1, (1 << 32) - 1])
def test_absurd_sizes_of_tables_are_not_believed(damaged: Damaged, size: int) -> None:
    tracker, big = (
        _variable(damaged, "PoolTrackTableSize"),
        _variable(damaged, "PoolBigPageTableSize"),
    )
    damaged.reset()
    damaged.pointer(tracker, size)
    damaged.pointer(big, size)
    pools = damaged.pools()
    check(pools)
    assert len(pools.trackers) == len(damaged.case.pools.trackers)
    assert len(pools.big_pages) == len(damaged.case.pools.big_pages)


def test_tables_that_name_each_other_are_added_once(damaged: Damaged) -> None:
    array = _variable(damaged, "ExPoolTagTables")
    damaged.reset()
    first = damaged.dump.kernel.memory.read_uint(array, damaged.dump.kernel.pointer_size)
    for number in range(1, 4):
        damaged.pointer(array + number * damaged.dump.kernel.pointer_size, first)
    pools = damaged.pools()
    check(pools)
    assert pools.trackers.table_count <= 2  # with the expansion table
    # The other processors' counters are missing, and that is seen.
    assert not pools.trackers.complete.any()
    assert pools.audit.ranking == "blocks"


def test_a_heap_that_leads_to_itself_ends(damaged: Damaged) -> None:
    heaps = damaged.case.truth.get("segment_heap", {}).get("heaps")
    if not heaps:
        pytest.skip("no segment heap before 1903")
    damaged.reset()
    for heap in heaps:
        for offset in range(0x20, 0x1000, 8):
            damaged.pointer(int(heap, 16) + offset, int(heap, 16) + offset)
    pools = damaged.pools()
    check(pools)
    codes = {entry.code for entry in pools.log.collect()}
    assert codes & {"pool-heap-not-read", "context-damaged", "segment-list-broken"}


def test_a_look_aside_list_that_runs_in_a_circle_ends(damaged: Damaged) -> None:
    lists = [entry for entry in damaged.case.truth.get("lookaside_lists", []) if entry["heap"]]
    if not lists:
        pytest.skip("no such lists before 1903")
    damaged.reset()
    longest = max(lists, key=lambda entry: len(entry["blocks"]))
    blocks = [int(block, 16) for block in longest["blocks"]]
    damaged.pointer(blocks[-1], blocks[0])
    pools = damaged.pools()
    used = set(check(pools).used.address.tolist())
    assert not used & damaged.case.freed()


def test_an_absurd_number_of_look_aside_lists_is_said(damaged: Damaged) -> None:
    state = damaged.case.truth.get("segment_heap")
    if not state:
        pytest.skip("no such lists before 1903")
    damaged.reset()
    kernel = damaged.dump.kernel
    context = 0x38 if kernel.build >= 26100 else 0x28
    place = kernel.memory.read_uint(int(state["heaps"][1], 16) + context, 8)
    damaged.write(place + 8, b"\xff\xff\xff\xff")
    pools = damaged.pools()
    check(pools)
    assert any(entry.code == "lookasides-damaged" for entry in pools.log.collect())


@pytest.mark.parametrize(("least", "most", "less"), [(0x60, 0x180, 1), (0x600, 0xF80, 8)])
def test_a_block_that_is_smaller_than_its_heap_says_is_in_doubt(
    damaged: Damaged, least: int, most: int, less: int
) -> None:
    """As if the header of a smaller one had been copied over it. Chains may leave a unit or two over."""
    if damaged.case.is_legacy:
        pytest.skip("pages have no heap before 1903")
    damaged.reset()
    whole = damaged.case.blocks.used
    whole = whole.select(whole.kind == Kind.POOL_BLOCK)
    chosen = whole.select((whole.block_bytes >= least) & (whole.block_bytes <= most))
    changed = range(0, len(chosen.address), 40)
    unit = 2 * damaged.dump.kernel.pointer_size
    for number in changed:
        size = int(chosen.block_bytes[number])
        damaged.write(int(chosen.address[number]) - unit + 2, bytes([size // unit - less]))
    pools = damaged.pools()
    found = set(check(pools).used.address.tolist())
    lost = [number for number in changed if int(chosen.address[number]) not in found]
    assert len(lost) == len(changed) or less == 1
    assert lost
    doubtful = pools.coverage.doubtful_bytes - damaged.case.pools.coverage.doubtful_bytes
    # But for blocks that are aligned, and what is known to be missing with its heap's record.
    assert doubtful >= 0.9 * sum(chosen.block_bytes[lost].tolist())


def test_a_tag_is_what_its_bytes_say() -> None:
    assert tag_number("Leak") == 0x6B61654C
    assert tag_number("Io") == 0x20206F49
    with pytest.raises(ValueError, match="four"):
        tag_number("Leaky")


@pytest.mark.parametrize("source", _SOURCES[2:], ids=lambda source: source.name)
def test_a_tag_that_is_no_text_is_one_where_the_trackers_count_it(source: KernelTruthDump) -> None:
    damaged = Damaged(source)
    whole = Blocks.concatenate(damaged.pools().blocks()).used
    expected = whole.address[whole.tag == tag_number("AcFc")]
    assert len(expected)
    strange = b"\x81\x02cd"
    raw = damaged.data.tobytes().replace(b"AcFc", strange)
    damaged.data = np.frombuffer(raw, np.uint8)
    used = Blocks.concatenate(damaged.pools().blocks()).used
    found = used.address[used.tag == int.from_bytes(strange, "little")]
    assert found.tolist() == expected.tolist()
