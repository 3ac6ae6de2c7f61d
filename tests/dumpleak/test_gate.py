"""The gate: conditions, baselines, suppressions, the line on stderr, and the formats for CI."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from truth import TESTDATA

from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare
from dumpleak.compare.trend import find_trend
from dumpleak.gate.baseline import BaselineError, json_baseline, snapshot_baseline
from dumpleak.gate.conditions import GateError, parse_gate
from dumpleak.gate.gate import Gate, Judged
from dumpleak.gate.suppressions import Suppression, read_suppressions
from dumpleak.model.coverage import Coverage
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.ci.findings import fingerprint, source_line
from dumpleak.reports.formats import GROWTH_FORMATS, Answer, formats_of, write_answer

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
BEFORE, AFTER = str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")
X86 = str(TESTDATA / "6.1.7601.24384-x86" / "leak-pair-ust" / "after.dmp.gz")
SERIES = [
    str(TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz") for n in range(6)
]
# The published schema is not in the repository: OASIS does not say that it may be. Given here, it is used as
# well as what stands below.
SARIF_SCHEMA = os.environ.get("SARIF_SCHEMA", "")
START = datetime(2025, 3, 1, tzinfo=UTC)


def _made(hour: float | None, sizes: dict[str, tuple[int, int]]) -> Snapshot:
    """A snapshot of sites with so many bytes and blocks."""
    groups = {
        f"shape|{name}": (Site(SiteKind.SHAPE, f"shape|{name}", name), Totals(count, size, size, 1))
        for name, (size, count) in sizes.items()
    }
    total = Totals(
        sum(count for _, count in sizes.values()), sum(size for size, _ in sizes.values())
    )
    time = None if hour is None else START + timedelta(hours=hour)
    info = SourceInfo("d.dmp", "minidump", "Windows", "x64", 19041, time, 7, "app.exe", None)
    return Snapshot(info, "site", groups, total, {}, [], Coverage(100, 100, 100, 1, 1))


def _grown() -> Comparison:
    """Two hours: a grows by 600 bytes in 6 blocks, b by 100 in 1, c shrinks by 200 in 2."""
    base = _made(0, {"a": (400, 4), "b": (400, 40), "c": (200, 2)})
    return compare(base, _made(2, {"a": (1000, 10), "b": (500, 41)}))


# -- conditions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "measured"),
    [
        ("bytes>=1", 500),
        ("count>=1", 5),
        ("percent>=1", 50),
        ("bytes-per-hour>=1", 250),
        ("count-per-hour>=1", 2.5),
        ("site.bytes>=1", 600),
        ("site.count>=1", 6),
        ("site.percent>=1", 150),
        ("site.bytes-per-hour>=1", 300),
        ("site.count-per-hour>=1", 3),
    ],
)
def test_each_quantity_is_measured_over_all_and_per_site(condition: str, measured: float) -> None:
    result = Gate(parse_gate(condition)).judge(_grown())
    assert [m.value for m in result.conditions] == [measured]
    assert not result.passed
    just_above = condition.replace(
        ">=1", f">={measured + 0.25 if 'bytes' not in condition else 601}"
    )
    assert Gate(parse_gate(just_above)).judge(_grown()).passed


def test_the_sites_that_fail_are_named() -> None:
    result = Gate(parse_gate("site.bytes>=100,site.count>=5")).judge(_grown())
    failed = {finding.site.site.name: finding.failed for finding in result.findings}
    assert failed == {"a": ("site.bytes>=100", "site.count>=5"), "b": ("site.bytes>=100",)}


def test_growth_from_nothing_is_more_than_any_percent() -> None:
    new = compare(_made(0, {}), _made(1, {"a": (1, 1)}))
    assert not Gate(parse_gate("percent>=1000000")).judge(new).passed
    assert not Gate(parse_gate("site.percent>=1000000")).judge(new).passed
    shrunk = compare(_made(0, {"a": (9, 9)}), _made(1, {"a": (1, 1)}))
    assert Gate(parse_gate("bytes>=0,percent>=0,site.bytes>=0")).judge(shrunk).passed


def test_a_rate_without_times_cannot_be_measured() -> None:
    untimed = compare(_made(None, {}), _made(None, {"a": (1, 1)}))
    for condition in ("bytes-per-hour>=1", "site.bytes-per-hour>=1"):
        with pytest.raises(GateError, match="how much time"):
            Gate(parse_gate(condition)).judge(untimed)


def test_a_trend_has_rates_of_its_own_and_counts_its_verdicts() -> None:
    series = [_made(hour, {"a": (100 * hour, hour), "b": (5, 1)}) for hour in range(5)]
    trend = find_trend(series, _made(9, {"a": (400, 4), "b": (500, 1)}))
    result = Gate(
        parse_gate("site.bytes-per-hour>=1,leaked>=1,suspects>=2,bytes-per-hour>=1")
    ).judge(trend)
    # The robust rate under load, not what is left after the load over all the time.
    assert [m.value for m in result.conditions] == [100, 1, 1, pytest.approx(895 / 9)]
    assert [m.failed for m in result.conditions] == [True, True, False, True]


def test_two_dumps_have_no_suspects() -> None:
    with pytest.raises(GateError, match="take a trend"):
        Gate(parse_gate("leaked>=1")).judge(_grown())


@pytest.mark.parametrize(
    "text",
    [
        "growth",
        "bytes>1",
        "bytes>=",
        "site.leaked>=1",
        "count>=10M",
        "percent>=nan",
        "count>=inf",
        "",
    ],
)
def test_what_is_no_condition_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (condition|number)"):
        parse_gate(text)


# -- suppressions ------------------------------------------------------------------------------------

TODAY = date(2026, 6, 1)


def _file(path: Path, *entries: tuple[str, str]) -> Path:
    text = "".join(
        f'[[suppress]]\nsite = "{site}"\nreason = "known"\nexpires = {expires}\n'
        for site, expires in entries
    )
    path.write_text(text, encoding="utf-8")
    return path


def test_suppressed_growth_does_not_count_and_unused_and_expired_entries_are_told(
    tmp_path: Path,
) -> None:
    entries = read_suppressions(
        _file(tmp_path / "s.toml", ("A", "2026-06-01"), ("b*", "2026-05-31"), ("z", "2027-01-01")),
        TODAY,
    )
    result = Gate(parse_gate("bytes>=1,site.bytes>=1,count>=1"), entries).judge(_grown())
    # Without a's 600: b grew by 100, c shrank by 200; b's own entry is out of date.
    assert [m.value for m in result.conditions] == [-100, 100, -1]
    assert [m.failed for m in result.conditions] == [False, True, False]
    assert [f.site.site.name for f in result.findings if f.suppressed] == ["a"]
    assert [s.site for s in result.expired] == ["b*"]
    assert [s.site for s in result.unused] == ["z"]


def test_a_suppression_that_another_goes_before_is_in_use(tmp_path: Path) -> None:
    entries = read_suppressions(
        _file(tmp_path / "s.toml", ("a", "2026-06-01"), ("[ab]", "2026-06-01")), TODAY
    )
    only_a = compare(_made(0, {"a": (400, 4)}), _made(2, {"a": (1000, 10)}))
    assert Gate(parse_gate("bytes>=1"), entries).judge(only_a).unused == ()


@pytest.mark.parametrize(
    "text",
    [
        "[[suppress]]\nsite = 'a'\nreason = 'x'\n",
        "[[suppress]]\nsite = 'a'\nreason = ''\nexpires = 2027-01-01\n",
        "[[suppress]]\nsite = 'a'\nreason = 'x'\nexpires = '2027-01-01'\n",
        "[[suppress]]\nsite = 'a'\nreason = 'x'\nexpires = 2027-01-01\nsites = 'b'\n",
        "[[supress]]\nsite = 'a'\nreason = 'x'\nexpires = 2027-01-01\n",
        "suppress = 3\n",
        "site: a",
    ],
)
def test_a_wrong_suppressions_file_is_wrong_usage(run: Any, tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    code, _, err = run("diff", BEFORE, AFTER, "--suppressions", path)
    assert code == 2
    assert str(path) in " ".join(err.split())


def test_a_name_with_brackets_can_be_written_as_a_pattern() -> None:
    entry = Suppression("app.exe!operator new[[]]*", "x", TODAY, False)
    assert entry.matches(Site(SiteKind.STACK, "k", "app.exe!operator new[]+0x10"))


# -- baselines ---------------------------------------------------------------------------------------


def test_growth_that_was_accepted_does_not_count(run: Any, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted.json"
    run("diff", BEFORE, AFTER, "--format", "json", "-o", accepted)
    gate = ("--fail-on", "bytes>=1,site.count>=1,percent>=0.001")
    assert run("diff", BEFORE, AFTER, *gate)[0] == 1
    assert run("diff", BEFORE, AFTER, *gate, "--baseline", accepted)[0] == 0
    document = json.loads(accepted.read_text())
    document["sites"][0]["delta_bytes"] -= 100
    document["sites"][1]["delta_count"] -= 3
    accepted.write_text(json.dumps(document))
    code, out, err = run("diff", BEFORE, AFTER, *gate, "--baseline", accepted, "--format", "json")
    assert code == 1
    measured = [row["measured"] for row in json.loads(out)["gate"]["conditions"]]
    assert measured[:2] == [100, 3]
    assert f"baseline {accepted}" in err


def test_a_snapshot_as_baseline_accepts_what_each_site_had_in_it(run: Any, tmp_path: Path) -> None:
    snapshot = tmp_path / "accepted.dlsnap"
    run("snapshot", AFTER, "-o", snapshot)
    gate = ("--fail-on", "site.bytes>=1,bytes>=1", "--baseline", snapshot)
    assert run("diff", BEFORE, AFTER, *gate)[0] == 0
    accepted = snapshot_baseline(_made(1, {"a": (700, 5)}))
    grown = {delta.site.name: accepted.beyond(delta) for delta in _grown().sites}
    assert grown == {"a": (300, 5), "b": (100, 1), "c": (-200, -2)}


def test_a_baseline_of_other_groups_is_refused(run: Any, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted.json"
    run("diff", BEFORE, AFTER, "--by", "size", "--format", "json", "-o", accepted)
    code, out, err = run("diff", BEFORE, AFTER, "--fail-on", "bytes>=1", "--baseline", accepted)
    assert (code, out) == (3, "")
    assert "groups by size" in err


def test_a_baseline_that_a_windows_shell_wrote_is_read(run: Any, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted.json"
    run("diff", BEFORE, AFTER, "--format", "json", "-o", accepted)
    text = accepted.read_text(encoding="utf-8")
    for encoding in ("utf-16", "utf-8-sig"):
        accepted.write_text(text, encoding=encoding)
        gate = ("--fail-on", "bytes>=1", "--baseline", accepted)
        assert run("diff", BEFORE, AFTER, *gate)[0] == 0, encoding


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"schema": "dumpleak/diff/1", "sites": [{"key": 1}]}',
        '{"schema": "x", "sites": []}',
        '{"schema": "dumpleak/diff/1", "sites": [{"key": "a", "delta_bytes": true, "delta_count": 1}]}',
        '{"schema": "dumpleak/diff/1", "sites": [{"key": 1, "delta_bytes": 1, "delta_count": 1}]}',
        '{"schema": ["dumpleak/diff/1"], "sites": []}',
        '{"schema": "dumpleak/diff/1", "sites": [], "by": 5}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_baseline_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match=str(path)):
        json_baseline(path)


# -- through the installed command ---------------------------------------------------------------------


def _installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dumpleak", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "code", "summary"),
    [
        ((BEFORE, AFTER, "--fail-on", "bytes>=1G"), 0, "SUMMARY: PASS; 48 sites grew by"),
        ((BEFORE, AFTER, "--fail-on", "bytes>=1M"), 1, "SUMMARY: FAIL bytes>=1M (it is 1160719)"),
        ((BEFORE, AFTER, "--fail-on", "nonsense"), 2, ""),
        (
            (BEFORE, X86, "--fail-on", "bytes>=1"),
            3,
            "SUMMARY: NO ANSWER; the dumps are not comparable",
        ),
        ((BEFORE, AFTER, "--fail-on", "leaked>=1"), 3, "SUMMARY: NO ANSWER; leaked>=1: two dumps"),
        ((*SERIES[:5], "--fail-on", "suspects>=1"), 1, "SUMMARY: FAIL suspects>=1 (it is 2)"),
        (
            (*SERIES[:5], "--fail-on", "leaked>=1"),
            3,
            "SUMMARY: NO ANSWER; leaked>=1: what leaked shows",
        ),
        ((*SERIES[:5], "--fail-on", "site.bytes-per-hour>=28001"), 0, "SUMMARY: PASS"),
        ((*SERIES[:5], "--fail-on", "site.bytes-per-hour>=28000"), 1, "SUMMARY: FAIL site"),
    ],
)
def test_the_exit_code_and_one_line_on_stderr_tell_how_it_ended(
    arguments: tuple[str, ...], code: int, summary: str
) -> None:
    done = _installed(*arguments)
    assert done.returncode == code
    lines = [line for line in done.stderr.splitlines() if line.startswith("SUMMARY:")]
    assert len(lines) == bool(summary)
    assert summary in done.stderr
    assert "Traceback" not in done.stderr


def test_expired_and_unused_suppressions_are_told_on_stderr(tmp_path: Path) -> None:
    path = _file(tmp_path / "s.toml", ("app.exe*", "2020-01-01"), ("nothing!*", "2999-01-01"))
    done = _installed(BEFORE, AFTER, "--suppressions", str(path))
    assert done.returncode == 0
    assert "warning: suppression has expired: app.exe*" in done.stderr
    assert "warning: suppression matches no site that grew: nothing!*" in done.stderr


# -- formats -----------------------------------------------------------------------------------------

GATE = ("--fail-on", "bytes>=1K,site.bytes>=200K,percent>=500")


def _only(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    """An object of these members and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


