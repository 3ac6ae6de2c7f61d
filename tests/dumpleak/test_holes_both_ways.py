"""What a dump does not show may look like growth in another place, and may hide it there."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA

from dumpleak.compare.answers import Proof, Verdict
from dumpleak.compare.diff import compare
from dumpleak.compare.trend import find_trend
from dumpleak.gate.conditions import parse_gate
from dumpleak.gate.gate import Gate
from dumpleak.model.coverage import Coverage
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.reports.answers.headline import proof_told
from dumpleak.reports.answers.summary import summarize_comparison
from windumps import open_dump
from windumps.diagnostics import HEAP_LIST_CUT, Diagnostic, Severity

START = datetime(2025, 3, 1, tzinfo=UTC)
MIB = 1 << 20
PLAIN, UNSIZED = "shape|heap 0|nt|64|", "shape|heap 0|nt|-1|"
PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
REGION_LIST, THREAD_LIST = 16, 3  # MINIDUMP_STREAM_TYPE


def _made(hour: int, hole: int = 0, private: int = 4096, **sites: int) -> Snapshot:
    """A process with 8 MiB of blocks; `unsized` of them have no size, `absent` are not in the dump."""
    absent, unsized = sites.get("absent", 0), sites.get("unsized", 0)
    renamed = sites.get("renamed", 0)
    plain = 8 * MIB - unsized - renamed - sites.get("lost", 0)
    amounts = {PLAIN: plain, UNSIZED: unsized, "type|app::Other": renamed}
    groups = {
        key: (Site(SiteKind.SHAPE, key, key), Totals(size // 64, size, size, 64))
        for key, size in amounts.items()
        if size
    }
    known = sum(amounts.values())
    group = Site(SiteKind.SHAPE, "shape|private|1048576", "private memory")
    info = SourceInfo(
        *("d.dmp", "minidump", "Windows", "x64", 19041, START + timedelta(hours=hour), 7),
        *("app.exe", START, 0x400000),
    )
    heap = HeapRow("heap 0", 0x10000, "nt", "x64", "", unwalked_bytes=hole, residual_bytes=0)
    return Snapshot(
        info,
        "site",
        groups,
        Totals(known // 64, known, known, 64),
        {group.key: (group, Totals(1 + private // MIB, private, private, private))},
        [heap],
        Coverage(known, known + hole - absent, known + hole, 1, 1),
    )


def _verdict(condition: str, base: Snapshot, current: Snapshot) -> str:
    return Gate(parse_gate(condition)).judge(compare(base, current)).verdict


@pytest.mark.parametrize(
    "condition", ["site.bytes>=1M", "private.bytes>=1M", "private.count>=1", "bytes>=1"]
)
def test_a_lost_part_of_a_heap_is_no_growth_of_private_memory(condition: str) -> None:
    """Its pages are committed, and no heap says any more that they are its own."""
    torn = _made(1, hole=2 * MIB, private=2 * MIB, lost=MIB)
    assert _verdict(condition, _made(0), torn) == "no-answer"
    assert compare(_made(0), torn).verdict is Verdict.NOT_COMPARABLE
    assert _verdict(condition, _made(0), _made(1, private=2 * MIB)) == "fail"


@pytest.mark.parametrize("condition", ["site.bytes>=1M", "private.bytes>=1M"])
def test_a_lost_part_of_a_heap_in_the_base_hides_growth_of_private_memory(condition: str) -> None:
    base = _made(0, hole=2 * MIB, private=2 * MIB, lost=MIB)
    assert _verdict(condition, base, _made(1, private=2 * MIB)) == "no-answer"


def test_a_heap_whose_list_of_its_memory_is_cut_may_lack_more_than_it_counts() -> None:
    torn = _made(1, hole=64, private=2 * MIB, lost=2 * MIB)
    assert _verdict("private.bytes>=1M", _made(0), torn) == "no-answer"
    assert _verdict("private.bytes>=1M", torn, _made(2, private=2 * MIB)) == "no-answer"
    assert compare(_made(0), torn).verdict is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize("condition", ["private.reserved_bytes>=1G", "heaps.count>=1"])
def test_what_a_hole_cannot_touch_is_not_asked_for_it(condition: str) -> None:
    base, current = (
        replace(_made(hour, hole=64), outside=None, diagnostics=[]) for hour in range(2)
    )
    assert _verdict("heaps.count>=1", base, current) == "pass"
    current.diagnostics = [Diagnostic(HEAP_LIST_CUT, Severity.WARNING, "x", None, "cut")]
    assert _verdict(condition, base, current) == "no-answer"


def test_blocks_whose_sizes_are_not_in_the_dump_have_not_grown() -> None:
    torn = _made(1, unsized=2 * MIB, absent=2 * MIB)
    assert _verdict("site.bytes>=1M", _made(0), torn) == "no-answer"
    assert _verdict("site.bytes>=1M", torn, _made(2)) == "no-answer"
    answer = compare(_made(0), torn)
    assert answer.verdict is Verdict.NOT_COMPARABLE
    assert "2.0 MiB are in blocks of unknown size" in answer.doubts[0]
    # Heaps that never keep sizes have nothing to hide.
    assert _verdict("site.bytes>=1M", _made(0), _made(1, unsized=2 * MIB)) == "fail"


def test_blocks_that_go_by_another_name_for_want_of_memory_have_not_grown() -> None:
    torn = _made(1, hole=64, renamed=MIB, absent=MIB)
    assert _verdict("site.bytes>=1M", _made(0), torn) == "no-answer"
    assert compare(_made(0), torn).verdict is Verdict.NOT_COMPARABLE
    # Where nothing is missing, as much of one site and less of another is growth.
    assert _verdict("site.bytes>=1M", _made(0), _made(1, renamed=MIB)) == "fail"


def test_growth_is_doubted_however_small_the_hole_in_the_base_that_explains_it() -> None:
    answer = compare(_made(0, hole=4096, lost=4096), _made(1))
    assert answer.verdict is Verdict.NOT_COMPARABLE
    assert "what grew (4.0 KiB) may be among it" in answer.doubts[0]


def test_what_is_unknown_of_private_memory_leaves_blocks_alone() -> None:
    base, current = (replace(_made(hour), private_unknown="no list") for hour in range(2))
    assert _verdict("blocks.bytes>=1", base, current) == "pass"
    assert _verdict("bytes>=1", base, current) == "no-answer"


def test_blocks_that_the_base_may_have_had_are_not_called_new() -> None:
    assert "blocks that the base does not show are" in proof_told(
        Proof(2, 3, 64, True), whole_base=False
    )


def test_blocks_of_no_bytes_grow_by_their_number() -> None:
    """The first line counts the sites that the gate counts."""
    site = Site(SiteKind.SHAPE, "shape|heap 0|nt|0|", "0 bytes in heap 0")
    base, current = _made(0), _made(1)
    for snapshot, count in ((base, 1), (current, 1001)):
        snapshot.groups[site.key] = (site, Totals(count, 0, 16 * count, 0))
        snapshot.totals = replace(snapshot.totals, count=snapshot.totals.count + count)
    answer = compare(base, current)
    assert answer.verdict is Verdict.GROWTH
    summary = summarize_comparison(answer)
    assert summary.headline.startswith("1 site grew.")
    assert ("Who", "0 bytes in heap 0 (+1,000)") in summary.facts
    result = Gate(parse_gate("count>=2000")).judge(answer)
    assert result.summary == "SUMMARY: PASS; 1 site grew by 0 bytes in 1000 blocks"


@pytest.mark.parametrize("condition", ["leaked>=1", "site.bytes-per-hour>=2M"])
def test_a_hole_in_a_dump_between_the_first_and_the_last_decides_no_verdict(condition: str) -> None:
    for hole, verdict in ((0, "pass"), (2 * MIB, "no-answer")):
        lost = [3 * MIB, 2 * MIB, MIB, 0]
        series = [_made(n, hole * (n == 1), lost=size) for n, size in enumerate(lost)]
        idle = _made(9, lost=3 * MIB)
        answer = find_trend(series, idle if condition == "leaked>=1" else None)
        assert Gate(parse_gate(condition)).judge(answer).verdict == verdict


# -- lists that say less than they hold ------------------------------------------------------------------


def _shorter(path: Path, kind: int, place: int, width: str) -> Path:
    """A dump with a list whose count is one less than its stream has records."""
    data = bytearray(gzip.decompress((PAIR / "before.dmp.gz").read_bytes()))
    streams, directory = struct.unpack_from("<II", data, 8)
    rows = [struct.unpack_from("<III", data, directory + 12 * n) for n in range(streams)]
    offset = next(row[2] for row in rows if row[0] == kind)
    count = struct.unpack_from(width, data, offset + place)[0]
    struct.pack_into(width, data, offset + place, count - 1)
    struct.pack_into("<I", data, 20, struct.unpack_from("<I", data, 20)[0] + 60)  # TimeDateStamp
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("kind", "place", "width", "condition"),
    [
        (REGION_LIST, 8, "<Q", "regions.committed_bytes>=1"),
        (REGION_LIST, 8, "<Q", "mapped.count>=1"),
        (THREAD_LIST, 0, "<I", "threads.count>=1"),
        (THREAD_LIST, 0, "<I", "stacks.bytes>=1"),
    ],
)
def test_a_list_that_says_less_than_its_stream_holds_is_a_cut_one(
    run: Any, tmp_path: Path, kind: int, place: int, width: str, condition: str
) -> None:
    cut = _shorter(tmp_path / "cut.dmp", kind, place, width)
    dump = open_dump(cut)
    assert "count-too-small" in [item.code for item in dump.diagnostics]
    assert dump.threads_whole == (kind != THREAD_LIST)
    assert dump.memory.regions.whole == (kind != REGION_LIST)
    code, out, err = run("diff", PAIR / "before.dmp.gz", cut, "--fail-on", condition)
    assert code == 3
    assert "is cut" in err
    assert "private memory outside heaps." not in out


def test_where_no_block_is_new_none_is_unreferenced(run: Any, tmp_path: Path) -> None:
    later = _shorter(tmp_path / "later.dmp", THREAD_LIST, 0, "<I")
    arguments = ("--fail-on", "unreferenced.count>=1,unreferenced.bytes>=1")
    code, _, err = run("diff", PAIR / "before.dmp.gz", later, *arguments)
    assert code == 0, err
