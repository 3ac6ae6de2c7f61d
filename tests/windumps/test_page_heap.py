"""Page heap against heaps that ntdll of XP and 2003 and verifier.dll of Windows 8 and 10 laid out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from segment_heaps import committed_in_regions
from truth import Truth, TruthDump, truth_dumps

from dumpleak.attribution.stack import StackAttributor
from dumpleak.attribution.table import SiteTable
from dumpleak.process.session import Session
from windumps.blocks import Blocks, Kind, State
from windumps.heaps.page_heap import heap as page_heap
from windumps.heaps.page_heap.heap import PageHeap
from windumps.layouts.page_heap import PAGE_HEAP_ROWS

DUMPS = truth_dumps("page-heap-*")
dumps = pytest.mark.parametrize("case", DUMPS, ids=lambda d: d.name)
ONE_PER_BUILD = list({d.build: d for d in DUMPS if d.scenario == "page-heap-range"}.values())
builds = pytest.mark.parametrize("case", ONE_PER_BUILD, ids=lambda d: d.name)


def _blocks_of(truth: Truth, heap: int) -> dict[int, int]:
    return {a: size for a, size in truth.sizes.items() if truth.heap_of[a] == heap}


def _heaps(session: Session) -> dict[int, PageHeap]:
    found = {}
    for source in session.heaps:
        assert isinstance(source.entry.heap, PageHeap), source.entry
        assert source.entry.kind == "page-heap"
        found[source.entry.address] = source.entry.heap
    return found


def _said(session: Session) -> list[Any]:
    return [item for item in session.diagnostics if item.severity != "info"]


def _check(case: TruthDump) -> None:
    truth, session = case.read_truth(), Session.open(case.dump)
    heaps = _heaps(session)
    # The normal heaps are not listed beside the page heaps that use them.
    assert list(heaps) == [heap["address"] for heap in truth.heaps]
    for index, (address, heap) in enumerate(heaps.items()):
        blocks = Blocks.concatenate(heap.blocks())
        used = blocks.used
        found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
        assert len(found) == len(used), "a block came twice"
        assert found == _blocks_of(truth, index)
        assert not truth.freed & found.keys()
        assert not found.keys() & set(blocks.address[blocks.state == State.FREE].tolist())
        assert (used.kind == Kind.PAGE_HEAP).all()
        assert (heap.address, heap.root.address) == (address, truth.heaps[index]["root"])
        assert heap.normal_heap == truth.heaps[index]["normal_heap"]
        account = heap.account
        assert account.residual_bytes == account.unwalked_bytes == account.absent_bytes == 0
        assert (account.used_count, account.free_count) == (len(used), len(blocks) - len(used))
        assert account.committed_bytes == committed_in_regions(heap.context.memory, account.ranges)
        assert account.reserved_bytes == sum(size for _, size in account.ranges)
    assert _said(session) == []


@dumps
def test_used_blocks_are_exactly_those_of_the_program_and_all_memory_is_accounted_for(
    case: TruthDump,
) -> None:
    _check(case)


@dumps
def test_kind_actual_size_and_trace_of_every_block_are_those_the_root_keeps(
    case: TruthDump,
) -> None:
    truth, session = case.read_truth(), Session.open(case.dump)
    columns = truth.raw["page_heap"]["block_columns"]
    assert columns == ["address", "kind", "actual_size", "stack_trace_pointer"]
    rows = {row[0]: row[1:] for row in truth.raw["page_heap"]["blocks"]}
    assert rows.keys() == truth.sizes.keys()
    full = 0
    for heap in _heaps(session).values():
        used = Blocks.concatenate(heap.blocks()).used
        pages = 0
        for address, block_bytes, trace in zip(
            used.address.tolist(), used.block_bytes.tolist(), used.trace.tolist(), strict=True
        ):
            kind, actual, pointer = rows[address]
            assert trace == pointer
            if kind == "full":
                assert block_bytes == actual
                pages += 1
            else:  # the normal heap adds its header and padding
                assert actual + 8 <= block_bytes < actual + (64 if "x64" in case.build else 40)
        assert pages == heap.account.counters["nBusyAllocations"]
        full += pages
    assert full == sum(row[0] == "full" for row in rows.values())


@dumps
def test_every_block_is_named_by_the_stack_that_made_it(case: TruthDump) -> None:
    truth, session = case.read_truth(), Session.open(case.dump)
    column = truth.raw["alloc_columns"].index("stack_id")
    most = 16 if case.build.startswith("5.1.") else 32  # XP keeps no more frames
    stacks = [
        tuple(f"{module}+0x{offset:x}" for module, offset in stack[:most])
        for stack in truth.raw["stacks"]
    ]
    expected = {row[0]: stacks[row[column]] for row in truth.raw["allocations"]}
    table = SiteTable()
    attributor = StackAttributor(session, table)
    seen = 0
    for source, blocks in session.blocks():
        used = blocks.used
        for address, number in zip(
            used.address.tolist(), attributor.assign(source, used).tolist(), strict=True
        ):
            assert table.sites[number].frames == expected[address]
            seen += 1
    assert seen == len(expected)


@builds
@pytest.mark.parametrize("build", [0, 2195, 6002, 7601, 9200, 22631, 27000])
def test_a_build_number_that_is_wrong_or_newer_than_all_rows_changes_nothing(
    case: TruthDump, build: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        page_heap,
        "choose_layout",
        lambda rows, architecture, _, score, *exact: choose_layout(
            rows, architecture, build, score
        ),
    )
    _check(case)


choose_layout = page_heap.choose_layout


@builds
def test_without_the_row_of_a_build_that_of_a_neighbour_does(
    case: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = int(case.build.split(".")[2].split("-")[0])
    # The row as if it had been seen in other builds only.
    rows = tuple(
        replace(row, first_build=build + 1, last_build=build + 1)
        if row.first_build <= build <= row.last_build
        else row
        for row in PAGE_HEAP_ROWS
    )
    monkeypatch.setattr(page_heap, "PAGE_HEAP_ROWS", rows)
    _check(case)
    for heap in _heaps(Session.open(case.dump)).values():
        assert "probed" in heap.layout


@builds
def test_where_no_layout_fits_blocks_come_by_their_stamps_and_the_rest_is_unwalked(
    case: TruthDump, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = int(case.build.split(".")[2].split("-")[0])
    rows = tuple(r for r in PAGE_HEAP_ROWS if not r.first_build <= build <= r.last_build)
    monkeypatch.setattr(page_heap, "PAGE_HEAP_ROWS", rows)
    truth, session = case.read_truth(), Session.open(case.dump)
    light = {row[0] for row in truth.raw["page_heap"]["blocks"] if row[1] == "light"}
    assert session.heaps
    found: dict[int, int] = {}
    for source, blocks in session.blocks():
        used = blocks.used
        found |= dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
        assert source.entry.kind == "page-heap"
    assert found == {address: truth.sizes[address] for address in light}
    for source in session.heaps:
        assert source.entry.heap is not None
        account = source.entry.heap.account
        assert account.unwalked_bytes > account.committed_bytes // 4
        assert account.residual_bytes == 0


@builds
def test_both_kinds_come_from_one_heap(case: TruthDump) -> None:
    truth = case.read_truth()
    kinds = {row[1] for row in truth.raw["page_heap"]["blocks"]}
    assert kinds == {"full", "light"}
    for heap in _heaps(Session.open(case.dump)).values():
        used = Blocks.concatenate(heap.blocks()).used
        whole = used.block_bytes % 0x1000 == 0
        assert whole.any()
        assert not whole.all()
        assert np.unique(used.heap).tolist() == [heap.ordinal]
