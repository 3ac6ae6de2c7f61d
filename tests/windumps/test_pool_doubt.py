"""What may hold blocks and does not read so: not walked, unless the counters of all tags tell."""

from __future__ import annotations

import numpy as np
import pytest
from builders.pool_builder import PAGE, PoolMemory, home, pool_header, pool_page, tag

from windumps.blocks import Blocks
from windumps.diagnostics import DiagnosticLog
from windumps.pools.coverage import PoolCoverage, Ranges
from windumps.pools.kernel_pools import KernelPools
from windumps.pools.pages.chain import form_of, type_rule
from windumps.pools.pages.pool import PagePool, kernel_scope
from windumps.pools.pages.tails import LargeEnds
from windumps.pools.trackers.audit import Source

SLOTS, SMALL = 128, 64
KEYS = [tag(a + b + "q" + c) for a in "AbC" for b in "xyz" for c in "0123"]
START = 0x200000  # of the pages of blocks, from where the pool begins
UNITS = {"x86": 8, "x64": 16}
BUILDS = pytest.mark.parametrize(("architecture", "build"), [("x64", 14393), ("x86", 7601)])


class Made:
    """A page of 16 blocks of each of some tags; a table of large blocks; trackers when asked for."""

    def __init__(self, architecture: str = "x64", build: int = 14393) -> None:
        self.made = made = PoolMemory(architecture, build)
        self.architecture = architecture
        for number, key in enumerate(KEYS):
            text = key.to_bytes(4, "little").decode()
            blocks = [(SMALL, 2, text)] * 16 + [(PAGE - 16 * SMALL, 0, "Free")]
            made.put(self.page(number), pool_page(architecture, blocks))
        self.large = {made.pool + 0x400000 + n * 0x10000: (KEYS[0], PAGE) for n in range(8)}
        self.extra: dict[int, tuple[int, int]] = {}  # counted besides

    def page(self, number: int) -> int:
        return self.made.pool + START + number * PAGE

    def row(self, va: int, key: int, size: int) -> bytes:
        width = self.made.pointer_size
        return b"".join(
            (
                va.to_bytes(width, "little"),
                key.to_bytes(4, "little"),
                bytes(4),
                size.to_bytes(width, "little"),
            )
        )

    def table(self, slots: int = 256) -> bytes:
        row = len(self.row(0, 0, 0))
        table = bytearray(self.row(1, 0, 0) * slots)
        for va, (key, size) in self.large.items():
            at = home(va >> 12 & 0xFFFFFFFF, slots)
            while int.from_bytes(table[at * row : at * row + 4], "little") != 1:
                at = (at + 1) % slots
            table[at * row : (at + 1) * row] = self.row(va, key, size)
        return bytes(table)

    def pools(self, counted: bool = True, table: bytes | None = None) -> KernelPools:
        made = self.made
        table = table if table is not None else self.table()
        made.variable("PoolBigPageTable", made.put(made.pool + 0x100000, table))
        if counted:
            rows = {key: [16, 16 * SMALL] for key in KEYS}
            for key, size in self.large.values():
                rows[key][0] += 1
                rows[key][1] += size
            numbers = {key: (count, 0, held, 0, 0, 0) for key, (count, held) in rows.items()}
            numbers |= {key: (count, 0, held, 0, 0, 0) for key, (count, held) in self.extra.items()}
            place = made.put(made.pool, made.tracker(SLOTS, numbers, list(numbers)))
            made.variable("PoolTrackTable", place)
            made.variable("PoolTrackTableSize", SLOTS + 1)
        return KernelPools(made.kernel())


@BUILDS
@pytest.mark.parametrize("contents", [bytes(PAGE), bytes(range(256)) * 16], ids=["zeros", "odd"])
def test_a_page_among_the_pool_that_holds_no_blocks_is_in_doubt_where_no_counters_tell(
    architecture: str, build: int, contents: bytes
) -> None:
    for counted in (True, False):
        made = Made(architecture, build)
        made.made.put(made.page(len(KEYS)), contents)
        audit = made.pools(counted).audit
        assert audit.doubt_bytes == (0 if counted else PAGE)
        assert set(audit.source.tolist()) == {Source.COUNTED if counted else Source.WALKED}


def test_a_page_in_another_part_of_memory_is_no_doubt() -> None:
    made = Made()
    made.made.put(made.made.pool + 0x800000, bytes(PAGE))
    assert made.pools(counted=False).audit.doubt_bytes == 0


def test_a_tag_without_counters_leaves_such_a_page_in_doubt() -> None:
    made = Made()
    made.made.put(made.page(len(KEYS)), bytes(PAGE))
    text = "Lost"
    blocks = [(SMALL, 2, text)] * 8 + [(PAGE - 8 * SMALL, 0, "Free")]
    made.made.put(made.page(len(KEYS) + 1), pool_page("x64", blocks))
    pools = made.pools()
    assert pools.audit.doubt_bytes == PAGE
    made.extra[tag("Ovfl")] = (
        8,
        8 * SMALL,
    )  # they are counted, together with all that found no slot
    assert made.pools().audit.doubt_bytes == 0


