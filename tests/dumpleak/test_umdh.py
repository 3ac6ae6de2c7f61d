"""UMDH's forms: logs written and read back, logs of others read, comparisons in UMDH's shape."""

from __future__ import annotations

import io
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from truth import TruthDump, pairs, truth_dumps

import dumpleak.attribution
from dumpleak.attribution.shape import ShapeAttributor
from dumpleak.attribution.stack import StackAttributor
from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.diff import compare
from dumpleak.files.umdh_lines import is_log
from dumpleak.files.umdh_log import as_log, matched, read_log
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.umdh_log import write_comparison, write_log

PAIRS = pairs("leak-pair-ust")[:4]

# As UMDH of the debugging tools 10 writes it: addresses, and each stack once.
NEW_LOG = r"""//
// Loaded modules:
//     Base Size Module
//        7FF600000000    20000 C:\work\app.exe
//        7FFE82200000   1F0000 C:\WINDOWS\SYSTEM32\ntdll.dll
//

*- - - - - - - - - - Start of data for heap @ 206EDD00000 - - - - - - - - - -

REQUESTED bytes + OVERHEAD at ADDRESS by BackTraceID
     STACK if not already dumped.

*- - - - - - - - - - Heap 206EDD00000 Hogs - - - - - - - - - -

30 bytes + 30 at 206EDDA8BA0 by BackTraceEDD4EEA6
	7FFE82352933
	7FF600001A74
	7FF600001058
40 bytes + 10 at 206EDDA8C00 by BackTraceEDD4EEA6
1F4 bytes + C at 206EDDA9000 by BackTrace1234
	7FFE82352933
	7FF600002000

*- - - - - - - - - - End of data for heap @ 206EDD00000 - - - - - - - - - -
"""

# As older ones write it: added up, with symbols, and lines where the PDBs have them.
OLD_LOG = r"""*- - - - - - - - - - Start of data for heap @ 00150000 - - - - - - - - - -
00005320 bytes in 0x14 allocations (@ 0x00000428) by: BackTrace00053
	ntdll!RtlAllocateHeap+0x00000808
	MyApp!operator new+0x0000000E (f:\dd\new (x86)\new.cpp, 59)
	MyApp!LeakyFunc+0x0000001E
	MyApp!main+0x0000002C
00000080 bytes in 0x2 allocations (@ 0x00000040) by: BackTrace00007
	ntdll!RtlAllocateHeap+0x00000808
	plugin!???+00001234 : 6F001234
*- - - - - - - - - - End of data for heap @ 00150000 - - - - - - - - - -
"""

COMPARISON_BY_UMDH = """+  154944 ( 154944 -      0)      1 allocs\tBackTrace9933FD81
+       1 (      1 -      0)\tBackTrace9933FD81\tallocations

\tntdll!RtlWalkHeap+213
"""


@pytest.fixture(autouse=True)
def _stacks_before_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumpleak.attribution, "ATTRIBUTORS", (StackAttributor, ShapeAttributor))


def _written(dump: TruthDump, folder: Path, name: str) -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8") as stream:
        write_log(Session.open(dump.dump), stream)
    return path


def _file(folder: Path, text: str, encoding: str = "utf-8", name: str = "umdh.log") -> Path:
    path = folder / name
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    return path


def _heap(address: int, lines: str) -> str:
    """The data of one heap as a log has it."""
    rule = "- - - - - - - - - -"
    return (
        f"*{rule} Start of data for heap @ {address:X} {rule}\n{lines}"
        f"*{rule} End of data for heap @ {address:X} {rule}\n"
    )


def _compared(base: Snapshot, current: Snapshot) -> dict[tuple[str, ...], tuple[int, int]]:
    return {d.site.frames: (d.delta_bytes, d.delta_count) for d in compare(base, current).sites}


@pytest.mark.parametrize("dump", truth_dumps("nt-ust", "leak-pair-ust")[:3], ids=lambda d: d.name)
def test_a_log_lists_every_block_of_the_program_with_its_size_and_stack(
    dump: TruthDump, tmp_path: Path
) -> None:
    truth = dump.read_truth()
    text = _written(dump, tmp_path, "a.log").read_text(encoding="utf-8")
    listed: dict[int, tuple[int, str]] = {}
    stacks: dict[str, list[int]] = {}
    trace = ""
    for line in text.splitlines():
        if match := re.fullmatch(r"([0-9A-F]+) bytes \+ [0-9A-F]+ at ([0-9A-F]+) by (\w+)", line):
            trace = match[3]
            listed[int(match[2], 16)] = int(match[1], 16), trace
        elif line.startswith("\t"):
            stacks.setdefault(trace, []).append(int(line, 16))
    read = {s.entry.address for s in Session.open(dump.dump).heaps if s.entry.heap}
    bases = {module["name"]: module["base"] for module in truth.raw["modules"]}
    column = truth.raw["alloc_columns"].index("stack_id")
    checked = 0
    for row in truth.raw["allocations"]:
        if truth.heaps[truth.heap_of[row[0]]]["address"] not in read:
            continue
        size, shown = listed[row[0]]
        stack = truth.raw["stacks"][row[column]]
        assert size == row[1]
        assert stacks[shown] == [bases[module] + offset for module, offset in stack]
        checked += 1
    assert checked


