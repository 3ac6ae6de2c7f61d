"""Heaps that the process had and the dump does not list are missing, and every answer says so."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from patching import with_bytes, without
from truth import TESTDATA, TruthDump, truth_dumps

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.process.memory_use import memory_by_use
from dumpleak.process.session import Session
from dumpleak.process.unread_heaps import unread_spans
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from windumps import Dump, open_dump
from windumps.blocks import Blocks
from windumps.heaps import HEAP_KINDS, ProcessHeap
from windumps.heaps.page_heap.heap import PageHeap
from windumps.memory import AddressSpace, Regions, RunMemory

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
PEB_PROCESS_HEAPS = 0xF0


def _without_heap_list(dump: Dump, peb: int) -> Dump:
    """The dump as if the page with the list of heaps, in ntdll's data, had not been captured."""
    array = dump.memory.read_uint(peb + PEB_PROCESS_HEAPS, 8)
    return without(dump, array, 0x100)


def _without_other_heaps(dump: Dump, case: TruthDump) -> Dump:
    """The dump without that list, and without the pages by which the heaps on it could be found."""
    truth = case.read_truth()
    dump = _without_heap_list(dump, truth.raw["peb"])
    for heap in truth.heaps[1:]:
        dump = without(dump, heap["address"], 0x1000)
    return dump


def _case(stem: str) -> TruthDump:
    return TruthDump(PAIR / f"{stem}.dmp.gz", PAIR / f"truth-{stem}.json.gz")


@pytest.fixture(scope="module")
def whole() -> dict[str, Dump]:
    return {stem: open_dump(_case(stem).dump) for stem in ("before", "after")}


@pytest.fixture(scope="module")
def cut(whole: dict[str, Dump]) -> dict[str, Dump]:
    return {stem: _without_other_heaps(dump, _case(stem)) for stem, dump in whole.items()}


def test_heaps_whose_addresses_are_lost_count_as_not_read(cut: dict[str, Dump]) -> None:
    info = take_info(Session(cut["before"]))
    heaps = len(_case("before").read_truth().heaps)
    assert heaps > 1
    assert (info.coverage.heaps_listed, info.coverage.heaps_read) == (heaps, 1)
    assert info.advice.startswith("partly: ")
    assert f"{heaps - 1} of {heaps} heaps could not be read" in info.advice


@pytest.mark.parametrize("swapped", [False, True])
def test_dumps_are_not_compared_when_only_one_lists_the_heaps(
    whole: dict[str, Dump], cut: dict[str, Dump], swapped: bool
) -> None:
    sides = [take_snapshot(Session(whole["before"])), take_snapshot(Session(cut["after"]))]
    comparison = compare(*sides[::-1] if swapped else sides)
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    side = "the base" if swapped else "the current dump"
    lost = [reason for reason in comparison.reasons if "the list of heaps is not whole" in reason]
    assert lost[0].startswith(f"heap 1 could not be read in {side}: ")
    assert len(lost) == len(_case("before").read_truth().heaps) - 1


def test_the_heap_that_both_dumps_list_is_compared(cut: dict[str, Dump]) -> None:
    comparison = compare(*(take_snapshot(Session(cut[stem])) for stem in ("before", "after")))
    assert comparison.verdict is Verdict.GROWTH
    truths = [_case(stem).read_truth() for stem in ("before", "after")]
    before, after = (t.used_blocks(t.heaps[0]["address"]).values() for t in truths)
    assert comparison.delta_count == len(after) - len(before)
    assert comparison.delta_bytes == sum(after) - sum(before)
    assert comparison.current.coverage.heaps_read < comparison.current.coverage.heaps_listed


