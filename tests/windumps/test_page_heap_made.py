"""Page heap against made heaps: every form, x86 and x64, most of which have no dump."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders.nt_heap_builder import NtHeapBuilder
from builders.page_heap_builder import PageHeapBuilder, linked, memory_of
from builders.segment_heap_builder import HEAP, SegmentHeapBuilder
from heaps_walked import Walked, context, lacking, patched, walked

from windumps.blocks import Blocks, Kind, State
from windumps.diagnostics import DiagnosticLog
from windumps.errors import HeapError
from windumps.heaps.kinds import ProcessHeap, process_heaps
from windumps.heaps.page_heap import heap as page_heap
from windumps.heaps.page_heap.heap import open_page_heap
from windumps.layouts.page_heap import PAGE_HEAP_ROWS
from windumps.process.views import ProcessView

BUILDS = {"xp": 2600, "vista": 6002, "verifier": 9200}
forms = pytest.mark.parametrize("form", list(BUILDS))
bits = pytest.mark.parametrize("x64", [False, True], ids=["x86", "x64"])
HEAD = 0x3001040  # of the list of roots
PAGE_HEAP_FLAG = 0x02000000


def _filled(form: str, x64: bool, address: int = 0x400000) -> PageHeapBuilder:
    heap = PageHeapBuilder(form, x64, address)
    for number in range(12):
        heap.full_block(number * 61, trace=0x5000000 + 64 * number)
        heap.light_block(number * 17, trace=0x6000000 + 64 * number)
        if number % 3 == 0:
            heap.freed_block(100 + number)
            heap.freed_light_block(30 + number)
    heap.full_block(0x2000)  # page-aligned: its header has a page of its own
    heap.full_block(0x3001)
    return heap


def _walk(heap: PageHeapBuilder, build: int | None = None) -> Walked:
    build = BUILDS[heap.form] if build is None else build
    return walked(open_page_heap, heap.build(), heap.address, heap.x64, build)


@forms
@bits
def test_blocks_come_with_size_and_trace_and_all_memory_is_accounted_for(
    form: str, x64: bool
) -> None:
    heap = _filled(form, x64)
    result = _walk(heap)
    assert result.used == heap.used
    assert result.traces == heap.traces
    free = result.blocks.address[result.blocks.state == State.FREE]
    assert set(heap.freed) <= set(free.tolist())
    assert (result.blocks.used.kind == Kind.PAGE_HEAP).all()
    assert result.said == []
    account = result.heap.account
    assert account.unwalked_bytes == 0
    assert account.committed_bytes == heap.committed + heap.normal_bytes
    assert result.heap.layout.endswith("the build's own row, 100% of checks hold")


@bits
def test_a_heap_that_grew_has_more_than_one_region(x64: bool) -> None:
    heap = PageHeapBuilder("verifier", x64)
    for number in range(4):
        heap.full_block(0x60000 + number)
    result = _walk(heap)
    assert result.used == heap.used
    assert result.said == []
    assert result.heap.account.reserved_bytes == 0x200000 + heap.normal_bytes
    assert result.heap.account.committed_bytes == heap.committed + heap.normal_bytes


@forms
@bits
def test_an_empty_heap_has_no_blocks_of_the_program(form: str, x64: bool) -> None:
    result = _walk(PageHeapBuilder(form, x64))
    assert result.used == {}
    assert result.said == []


@forms
@bits
@pytest.mark.parametrize("build", [0, 2600, 6001, 7601, 9600, 26100, 28000])
def test_the_form_is_told_by_the_heap_whatever_the_build_is_said_to_be(
    form: str, x64: bool, build: int
) -> None:
    heap = _filled(form, x64)
    log = DiagnosticLog()
    opened = open_page_heap(context(heap.build(), x64, build, log), heap.address, 0)
    row = opened.row
    assert opened.choice.score == 1.0
    assert row.has("_DPH_HEAP_ROOT", "BusyNodesTable") == (form != "xp")
    assert row.has("_DPH_HEAP_BLOCK", "AdjacencyEntry") == (form == "verifier")
    nodes = Blocks.concatenate(opened.blocks()).used
    assert set(heap.nodes) - set(heap.freed) <= set(nodes.address.tolist())


@bits
@pytest.mark.parametrize("first", [10240, 22000])
def test_without_the_row_of_a_build_that_of_a_neighbour_does(
    x64: bool, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(
        replace(row, first_build=first, last_build=first) if row.last_build > 9200 else row
        for row in PAGE_HEAP_ROWS
    )
    monkeypatch.setattr(page_heap, "PAGE_HEAP_ROWS", rows)
    heap = _filled("verifier", x64)
    result = _walk(heap)
    assert result.used == heap.used
    assert "probed" in result.heap.layout


@forms
@bits
def test_a_heap_is_not_read_by_the_layout_of_another_form(
    form: str, x64: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heap = _filled(form, x64)
    architecture = "x64" if x64 else "x86"
    for row in PAGE_HEAP_ROWS:
        if row.architecture != architecture or row.first_build <= BUILDS[form] <= row.last_build:
            continue
        monkeypatch.setattr(page_heap, "PAGE_HEAP_ROWS", (row,))
        with pytest.raises(HeapError, match="fits no known layout"):
            _walk(heap)


# The list of a process's heaps.


def _process(
    pieces: dict[int, bytes],
    x64: bool,
    listed: list[int],
    build: int = 9200,
    flag: int | None = PAGE_HEAP_FLAG,
) -> tuple[list[ProcessHeap], ProcessView]:
    view = ProcessView(
        memory_of(pieces), "x64" if x64 else "x86", build, 0x10000, flag, [], list(listed), 3, "PEB"
    )
    return process_heaps(view), view


def _two(form: str, x64: bool) -> list[PageHeapBuilder]:
    return [_filled(form, x64, address) for address in (0x4000000, 0x6000000)]


def _light(heap: PageHeapBuilder) -> dict[int, int]:
    return {user: size for user, size in heap.used.items() if user not in heap.nodes}


def _unwalked(entry: ProcessHeap) -> int:
    assert entry.heap is not None
    assert entry.heap.account.residual_bytes == 0
    return entry.heap.account.unwalked_bytes


def _used(entry: ProcessHeap) -> dict[int, int]:
    assert entry.heap is not None
    used = Blocks.concatenate(entry.heap.blocks()).used
    return dict(zip(used.address.tolist(), used.size.tolist(), strict=True))


@forms
@bits
def test_each_page_heap_takes_the_place_of_its_normal_heap(form: str, x64: bool) -> None:
    heaps = _two(form, x64)
    # The PEB names the process heap and lists the normal ones.
    listed = [heaps[0].address, *(heap.normal_address for heap in heaps)]
    entries, view = _process(linked(heaps, HEAD), x64, listed, BUILDS[form])
    assert [entry.address for entry in entries] == [heap.address for heap in heaps]
    assert [entry.ordinal for entry in entries] == [0, 1]
    assert {entry.kind for entry in entries} == {"page-heap"}
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]
    assert "roots of page heaps" in view.heap_list_source
    (said,) = [item for item in view.log.collect() if item.code == "page-heap-list"]
    assert "the list that links their roots" in said.message


@forms
@bits
def test_roots_off_their_list_are_searched_for(form: str, x64: bool) -> None:
    heaps = _two(form, x64)
    pieces = linked(heaps, HEAD)
    for heap in heaps:
        pieces = patched(pieces, heap.next_root, b"\x10" * 2 * heap.pointer)
    listed = [heap.normal_address for heap in heaps]
    entries, view = _process(pieces, x64, listed, BUILDS[form])
    assert [entry.address for entry in entries] == [heap.address for heap in heaps]
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]
    (said,) = [item for item in view.log.collect() if item.code == "page-heap-list"]
    assert "a search of the memory" in said.message


@bits
def test_roots_are_searched_for_where_the_process_does_not_say_whether_it_has_page_heap(
    x64: bool,
) -> None:
    heaps = _two("verifier", x64)
    listed = [heap.normal_address for heap in heaps]
    entries, _ = _process(linked(heaps, HEAD), x64, listed, flag=None)
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]


@bits
def test_a_process_without_page_heap_keeps_its_list(x64: bool) -> None:
    heap = NtHeapBuilder("8", x64, 0x6000000)
    for number in range(9):
        heap.used_block(30 * number)
    for flag, codes in ((None, []), (PAGE_HEAP_FLAG, ["page-heap-not-found"])):
        entries, view = _process(heap.build(), x64, [heap.address], flag=flag)
        assert [entry.kind for entry in entries] == ["nt"]
        assert [item.code for item in view.log.collect()] == codes


@forms
@bits
@pytest.mark.parametrize("flag", [None, PAGE_HEAP_FLAG], ids=["unknown", "flagged"])
def test_a_normal_heap_is_known_by_its_blocks_where_all_of_its_page_heap_is_lost(
    form: str, x64: bool, flag: int | None
) -> None:
    heap = _filled(form, x64)
    normal = {at: raw for at, raw in heap.pieces().items() if at >= heap.normal_address}
    entries, view = _process(normal, x64, [heap.normal_address], BUILDS[form], flag)
    assert [(entry.address, entry.kind) for entry in entries] == [(heap.address, "page-heap")]
    assert _used(entries[0]) == _light(heap)
    assert _unwalked(entries[0]) > 0
    assert {item.code for item in view.log.collect()} >= {
        "page-heap-companion",
        "page-heap-root-lost",
    }


def test_the_two_halves_of_a_wow64_process_keep_to_their_own_page_heaps() -> None:
    narrow = _filled("verifier", False, 0x4000000)
    wide = NtHeapBuilder("8", True, 0x6000000)
    block = wide.used_block(100)
    pieces = narrow.pieces() | wide.build()
    # The flag is set in both PEBs; verifier.dll is in the 32-bit half only.
    entries, view = _process(pieces, True, [wide.address])
    assert [(entry.address, entry.kind) for entry in entries] == [(wide.address, "nt")]
    assert _used(entries[0]) == {block: 100}
    assert view.log.collect() == []
    entries, _ = _process(pieces, False, [narrow.normal_address])
    assert [_used(entry) for entry in entries] == [narrow.used]


@forms
@bits
@pytest.mark.parametrize("lost", ["root", "both"])
def test_a_page_heap_without_its_root_has_its_light_blocks_and_the_rest_is_unwalked(
    form: str, x64: bool, lost: str
) -> None:
    heaps = _two(form, x64)
    start = heaps[0].root if lost == "root" else heaps[0].address
    pieces = lacking(linked(heaps, HEAD), start, heaps[0].root + 0x1000 - start)
    listed = [heap.normal_address for heap in heaps]
    entries, view = _process(pieces, x64, listed, BUILDS[form])
    assert [entry.address for entry in entries] == [heap.address for heap in heaps]
    assert entries[0].kind == "page-heap"
    assert _used(entries[0]) == _light(heaps[0])
    assert _unwalked(entries[0]) > 0
    assert _used(entries[1]) == heaps[1].used
    assert any(item.address == heaps[0].root for item in view.log.collect())


@forms
@bits
def test_an_erased_handle_is_known_by_the_root_behind_it(form: str, x64: bool) -> None:
    heaps = _two(form, x64)
    pieces = patched(linked(heaps, HEAD), heaps[0].address, bytes(0x1000))
    listed = [heaps[0].address, *(heap.normal_address for heap in heaps)]
    entries, _ = _process(pieces, x64, listed, BUILDS[form])
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]


@bits
def test_a_page_heap_of_which_nothing_is_left_is_listed_as_not_read(x64: bool) -> None:
    heaps = [PageHeapBuilder("verifier", x64, address) for address in (0x4000000, 0x6000000)]
    for heap in heaps:
        heap.full_block(100)
    pieces = lacking(linked(heaps, HEAD), heaps[0].root, 0x1000)
    listed = [heaps[0].address, *(heap.normal_address for heap in heaps)]
    entries, _ = _process(pieces, x64, listed)
    assert [entry.address for entry in entries] == [heap.address for heap in heaps]
    assert (entries[0].kind, entries[0].heap) == ("page-heap", None)
    assert "not in the dump" in entries[0].reason


@forms
@bits
def test_a_handle_that_is_not_in_the_dump_is_known_by_its_root(form: str, x64: bool) -> None:
    heaps = _two(form, x64)
    pieces = lacking(linked(heaps, HEAD), heaps[0].address, 0x1000)
    listed = [heaps[0].address, *(heap.normal_address for heap in heaps)]
    entries, _ = _process(pieces, x64, listed, BUILDS[form])
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]


@forms
@bits
def test_a_root_that_names_no_heap_has_the_one_whose_blocks_name_it(form: str, x64: bool) -> None:
    heaps = _two(form, x64)
    places = {"xp": (0x88, 0xF8), "vista": (0xB4, 0x150), "verifier": (0xB4, 0x150)}
    place = heaps[1].root + places[form][x64]
    pieces = patched(linked(heaps, HEAD), place, b"\0" * heaps[1].pointer)
    # In another order than the page heaps.
    listed = [heaps[0].address, heaps[1].normal_address, heaps[0].normal_address]
    entries, view = _process(pieces, x64, listed, BUILDS[form])
    assert {entry.address: _used(entry) for entry in entries} == {
        heap.address: heap.used for heap in heaps
    }
    (said,) = [item for item in view.log.collect() if item.code == "page-heap-companion"]
    assert said.address == heaps[1].root


@bits
def test_a_root_that_names_no_heap_is_paired_by_the_order_of_creation(x64: bool) -> None:
    heaps = [PageHeapBuilder("verifier", x64, address) for address in (0x4000000, 0x6000000)]
    for heap in heaps:
        heap.full_block(100)
    place = heaps[1].root + (0x150 if x64 else 0xB4)
    pieces = patched(linked(heaps, HEAD), place, b"\0" * heaps[1].pointer)
    listed = [heaps[0].address, *(heap.normal_address for heap in heaps)]
    entries, view = _process(pieces, x64, listed)
    assert [_used(entry) for entry in entries] == [heap.used for heap in heaps]
    (said,) = [item for item in view.log.collect() if item.code == "page-heap-paired"]
    assert said.address == heaps[1].root


def test_the_normal_heap_can_be_a_segment_heap() -> None:
    heap = PageHeapBuilder("verifier", x64=True)
    heap.full_block(100, trace=0x5000000)
    inner = SegmentHeapBuilder()
    inner.vs([0x40 + 16 + size for size in (10, 200, 3000)])
    inner.lfh(128, [0x40 + 16 + size for size in (1, 30)])
    memory = inner.build()
    runs = memory.runs
    pieces = {
        at: memory.data[offset : offset + size].tobytes()
        for at, size, offset in zip(
            runs.address.tolist(), runs.size.tolist(), runs.offset.tolist(), strict=True
        )
    }
    biased = heap.root ^ 1 << 63
    for address, size in inner.used.items():
        raw = heap.information(0xABCDAAAA, biased, size - 0x50, size, 0x6000000)
        pieces = patched(pieces, address, raw)
        heap.used[address + 0x40] = size - 0x50
    outer = {at: raw for at, raw in heap.pieces().items() if at != heap.normal_address}
    pieces |= patched(outer, heap.root + 0x150, HEAP.to_bytes(8, "little"))
    result = walked(open_page_heap, memory_of(pieces), heap.address, True, 19041)
    assert result.used == heap.used
    assert result.said == []
