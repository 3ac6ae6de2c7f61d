"""The NT heap of Windows XP against heaps that Microsoft's own allocator laid out."""

from __future__ import annotations

import numpy as np
import pytest
from segment_heaps import committed_in_regions
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.process.session import Session
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind, State
from windumps.heaps.xp import heap as xp_heap
from windumps.heaps.xp.heap import XpHeap
from windumps.layouts.xp_heap import XP_HEAP_ROWS

DUMPS = [
    dump
    for dump in truth_dumps("*")
    if dump.build.startswith("5.") and not dump.scenario.startswith("page-heap")
]
dumps = pytest.mark.parametrize("case", DUMPS, ids=lambda d: d.name)


def _heaps(session: Session) -> dict[int, XpHeap]:
    found = {}
    for source in session.heaps:
        assert isinstance(source.entry.heap, XpHeap)
        found[source.entry.address] = source.entry.heap
    return found


def _check(case: TruthDump) -> None:
    truth, session = case.read_truth(), Session.open(case.dump)
    heaps = _heaps(session)
    assert list(heaps) == [heap["address"] for heap in truth.heaps]
    for address, heap in heaps.items():
        blocks = Blocks.concatenate(heap.blocks())
        used = blocks.used
        found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
        assert len(found) == len(used), "a block came twice"
        assert found == truth.used_blocks(address)
        assert not truth.freed & found.keys()
        assert not found.keys() & set(blocks.address[blocks.state == State.FREE].tolist())
        account = heap.account
        assert account.residual_bytes == account.unwalked_bytes == account.absent_bytes == 0
        assert (account.used_count, account.free_count) == (len(used), len(blocks) - len(used))
    assert [item for item in session.diagnostics if item.severity != "info"] == []


@dumps
def test_used_blocks_are_exactly_the_busy_entries_of_the_genuine_walk(case: TruthDump) -> None:
    _check(case)


@dumps
def test_all_memory_of_a_heap_is_accounted_for_and_its_counter_agrees(case: TruthDump) -> None:
    session = Session.open(case.dump)
    for heap in _heaps(session).values():
        blocks = Blocks.concatenate(heap.blocks())
        account = heap.account
        assert account.committed_bytes == committed_in_regions(heap.context.memory, account.ranges)
        assert account.reserved_bytes == sum(size for _, size in account.ranges)
        # The counter leaves out what look-aside lists and the LFH keep.
        free = (blocks.state == State.FREE) & (blocks.kind == Kind.NT_BACKEND)
        units = account.counters["TotalFreeSize"]
        assert int(blocks.block_bytes[free].sum()) == units * heap.context.granularity


@dumps
def test_free_blocks_have_no_requested_size_and_cached_ones_are_free(case: TruthDump) -> None:
    freed = case.read_truth().freed
    for heap in _heaps(Session.open(case.dump)).values():
        blocks = Blocks.concatenate(heap.blocks())
        free = blocks.select(blocks.state == State.FREE)
        assert (free.size == SIZE_UNKNOWN).all()
        cached = blocks.select(blocks.kind == Kind.NT_LOOKASIDE)
        assert (cached.state == State.FREE).all()
        assert set(cached.address.tolist()) <= freed


def test_look_aside_lists_and_the_lfh_are_in_the_truth_dumps() -> None:
    kinds: set[int] = set()
    front_ends = set()
    for case in DUMPS:
        for heap in _heaps(Session.open(case.dump)).values():
            kinds |= set(np.unique(Blocks.concatenate(heap.blocks()).kind).tolist())
            front_ends.add(heap.front_end)
    assert {Kind.NT_BACKEND, Kind.NT_LOOKASIDE} <= kinds
    if len(DUMPS) > 1:  # testdata has one dump
        assert {Kind.NT_LFH, Kind.NT_VIRTUAL} <= kinds
        assert front_ends == {"", "lookaside", "lfh"}


def test_there_is_a_truth_dump_in_the_repository() -> None:
    assert any(TESTDATA in case.dump.parents for case in DUMPS)


@pytest.mark.parametrize("build", [0, 2195, 3790, 6002, 27000])
@pytest.mark.parametrize("case", DUMPS[:1], ids=lambda d: d.name)
def test_a_build_number_that_is_wrong_or_unknown_changes_nothing(
    case: TruthDump, build: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        xp_heap,
        "choose_layout",
        lambda rows, architecture, _, score, *exact: choose_layout(
            rows, architecture, build, score
        ),
    )
    _check(case)


choose_layout = xp_heap.choose_layout


@pytest.mark.parametrize("case", DUMPS[:1], ids=lambda d: d.name)
def test_a_heap_that_fits_no_row_is_listed_and_not_misread(
    case: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tuple(row for row in XP_HEAP_ROWS if row.architecture == "x64")
    monkeypatch.setattr(xp_heap, "XP_HEAP_ROWS", other)
    for source in Session.open(case.dump).heaps:
        assert (source.entry.kind, source.entry.heap) == ("nt", None)
        assert "fits no known layout" in source.entry.reason