_TEXT = {"type": "string"}
_MESSAGE = _only(("text",), text={"type": "string", "minLength": 1})
_LEVEL = {"enum": ["none", "note", "warning", "error"]}
_LOCATION = _only(
    (),
    message=_MESSAGE,
    physicalLocation=_only(
        ("artifactLocation",),
        artifactLocation=_only(
            ("uri",), uri={"type": "string", "pattern": r"^([A-Za-z0-9._~/-]|%[0-9A-F]{2})+$"}
        ),
        region=_only(("startLine",), startLine={"type": "integer", "minimum": 1}),
    ),
    logicalLocations=_list(_only((), fullyQualifiedName=_TEXT, kind=_TEXT)),
)
# The parts of SARIF 2.1.0 that are written, as sections 3.13 to 3.58 of the specification have them.
_SARIF = _only(
    ("version", "runs"),
    **{"$schema": {"type": "string", "format": "uri"}},
    version={"const": "2.1.0"},
    runs=_list(
        _only(
            ("tool",),
            tool=_only(
                ("driver",),
                driver=_only(
                    ("name",),
                    name=_TEXT,
                    version=_TEXT,
                    rules=_list(_only(("id",), id=_TEXT, shortDescription=_MESSAGE)),
                ),
            ),
            automationDetails=_only((), id=_TEXT),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            invocations=_list(
                _only(
                    ("executionSuccessful",),
                    executionSuccessful={"type": "boolean"},
                    toolExecutionNotifications=_list(
                        _only(
                            ("message",),
                            message=_MESSAGE,
                            level=_LEVEL,
                            descriptor=_only(("id",), id=_TEXT),
                        )
                    ),
                )
            ),
            results=_list(
                _only(
                    ("message",),
                    ruleId=_TEXT,
                    ruleIndex={"type": "integer", "minimum": 0, "maximum": 2},
                    level=_LEVEL,
                    message=_MESSAGE,
                    locations=_list(_LOCATION),
                    stacks=_list(
                        _only(
                            ("frames",),
                            message=_MESSAGE,
                            frames=_list(_only((), location=_LOCATION)),
                        )
                    ),
                    partialFingerprints={"type": "object", "additionalProperties": _TEXT},
                    suppressions=_list(
                        _only(
                            ("kind",),
                            kind={"enum": ["inSource", "external"]},
                            justification=_TEXT,
                        )
                    ),
                    properties={"type": "object"},
                )
            ),
        )
    ),
)