@pytest.mark.parametrize("unproven", [True, False])
def test_blocks_of_a_page_given_back_that_no_counter_misses_are_in_doubt(unproven: bool) -> None:
    made = Made().made
    coverage = PoolCoverage()
    pool = PagePool(
        kernel_scope(made.kernel().memory, 8),
        form_of("x64"),
        type_rule(14393),
        Ranges([]),
        LargeEnds(np.empty(0, np.uint64), np.empty(0, np.int64), 16),
        0,
        coverage,
        DiagnosticLog(),
    )
    page = np.array([made.pool + START], np.uint64)
    blocks = Blocks.concatenate(pool.blocks(page, page[: int(unproven)])).used
    assert len(blocks) == 16 * (len(KEYS) - 1)
    assert coverage.doubtful_bytes == 16 * SMALL * unproven


# -- large blocks


@pytest.mark.parametrize("size", [3, 0x20, 0xF00, PAGE + 4])
def test_a_large_block_has_no_size_of_a_small_one(size: int) -> None:
    made = Made()
    wrong = made.made.pool + 0x480000
    made.large[wrong] = (KEYS[1], size)
    pages = made.pools(counted=False).big_pages
    assert wrong not in pages.address.tolist()
    assert len(pages) == len(made.large) - 1
    assert pages.bad_entries == 1


def test_of_large_blocks_that_cross_none_is_used() -> None:
    made = Made()
    first, second, *others = made.large
    made.large[first] = (KEYS[0], 0x10000 + PAGE)
    pages = made.pools(counted=False).big_pages
    assert pages.address.tolist() == others
    assert pages.bad_entries == 2
    assert not pages.is_whole
    assert second not in pages.address.tolist()


@BUILDS
def test_a_page_of_something_else_makes_no_table_of_large_blocks_smaller(
    architecture: str, build: int
) -> None:
    made = Made(architecture, build)
    start, slots = made.made.pool + 0x1000000, 2048
    made.large = {start + n * 0x4000: (KEYS[n % 9], 2 * PAGE) for n in range(800)}
    table = bytearray(made.table(slots))
    noise = np.random.default_rng(1).bytes(PAGE)
    table[4 * PAGE : 5 * PAGE] = noise
    pages = made.pools(counted=False, table=bytes(table)).big_pages
    assert pages.entry_count == slots
    assert not pages.is_whole
    found = dict(zip(pages.address.tolist(), pages.size_bytes.tolist(), strict=True))
    assert found.items() <= {va: size for va, (_, size) in made.large.items()}.items()
    assert len(found) > 0.7 * len(made.large)


# -- chains


@BUILDS
def test_a_block_whose_own_header_alone_says_where_it_ends_is_not_used(
    architecture: str, build: int
) -> None:
    """The header of another block was copied over it, which leads to a third one's header."""
    made = PoolMemory(architecture, build)
    size, damaged = 0x40, 5
    blocks = [(size, 2, f"Ab{n:02}") for n in range(PAGE // size)]
    page = bytearray(pool_page(architecture, blocks))
    header = pool_header(architecture, size, 3 * size, 2, tag("Copy"))
    page[damaged * size : damaged * size + 8] = header[:8]
    made.put(made.pool + START, bytes(page))
    pools = KernelPools(made.kernel())
    used = Blocks.concatenate(pools.blocks()).used
    unit = UNITS[architecture]
    expected = [made.pool + START + n * size + unit for n in range(len(blocks)) if n != damaged]
    assert used.address.tolist() == expected
    assert set(used.block_bytes.tolist()) == {size}
    assert pools.coverage.damaged_bytes == size


@BUILDS
def test_a_block_before_a_damaged_one_is_used_where_what_follows_leads_back_to_its_end(
    architecture: str, build: int
) -> None:
    made = PoolMemory(architecture, build)
    size, damaged = 0x40, 5
    blocks = [(size, 2, f"Ab{n:02}") for n in range(PAGE // size)]
    page = bytearray(pool_page(architecture, blocks))
    page[damaged * size : damaged * size + 8] = b"\xff" * 8
    made.put(made.pool + START, bytes(page))
    pools = KernelPools(made.kernel())
    assert len(Blocks.concatenate(pools.blocks()).used) == len(blocks) - 1
    assert pools.coverage.damaged_bytes == size


# -- the pool's own


@pytest.mark.parametrize("alive", [True, False])
def test_what_begins_a_tail_is_counted_where_its_large_block_is(alive: bool) -> None:
    made = Made("x86", 7601)
    large = made.made.pool + 0x480000
    if alive:
        made.large[large] = (KEYS[0], PAGE + 0x200)
    tail = [(8, 2, "Frag"), (0x100, 0, "Free"), (PAGE - 0x308, 0, "Free")]
    page, previous = b"\x5a" * 0x200, 0
    for size, kind, text in tail:
        page += pool_header("x86", previous, size, kind, tag(text)).ljust(size, b"\xcc")
        previous = size
    made.made.put(large, b"\x5a" * PAGE + page)
    made.extra[tag("Frag")] = (9, 9 * 8)
    pools = made.pools()
    assert pools.audit.tag.tolist().count(tag("Frag")) == 1
    row = pools.audit.tag.tolist().index(tag("Frag"))
    assert pools.audit.walked_count[row] == int(alive)
    assert pools.audit.source[row] == Source.WALKED
    made.extra[tag("Frag")] = (int(alive), alive * 8)
    assert (made.pools().audit.source == Source.COUNTED).all()


@BUILDS
@pytest.mark.parametrize("counted", [True, False])
def test_pools_of_which_no_small_block_is_found_are_bounded_by_counters_only(
    architecture: str, build: int, counted: bool
) -> None:
    made = Made(architecture, build)
    for number in range(len(KEYS)):
        made.made.put(made.page(number), bytes(PAGE))
    assert made.pools(counted).audit.is_bounded == counted