@pytest.mark.parametrize(("base", "current"), PAIRS, ids=lambda d: d.name)
def test_logs_of_two_dumps_compare_as_the_dumps_do(
    base: TruthDump, current: TruthDump, tmp_path: Path
) -> None:
    snapshots = [take_snapshot(Session.open(dump.dump)) for dump in (base, current)]
    logs = [read_log(_written(d, tmp_path, f"{n}.log")) for n, d in enumerate((base, current))]
    for snapshot, log in zip(snapshots, logs, strict=True):
        stacks = {k: g for k, g in snapshot.groups.items() if g[0].kind is SiteKind.STACK}
        assert {k: (s.frames, t.count, t.bytes) for k, (s, t) in stacks.items()} == {
            k: (s.frames, t.count, t.bytes) for k, (s, t) in log.groups.items()
        }
        assert log.source.time == snapshot.source.time
        assert log.source.architecture == snapshot.source.architecture
        assert log.source.program == snapshot.source.program
    comparison = compare(*logs)
    assert comparison.verdict is Verdict.GROWTH
    assert comparison.reasons == ()
    stacks_of_dumps = {
        d.site.frames: (d.delta_bytes, d.delta_count)
        for d in compare(*snapshots).sites
        if d.site.kind is SiteKind.STACK
    }
    assert _compared(*logs) == stacks_of_dumps


def test_a_log_that_names_images_by_file_only_compares_with_a_dump(tmp_path: Path) -> None:
    base, current = PAIRS[0]
    path = _written(base, tmp_path, "base.log")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(x for x in lines if not x.startswith(("// image", "// unloaded"))))
    log, dump = read_log(path), take_snapshot(Session.open(current.dump))
    assert not log.groups.keys() & dump.groups.keys()
    found = _compared(as_log(log), as_log(dump))
    known = take_snapshot(Session.open(base.dump))
    assert found == _compared(as_log(known), as_log(dump))
    assert max(found.values())[0] > 100_000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_log_of_addresses_is_read(encoding: str, tmp_path: Path) -> None:
    log = read_log(_file(tmp_path, NEW_LOG, encoding))
    found = {site.frames: (t.count, t.bytes, t.largest) for site, t in log.groups.values()}
    ntdll = "ntdll.dll+0x152933"
    assert found == {
        (ntdll, "app.exe+0x1a74", "app.exe+0x1058"): (2, 0x70, 0x40),
        (ntdll, "app.exe+0x2000"): (1, 0x1F4, 0x1F4),
    }
    assert {site.name for site, _ in log.groups.values()} == {"app.exe+0x1a74", "app.exe+0x2000"}
    assert (log.totals.count, log.totals.bytes) == (3, 0x264)
    assert log.totals.block_bytes == 0x264 + 0x4C
    assert (log.source.architecture, log.source.program) == ("x64", "app.exe")
    assert [(row.address, row.used_count, row.read) for row in log.heaps] == [
        (0x206EDD00000, 3, True)
    ]


def test_a_log_of_symbols_is_read(tmp_path: Path) -> None:
    log = read_log(_file(tmp_path, OLD_LOG))
    found = {site.name: (site.frames, t.count, t.bytes) for site, t in log.groups.values()}
    assert found == {
        "MyApp!LeakyFunc+0x1e": (
            (
                *("ntdll!RtlAllocateHeap+0x808", "MyApp!operator new+0xe"),
                *("MyApp!LeakyFunc+0x1e", "MyApp!main+0x2c"),
            ),
            0x14,
            0x5320,
        ),
        "plugin+0x1234": (("ntdll!RtlAllocateHeap+0x808", "plugin+0x1234"), 2, 0x80),
    }
    assert log.source.architecture == "x86"


