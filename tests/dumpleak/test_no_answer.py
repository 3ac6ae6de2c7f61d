"""A gate that cannot tell says so: exit code 3, and never a pass on what the dumps do not show."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from patching import without
from truth import TESTDATA

from dumpleak.compare.answers import Verdict
from dumpleak.compare.diff import compare
from dumpleak.compare.holes import HIDDEN_BYTES, find_hole
from dumpleak.compare.trend import TrendError, find_trend
from dumpleak.files.umdh_log import LogCoverage
from dumpleak.gate.conditions import Condition, Span, decide, parse_gate
from dumpleak.gate.gate import Gate, GateResult, Judged
from dumpleak.model.coverage import Coverage
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.reports.answers.diff import diff_document, diff_json
from dumpleak.reports.formats import DIFF_FORMATS, Answer, formats_of, write_answer
from dumpleak.survey.heaps import take_snapshot
from windumps import open_dump
from windumps.blocks import Blocks
from windumps.diagnostics import HEAP_LIST_CUT, MEMORY_CUT, Diagnostic, Severity

START = datetime(2025, 3, 1, tzinfo=UTC)
PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
SERIES = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
MIB = 1 << 20


def _made(hour: float, size: int, hole: int = 0, unread: int = 0, **source: Any) -> Snapshot:
    """A process with one site of so many bytes in blocks of 64, and memory that was not walked."""
    site = Site(SiteKind.SHAPE, "shape|a", "a")
    totals = Totals(size // 64, size, size, 64)
    info = SourceInfo(
        *("d.dmp", "minidump", "Windows", "x64", 19041, START + timedelta(hours=hour), 7),
        *("app.exe", START, 0x400000),
    )
    heap = HeapRow("heap 0", 0x10000, "nt", "x64", "", unwalked_bytes=hole, residual_bytes=0)
    return Snapshot(
        replace(info, **source),
        "site",
        {site.key: (site, totals)} if size else {},
        totals,
        {},
        [heap],
        Coverage(size, size, size + hole, 1 + unread, 1),
    )


def _judged(condition: str, base: Snapshot, current: Snapshot, force: bool = False) -> GateResult:
    return Gate(parse_gate(condition)).judge(compare(base, current, force=force))


# -- private memory ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0, "growth"), (MIB, "growth"), (4 * MIB, "not-comparable")]
)
def test_heap_memory_that_was_not_found_is_no_growth_outside_heaps(lost: int, verdict: str) -> None:
    # A large block that no list leads to any more looks like memory that is no heap's.
    site = Site(SiteKind.SHAPE, "shape|private|big", "private memory outside heaps")
    held = {site.key: (site, Totals(2, 3 * MIB, 3 * MIB, 2 * MIB))}
    base = _made(0, 4 * MIB)
    answer = compare(base, replace(_made(1, 4 * MIB, hole=lost), private=held))
    assert answer.verdict == verdict


# -- what is not walked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "grown", "base_hole", "current_hole", "verdict"),
    [
        ("bytes>=1M", 0, 0, 0, "pass"),
        ("bytes>=1M", 0, 0, MIB - 64, "pass"),
        ("bytes>=1M", 0, 0, MIB, "no-answer"),
        # A smaller hole beside what is seen to grow.
        ("bytes>=1M", MIB // 2, 0, MIB // 2, "no-answer"),
        ("bytes>=1M", MIB // 2, 0, MIB // 4, "pass"),
        # What the base does not show may be all of the growth, or less than all.
        ("bytes>=1M", MIB, 64, 0, "no-answer"),
        ("bytes>=1M", 3 * MIB, MIB, 0, "fail"),
        # What the later dump does not show comes on top.
        ("bytes>=1M", MIB, 0, 100 * MIB, "fail"),
        # Never a pass beside a hole of the size that is asked for.
        ("bytes>=1M", -4 * MIB, 0, 2 * MIB, "no-answer"),
        ("bytes>=1M", -4 * MIB, 2 * MIB, 0, "no-answer"),
        # A hole of 1 MiB has room for 65,536 blocks of 16 bytes.
        ("count>=65536", 0, 0, MIB - 16, "pass"),
        ("count>=65536", 0, 0, MIB, "no-answer"),
        ("count>=10", 64 * 20, 0, 0, "fail"),
        ("site.bytes>=1M", 0, 0, MIB, "no-answer"),
        ("site.bytes>=1M", 2 * MIB, MIB // 2, MIB, "fail"),
        ("site.bytes>=1M", 2 * MIB, 2 * MIB, 0, "no-answer"),
        ("site.count>=65536", 0, 0, MIB, "no-answer"),
        # A site that is seen nowhere in the base would have grown by infinitely many percent.
        ("site.percent>=1000", 0, 0, 16, "no-answer"),
        ("percent>=50", 0, 0, 4 * MIB, "no-answer"),
        ("percent>=50", 0, 0, 3 * MIB, "pass"),
        ("percent>=50", 6 * MIB, 0, 0, "fail"),
        ("bytes-per-hour>=1M", 0, 0, 2 * MIB, "no-answer"),
        ("bytes-per-hour>=1M", 0, 0, 2 * MIB - 64, "pass"),
        ("blocks.bytes>=1M", 0, 0, MIB, "no-answer"),
        ("heaps.count>=1", 0, 0, MIB, "pass"),
    ],
)
def test_a_hole_that_reaches_a_limit_leaves_no_answer(
    condition: str, grown: int, base_hole: int, current_hole: int, verdict: str
) -> None:
    base = _made(0, 8 * MIB, base_hole)
    result = _judged(condition, base, _made(2, 8 * MIB + grown, current_hole))
    assert result.verdict == verdict
    assert result.passed == (verdict == "pass")
    assert f"SUMMARY: {verdict.upper().replace('-', ' ')}" in result.summary


def test_heaps_that_were_not_read_may_hide_anything() -> None:
    for which in range(2):
        sides = [_made(0, 8 * MIB, unread=which == 0), _made(2, 8 * MIB, unread=which == 1)]
        result = _judged("bytes>=1G,site.count>=1000000", *sides)
        assert result.verdict == "no-answer"
        assert "1 of 2 heaps could not be read" in result.summary


@pytest.mark.parametrize("code", [HEAP_LIST_CUT, MEMORY_CUT])
def test_what_a_file_lacks_counts_as_not_walked(code: str) -> None:
    current = _made(2, 8 * MIB)
    current.diagnostics = [Diagnostic(code, Severity.WARNING, "x", None, "cut", 4096)]
    assert _judged("bytes>=4096", _made(0, 8 * MIB), current).verdict == "no-answer"
    assert find_hole(current).bytes == (4096 if code == MEMORY_CUT else 0)


def test_of_two_heaps_one_counted_twice_does_not_make_up_for_another_one() -> None:
    snapshot = _made(0, MIB)
    snapshot.heaps = [
        replace(snapshot.heaps[0], unwalked_bytes=4096),
        replace(snapshot.heaps[0], label="heap 1", residual_bytes=-4096),
    ]
    assert find_hole(snapshot).bytes == 8192


def test_what_fails_for_certain_fails_whatever_else_is_unknown() -> None:
    result = _judged("bytes>=1M,handles.count>=1", _made(0, 0), _made(1, 2 * MIB))
    assert result.verdict == "fail"
    assert [bool(measured.unknown) for measured in result.conditions] == [False, True]


def test_a_row_that_the_dumps_do_not_have_is_no_answer() -> None:
    result = _judged("threads.count>=1", _made(0, 0), _made(1, 0))
    assert result.verdict == "no-answer"
    assert result.conditions[0].value is None
    assert "no figure threads.count" in result.summary


def test_no_limit_is_reached_by_nothing() -> None:
    condition = Condition("bytes", 0, False, "bytes>=0")
    assert not decide(condition, Span.exact(0)).failed
    assert not decide(condition, Span.exact(0)).unknown
    assert decide(condition, Span(0, 0, 1, 1, "a byte")).unknown == "a byte"


def test_a_page_that_is_missing_leaves_a_gate_without_an_answer() -> None:
    """The same through a walk: one page of block headers is not in the later dump."""
    whole = take_snapshot(Session.open(BEFORE))
    dump = open_dump(AFTER)
    heap = next(s.entry.heap for s in Session(dump).heaps if s.entry.heap is not None)
    used = Blocks.concatenate(heap.blocks()).used
    page = int(used.address[len(used) // 2]) // 0x1000 * 0x1000
    torn = take_snapshot(Session(without(dump, page, 0x1000)))
    hole = find_hole(torn).bytes
    grown = torn.totals.bytes - whole.totals.bytes
    assert 0 < hole < grown
    assert not torn.coverage.is_complete
    assert _judged(f"bytes>={grown}", whole, torn).verdict == "fail"
    assert _judged(f"bytes>={grown + hole}", whole, torn).verdict == "no-answer"
    assert _judged(f"bytes>={grown + hole + 1}", whole, torn).verdict == "pass"


# -- the verdict without a gate ------------------------------------------------------------------------


def test_nothing_seen_to_grow_beside_a_hole_is_no_verdict_of_no_growth(run: Any) -> None:
    base = _made(0, 8 * MIB)
    small, large = (compare(base, _made(1, 8 * MIB, size)) for size in (HIDDEN_BYTES, 2 * MIB))
    assert small.verdict is Verdict.NO_GROWTH
    assert large.verdict is Verdict.NOT_COMPARABLE
    assert not large.refused
    assert large.doubts == (
        "nothing is seen to grow, but of the current dump 2.0 MiB were not walked",
    )
    assert compare(base, _made(1, 8 * MIB, 2 * MIB), force=True).verdict is Verdict.NO_GROWTH


def test_growth_that_the_base_may_only_not_show_is_no_verdict_of_growth() -> None:
    def verdict(grown: int, hole: int) -> Verdict:
        return compare(_made(0, 8 * MIB, hole), _made(1, 8 * MIB + grown)).verdict

    assert verdict(MIB, 2 * MIB) is Verdict.NOT_COMPARABLE
    # A share of all memory is not the measure: the hole is a fifth of it here.
    assert verdict(4 * MIB, 2 * MIB) is Verdict.GROWTH
    assert compare(_made(0, 8 * MIB), _made(1, 9 * MIB, 6 * MIB)).verdict is Verdict.GROWTH


# -- one dump twice, and dumps in the wrong order --------------------------------------------------------


def test_one_dump_given_twice_is_no_answer_in_whatever_form(run: Any, tmp_path: Path) -> None:
    copy, plain, taken = (tmp_path / name for name in ("copy.dmp.gz", "plain.dmp", "a.dlsnap"))
    copy.write_bytes(BEFORE.read_bytes())
    plain.write_bytes(gzip.decompress(BEFORE.read_bytes()))
    run("snapshot", BEFORE, "-o", taken, "--no-holders")
    for other in (BEFORE, copy, plain, taken):
        code, out, err = run("diff", BEFORE, other, "--fail-on", "bytes>=1", "--no-holders")
        assert code == 3, other
        said = "one and the same file" if other in (BEFORE, copy) else "of one moment"
        assert said in err
        assert err.startswith("SUMMARY: NO ANSWER; ")
        assert "No site grew" not in out
    code, _, err = run("trend", BEFORE, AFTER, copy, "--fail-on", "bytes>=1")
    assert code == 3
    assert err.startswith("SUMMARY: NO ANSWER; ")
    assert "the same dump" in err


def test_two_logs_of_one_content_are_one(tmp_path: Path) -> None:
    """They tell no time, so that only their bytes do."""
    files = [tmp_path / name for name in ("a.log", "b.log", "c.log")]
    for file, text in zip(files, ("same", "same", "else"), strict=True):
        file.write_text(text)
    logs = [_made(0, 64, time=None, file=str(file)) for file in files]
    assert compare(logs[0], logs[1]).verdict is Verdict.NOT_COMPARABLE
    assert compare(logs[0], logs[2]).verdict is Verdict.NO_GROWTH


def test_dumps_of_one_life_in_the_wrong_order_are_not_compared() -> None:
    swapped = compare(_made(1, 2 * MIB), _made(0, MIB))
    assert swapped.verdict is Verdict.NOT_COMPARABLE
    assert "in order of time" in swapped.reasons[0]
    # Two runs may be compared either way, but no gate passes on them.
    runs = compare(_made(1, 2 * MIB), _made(0, MIB, process_id=8))
    assert runs.verdict is Verdict.NO_GROWTH
    result = Gate(parse_gate("bytes>=1")).judge(runs)
    assert result.verdict == "no-answer"
    grown = compare(_made(1, MIB), _made(0, 2 * MIB, process_id=8))
    assert Gate(parse_gate("bytes>=1")).judge(grown).verdict == "no-answer"


def test_force_shows_a_comparison_and_lets_no_gate_pass() -> None:
    base = _made(0, MIB)
    result = _judged("bytes>=1", base, _made(0, MIB), force=True)
    assert result.verdict == "no-answer"
    assert _judged("bytes>=1", _made(1, MIB), base, force=True).verdict == "no-answer"


def test_a_series_with_one_dump_twice_is_none_wherever_they_stand() -> None:
    untimed = [_made(0, size * MIB, time=None) for size in (1, 2)]
    with pytest.raises(TrendError, match="the same dump"):
        find_trend([_made(0, MIB), _made(1, 2 * MIB), _made(2, 3 * MIB), _made(0, MIB)])
    assert find_trend([*untimed, _made(0, 3 * MIB, time=None)]).verdict is Verdict.GROWTH


def test_a_hole_in_a_series_leaves_a_gate_without_an_answer() -> None:
    series = [_made(hour, 8 * MIB + 1024 * hour, hole=MIB * (hour == 3)) for hour in range(4)]
    for condition in ("bytes>=1M", "suspects>=2", "site.bytes-per-hour>=1M"):
        assert Gate(parse_gate(condition)).judge(find_trend(series)).verdict == "no-answer"


# -- what is said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "markdown", "junit", "sarif", "text"])
def test_every_format_says_that_there_is_no_answer(name: str, tmp_path: Path) -> None:
    comparison = compare(_made(0, 8 * MIB), _made(1, 8 * MIB, 2 * MIB))
    judged = Judged(comparison, Gate(parse_gate("bytes>=1M")).judge(comparison))
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8") as stream:
        answer = Answer(
            lambda: diff_document(comparison, None, judged.gate),
            lambda: diff_json(comparison, judged.gate),
            formats_of(DIFF_FORMATS, judged, None),
        )
        write_answer(answer, name, stream)
    text = path.read_text(encoding="utf-8")
    assert "2.0 MiB" in text
    assert "were not walked" in text
    if name == "json":
        told = json.loads(text)
        assert (told["verdict"], told["gate"]["answer"]) == ("not-comparable", "no-answer")
        assert (told["gate"]["passed"], told["gate"]["conditions"][0]["failed"]) == (False, False)
    elif name == "markdown":
        assert "Gate: **no answer**" in text
    elif name == "junit":
        assert 'type="no-answer"' in text
    elif name == "sarif":
        assert json.loads(text)["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_a_log_is_never_said_to_be_walked_whole() -> None:
    covered = LogCoverage(100, 100, 100, 2, 2)
    assert not covered.shortfall
    assert "%" not in covered.told() + covered.share_text
    assert covered.shown_share is None


@pytest.mark.parametrize(
    ("walked", "committed", "read", "said"),
    [
        (10**9, 10**9, 2, "100.0%"),
        (10**9 - 1, 10**9, 2, "99.9%"),
        (10**9, 10**9, 1, "99.9%"),
        (5, 10, 2, "50.0%"),
        (0, 0, 0, "0.0%"),
    ],
)
def test_a_hundred_percent_is_said_of_nothing_less(
    walked: int, committed: int, read: int, said: str
) -> None:
    covered = Coverage(walked, walked, committed, 2, read)
    assert covered.share_text == said
    assert (covered.shown_share == 1) == (said == "100.0%")


def test_memory_of_a_heap_that_was_not_read_counts_as_not_walked() -> None:
    dump = open_dump(TESTDATA / "10.0.19041.3324-x64" / "mixed" / "dump.dmp.gz")
    whole = take_snapshot(Session(dump)).coverage
    lost = Session(dump).heaps[-1].entry.address
    # Without its first page nobody can tell what it is.
    covered = take_snapshot(Session(without(dump, lost, 0x1000))).coverage
    assert covered.heaps_read < covered.heaps_listed
    assert covered.unread_bytes > 0
    assert whole.is_complete
    assert covered.share_text != "100.0%"
    assert covered.walked_bytes + covered.unread_bytes <= covered.committed_bytes
