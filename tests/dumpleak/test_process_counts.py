"""Handles and Windows's own counters in the account: what grew is named, what is not known is null."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truth import TESTDATA

from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.diff import compare
from dumpleak.files.metadata import to_json
from dumpleak.files.metadata_form import from_json
from dumpleak.files.reader import snapshot_info
from dumpleak.gate.conditions import parse_gate
from dumpleak.gate.gate import Gate
from dumpleak.model.account import CUT_HANDLES, NO_COUNTERS, NO_HANDLES, NOT_KEPT, State
from dumpleak.model.account_rows import account_of
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.memory_use import charged_bytes
from dumpleak.process.session import Session
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.rows import process_facts
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from dumpleak.survey.recording import write_snapshot
from windumps import Dump, open_dump
from windumps.dump import VmCounters
from windumps.memory import Regions
from windumps.process.handles import Handles, Texts

TINY = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
MIB = 1 << 20
COMMIT, RESERVE = 0x1000, 0x2000
PRIVATE, MAPPED, IMAGE = 0x20000, 0x40000, 0x1000000


@pytest.fixture(scope="module")
def tiny() -> Dump:
    return open_dump(TINY)


def _handles(events: int, files: int = 0, whole: bool = True) -> Handles:
    index = np.repeat(np.array([1, 2]), [events, files]).astype(np.int64)
    names = Texts(("",), np.zeros(events + files, np.int64))
    return Handles(Texts(("", "Event", "File"), index), names, whole)


def _with(dump: Dump, later: bool = False, **parts: Any) -> Dump:
    assert dump.time is not None
    time = dump.time.replace(year=dump.time.year + 1) if later else dump.time
    return dataclasses.replace(dump, time=time, **parts)


def _taken(dump: Dump) -> Snapshot:
    return take_snapshot(Session(dump), keep_blocks=True)


def _compared(base: Dump, current: Dump) -> Comparison:
    return compare(_taken(base), _taken(current))


def _told(dump: Dump) -> dict[str, tuple[int | None, str]]:
    return {f.name: (f.value, f.reason) for f in account_of(_taken(dump))}


def test_handles_that_grow_lead_the_headline_and_fail_the_gate(tiny: Dump) -> None:
    before, after = _with(tiny, handles=_handles(300)), _with(tiny, True, handles=_handles(9_300))
    found = _compared(before, after)
    assert found.verdict is Verdict.GROWTH
    assert summarize_comparison(found).headline.startswith("+9,000 handles")
    assert Gate(parse_gate("handles.count>=9000")).judge(found).verdict == "fail"
    assert Gate(parse_gate("handles.count>=9001")).judge(found).verdict == "pass"


def test_a_few_handles_more_are_steady(tiny: Dump) -> None:
    found = _compared(
        _with(tiny, handles=_handles(300)), _with(tiny, True, handles=_handles(320, 9))
    )
    row = next(row for row in found.account if row.name == "handles.count")
    assert (row.delta, row.state, found.verdict) == (29, State.STEADY, Verdict.NO_GROWTH)


def test_handles_of_an_absent_or_cut_list_are_null_and_a_gate_on_them_never_passes(
    tiny: Dump,
) -> None:
    listed = _with(tiny, handles=_handles(300))
    for handles, reason in ((None, NO_HANDLES), (_handles(5, whole=False), CUT_HANDLES)):
        other = _with(tiny, True, handles=handles)
        assert _told(other)["handles.count"] == (None, reason)
        found = _compared(listed, other)
        assert found.verdict is Verdict.NO_GROWTH
        assert Gate(parse_gate("handles.count>=1")).judge(found).verdict == "no-answer"


def test_private_bytes_that_nothing_explains_are_growth_and_named_as_such(tiny: Dump) -> None:
    before = _with(tiny, vm_counters=VmCounters(40 * MIB, 99 * MIB, 30 * MIB))
    after = _with(tiny, True, vm_counters=VmCounters(5900 * MIB, 99 * MIB, 30 * MIB))
    found = _compared(before, after)
    rows = {row.name: row for row in found.account}
    for name in ("counters.private_bytes", "unexplained.bytes"):
        assert rows[name].delta == 5860 * MIB
    assert rows["unexplained.bytes"].base == 40 * MIB - charged_bytes(tiny.memory.regions)
    assert found.verdict is Verdict.GROWTH
    headline = summarize_comparison(found).headline
    assert headline.startswith("+5.7 GiB private bytes that Windows counts and nothing")
    assert "as Windows counts them" not in headline  # the same bytes are not told twice
    assert Gate(parse_gate("counters.private_bytes>=1G")).judge(found).verdict == "fail"


def test_without_regions_private_bytes_are_named_beside_whatever_else_grew(tiny: Dump) -> None:
    bare = dataclasses.replace(_taken(tiny), outside=())
    sides = []
    for counted, handles in ((40 * MIB, 300), (5900 * MIB, 9300)):
        figures = [
            dataclasses.replace(figure, value=value, reason="")
            for figure in account_of(bare)
            for name, value in (("counters.private_bytes", counted), ("handles.count", handles))
            if figure.name == name
        ]
        sides.append(dataclasses.replace(bare, outside=tuple(figures)))
    headline = summarize_comparison(compare(*sides)).headline
    assert "private bytes as Windows counts them" in headline
    assert "+9,000 handles" in headline


def test_a_larger_working_set_is_no_growth_and_not_called_steady(tiny: Dump) -> None:
    before = _with(tiny, vm_counters=VmCounters(40 * MIB, 99 * MIB, 30 * MIB))
    after = _with(tiny, True, vm_counters=VmCounters(40 * MIB, 99 * MIB, 900 * MIB))
    found = _compared(before, after)
    assert found.verdict is Verdict.NO_GROWTH
    row = next(row for row in found.account if row.name == "counters.working_set_bytes")
    assert (row.delta, row.told_state) == (870 * MIB, "")


def test_without_the_counters_all_of_their_rows_are_null(tiny: Dump) -> None:
    told = _told(tiny)
    for name in ("private", "virtual", "working_set"):
        assert told[f"counters.{name}_bytes"] == (None, NO_COUNTERS)
    assert told["unexplained.bytes"] == (None, NO_COUNTERS)


def test_what_is_charged_is_private_memory_and_what_is_or_may_be_written_of_images() -> None:
    rows = np.array(
        [
            (COMMIT, PRIVATE, 0x04),
            (RESERVE, PRIVATE, 0x04),
            (COMMIT, PRIVATE, 0x104),  # guarded
            (COMMIT, IMAGE, 0x20),
            (COMMIT, IMAGE, 0x04),
            (COMMIT, IMAGE, 0x80),
            (COMMIT, MAPPED, 0x04),
            (COMMIT, MAPPED, 0x08),
        ],
        np.uint32,
    )
    sizes = np.uint64(0x1000) << np.arange(len(rows), dtype=np.uint64)
    places = np.arange(len(rows), dtype=np.uint64) << np.uint64(24)
    regions = Regions(places, places, sizes, rows[:, 0], rows[:, 2], rows[:, 1])
    charged = [0, 2, 4, 5, 7]
    assert charged_bytes(regions) == sum(0x1000 << number for number in charged)


def test_info_and_the_snapshot_file_tell_handles_by_type(
    tiny: Dump, tmp_path: Path, run: Any
) -> None:
    counted = VmCounters(40 * MIB, 99 * MIB, 30 * MIB)
    dump = _with(tiny, handles=_handles(7, 20), vm_counters=counted)
    info = take_info(Session(dump))
    assert info.handles == (("File", 20), ("Event", 7))
    assert dict(process_facts(info))["Handles"] == "27: 20 File, 7 Event"
    assert dict(process_facts(info))["Private bytes"].startswith("40.0 MiB counted by Windows, 39.")
    file = tmp_path / "a.dlsnap"
    write_snapshot(Session(dump), file, holders=False)
    kept = snapshot_info(file)
    assert (kept.handles, kept.account) == (info.handles, info.account)
    status, out, _ = run("info", file, "--format", "json")
    assert json.loads(out)["handles_by_type"] == [
        {"type": "File", "count": 20},
        {"type": "Event", "count": 7},
    ]
    assert status == 0


def test_a_file_with_an_account_of_an_older_version_says_what_it_lacks(
    tiny: Dump, tmp_path: Path
) -> None:
    written = write_snapshot(Session(tiny), tmp_path / "a.dlsnap", holders=False)
    document = json.loads(json.dumps(to_json(written)))
    document["account"] = [row for row in document["account"] if row["name"] != "handles.count"]
    del document["about"]["handles"]
    read = from_json(document, "a")
    figures = {figure.name: figure for figure in account_of(read.snapshot)}
    assert (figures["handles.count"].value, figures["handles.count"].reason) == (None, NOT_KEPT)
    assert read.about is not None
    assert read.about.handles is None


def test_a_cut_list_of_handles_is_told_as_one(tiny: Dump) -> None:
    info = take_info(Session(_with(tiny, handles=_handles(5, whole=False))))
    assert dict(process_facts(info))["Handles"].startswith("5 and more, the list is cut")
