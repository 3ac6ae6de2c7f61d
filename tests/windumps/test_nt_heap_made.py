"""The NT heap of every build of Vista to 11 against made heaps; of many builds there is no dump."""

from __future__ import annotations

import pytest
from builders.nt_heap_numbers import HEAPS, HeapNumbers
from builders.whole_nt_heap_builder import WholeNtHeapBuilder, made_memory
from heaps_walked import Walked, context, walked

from windumps.blocks import State
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.nt import heap as nt_heap
from windumps.heaps.nt.fit import fit
from windumps.heaps.nt.head import Head
from windumps.heaps.nt.heap import open_nt_heap
from windumps.layouts.nt_heap import NT_HEAP_ROWS
from windumps.layouts.rows import LayoutRow
from windumps.memory import RunMemory

KINDS = sorted(HEAPS)
kinds = pytest.mark.parametrize(
    ("build", "x64"), KINDS, ids=[f"{build}-{'x64' if x64 else 'x86'}" for build, x64 in KINDS]
)


def filled(build: int, x64: bool, numbers: HeapNumbers | None = None) -> WholeNtHeapBuilder:
    """A heap with all that a heap has."""
    heap = WholeNtHeapBuilder(build, x64)
    heap.numbers = numbers or heap.numbers
    for number in range(30):
        heap.used_block(20 + 31 * number)
        if number % 4 == 0:
            heap.free_block(40 + number)
    unit = heap.unit
    for size in (4, 6, 9):
        requests = [None if i % 3 == 1 else size * unit - 8 - i % 7 for i in range(40)]
        heap.area(size * unit, requests)
    heap.hole(3)
    heap.used_block(5000)
    heap.large_block(600_000)
    heap.new_segment()
    for number in range(30):
        heap.used_block(100 + number)
    heap.large_block(1_000_000)
    return heap


def walk(memory: RunMemory, heap: WholeNtHeapBuilder) -> Walked:
    """The heap as the reader finds it."""
    return walked(open_nt_heap, memory, heap.address, heap.x64, heap.build)


def own_row(build: int, x64: bool) -> LayoutRow:
    """The row of the table that a build has."""
    (row,) = [
        row
        for row in NT_HEAP_ROWS
        if row.architecture == ("x64" if x64 else "x86")
        and row.first_build <= build <= row.last_build
    ]
    return row


@kinds
def test_a_made_heap_of_every_build_gives_its_blocks(build: int, x64: bool) -> None:
    heap = filled(build, x64)
    found = walk(heap.memory(), heap)
    assert found.used == heap.used
    assert found.said == []
    account = found.heap.account
    assert account.unwalked_bytes == 0
    assert account.free_count == sum(found.blocks.state == State.FREE) > 40
    assert found.heap.layout.startswith(own_row(build, x64).name)


@pytest.mark.parametrize("regions", [False, True], ids=["memory", "regions"])
@kinds
def test_pages_that_a_free_block_gave_back_are_neither_committed_nor_free_memory(
    build: int, x64: bool, *, regions: bool
) -> None:
    heap = filled(build, x64)
    plain = walk(heap.memory(), heap).heap.account
    heap = filled(build, x64)
    heap.given_back_block(0x9000 - 300)
    heap.used_block(77)
    heap.given_back_block(0x1000)  # no whole page
    given = sum(size for _, size in heap.given_back)
    assert given >= 0x7000
    found = walk(heap.memory(regions), heap)
    account = found.heap.account
    assert found.said == []
    assert found.used == heap.used
    assert account.unwalked_bytes == 0
    free = found.blocks.select(found.blocks.state == State.FREE)
    assert account.free_block_bytes == int(free.block_bytes.sum()) - given
    assert account.committed_bytes == account.walked_bytes
    memory = heap.memory()
    held = sum(memory.present_bytes(start, start + size) for start, size in account.ranges)
    assert account.committed_bytes == held
    assert plain.reserved_bytes == account.reserved_bytes