def _sarif(text: str) -> Any:
    document = json.loads(text)
    schemas = [_SARIF]
    if SARIF_SCHEMA:
        schemas.append(json.loads(Path(SARIF_SCHEMA).read_text(encoding="utf-8")))
    for schema in schemas:
        jsonschema.Draft7Validator(
            schema, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER
        ).validate(document)
    return document


@pytest.mark.parametrize(
    "arguments",
    [
        ("diff", BEFORE, AFTER),
        ("diff", BEFORE, AFTER, *GATE),
        ("diff", BEFORE, BEFORE),
        ("diff", BEFORE, X86),
        ("trend", *SERIES),
        ("trend", *SERIES, "--after-idle", SERIES[5], "--fail-on", "leaked>=1"),
        ("diff", BEFORE, AFTER, "--by", "type"),
        ("diff", BEFORE, AFTER, "--by", "size"),
    ],
)
def test_sarif_is_valid(run: Any, arguments: tuple[str, ...]) -> None:
    document = _sarif(run(*arguments, "--format", "sarif")[1])
    results = document["runs"][0]["results"]
    prints = [tuple(result["partialFingerprints"].values()) for result in results]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("words", "growth"),
    [
        ((), "A site has more memory in use than before."),
        (("--by", "type"), "A type has more memory in use than before."),
        (("--of", "regions"), "A use has more regions than before."),
    ],
)
def test_rules_of_sarif_are_in_the_words_of_what_is_compared(
    run: Any, words: tuple[str, ...], growth: str
) -> None:
    document = _sarif(run("diff", BEFORE, AFTER, *words, "--format", "sarif")[1])
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    noun = growth.split()[1]
    texts = [rule["shortDescription"]["text"] for rule in rules]
    assert texts[0].startswith(growth)
    assert all(text.startswith(f"A {noun} ") for text in texts)