def test_images_of_one_size_without_identity_are_not_one(tmp_path: Path) -> None:
    text = NEW_LOG.replace("1F0000", " 20000").replace("7FFE82352933", "7FFE82201A74")
    sites = [site.frames for site, _ in read_log(_file(tmp_path, text)).groups.values()]
    swapped = text.replace(r"C:\work\app.exe", r"C:\work\ntdll.dll").replace(
        r"C:\WINDOWS\SYSTEM32\ntdll.dll", r"C:\work\app.exe"
    )
    one = read_log(_file(tmp_path, text, name="1.log"))
    other = read_log(_file(tmp_path, swapped, name="2.log"))
    assert len(sites) == 2
    assert not one.groups.keys() & other.groups.keys()


def test_a_stack_that_is_not_in_the_log_is_shown_by_its_number(tmp_path: Path) -> None:
    text = "10 bytes + 8 at 1000 by BackTrace77\n10 bytes + 8 at 2000 by BackTrace77\n"
    log = read_log(_file(tmp_path, _heap(0x1000, text)))
    [(site, totals)] = log.groups.values()
    assert (site.name, site.frames, totals.count) == ("BackTrace77", (), 2)
    assert "umdh-stack-absent" in [item.code for item in log.diagnostics]


def test_a_comparison_made_by_umdh_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CannotAnswerError, match="the two logs it was made from"):
        read_log(_file(tmp_path, COMPARISON_BY_UMDH))


@pytest.mark.parametrize("text", ["", "MDMP", "// Loaded modules:\n", "a!b\n" * 50, "!" * 100_000])
def test_other_files_are_no_logs(text: str, tmp_path: Path) -> None:
    with pytest.raises(CannotAnswerError, match="no log of UMDH"):
        read_log(_file(tmp_path, text))


def test_a_log_is_known_by_its_beginning() -> None:
    assert is_log(NEW_LOG.encode())
    assert is_log(OLD_LOG.encode("utf-16"))
    assert is_log(COMPARISON_BY_UMDH.encode())
    assert not is_log(b"MDMP\x93\xa7" + bytes(1000))
    assert not is_log(b'{"schema": "dumpleak/snapshot/1"}')


