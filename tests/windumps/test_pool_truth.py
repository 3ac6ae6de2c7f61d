"""Pools of kernel dumps against their truth, with and without anything that names variables."""

from __future__ import annotations

from collections import Counter

import pytest
from kernel_truth import kernel_dumps
from pool_truth import COUNTERS, PoolCase, Row

from windumps.pool_tags import Pool, tag_number, tag_text

# The other scenarios hold the same content in other containers.
_SOURCES = [
    source
    for source in kernel_dumps("leak-pair", "tiny-pair", "reboot-pair", "traps", "summary-pair")
    if source.dump.name.startswith("after") or source.scenario in ("leak-pair", "traps")
]
_NAMELESS = [s for s in _SOURCES if s.scenario != "summary-pair" and "after" in s.dump.name]
_CASES = [(source, True) for source in _SOURCES] + [(source, False) for source in _NAMELESS]
_TRUNCATED = [(source, named) for source in kernel_dumps("truncated") for named in (True, False)]


def _name(case: tuple[object, bool]) -> str:
    source, named = case
    return f"{getattr(source, 'name', '')}{'' if named else ' without names'}"


@pytest.fixture(scope="module", params=_CASES, ids=_name)
def case(request: pytest.FixtureRequest) -> PoolCase:
    return PoolCase(*request.param)


@pytest.fixture(scope="module", params=_TRUNCATED, ids=_name)
def cut(request: pytest.FixtureRequest) -> PoolCase:
    return PoolCase(*request.param)


def test_all_tag_totals_are_the_kernels(case: PoolCase) -> None:
    found = case.totals()
    expected = case.expected_totals()
    assert {tag: found.get(tag, (0,) * 6) for tag in expected} == expected
    assert set(found) <= set(expected)
    assert case.pools.trackers.is_consistent.all()


def test_every_processors_table_is_added(case: PoolCase) -> None:
    tracker = case.truth["tracker"]
    expected = len(tracker["tables"]) + bool(tracker["expansion_tags"])
    assert case.pools.trackers.table_count == expected


def test_all_large_allocations_are_found_and_no_freed_one(case: PoolCase) -> None:
    assert case.large() == case.expected_large()
    big = case.truth["big_table"]
    assert case.pools.big_pages.entry_count == big["size"]
    if "free_entries" in big:
        assert case.pools.big_pages.free_entries == big["free_entries"]


def test_all_small_blocks_are_found_and_no_others(case: PoolCase) -> None:
    found, expected = case.small(), case.expected_small()
    assert expected - found == Counter()
    extra = found - expected
    # A freed block whose heap's record is in an absent page is taken for a lost one of the same tag and
    # size; nothing in the dump tells them apart.
    assert len(extra) <= case.pools.coverage.recovered_count
    lost = Counter(row[1:] for row in case.lost_small())
    assert Counter(row[1:] for row in extra) - lost == Counter()


def test_freed_and_cached_blocks_are_not_used(case: PoolCase) -> None:
    used = {row[0] for row in case.small()} & case.freed()
    assert len(used) <= max(len(case.small() - case.expected_small()), 0)


def test_the_loss_is_what_absent_pages_take(case: PoolCase) -> None:
    absent = [
        int(entry["va"], 16) + 0x1000 * number
        for entry in case.truth["absent_pages"]
        for number in range(entry["pages"])
    ]
    gone = [page for page in absent if not case.is_here(page)]
    coverage = case.pools.coverage
    assert coverage.absent_pages + coverage.absent_large_pages == len(gone)
    audit = case.pools.audit
    lost: dict[tuple[str, bool], list[int]] = {}
    for _, size, tag, pool in (case.lost_small() + Counter()).elements():
        entry = lost.setdefault((tag, pool.startswith("paged")), [0, 0])
        entry[0] += 1
        entry[1] += size
    if case.small() == case.expected_small():
        differs = {
            (tag_text(int(audit.tag[row])), bool(audit.paged[row])): [
                int(audit.residual_count[row]),
                int(audit.residual_bytes[row]),
            ]
            for row in audit.differs.nonzero()[0].tolist()
        }
        assert differs == lost
    assert audit.ranking == "trackers"


def test_sessions_have_their_own_totals(case: PoolCase) -> None:
    expected = case.truth.get("session_pool")
    if not expected:
        assert case.pools.sessions == []
        return
    (session,) = case.pools.sessions
    totals = session.totals
    assert totals.complete.all()
    for tag, entry in expected["tags"].items():
        row = totals.row(tag_number(tag))
        assert row is not None
        found = [int(getattr(totals, f"paged_{name}")[row]) for name in COUNTERS]
        assert found == [entry["paged"][name] for name in COUNTERS]
    assert len(totals) == len(expected["tags"])


def test_what_was_searched_for_is_said(case: PoolCase) -> None:
    codes = {entry.code for entry in case.pools.log.collect()}
    assert ("trackers-searched" in codes) == (not case.named)
    searched = ("beside PoolTrackTable", "found by what it holds")
    assert case.pools.big_pages.source in searched or case.named


def test_a_cut_file_gives_no_wrong_number(cut: PoolCase) -> None:
    expected = cut.expected_totals()
    for tag, counters in cut.totals().items():
        assert counters == expected[tag]
    assert not cut.large() - cut.expected_large()
    found, small = cut.small(), cut.expected_small()
    if not cut.named:  # nothing names the heap's pool, and a block's header does not tell NX
        found, small = _without_nx(found), _without_nx(small)
    assert not found - small


def _without_nx(rows: Counter[Row]) -> Counter[Row]:
    nx, plain = Pool.NONPAGED_NX.label, Pool.NONPAGED.label
    return Counter((*row[:3], plain if row[3] == nx else row[3]) for row in rows.elements())


def test_a_cut_file_says_what_is_missing(cut: PoolCase) -> None:
    trackers, large = cut.pools.trackers, cut.pools.big_pages
    assert not trackers.is_found or trackers.absent_entries
    assert not large.is_found or large.absent_entries
    assert cut.pools.audit.ranking != "trackers"
    assert cut.pools.audit.reason
    codes = {entry.code for entry in cut.pools.log.collect()}
    assert codes & {"trackers-not-found", "trackers-absent", "trackers-incomplete"}
    assert codes & {"big-pages-not-found", "big-pages-absent"}