def test_sarif_marks_what_fails_and_what_is_suppressed(run: Any, tmp_path: Path) -> None:
    entries = _file(tmp_path / "s.toml", ("app.exe+0x4446", "2999-01-01"))
    document = _sarif(
        run("diff", BEFORE, AFTER, *GATE, "--suppressions", entries, "--format", "sarif")[1]
    )
    results = document["runs"][0]["results"]
    suppressed = [r for r in results if r["suppressions"]]
    assert [r["level"] for r in results].count("error") == 1
    assert len(suppressed) == 1
    assert "known" in suppressed[0]["suppressions"][0]["justification"]


def test_a_fingerprint_outlives_a_build_where_symbols_name_the_frames() -> None:
    def site(key: str, offset: int, heap: int) -> Site:
        frames = (f"ntdll.dll+0x{heap:x}", f"a.exe!f+0x{offset:x}", f"a.exe!main+0x{2 * offset:x}")
        return Site(SiteKind.STACK, key, frames[1], frames=frames)

    assert fingerprint(site("k1", 0x41, 1)) == fingerprint(site("k2", 0x52, 2))
    assert fingerprint(site("k1", 0x41, 1)) != fingerprint(
        Site(SiteKind.STACK, "k", "a.exe!g+0x41", frames=("a.exe!g+0x41",))
    )