ONE = _heap(0x150000, "10 bytes + 8 at 150100 by BackTrace77\n\t7FFE82352933\n")
TWO = _heap(0x260000, "20 bytes + 8 at 260100 by BackTrace77\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param(NEW_LOG[: NEW_LOG.index("40 bytes +") + 11], "206EDD00000", id="in-a-record"),
        pytest.param(
            NEW_LOG[: NEW_LOG.index("\n*- - - - - - - - - - End")], "cut", id="before-end"
        ),
        pytest.param(NEW_LOG[NEW_LOG.index("30 bytes") :], "cut", id="without-its-beginning"),
        pytest.param(ONE + TWO[: TWO.index("*- - - - - - - - - - End")], "260000", id="in-second"),
        pytest.param(ONE.splitlines()[1], "cut", id="no-marker-at-all"),
        pytest.param(ONE + TWO[: TWO.index("\n") + 1], "260000", id="behind-a-start"),
        pytest.param(ONE.splitlines()[0] + "\n" + TWO, "cut", id="a-hole-in-the-middle"),
        pytest.param(ONE + TWO[:30], "cut", id="in-a-marker"),
        pytest.param(NEW_LOG + NEW_LOG, "206EDD00000 twice", id="written-twice"),
        pytest.param(
            NEW_LOG + NEW_LOG.replace("206EDD", "306EDD"), "2 lists of modules", id="two-processes"
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_log_that_is_not_whole_is_refused_with_what_it_lacks(
    text: str, why: str, encoding: str, tmp_path: Path
) -> None:
    with pytest.raises(CannotAnswerError, match=why) as refused:
        read_log(_file(tmp_path, text, encoding))
    assert "\n" not in str(refused.value)


def test_a_log_of_ours_that_is_cut_between_two_heaps_is_refused(tmp_path: Path) -> None:
    path = _written(PAIRS[0][0], tmp_path, "whole.log")
    text = path.read_text(encoding="utf-8")
    whole = read_log(path)
    ends = [match.end() for match in re.finditer(r"\*[- ]+End of data .*\n", text)]
    assert len(ends) == len(whole.heaps) > 1
    for end in ends:
        path.write_text(text[:end], encoding="utf-8")
        with pytest.raises(CannotAnswerError, match="counts the heaps"):
            read_log(path)


def test_a_log_that_lacks_the_last_heaps_of_the_one_before_it_is_no_answer(tmp_path: Path) -> None:
    both = read_log(_file(tmp_path, ONE + TWO, name="both.log"))
    first = read_log(_file(tmp_path, ONE, name="first.log"))
    second = read_log(_file(tmp_path, TWO, name="second.log"))
    answer = compare(*matched(both, first))
    assert answer.verdict is Verdict.NOT_COMPARABLE
    assert "log heap 1 could not be read in the current dump" in answer.reasons[0]
    assert any("260000" not in d.message and "150000" in d.message for d in answer.diagnostics)
    # A heap in the middle of a list may well be gone, and one at its end is new.
    for base, current in ((both, second), (first, both)):
        assert compare(*matched(base, current)).reasons == ()


def test_no_share_of_walked_memory_is_claimed_for_a_log(tmp_path: Path) -> None:
    log = read_log(_file(tmp_path, NEW_LOG))
    assert log.coverage.share_text == "unknown"
    assert "only blocks with a recorded stack" in log.coverage.never


def test_damaged_lines_cost_themselves_only(tmp_path: Path) -> None:
    text = NEW_LOG.replace(
        "40 bytes + 10 at",
        "FFFFFFFFFFFFFFFFFFFFFFFFF bytes + 1 at 10 by BackTrace9\n40 bytes + zz at",
    )
    log = read_log(_file(tmp_path, text + "\x00\ufffd+++ (\n// taken yesterday\n"))
    assert log.totals.count == 2
    assert log.source.time is None


def test_the_time_of_a_log_needs_its_zone(tmp_path: Path) -> None:
    text = f"// taken 2026-11-24T08:00:00+00:00\n{NEW_LOG}"
    taken = read_log(_file(tmp_path, text)).source.time
    assert taken == datetime(2026, 11, 24, 8, tzinfo=UTC)
    assert read_log(_file(tmp_path, text.replace("+00:00", ""))).source.time is None


def _comparison(folder: Path) -> Comparison:
    later = NEW_LOG.replace(
        "\n*- - - - - - - - - - End", "64 bytes + C at 206EDDAA000 by BackTrace1234\n\n*- - - - End"
    )
    later = later.replace("40 bytes + 10 at 206EDDA8C00 by BackTraceEDD4EEA6\n", "")
    return compare(
        read_log(_file(folder, NEW_LOG, name="1.log")), read_log(_file(folder, later, name="2.log"))
    )


def test_a_comparison_has_the_shape_of_umdh(tmp_path: Path) -> None:
    stream = io.StringIO()
    write_comparison(_comparison(tmp_path), stream, decimal=True)
    body = [line for line in stream.getvalue().splitlines() if not line.startswith("//")]
    numbers = re.findall(r"BackTrace(\w+)", stream.getvalue().split("decimal.")[1])
    grown, shrunk = numbers[0], numbers[2]
    assert Counter(numbers) == {grown: 2, shrunk: 2}
    assert body == [
        "",
        f"+     100 (    600 -    500)      2 allocs\tBackTrace{grown}",
        f"+       1 (      2 -      1)\tBackTrace{grown}\tallocations",
        "",
        "\tntdll!???+152933",
        "\tapp!???+2000",
        "",
        f"-      64 (     48 -    112)      1 allocs\tBackTrace{shrunk}",
        f"-       1 (      1 -      2)\tBackTrace{shrunk}\tallocations",
        "",
        "\tntdll!???+152933",
        "\tapp!???+1A74",
        "\tapp!???+1058",
        "",
        "Total increase == 36 requested +     -4 overhead = 32",
    ]


def test_a_comparison_is_hexadecimal_unless_asked_otherwise(tmp_path: Path) -> None:
    stream = io.StringIO()
    write_comparison(_comparison(tmp_path), stream)
    assert "+      64 (    258 -    1f4)      2 allocs\tBackTrace" in stream.getvalue()
    assert "Total increase == 24 requested +     -4 overhead = 20\n" in stream.getvalue()


@pytest.mark.parametrize(("base", "current"), PAIRS[:1], ids=lambda d: d.name)
def test_the_groups_of_a_comparison_add_up_to_its_total(
    base: TruthDump, current: TruthDump
) -> None:
    snapshots = [take_snapshot(Session.open(dump.dump)) for dump in (base, current)]
    stream = io.StringIO()
    write_comparison(compare(*snapshots), stream, decimal=True)
    text = stream.getvalue()
    groups = re.findall(r"^([+-]) +(\d+) \( *\d+ - +\d+\) +\d+ allocs", text, re.MULTILINE)
    total = re.search(r"^Total increase == (\d+) requested", text, re.MULTILINE)
    assert total is not None
    assert sum(int(sign + number) for sign, number in groups) == int(total[1])