def test_a_cut_list_of_heaps_leaves_no_yes_and_no_comparison_on_24h2() -> None:
    folder = TESTDATA / "10.0.26100.5074-x64" / "mixed"
    case = TruthDump(folder / "dump.dmp.gz", folder / "truth.json.gz")
    dump = open_dump(case.dump)
    first, second, third = (heap["address"] for heap in case.read_truth().heaps)
    # Each NT heap's header points at 188h to its record {LIST_ENTRY, heap, …}.
    record = dump.memory.read_uint(second + 0x188, 8)
    last = dump.memory.read_uint(record, 8)
    assert dump.memory.read_uint(last + 16, 8) == third
    cut = without(without(dump, last, 16), third, 0x1000)
    info = take_info(Session(cut))
    assert [heap.address for heap in info.heaps] == [first, second]
    assert info.advice.startswith("partly: ")
    assert "there may be more" in info.advice
    comparison = compare(take_snapshot(Session(cut)), take_snapshot(Session(dump)))
    assert comparison.verdict is Verdict.NOT_COMPARABLE


def test_a_cut_file_leaves_no_yes_and_no_comparison_although_its_heaps_look_whole(
    tmp_path: Path,
) -> None:
    data = gzip.decompress(_case("after").dump.read_bytes())
    path = tmp_path / "cut.dmp"
    path.write_bytes(data[: len(data) * 9 // 10])
    cut, whole = Session.open(path), Session.open(_case("before").dump)
    info = take_info(cut)
    assert info.usable
    assert info.advice.startswith("partly: ")
    assert "the file is cut" in info.advice
    comparison = compare(take_snapshot(whole), take_snapshot(cut))
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert any("file of the current dump is cut" in reason for reason in comparison.reasons)


def test_heaps_that_are_on_no_list_are_found_by_their_signatures(whole: dict[str, Dump]) -> None:
    for stem, dump in whole.items():
        truth = _case(stem).read_truth()
        session = Session(_without_heap_list(dump, truth.raw["peb"]))
        assert [s.entry.address for s in session.heaps] == [h["address"] for h in truth.heaps]
        expected = take_snapshot(Session(dump))
        found = take_snapshot(session)
        assert found.totals == expected.totals
        assert found.coverage == expected.coverage
        assert "heaps-by-signature" in {item.code for item in found.diagnostics}


@pytest.mark.parametrize(
    "path", sorted(TESTDATA.glob("*/*/dump.dmp.gz")), ids=lambda p: "/".join(p.parts[-3:-1])
)
def test_without_any_list_a_search_finds_the_heaps_of_every_build(path: Path) -> None:
    dump = open_dump(path)
    truth = TruthDump(path, path.parent / "truth.json.gz").read_truth()
    ntdll = next(m for m in dump.modules if m.name.lower() == "ntdll.dll")
    bare = without(without(dump, truth.raw["peb"], 0x1000), ntdll.base_address, ntdll.size_bytes)
    session = Session(bare)
    assert all(view.peb == 0 for view in session.views)
    addresses = {source.entry.address for source in session.heaps}
    assert addresses >= {heap["address"] for heap in truth.heaps}
    wanted = {a for h in truth.heaps for a in truth.used_blocks(h["address"])}
    found = {a for _, blocks in session.blocks() for a in blocks.used.address.tolist()}
    assert found == wanted


def test_a_copy_of_a_heap_at_another_address_is_no_heap_of_the_process(
    whole: dict[str, Dump],
) -> None:
    truth = _case("before").read_truth()
    dump = _without_heap_list(whole["before"], truth.raw["peb"])
    regions = dump.memory.regions
    heap = truth.heaps[1]["address"]
    row = regions.row_of(heap)
    elsewhere = 0x5000_0000_0000
    runs = dump.memory.runs
    (offset,) = dump.memory.locate(np.array([heap], np.uint64), 0x1000)
    memory = RunMemory(
        dump.memory.data,
        np.append(runs.address, np.uint64(elsewhere)),
        np.append(runs.size, 0x1000),
        np.append(runs.offset, offset),
        Regions(
            *(
                np.append(column, value).astype(column.dtype)
                for column, value in (
                    (regions.base_address, elsewhere),
                    (regions.allocation_base, elsewhere),
                    (regions.region_size, 0x1000),
                    (regions.state, regions.state[row]),
                    (regions.protect, regions.protect[row]),
                    (regions.type, regions.type[row]),
                )
            )
        ),
    )
    copied = Session(dataclasses.replace(dump, memory=memory))
    assert elsewhere not in {source.entry.address for source in copied.heaps}


def test_memory_of_a_heap_that_cannot_be_read_is_heap_memory_that_was_not_walked(
    whole: dict[str, Dump],
) -> None:
    truth = _case("after").read_truth()
    dump, heap = whole["after"], truth.heaps[1]["address"]
    expected = take_snapshot(Session(dump))
    (row,) = (row for row in expected.heaps if row.address == heap)
    found = take_snapshot(Session(with_bytes(dump, {heap + 0x10: bytes(0x400)})), details=True)
    (unread,) = (row for row in found.heaps if row.address == heap)
    assert unread.reason
    assert (unread.committed_bytes, unread.used_bytes) == (row.committed_bytes, None)
    assert found.coverage.committed_bytes == expected.coverage.committed_bytes
    assert found.coverage.walked_bytes == expected.coverage.walked_bytes - row.committed_bytes
    assert found.private == expected.private
    assert found.memory == memory_by_use(_walked(dump))


def _walked(dump: Dump) -> Session:
    session = Session(dump)
    for _ in session.blocks():
        pass
    return session


def test_a_heap_of_which_nothing_is_known_leaves_no_100_percent(cut: dict[str, Dump]) -> None:
    covered = take_snapshot(Session(cut["before"])).coverage
    assert covered.heaps_read < covered.heaps_listed
    assert covered.walked_share < 1


def test_two_heaps_that_claim_one_range_do_not_both_count_its_blocks(
    whole: dict[str, Dump],
) -> None:
    dump = whole["before"]
    expected = take_snapshot(Session(dump))
    session = Session(dump)
    first = session.heaps[0]
    again = dataclasses.replace(first, entry=dataclasses.replace(first.entry, ordinal=9))
    reader = dataclasses.replace(first.entry.heap)
    session.heaps.append(
        dataclasses.replace(again, entry=dataclasses.replace(again.entry, heap=reader))
    )
    found = take_snapshot(session)
    assert found.totals == expected.totals
    assert "heaps-overlap" in {item.code for item in found.diagnostics}
    assert found.coverage.walked_share < 1


@pytest.mark.parametrize("build", ["10.0.19041.3324-x64", "10.0.26100.5074-x64"])
def test_segments_large_blocks_and_front_end_of_an_unread_heap_are_counted(build: str) -> None:
    dump = open_dump(TESTDATA / build / "mixed" / "dump.dmp.gz")
    heaps = {s.entry.address: s.entry.heap for s in _walked(dump).heaps if s.entry.kind == "nt"}
    assert len(heaps) > 1
    for address, heap in heaps.items():
        assert heap is not None
        session = Session(with_bytes(dump, {address + 0x10: bytes(8)}))
        spans = unread_spans(session)[address]
        assert sum(size for _, size in spans) == heap.account.committed_bytes


LIGHT = truth_dumps("page-heap-light")


@pytest.mark.parametrize("case", LIGHT, ids=lambda d: d.name)
def test_a_page_heap_and_its_normal_heap_do_not_both_count_their_blocks(case: TruthDump) -> None:
    session = Session.open(case.dump)
    page_heap = session.heaps[0].entry.heap
    assert isinstance(page_heap, PageHeap)
    kind = next(k for k in HEAP_KINDS if k.detect(*_place(page_heap)))
    assert kind.open is not None
    normal = kind.open(page_heap.context, page_heap.normal_heap, 9)
    entry = ProcessHeap(normal.address, 9, normal.architecture, kind.name, normal)
    session.heaps.insert(0, dataclasses.replace(session.heaps[0], entry=entry))
    used = Blocks.concatenate(blocks for _, blocks in session.blocks()).used
    order = np.argsort(used.address)
    end = used.address + np.maximum(used.size, 0).astype(np.uint64)
    assert (end[order][:-1] <= used.address[order][1:]).all()
    assert "heaps-overlap" in {item.code for item in session.diagnostics}


def _place(heap: PageHeap) -> tuple[AddressSpace, int, int]:
    return heap.context.memory, heap.normal_heap, heap.context.pointer_size
