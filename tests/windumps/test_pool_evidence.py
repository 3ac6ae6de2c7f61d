"""Counters that the blocks refute, and tables with holes: which of the two is believed."""

from __future__ import annotations

import numpy as np
import pytest
from builders.pool_builder import PAGE, PoolMemory, pool_page, tag

from windumps.pools.kernel_pools import KernelPools
from windumps.pools.trackers.audit import Source

SLOTS = 128
KEYS = [tag(a + b + "q" + c) for a in "AbC" for b in "xyz" for c in "0123"]
HOT = KEYS[7]
SMALL = 64


class System:
    """A kernel of Windows 8.1 with 16 blocks of each of some tags, on two processors."""

    def __init__(self) -> None:
        self.made = made = PoolMemory("x64", 14393, processors=2)
        for number, key in enumerate(KEYS):
            text = key.to_bytes(4, "little").decode()
            blocks = [(SMALL, 2, text)] * 16 + [(PAGE - 16 * SMALL, 0, "Free")]
            made.put(made.pool + 0x200000 + number * PAGE, pool_page("x64", blocks))
        # The other processor freed what the first one allocated.
        self.tables = [
            dict.fromkeys(KEYS, (40, 4, 36 * SMALL, 0, 0, 0)),
            dict.fromkeys(KEYS, (0, 20, -20 * SMALL, 0, 0, 0)),
        ]
        # All large allocations are known: there are none but of one tag.
        made.variable("PoolBigPageTable", made.put(made.pool + 0x100000, self._large()))
        made.variable("PoolBigPageTableSize", 256)

    def _large(self) -> bytes:
        start = self.made.pool + 0x400000
        table = bytearray((1).to_bytes(8, "little") + bytes(16)) * 256
        for number in range(8):
            va = start + number * PAGE
            at = ((va >> 12 & 0xFFFFFFFF) * 0x9E5F ^ (va >> 12 & 0xFFFFFFFF) * 0x9E5F >> 32) % 256
            row = va.to_bytes(8, "little") + KEYS[0].to_bytes(4, "little") + bytes(4)
            table[at * 24 : at * 24 + 24] = row + PAGE.to_bytes(8, "little")
        return bytes(table)

    def place(self) -> PoolMemory:
        held = 8 * PAGE
        self.tables[0][KEYS[0]] = (48, 4, 36 * SMALL + held, 0, 0, 0)
        return self.made

    def write_tables(self, spoil: dict[int, bytes] | None = None) -> KernelPools:
        """Writes both tables; `spoil` replaces pages of the second, by number."""
        made = self.place()
        places = []
        for number, rows in enumerate(self.tables):
            raw = bytearray(made.tracker(SLOTS, rows, [*KEYS, *(rows.keys() - KEYS)]))
            raw += bytes(-len(raw) % PAGE)
            if number == 1:
                for page, data in (spoil or {}).items():
                    raw[page * PAGE : (page + 1) * PAGE] = data
            places.append(made.put(made.pool + number * 0x40000, bytes(raw)))
        made.variable("PoolTrackTable", places[0])
        made.variable("PoolTrackTableSize", SLOTS + 1)
        made.variable("ExPoolTagTables", *places)
        return KernelPools(made.kernel())


def sources(pools: KernelPools) -> dict[int, Source]:
    audit = pools.audit
    return dict(zip(audit.tag.tolist(), map(Source, audit.source.tolist()), strict=True))


def test_counters_that_the_blocks_bear_out_are_believed() -> None:
    pools = System().write_tables()
    assert set(sources(pools).values()) == {Source.COUNTED}
    assert not pools.audit.differs.any()


@pytest.mark.parametrize("extra", [20_000, 300, -400])
def test_counters_that_the_blocks_refute_do_not_rank(extra: int) -> None:
    system = System()
    system.tables[0][HOT] = (40 + extra, 4, (36 + extra) * SMALL, 0, 0, 0)
    if extra < 0:  # fewer are counted than there are
        system.tables[0][HOT] = (20 + 5, 4, (16 + 5) * SMALL, 0, 0, 0)
        system.tables[1][HOT] = (0, 20, -20 * SMALL, 0, 0, 0)
    pools = system.write_tables()
    found = sources(pools)
    if extra < 0:
        # A few blocks too many may wait on look-aside lists.
        assert found[HOT] == Source.COUNTED
        return
    assert found.pop(HOT) == Source.WALKED
    assert set(found.values()) == {Source.COUNTED}
    row = pools.audit.tag.tolist().index(HOT)
    assert int(pools.audit.walked_count[row]) == 16
    assert "refute" in pools.audit.reason


