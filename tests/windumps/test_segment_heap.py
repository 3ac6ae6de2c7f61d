"""The segment heap against heaps that Microsoft's own allocator laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from segment_heaps import committed_in_regions, context_of, used_sizes, walk
from truth import TruthDump, truth_dumps

from windumps import Dump, open_dump
from windumps.blocks import SIZE_UNKNOWN, Kind, State
from windumps.heaps.segment import heap as segment_heap
from windumps.heaps.segment.heap import detect
from windumps.layouts.rows import LayoutRow
from windumps.layouts.segment_heap import SEGMENT_HEAP_ROWS

SCENARIOS = ("segment-*", "mixed", "leak-pair-*")


DUMPS = [
    dump
    for dump in truth_dumps(*SCENARIOS)
    if dump.build.startswith("10.0.")
    and (dump.scenario.startswith("segment") or int(dump.build.split(".")[2]) >= 16299)
]
ONE_PER_BUILD = list({dump.build: dump for dump in reversed(DUMPS)}.values())
dumps = pytest.mark.parametrize("case", DUMPS, ids=lambda d: d.name)
builds = pytest.mark.parametrize("case", ONE_PER_BUILD, ids=lambda d: d.name)


def _segment_heaps(case: TruthDump) -> list[dict[str, Any]]:
    return [heap for heap in case.read_truth().heaps if heap["kind"] == "segment"]


@dumps
def test_used_blocks_are_exactly_the_busy_entries_of_the_genuine_walk(case: TruthDump) -> None:
    truth, dump = case.read_truth(), open_dump(case.dump)
    heaps = _segment_heaps(case)
    assert heaps
    for entry in heaps:
        context = context_of(dump)
        assert detect(context.memory, entry["address"], context.pointer_size)
        heap, blocks, said = walk(context, entry["address"])
        found = used_sizes(blocks)
        assert found == truth.used_blocks(entry["address"])
        assert not truth.freed & found.keys()
        assert not found.keys() & set(blocks.address[blocks.state == State.FREE].tolist())
        assert said == []
        assert heap.layout.endswith("the build's own row, 100% of checks hold")


@dumps
def test_all_memory_the_process_committed_to_a_heap_is_accounted_for(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    for entry in _segment_heaps(case):
        heap, blocks, _ = walk(context_of(dump), entry["address"])
        account = heap.account
        assert account.residual_bytes == account.unwalked_bytes == account.absent_bytes == 0
        assert account.committed_bytes == committed_in_regions(dump.memory, account.ranges)
        assert account.reserved_bytes == sum(size for _, size in account.ranges)
        assert account.used_count == len(blocks.used)
        # The heap's own counter leaves out its first page up to 19045, and before 16299 the large
        # allocations.
        pages = account.counters["TotalCommittedPages"]
        large = int(blocks.block_bytes[blocks.kind == Kind.SEGMENT_LARGE].sum()) // 0x1000
        assert account.committed_bytes // 0x1000 - pages in (0, 1, large, large + 1)
        assert account.counters["LargeCommittedPages"] == large


@pytest.mark.parametrize(
    "case", [d for d in DUMPS if d.scenario.endswith("-ust")], ids=lambda d: d.name
)
def test_every_block_of_a_traced_process_leads_to_the_stack_that_made_it(case: TruthDump) -> None:
    truth, dump = case.read_truth().raw, open_dump(case.dump)
    bases = {module["name"]: module["base"] for module in truth["modules"]}
    stacks = [[bases[module] + offset for module, offset in s] for s in truth["stacks"]]
    checked = 0
    for number, entry in enumerate(truth["heaps"]):
        if entry["kind"] != "segment":
            continue
        context = context_of(dump)
        _, blocks, _ = walk(context, entry["address"])
        used = blocks.used
        traces = dict(zip(used.address.tolist(), used.trace.tolist(), strict=True))
        pointer = context.pointer_size
        frames_at = 0x10 if pointer == 8 else 0xC
        for row in truth["allocations"]:
            if row[2] != number:
                continue
            stack = stacks[row[3]]
            raw = dump.memory.read(traces[row[0]] + frames_at, pointer * len(stack))
            assert np.frombuffer(raw, f"<u{pointer}").tolist() == stack
            checked += 1
    assert checked > 1000


@builds
@pytest.mark.parametrize("build", [0, 10240, 15063, 17763, 20348, 22000, 27000])
def test_a_build_number_that_is_wrong_or_newer_than_all_rows_changes_nothing(
    case: TruthDump, build: int
) -> None:
    _same_with(case, SEGMENT_HEAP_ROWS, build)


def _without_build(build: int, architecture: str) -> tuple[LayoutRow, ...]:
    return tuple(
        row
        for row in SEGMENT_HEAP_ROWS
        if row.architecture != architecture or not row.first_build <= build <= row.last_build
    )


def _same_with(case: TruthDump, rows: tuple[LayoutRow, ...], build: int | None = None) -> None:
    truth, dump = case.read_truth(), open_dump(case.dump)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_heap, "SEGMENT_HEAP_ROWS", rows)
        for entry in _segment_heaps(case):
            _, blocks, said = walk(context_of(dump, build), entry["address"])
            assert used_sizes(blocks) == truth.used_blocks(entry["address"])
            assert said == []


@pytest.mark.parametrize(
    "case",
    [
        d
        for d in ONE_PER_BUILD
        if (d.build.endswith("x64") and d.build.split(".")[2] not in ("16299", "26100"))
        or d.build.startswith("10.0.14393")
    ],
    ids=lambda d: d.name,
)
def test_without_the_row_of_a_build_a_neighbour_with_the_same_structures_does(
    case: TruthDump,
) -> None:
    dump = open_dump(case.dump)
    _same_with(case, _without_build(dump.build, dump.architecture))


@builds
def test_without_any_fitting_row_the_heap_is_refused_and_not_misread(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    other = "x64" if dump.architecture == "x86" else "x86"
    rows = tuple(row for row in SEGMENT_HEAP_ROWS if row.architecture == other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment_heap, "SEGMENT_HEAP_ROWS", rows)
        with pytest.raises(segment_heap.HeapError, match="fits no known layout"):
            walk(context_of(dump), _segment_heaps(case)[0]["address"])


@builds
def test_the_heap_says_where_its_keys_come_from(case: TruthDump) -> None:
    dump = open_dump(case.dump)
    context = context_of(dump)
    entry = _segment_heaps(case)[-1]
    walk(context, entry["address"])
    (keys,) = [item for item in context.log.collect() if item.code == "segment-heap-keys"]
    assert keys.address == entry["address"]
    assert "HeapKey from page segment signatures" in keys.message
    assert "key of chunk headers from" in keys.message


@builds
def test_no_key_needs_the_memory_of_ntdll(case: TruthDump) -> None:
    truth, dump = case.read_truth(), open_dump(case.dump)
    for entry in _segment_heaps(case):
        if entry["live_count"] < 100:
            continue
        context = context_of(dump)
        blind = type(context)(
            context.memory, context.architecture, context.build, None, 0, context.log
        )
        _, blocks, _ = walk(blind, entry["address"])
        assert used_sizes(blocks) == truth.used_blocks(entry["address"])


@builds
def test_keys_are_those_the_truth_names(case: TruthDump) -> None:
    truth, dump = case.read_truth().raw, open_dump(case.dump)
    named = truth["segment_keys"]
    if named is None:
        named = {}
    heap, _, _ = walk(context_of(dump), _segment_heaps(case)[-1]["address"])
    assert heap.fit.key is not None
    if named.get("HeapKey"):
        assert heap.fit.key.value == int(named["HeapKey"], 16)
    if named.get("LfhKey") and heap.fit.lfh_key is not None:
        assert heap.fit.lfh_key.value == int(named["LfhKey"], 16) & 0xFFFFFFFF


def _free_and_used(dump: Dump, address: int) -> tuple[int, int]:
    _, blocks, _ = walk(context_of(dump), address)
    sizes = blocks.size[blocks.state == State.FREE]
    assert (sizes == SIZE_UNKNOWN).all()
    return len(sizes), len(blocks.used)


@builds
def test_free_blocks_come_too_and_have_no_requested_size(case: TruthDump) -> None:
    free, used = _free_and_used(open_dump(case.dump), _segment_heaps(case)[-1]["address"])
    assert free > 0
    assert used > 0


def test_there_are_truth_dumps_of_every_form_of_the_segment_heap() -> None:
    found = {dump.build for dump in DUMPS}
    # What the repository itself holds; tests that find no dumps prove nothing.
    assert {"10.0.19041.3324-x64", "10.0.19041.3996-x86", "10.0.26100.5074-x64"} <= found
