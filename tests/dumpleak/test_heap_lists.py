"""Heaps that the process had and the dump does not list are missing, and every answer says so."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from patching import without
from truth import TESTDATA, TruthDump

from dumpleak.comparison import Verdict, compare
from dumpleak.info import take_info
from dumpleak.session import Session
from dumpleak.snapshot import take_snapshot
from windumps import Dump, open_dump

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
PEB_PROCESS_HEAPS = 0xF0


def _without_heap_list(dump: Dump, peb: int) -> Dump:
    """The dump as if the page with the list of heaps, in ntdll's data, had not been captured."""
    array = dump.memory.read_uint(peb + PEB_PROCESS_HEAPS, 8)
    return without(dump, array, 0x100)


def _case(stem: str) -> TruthDump:
    return TruthDump(PAIR / f"{stem}.dmp.gz", PAIR / f"truth-{stem}.json.gz")


@pytest.fixture(scope="module")
def whole() -> dict[str, Dump]:
    return {stem: open_dump(_case(stem).dump) for stem in ("before", "after")}


@pytest.fixture(scope="module")
def cut(whole: dict[str, Dump]) -> dict[str, Dump]:
    return {
        stem: _without_heap_list(dump, _case(stem).read_truth().raw["peb"])
        for stem, dump in whole.items()
    }


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
    cut = without(dump, last, 16)
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