def test_what_the_dump_lacks_may_hold_what_was_not_found() -> None:
    system = System()
    system.tables[0][HOT] = (41, 4, 37 * SMALL, 0, 0, 0)
    pools = system.write_tables()
    list(pools.blocks())
    pools.coverage.absent_pages = 1
    assert set(sources(pools).values()) == {Source.COUNTED}
    row = pools.audit.tag.tolist().index(HOT)
    assert int(pools.audit.residual_count[row]) == 1


def test_a_page_of_zeros_in_one_table_makes_its_tags_count_by_their_blocks() -> None:
    system = System()
    pools = system.write_tables({0: bytes(PAGE)})
    found = sources(pools)
    # Without the frees of the second processor more is counted than there is.
    assert {Source.WALKED} <= set(found.values()) <= {Source.WALKED, Source.COUNTED}
    audit = pools.audit
    walked = audit.source == Source.WALKED
    assert audit.differs[walked].all()
    assert not audit.differs[~walked].any()


@pytest.mark.parametrize("word", [0xDEADFEED, 0x63636363, 0xFFFFFFFF])
def test_a_page_of_one_repeated_word_in_a_table_is_absent(word: int) -> None:
    system = System()
    pools = system.write_tables({0: word.to_bytes(4, "little") * (PAGE // 4)})
    assert pools.trackers.absent_entries > 0
    lost = set(pools.trackers.tag[~pools.trackers.complete].tolist())
    assert lost
    found = sources(pools)
    assert {key for key, source in found.items() if source == Source.WALKED} == lost
    assert any(item.code == "trackers-absent" for item in pools.log.collect())


def test_a_tag_that_found_no_slot_is_known_by_its_blocks() -> None:
    system = System()
    made = system.made
    lost = KEYS[5]
    for rows in system.tables:
        del rows[lost]
    system.place()
    places = []
    for number, rows in enumerate(system.tables):
        raw = bytearray(made.tracker(SLOTS, rows, [key for key in KEYS if key != lost]))
        size = len(made.entry(0, 0, 0, 0, 0, 0, 0))
        if number == 0:
            raw[SLOTS * size : (SLOTS + 1) * size] = made.entry(
                tag("Ovfl"), 20, 4, 16 * SMALL, 0, 0, 0
            )
        places.append(made.put(made.pool + number * 0x40000, bytes(raw)))
    made.variable("PoolTrackTable", places[0])
    made.variable("ExPoolTagTables", *places)
    pools = KernelPools(made.kernel())
    found = sources(pools)
    assert found[lost] == Source.WALKED
    assert found[tag("Ovfl")] == Source.COUNTED
    row = pools.audit.tag.tolist().index(tag("Ovfl"))
    assert int(pools.audit.residual_count[row]) == 0


def test_without_the_table_of_large_blocks_nothing_is_refuted() -> None:
    system = System()
    system.made.variables.pop("PoolBigPageTable")
    system.made.pieces.pop(system.made.pool + 0x100000)
    system.tables[0][HOT] = (20_040, 4, 20_036 * SMALL, 0, 0, 0)
    pools = system.write_tables()
    assert not pools.big_pages.is_found
    assert sources(pools)[HOT] == Source.COUNTED


def test_filler_pages_count_as_absent_pool() -> None:
    system = System()
    made = system.made
    start = made.pool + 0x200000
    made.put(start + 3 * PAGE, np.full(PAGE // 4, 0xDEADFEED, "<u4").tobytes())
    pools = system.write_tables()
    list(pools.blocks())
    assert pools.coverage.absent_pages == 1


@pytest.mark.parametrize(("live", "field"), [(True, 0), (False, 0), (True, 16)])
def test_slots_of_the_large_table_that_hold_what_no_slot_holds_refute_no_counter(
    live: bool, field: int
) -> None:
    system = System()
    made = system.made
    table = bytearray(made.pieces[made.pool + 0x100000])
    for at in [at for at in range(0, 256 * 24, 24) if (table[at] != 1) == live][:3]:
        table[at + field : at + field + 8] = bytes(8)  # the address, or the size
    made.put(made.pool + 0x100000, bytes(table))
    pools = system.write_tables()
    assert sources(pools)[KEYS[0]] == Source.COUNTED
    assert pools.big_pages.bad_entries == 3
    assert not pools.is_whole
    assert any(item.code == "bad-big-pages" for item in pools.log.collect())


def test_a_table_of_large_blocks_whose_unused_slots_are_zero_is_whole() -> None:
    system = System()
    made = system.made
    table = made.pieces[made.pool + 0x100000].replace((1).to_bytes(8, "little"), bytes(8))
    made.put(made.pool + 0x100000, table)
    pools = system.write_tables()
    assert not pools.big_pages.bad_entries
    assert set(sources(pools).values()) == {Source.COUNTED}


def test_where_blocks_of_many_tags_are_missing_untold_the_walk_is_short_and_not_the_counters() -> (
    None
):
    system = System()
    for number in range(2, 8):
        system.made.put(system.made.pool + 0x200000 + number * PAGE, bytes(PAGE))
    pools = system.write_tables()
    audit = pools.audit
    assert audit.is_short
    assert (audit.source == Source.COUNTED).all()
    assert int(audit.residual_count.sum()) == 6 * 16
    assert "a table that tells where they are was overwritten" in audit.reason


@pytest.mark.parametrize("held", [16 * SMALL - 8, 16 * SMALL + 8])
def test_as_many_blocks_of_other_bytes_refute_their_counters(held: int) -> None:
    system = System()
    system.tables[0][HOT] = (20, 4, held, 0, 0, 0)
    system.tables[1][HOT] = (0, 0, 0, 0, 0, 0)
    assert sources(system.write_tables())[HOT] == Source.WALKED


@pytest.mark.parametrize("count", [18, 14])
def test_a_few_blocks_too_many_or_too_few_are_said_to_be_in_doubt(count: int) -> None:
    system = System()
    system.tables[0][HOT] = (count, 0, count * SMALL, 0, 0, 0)
    system.tables[1][HOT] = (0, 0, 0, 0, 0, 0)
    pools = system.write_tables()
    assert pools.audit.doubt_bytes == 2 * SMALL
    assert sources(pools)[HOT] == (Source.WALKED if count > 16 else Source.COUNTED)


def test_counters_beyond_what_could_vanish_from_the_dump_are_no_doubt() -> None:
    system = System()
    system.tables[0][HOT] = (20_040, 4, 20_036 * SMALL, 0, 0, 0)
    assert system.write_tables().audit.doubt_bytes == 0


def test_a_page_of_zeros_in_one_table_gives_no_page_of_pool_back() -> None:
    system = System()
    for key in KEYS:
        system.tables[0][key] = (4, 4, 0, 0, 0, 0)
        system.tables[1][key] = (16, 0, 16 * SMALL, 0, 0, 0)
    pools = system.write_tables({0: bytes(PAGE)})
    found = sources(pools)
    walked = dict(zip(pools.audit.tag.tolist(), pools.audit.walked_count.tolist(), strict=True))
    assert {walked[key] for key in KEYS[1:]} == {16}
    assert Source.WALKED in {found[key] for key in KEYS[1:]}


def test_tags_of_a_page_of_zeros_are_not_sure_where_memory_is_missing() -> None:
    system = System()
    for key in KEYS[::2]:  # their counters agree with what is found, and may do so by chance
        system.tables[0][key] = (20, 4, 16 * SMALL, 0, 0, 0)
        system.tables[1][key] = (0, 0, 0, 0, 0, 0)
    pools = system.write_tables({0: bytes(PAGE)})
    list(pools.blocks())
    pools.coverage.absent_pages = 1
    doubtful = set(pools.trackers.tag[pools.trackers.is_doubtful].tolist())
    assert doubtful
    assert all(
        source != Source.COUNTED for key, source in sources(pools).items() if key in doubtful
    )


def test_a_tag_of_a_page_of_zeros_that_seems_to_hold_nothing_is_not_sure_to() -> None:
    doubtful = System().write_tables({0: bytes(PAGE)}).trackers
    lost = int(doubtful.tag[doubtful.is_doubtful][-1])
    system = System()
    system.made.pieces.pop(system.made.pool + 0x200000 + KEYS.index(lost) * PAGE)
    for rows in system.tables:
        rows[lost] = (4, 4, 0, 0, 0, 0)
    pools = system.write_tables({0: bytes(PAGE)})
    list(pools.blocks())
    pools.coverage.absent_pages = 1
    assert sources(pools)[lost] != Source.COUNTED


@pytest.mark.parametrize("is_spoilt", [True, False])
def test_tables_of_the_pool_s_own_explain_no_counter_of_a_page_of_zeros(is_spoilt: bool) -> None:
    system = System()
    own = tag("Pool")
    for rows in system.tables:
        rows[own] = (1, 0, 9 * PAGE, 0, 0, 0)
    pools = system.write_tables({0: bytes(PAGE)} if is_spoilt else None)
    doubtful = pools.trackers.tag[pools.trackers.is_doubtful].tolist()
    assert (own in doubtful) == is_spoilt
    assert sources(pools)[own] == (Source.UNKNOWN if is_spoilt else Source.COUNTED)
