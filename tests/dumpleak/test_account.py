"""The account: what grows besides heap blocks is seen, and nothing that is not in a dump is zero."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truth import TESTDATA

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.files.metadata import to_json
from dumpleak.files.metadata_form import from_json
from dumpleak.gate.conditions import parse_gate
from dumpleak.gate.gate import Gate
from dumpleak.model.account import NO_REGIONS, NO_THREADS, NOT_KEPT, ROWS, AccountRow, State
from dumpleak.model.account_rows import account_of, account_rows
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.account import outside_figures
from dumpleak.process.session import Session
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.csv_writer import write_csv
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import take_info
from dumpleak.survey.recording import write_snapshot
from windumps import Dump, open_dump
from windumps.memory import Regions, RunMemory

TINY = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
MIB = 1 << 20
# The test data were written without these two streams.
NOT_IN_TINY = {"handles.count", "unexplained.bytes"} | {
    f"counters.{name}_bytes" for name in ("private", "virtual", "working_set")
}
COMMIT, RESERVE, PRIVATE, MAPPED = 0x1000, 0x2000, 0x20000, 0x40000
FREE_PLACE = 0x0000_0300_0000_0000  # nothing of the dump lies there


@pytest.fixture(scope="module")
def tiny() -> Dump:
    return open_dump(TINY)


def _with_regions(dump: Dump, rows: list[tuple[int, int, int, int, int]]) -> Dump:
    """The dump with more regions: (address, allocation base, bytes, state, type)."""
    old = dump.memory.regions
    new = np.array(rows, np.uint64).reshape(-1, 5)
    columns = [
        np.concatenate([getattr(old, name), values.astype(getattr(old, name).dtype)])
        for name, values in (
            ("base_address", new[:, 0]),
            ("allocation_base", new[:, 1]),
            ("region_size", new[:, 2]),
            ("state", new[:, 3]),
            ("protect", np.full(len(new), 4)),
            ("type", new[:, 4]),
        )
    ]
    order = np.argsort(columns[0])
    return _with_memory(dump, Regions(*(column[order] for column in columns)))


def _with_memory(dump: Dump, regions: Regions) -> Dump:
    runs = dump.memory.runs
    memory = RunMemory(dump.memory.data, runs.address, runs.size, runs.offset, regions)
    return dataclasses.replace(dump, memory=memory)


def _later(dump: Dump) -> Dump:
    assert dump.time is not None
    return dataclasses.replace(dump, time=dump.time.replace(year=dump.time.year + 1))


def _arenas(dump: Dump, count: int, kind: int = PRIVATE) -> Dump:
    places = [FREE_PLACE + number * 64 * MIB for number in range(count)]
    return _with_regions(dump, [(place, place, 4 * MIB, COMMIT, kind) for place in places])


def _threads(dump: Dump, count: int) -> Dump:
    """So many threads more, each with a stack of 1 MiB, of which 20 KiB are committed."""
    threads, rows = list(dump.threads), []
    for number in range(count):
        place = FREE_PLACE + number * 2 * MIB
        top = place + MIB - 0x5000
        rows += [
            (place, place, MIB - 0x5000, RESERVE, PRIVATE),
            (top, place, 0x5000, COMMIT, PRIVATE),
        ]
        threads.append(
            dataclasses.replace(threads[0], stack_start=top, stack_size=0x5000, teb=0, registers={})
        )
    return dataclasses.replace(_with_regions(dump, rows), threads=threads)


def _taken(dump: Dump) -> Snapshot:
    return take_snapshot(Session(dump), keep_blocks=True)


def _deltas(base: Snapshot, current: Snapshot) -> dict[str, int | None]:
    return {row.name: row.delta for row in account_rows((base, current))}


def test_memory_outside_heaps_counts_in_totals_and_in_the_gate(tiny: Dump) -> None:
    base, current = _taken(_arenas(tiny, 1)), _taken(_later(_arenas(tiny, 24)))
    comparison = compare(base, current)
    assert (comparison.delta_bytes, comparison.delta_count) == (92 * MIB, 23)
    assert Gate(parse_gate("bytes>=1M")).judge(comparison).verdict == "fail"
    assert Gate(parse_gate("count>=23")).judge(comparison).verdict == "fail"
    assert Gate(parse_gate("bytes>=93M")).judge(comparison).verdict == "pass"
    assert Gate(parse_gate("private.bytes>=92M")).judge(comparison).verdict == "fail"
    summary = summarize_comparison(comparison)
    assert dict(summary.facts)["What"].startswith("+92.0 MiB")
    assert "private memory outside heaps" in summary.headline
    # gflags +ust records heap calls, of which there are none.
    assert not any("gflags" in step.command for step in summary.steps)


def test_csv_has_rows_for_memory_outside_heaps(tiny: Dump) -> None:
    comparison = compare(_taken(_arenas(tiny, 1)), _taken(_later(_arenas(tiny, 24))))
    stream = io.StringIO()
    write_csv(diff_document(comparison, None), stream)
    (row,) = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (int(row["delta_bytes"]), row["name"][:14]) == (92 * MIB, "private memory")


def test_threads_that_grow_are_growth_and_lead_the_headline(tiny: Dump) -> None:
    base, current = _taken(tiny), _taken(_later(_threads(tiny, 100)))
    deltas = _deltas(base, current)
    assert deltas["threads.count"] == 100
    assert deltas["stacks.bytes"] == 100 * 0x5000
    assert deltas["stacks.reserved_bytes"] == 100 * MIB
    assert deltas["private.bytes"] == deltas["blocks.bytes"] == 0
    comparison = compare(base, current)
    assert comparison.verdict is Verdict.GROWTH
    assert summarize_comparison(comparison).headline.startswith("+100 threads")
    assert Gate(parse_gate("threads.count>=100")).judge(comparison).verdict == "fail"
    assert Gate(parse_gate("threads.count>=101")).judge(comparison).verdict == "pass"
    rate = Gate(parse_gate("threads.count-per-hour>=1")).judge(comparison)
    assert rate.conditions[0].value == pytest.approx(100 / (365 * 24))


def test_mapped_views_that_grow_are_growth(tiny: Dump) -> None:
    comparison = compare(_taken(tiny), _taken(_later(_arenas(tiny, 20, MAPPED))))
    rows = {row.name: row for row in comparison.account}
    assert (rows["mapped.count"].delta, rows["mapped.bytes"].delta) == (20, 80 * MIB)
    assert comparison.verdict is Verdict.GROWTH
    assert comparison.private == ()


def test_what_moves_a_little_is_steady(tiny: Dump) -> None:
    comparison = compare(_taken(tiny), _taken(_later(_threads(tiny, 2))))
    rows = {row.name: row for row in comparison.account}
    assert rows["threads.count"].state is State.STEADY
    assert comparison.verdict is Verdict.NO_GROWTH


def test_what_is_not_in_the_dump_is_unknown_with_a_reason_and_never_zero(tiny: Dump) -> None:
    bare = dataclasses.replace(_with_memory(tiny, Regions.empty()), threads=[])
    figures = {figure.name: figure for figure in account_of(_taken(tiny))}
    assert {name for name, figure in figures.items() if figure.value is None} == NOT_IN_TINY
    assert figures.keys() == ROWS.keys()
    for name, reason in (("mapped.bytes", NO_REGIONS), ("threads.count", NO_THREADS)):
        figure = next(
            figure
            for figure in account_of(dataclasses.replace(_taken(tiny), outside=_outside(bare)))
            if figure.name == name
        )
        assert (figure.value, figure.reason) == (None, reason)


def _outside(dump: Dump) -> Any:
    return outside_figures(Session(dump))


def test_private_memory_that_one_dump_does_not_list_is_no_growth_and_no_pass(tiny: Dump) -> None:
    known = _taken(_arenas(tiny, 24))
    unknown = dataclasses.replace(
        _taken(_later(tiny)), private={}, outside=_outside(_with_memory(tiny, Regions.empty()))
    )
    for base, current in ((known, unknown), (unknown, known)):
        comparison = compare(*sorted((base, current), key=lambda s: str(s.source.time)))
        assert comparison.private == ()
        assert comparison.delta_bytes == 0
        assert "private-not-compared" in {item.code for item in comparison.diagnostics}
        assert Gate(parse_gate("bytes>=1G")).judge(comparison).verdict == "no-answer"


def test_a_row_of_a_series_has_a_point_a_dump() -> None:
    row = AccountRow("threads.count", "count", (8, None, 30))
    assert (row.base, row.current, row.delta, row.state) == (8, 30, 22, State.GREW)
    assert AccountRow("threads.count", "count", (8, None)).state is State.UNKNOWN


def test_every_answer_and_the_snapshot_file_carry_the_same_account(
    run: Any, tmp_path: Path
) -> None:
    before, after = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
    taken = tmp_path / "after.dlsnap"
    run("snapshot", after, "-o", taken, "--no-holders")
    told = json.loads(run("info", after, "--format", "json")[1])["account"]
    assert json.loads(run("info", taken, "--format", "json")[1])["account"] == told
    assert {row["name"] for row in told if row["value"] is None} == NOT_IN_TINY
    for file in (after, taken):
        rows = json.loads(run("diff", before, file, "--format", "json", "--no-holders")[1])[
            "account"
        ]
        assert [(row["name"], row["current"]) for row in rows] == [
            (row["name"], row["value"]) for row in told
        ]
        assert all(
            row["delta"] == row["current"] - row["base"]
            for row in rows
            if row["name"] not in NOT_IN_TINY
        )


def test_info_adds_up_as_a_snapshot_does(tiny: Dump) -> None:
    assert take_info(Session(tiny)).account == account_of(_taken(tiny))


def test_a_file_written_before_there_was_an_account_is_read_and_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    written = write_snapshot(Session.open(PAIR / "after.dmp.gz"), tmp_path / "a.dlsnap")
    document = json.loads(json.dumps(to_json(written)))
    whole = from_json(document, "a").snapshot
    flags = whole.unreferenced
    assert flags is not None
    assert (flags == written.snapshot.unreferenced).all()
    del document["account"], document["unreferenced"]
    del document["coverage"]["unread_bytes"]
    old = from_json(document, "a").snapshot
    before, after = ({f.name: f for f in account_of(s)} for s in (whole, old))
    assert before.keys() == after.keys() == ROWS.keys()
    for name in ("blocks.bytes", "heaps.free_bytes", "private.bytes", "threads.count"):
        assert after[name] == before[name]
    assert (after["mapped.bytes"].value, after["mapped.bytes"].reason) == (None, NOT_KEPT)
    document["unreferenced"] = "AAAA"
    with pytest.raises(ValueError, match="flags"):
        from_json(document, "a")