def test_a_source_line_is_given_where_symbols_tell_it() -> None:
    site = Site(
        SiteKind.STACK,
        "k",
        "a.exe!f+0x1",
        frames=("n+0x1", "a.exe!f+0x1"),
        lines=("", "C:\\s\\f.cpp(41)"),
    )
    assert source_line(site) == ("C:\\s\\f.cpp", 41)
    assert source_line(Site(SiteKind.SOURCE, "k", "gfx\\t.cpp(7)")) == ("gfx\\t.cpp", 7)
    assert source_line(Site(SiteKind.TYPE, "k", "Cache<int>(3)")) is None


# Elements and attributes of Ant's JUnit task, as the schema at
# https://github.com/windyroad/JUnit-Schema has them.
_JUNIT = {
    "testsuites": ((), ("testsuite",)),
    "testsuite": (
        ("id", "package", "name", "timestamp", "hostname", "tests", "failures", "errors", "time"),
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": ((), ("property",)),
    "property": (("name", "value"), ()),
    "testcase": (("name", "classname", "time"), ("skipped", "error", "failure")),
    "skipped": ((), ()),
    "failure": (("type",), ()),
    "error": (("type",), ()),
    "system-out": ((), ()),
    "system-err": ((), ()),
}


def _junit(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)  # noqa: S314  # our own output
    for element in root.iter():
        required, children = _JUNIT[element.tag]
        assert set(required) <= set(element.keys())
        order = [children.index(child.tag) for child in element]
        assert order == sorted(order)
    suite = root[0]
    cases = suite.findall("testcase")
    assert int(suite.get("tests", "")) == len(cases)
    for name in ("failure", "error", "skipped"):
        counted = suite.get(name if name == "skipped" else f"{name}s", "")
        assert int(counted) == sum(case.find(name) is not None for case in cases)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", ""))
    return suite


def test_junit_has_a_test_for_each_condition_and_site(run: Any, tmp_path: Path) -> None:
    entries = _file(tmp_path / "s.toml", ("app.exe+0x4446", "2999-01-01"))
    suite = _junit(
        run("diff", BEFORE, AFTER, *GATE, "--suppressions", entries, "--format", "junit")[1]
    )
    gate = [
        case for case in suite.iter("testcase") if case.get("classname") == "dumpleak.diff.gate"
    ]
    assert [case.get("name") for case in gate] == GATE[1].split(",")
    assert [case.find("failure") is not None for case in gate] == [True, True, False]
    assert suite.get("skipped") == "1"


def test_junit_says_when_dumps_cannot_be_compared(run: Any) -> None:
    suite = _junit(run("diff", BEFORE, X86, "--format", "junit")[1])
    assert (suite.get("errors"), suite.get("failures")) == ("1", "0")


def test_what_is_left_out_is_counted_in_every_format(run: Any) -> None:
    left_out = f"{48 - 3} more"
    for name in ("markdown", "junit", "sarif", "text"):
        out = run("diff", BEFORE, AFTER, "--format", name, "--top", "3")[1]
        assert left_out in out, name
    assert (
        len(
            _sarif(run("diff", BEFORE, AFTER, "--format", "sarif", "--top", "3")[1])["runs"][0][
                "results"
            ]
        )
        == 3
    )


HOSTILE = "a|b`c</code>\x1b[31m<script>&\ud800\x00]]>\n| x |"


def test_hostile_names_stay_text_in_every_format(tmp_path: Path) -> None:
    base = _made(0, {})
    current = _made(1, {HOSTILE: (100, 1)})
    comparison = compare(base, current)
    growth = formats_of(GROWTH_FORMATS, Judged(comparison), None)
    answer = Answer(lambda: diff_document(comparison, None), dict, growth)
    for format_ in ("markdown", "junit", "sarif"):
        path = tmp_path / "out"
        with path.open("w", encoding="utf-8", newline="") as stream:
            write_answer(answer, format_, stream)
        text = path.read_text(encoding="utf-8")
        assert "\x1b" not in text
        assert "\x00" not in text
        if format_ == "markdown":
            row = next(line for line in text.splitlines() if "script" in line)
            assert row.startswith("| +100 B | +1 |  | ``a\\|b`c")
            assert "\\| x \\|" in row
        elif format_ == "junit":
            assert _junit(text).find("testcase").get("name").startswith("a|b`c</code>")  # type: ignore[union-attr]
        else:
            _sarif(text)


WITHOUT_STACKS = TESTDATA / "10.0.26100.5074-x64" / "tiny" / "dump.dmp.gz"
WITH_STACKS = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust" / "before.dmp.gz"


def test_stacks_that_only_one_dump_recorded_make_sites_incomparable(run: Any) -> None:
    for pair in ((WITHOUT_STACKS, WITH_STACKS), (WITH_STACKS, WITHOUT_STACKS)):
        code, _, err = run("diff", *pair)
        assert code == 3
        assert "has recorded stacks" in err
        assert run("diff", *pair, "--by", "type", "--no-holders")[0] == 0


@pytest.mark.parametrize("format_", ["text", "json", "csv", "sarif", "collapsed"])
def test_force_is_said_whatever_the_format(run: Any, format_: str) -> None:
    code, _, err = run(
        *("diff", WITHOUT_STACKS, WITH_STACKS, "--force", "--no-holders"),
        *("--format", format_, "--fail-on", "bytes>=1"),
    )
    assert code == 1
    warning, summary = err.splitlines()
    assert warning.startswith("warning: compared by force although ")
    assert summary.startswith("SUMMARY: FAIL")
    assert summary.endswith("; compared by force")
