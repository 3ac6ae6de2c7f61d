"""Which blocks are still there: against allocation numbers in the truth, and on tables made for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from truth import SHARED, TESTDATA, TruthDump, pairs

from dumpleak.compare.diff import compare
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.survivors import Fate, find_survivors
from dumpleak.model.block_table import BY_PDB, BlockTable
from dumpleak.model.sites import Place, Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot

SAME_LIFE = pairs("leak-pair-same-process", "leak-pair-ust")
OTHER_LIFE = pairs("leak-pair-aslr")
SERIES = [
    (TruthDump(*found[0]), TruthDump(*found[4]))
    for root in (TESTDATA, SHARED / "user")
    for folder in sorted(root.glob("*/series-*"))
    if len(
        found := list(zip(sorted(folder.glob("dump*")), sorted(folder.glob("truth*")), strict=True))
    )
    > 4
]


def _snapshot(dump: TruthDump) -> Snapshot:
    return take_snapshot(Session.open(dump.dump), keep_blocks=True)


def _allocations(dump: TruthDump) -> dict[int, tuple[int, int, int]]:
    """Address → number, size and stack of every allocation of the program."""
    raw = dump.read_truth().raw
    columns = [
        raw["alloc_columns"].index(n) for n in ("address", "seq", "requested_size", "stack_id")
    ]
    return {row[columns[0]]: tuple(row[n] for n in columns[1:]) for row in raw["allocations"]}


@pytest.mark.parametrize(("base", "current"), [*SAME_LIFE, *SERIES], ids=lambda d: d.name)
def test_survivors_and_new_blocks_are_those_of_the_truth(
    base: TruthDump, current: TruthDump
) -> None:
    snapshots = _snapshot(base), _snapshot(current)
    comparison = compare(*snapshots)
    assert comparison.life.life is Life.SAME
    assert comparison.survivors is not None
    assert snapshots[0].blocks is not None
    assert snapshots[1].blocks is not None
    tables = snapshots[0].blocks(), snapshots[1].blocks()
    kept = set(tables[0].address[comparison.survivors.kept].tolist())
    new = set(tables[1].address[~comparison.survivors.known].tolist())
    before, after = _allocations(base), _allocations(current)
    walked = [set(table.address.tolist()) for table in tables]
    # One site that asks for one size again and gets the address back: no dump can tell.
    same_again = {
        address
        for address in before.keys() & after.keys()
        if before[address][0] != after[address][0] and before[address][1:] == after[address][1:]
    }
    truly_kept = {a for a in before.keys() & after.keys() if before[a][0] == after[a][0]}
    truly_new = {a for a in after if a not in truly_kept}
    assert kept & before.keys() - same_again == truly_kept & walked[0]
    assert new & after.keys() == (truly_new - same_again) & walked[1]
    if not base.scenario.startswith("series"):
        assert not same_again
    assert comparison.survivors.total == Fate(len(kept), len(tables[0]) - len(kept), len(new))


@pytest.mark.parametrize(("base", "current"), OTHER_LIFE[:4], ids=lambda d: d.name)
def test_dumps_of_two_lives_have_no_survivors(base: TruthDump, current: TruthDump) -> None:
    comparison = compare(_snapshot(base), _snapshot(current))
    assert comparison.life.life is Life.OTHER
    assert comparison.survivors is None
    assert {delta.fate for delta in comparison.sites} == {None}


def test_fates_add_up_to_the_counts_of_each_site() -> None:
    comparison = compare(*(_snapshot(dump) for dump in SAME_LIFE[0]))
    for delta in comparison.sites:
        assert delta.fate is not None
        assert delta.fate.kept + delta.fate.gone == delta.base.count
        assert delta.fate.kept + delta.fate.new == delta.current.count


# -- tables made for it ------------------------------------------------------------------------------


def _table(rows: list[tuple[int, int, str, int]]) -> BlockTable:
    """A table of (address, size, key, shape)."""
    keys = tuple(dict.fromkeys(key for *_, key, _ in rows))
    return BlockTable(
        np.array([row[0] for row in rows], np.uint64),
        np.array([row[1] for row in rows], np.int64),
        np.array([keys.index(row[2]) for row in rows], np.int32),
        np.array([row[3] for row in rows], np.uint16),
        keys,
    )


def _sites(*sites: Site) -> dict[str, tuple[Site, Totals]]:
    return {site.key: (site, Totals()) for site in sites}


def _stack(key: str, *frames: tuple[str, int]) -> Site:
    """A site of frames (module, offset); "" is an image that the dump does not know."""
    places = tuple(Place(name, f"{name}-build" if name else "-", rva) for name, rva in frames)
    return Site(SiteKind.STACK, key, key, places=places)


A, B = (_stack(key, ("app.exe", rva)) for key, rva in (("a", 1), ("b", 2)))
SHAPE = Site(SiteKind.SHAPE, "s", "8 bytes in heap 0 (nt)")


def test_an_address_that_another_allocation_got_is_no_survivor() -> None:
    base = _table(
        [(16, 8, "a", 5), (32, 8, "a", 5), (48, 8, "a", 5), (64, 8, "a", 5), (80, 8, "b", 0)]
    )
    current = _table(
        [(16, 8, "a", 5), (32, 9, "a", 5), (48, 8, "b", 5), (64, 8, "a", 6), (96, 8, "a", 5)]
    )
    found = find_survivors(base, current, (_sites(A, B), _sites(A, B)))
    assert found.by_key == {"a": Fate(1, 3, 3), "b": Fate(0, 1, 1)}
    assert found.total == Fate(1, 4, 4)
    assert found.reused == 3
    assert np.flatnonzero(found.kept).tolist() == [0]
    assert np.flatnonzero(~found.known).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("before", "after", "one"),
    [
        pytest.param(A, SHAPE, True, id="a-stack-and-none"),
        pytest.param(A, B, False, id="two-stacks"),
        pytest.param(
            A, _stack("x", ("app.exe", 1), ("app.exe", 9)), False, id="stacks-of-two-lengths"
        ),
        pytest.param(
            _stack("x", ("w.dll", 7), ("app.exe", 1)),
            _stack("y", ("", 0), ("app.exe", 1)),
            True,
            id="a-frame-in-no-known-image",
        ),
        pytest.param(
            _stack("x", ("w.dll", 7), ("app.exe", 1)),
            _stack("y", ("", 0), ("app.exe", 2)),
            False,
            id="another-frame-that-is-known",
        ),
        pytest.param(
            SHAPE, Site(SiteKind.SHAPE, "t", "8 bytes in heap 0 (nt) -> w.dll"), True, id="an-image"
        ),
        pytest.param(
            SHAPE, Site(SiteKind.SHAPE, "t", "8 bytes in heap 1 (nt)"), False, id="another-heap"
        ),
        pytest.param(
            Site(SiteKind.TYPE, "t", "N", type="N"),
            Site(SiteKind.TYPE, "u", "M", type="M"),
            False,
            id="two-classes",
        ),
        pytest.param(
            Site(SiteKind.TYPE, "t", "N", type="N"),
            Site(SiteKind.TYPE, "u", "vftable w.dll+0x10"),
            True,
            id="a-class-without-its-name",
        ),
        pytest.param(Site(SiteKind.SOURCE, "t", "a.cpp(1)"), A, True, id="a-line-and-a-stack"),
        pytest.param(
            Site(SiteKind.SOURCE, "t", "a.cpp(1)"),
            Site(SiteKind.SOURCE, "u", "a.cpp(2)"),
            False,
            id="two-lines",
        ),
    ],
)
def test_a_block_is_the_same_whatever_it_is_called_unless_both_names_say_who_allocated(
    before: Site, after: Site, one: bool
) -> None:
    base = _table([(16, 8, before.key, 5), (32, 8, before.key, 0)])
    current = _table([(16, 8, after.key, 5), (32, 8, after.key, 0), (48, 8, after.key, 0)])
    found = find_survivors(base, current, (_sites(before), _sites(after)))
    assert found.total == (Fate(2, 0, 1, 2) if one else Fate(0, 2, 3))
    assert found.same_sites == ([((before.key,), (after.key,))] if one else [])


def test_what_one_dump_cannot_tell_apart_is_one_site() -> None:
    split = _table([(16 * n, 8, "a" if n < 6 else "b", 0) for n in range(10)])
    whole = _table([(16 * n, 8, "s", 0) for n in range(10)])
    found = find_survivors(split, whole, (_sites(A, B), _sites(SHAPE)))
    assert found.total == Fate(10, 0, 0, 10)
    assert found.same_sites == [(("a", "b"), ("s",))]
    found = find_survivors(whole, split, (_sites(SHAPE), _sites(A, B)))
    assert found.same_sites == [(("s",), ("a", "b"))]


def test_sites_that_are_split_in_both_dumps_stay_apart() -> None:
    base = _table([(16 * n, 8, "a" if n < 10 else "b", 0) for n in range(20)])
    current = _table([(16 * n, 8, "s" if 0 < n < 9 or n > 18 else "t", 0) for n in range(20)])
    sites = _sites(A, B), _sites(SHAPE, replace(SHAPE, key="t"))
    found = find_survivors(base, current, sites)
    assert found.total == Fate(20, 0, 0, 20)
    assert [same for same in found.same_sites if len(same.base) + len(same.current) > 2] == []


def test_a_name_that_both_dumps_use_is_no_other_sites_name() -> None:
    base = _table([(0, 8, "a", 0), *((16 * n, 8, "s", 0) for n in range(1, 10))])
    current = _table([(16 * n, 8, "s", 0) for n in range(10)])
    found = find_survivors(base, current, (_sites(A, SHAPE), _sites(SHAPE)))
    assert found.same_sites == []
    assert found.by_key == {"a": Fate(1, 0, 0, 1), "s": Fate(9, 0, 0)}


def test_one_block_that_lives_on_does_not_make_two_sites_one() -> None:
    base = _table([(16 * n, 8, "a", 0) for n in range(10)])
    current = _table([(0, 8, "s", 0), *((1000 + 16 * n, 8, "s", 0) for n in range(10))])
    assert find_survivors(base, current, (_sites(A), _sites(SHAPE))).same_sites == []


def test_shapes_of_older_files_are_compared_as_far_as_they_can_be() -> None:
    rows = [(16, 8, "a", 5), (32, 8, "a", 5), (48, 8, "a", 0), (64, 8, "s", 5)]
    other = [(16, 8, "a", 6), (32, 8, "a", 0), (48, 8, "a", 6), (64, 8, "s", 6)]
    base, current = _table(rows), _table(other)
    sites = _sites(A, SHAPE), _sites(A, SHAPE)
    assert find_survivors(base, current, sites).total == Fate(0, 4, 4)
    # Both point into an image, which the older file calls otherwise: the site decides.
    older = replace(base, shapes_by=BY_PDB)
    assert np.flatnonzero(find_survivors(older, current, sites).kept).tolist() == [0, 3]
    # The image is in no list of the later dump.
    lost = replace(base, images=frozenset("iw")), replace(current, images=frozenset("i"))
    assert np.flatnonzero(find_survivors(*lost, sites).kept).tolist() == [0, 1]


def test_groups_are_matched_by_key_whatever_their_numbers() -> None:
    base, current = _table([(16, 8, "a", 0), (32, 8, "b", 0)]), _table([(32, 8, "b", 0)])
    assert find_survivors(base, current).by_key == {"a": Fate(0, 1, 0), "b": Fate(1, 0, 0)}


def test_tables_without_blocks_have_no_survivors() -> None:
    some, none = _table([(16, 8, "a", 0)]), _table([])
    assert find_survivors(none, some).total == Fate(0, 0, 1)
    assert find_survivors(some, none).total == Fate(0, 1, 0)


# -- one life or two ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return _snapshot(SAME_LIFE[0][0])


def test_a_dump_is_of_one_life_with_itself(snapshot: Snapshot) -> None:
    assert same_life(snapshot, snapshot).life is Life.SAME


@pytest.mark.parametrize("change", [{"process_id": 4}, {"program_base": 0x10000}])
def test_another_process_id_or_load_address_is_another_life(
    snapshot: Snapshot, change: dict[str, int]
) -> None:
    other = replace(snapshot, source=replace(snapshot.source, **change))
    assert same_life(snapshot, other).life is Life.OTHER


def test_another_address_of_the_first_heap_is_another_life(snapshot: Snapshot) -> None:
    moved = replace(snapshot.heaps[0], address=snapshot.heaps[0].address + 0x10000)
    other = replace(snapshot, heaps=[moved, *snapshot.heaps[1:]])
    assert same_life(snapshot, other).life is Life.OTHER


def test_where_addresses_are_not_random_the_start_time_decides(snapshot: Snapshot) -> None:
    started = snapshot.source.process_created
    assert started is not None
    xp = replace(snapshot, source=replace(snapshot.source, build=2600))
    later = replace(xp, source=replace(xp.source, process_created=started + timedelta(hours=1)))
    unknown = replace(xp, source=replace(xp.source, process_created=None))
    assert same_life(xp, xp).life is Life.SAME
    assert same_life(xp, later).life is Life.OTHER
    assert same_life(xp, unknown).life is Life.UNKNOWN


def test_without_a_process_id_nothing_is_said(snapshot: Snapshot) -> None:
    unknown = replace(snapshot, source=replace(snapshot.source, process_id=None))
    assert same_life(snapshot, unknown).life is Life.UNKNOWN