def test_pages_of_such_a_block_that_are_committed_after_all_stay_free_memory() -> None:
    heap = filled(22631, x64=True)
    heap.given_back_block(0x9000 - 300)
    heap.used_block(77)
    pieces = heap.pieces()
    for start, size in heap.given_back:
        pieces[start] = bytes(size)
    found = walk(made_memory(pieces), heap)
    free = found.blocks.select(found.blocks.state == State.FREE)
    assert found.heap.account.free_block_bytes == int(free.block_bytes.sum())
    assert found.heap.account.unwalked_bytes == 0


@kinds
def test_a_large_block_that_begins_behind_its_reservation_claims_no_memory_behind_it(
    build: int, x64: bool
) -> None:
    heap = filled(build, x64)
    user = heap.large_block(0x20000 - 0x100, 0x5000)
    entry = heap.large[-1]
    found = walk(heap.memory(), heap)
    assert found.used == heap.used
    assert user in found.used
    mine = [span for span in found.heap.account.ranges if span[0] <= entry < span[0] + span[1]]
    assert mine == [(entry - 0x5000, 0x25000)]


def test_every_row_was_tried_on_dumps_of_its_builds_or_on_a_made_heap_of_them() -> None:
    for row in NT_HEAP_ROWS:
        builds = [build for build, x64 in HEAPS if x64 == (row.architecture == "x64")]
        assert any(row.first_build <= build <= row.last_build for build in builds), row.name
        assert all(row.first_build <= build <= row.last_build for build in row.proven_on)
    unproven = {(row.architecture, row.first_build) for row in NT_HEAP_ROWS if not row.proven_on}
    assert unproven == {("x64", 6000), ("x64", 9200), ("x86", 6000)}


@kinds
def test_a_row_of_other_offsets_fits_worse_than_the_builds_own(build: int, x64: bool) -> None:
    heap = filled(build, x64)
    process = context(heap.memory(), x64, build, DiagnosticLog())
    head = Head(process.memory, heap.address)
    own = own_row(build, x64)
    assert fit(process, own, heap.address, head) == 1.0
    for row in NT_HEAP_ROWS:
        if row.architecture == own.architecture:
            same = dict(row.structures["_HEAP"], sizeof=(0, "")) == dict(
                own.structures["_HEAP"], sizeof=(0, "")
            )
            assert (fit(process, row, heap.address, head) == 1.0) == same, row.name


@kinds
def test_a_wrong_build_number_does_not_cost_a_block(
    build: int, x64: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap = filled(build, x64)
    memory = heap.memory()
    for wrong in (0, 6001, 7601, 9200, 9600, 14393, 19041, 29000):
        assert walked(open_nt_heap, memory, heap.address, x64, wrong).used == heap.used
    # A build whose row is not there at all is read by the nearest that fits.
    others = tuple(row for row in NT_HEAP_ROWS if row != own_row(build, x64))
    monkeypatch.setattr(nt_heap, "NT_HEAP_ROWS", others)
    found = walk(memory, heap)
    assert found.used == heap.used
    assert "probed" in found.heap.layout


@pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
@pytest.mark.parametrize("moved", [-1, 1, 2, 6])
def test_a_later_build_whose_heap_grew_is_read_all_the_same(x64: bool, moved: int) -> None:
    build = max(build for build, is_x64 in HEAPS if is_x64 == x64)
    numbers = HEAPS[build, x64]
    distance = moved * (16 if x64 else 8)
    names = ("front_end", "front_end_type", "counters", "size")
    later = numbers._replace(**{name: getattr(numbers, name) + distance for name in names})
    heap = filled(build, x64, later)
    found = walked(open_nt_heap, heap.memory(), heap.address, x64, 29000)
    assert found.used == heap.used
    assert found.said == []
    assert found.heap.account.unwalked_bytes == 0
