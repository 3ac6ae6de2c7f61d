"""A fleet at a glance: what a terminal, the page and the gate say is what the datasets hold."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders.fleet import Fleet, Life, datasets, planted_fleet
from report_samples import HOSTILE_NAMES

from dumpleak.fleets.clusters import clustered
from dumpleak.fleets.gate import fleet_gate, parse_fleet_gate
from dumpleak.fleets.summary import FailedInput, FleetSummary, VersionRow, summarised
from dumpleak.reports.answers.fleet import fleet_document, headline, leaks_in
from dumpleak.reports.csv_writer import write_csv
from dumpleak.reports.fleet_page import fleet_page
from dumpleak.reports.markdown_writer import write_markdown
from dumpleak.reports.text.writer import write_text


@pytest.fixture(scope="module")
def summary(tmp_path_factory: Any) -> FleetSummary:
    folder = tmp_path_factory.mktemp("fleet")
    datasets(planted_fleet(machines=4, dumps=3), folder, broken=1)
    return summarised(folder, clustered(str(folder)))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: Any) -> FleetSummary:
    folder = tmp_path_factory.mktemp("fleet")
    datasets(planted_fleet(machines=2, dumps=3, leaks=()), folder)
    return summarised(folder, clustered(str(folder)))


def text_of(summary: FleetSummary) -> str:
    stream = io.StringIO()
    write_text(fleet_document(summary), stream)
    return stream.getvalue()


def test_a_summary_adds_up_what_the_datasets_hold(summary: FleetSummary) -> None:
    assert (summary.inputs, summary.errors, summary.machines) == (4 * 4 * 3 + 1, 1, 4)
    assert summary.series == {"trend": 16, "pair": 0, "single": 0}
    assert (summary.leaking, len(summary.leaks)) == (4, 4)
    assert summary.error_kinds == (("NotADumpError", 1),)
    assert summary.walked_bytes == summary.committed_bytes > 0
    told = {(v.program, v.version): (v.machines, v.dumps, v.compared) for v in summary.versions}
    assert told["app.exe", "1.1"] == (2, 6, 2)
    order = [v.version for v in summary.versions if v.program == "service.exe"]
    assert order == ["2.8", "2.9", "2.10"]


def test_the_headline_says_how_many_leaks_where_and_the_worst(
    summary: FleetSummary, healthy: FleetSummary
) -> None:
    assert headline(summary).startswith("4 leaks on 4 of 4 machines; worst: app.exe!")
    assert headline(healthy) == "no leak is seen in 8 series"
    muted = tuple(replace(leak, state="muted") for leak in summary.leaks)
    assert "no leak is seen in 16 series besides 4 muted ones" in text_of(
        replace(summary, leaks=muted)
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"errors": 9, "inputs": 9}, "none of 9 inputs could be read"),
        ({"series": {"trend": 0, "pair": 0, "single": 5}}, "only single dumps"),
        ({"not_compared": (("a", "b"),) * 8}, "no series could be compared"),
    ],
)
def test_a_fleet_that_tells_nothing_is_not_called_healthy(
    changed: dict[str, Any], said: str, healthy: FleetSummary
) -> None:
    blind = replace(healthy, **changed)
    assert said in headline(blind)
    gate = fleet_gate(parse_fleet_gate("clusters>=1"), blind)
    assert gate.verdict == "no-answer"


def test_terminals_see_every_leak_and_what_could_not_be_read(summary: FleetSummary) -> None:
    text = text_of(summary)
    for leak in summary.leaks:
        assert leak.name in text
    for said in (
        "not before 1.2",
        "gone in 2.10",
        "not a dump",
        "/d/bad0.dmp",
        "48 of 49 inputs",
    ):
        assert said in text


def test_errors_are_said_in_words_and_tables_of_nothing_are_not_shown(
    healthy: FleetSummary,
) -> None:
    kinds = (("CorruptDumpError", 3), ("TimeLimit", 2), ("SomeNewKindError", 1), ("OSError", 1))
    failed = tuple(FailedInput(f"/d/{n}", kind, "x") for n, (kind, _) in enumerate(kinds))
    shown = replace(healthy, errors=7, failed=failed, error_kinds=kinds)
    text = text_of(shown)
    assert "; failed: 3 damaged dump, 2 too slow, 1 some new kind, 1 more\n" in text
    assert "Could not be read, 5 of 7; dumps.parquet has all:" in text
    assert "cannot be opened" in text
    assert "an hour" not in text
    for said in (text, fleet_page(shown)):
        assert not re.search(r"[a-z]Error|TimeLimit", said)


def test_other_formats_have_the_leaks_too(summary: FleetSummary) -> None:
    for write in (write_csv, write_markdown):
        stream = io.StringIO()
        write(fleet_document(summary), stream)
        assert all(
            leak.fingerprint in stream.getvalue() or leak.name in stream.getvalue()
            for leak in summary.leaks
        )


class _Elements(HTMLParser):
    """Elements of a page, and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_page_has_every_leak_and_its_examples_and_fetches_nothing(
    summary: FleetSummary,
) -> None:
    page = fleet_page(summary)
    for leak in summary.leaks:
        assert leak.fingerprint in page
        assert all(url in page for url in leak.examples)
    assert "src=" not in page
    assert "href=" not in page
    assert "default-src 'none'" in page


def test_names_out_of_dumps_are_text_on_the_page(summary: FleetSummary) -> None:
    plain = _Elements()
    plain.feed(fleet_page(summary))
    leaks = tuple(
        replace(summary.leaks[0], name=name, programs=(name,), parts=(name,), examples=(name,))
        for name in HOSTILE_NAMES
    )
    failed = tuple(FailedInput(name, name, name) for name in HOSTILE_NAMES)
    kinds = tuple((name, 1) for name in HOSTILE_NAMES)
    not_compared = tuple((name, name) for name in HOSTILE_NAMES)
    hostile = _Elements()
    page = fleet_page(
        replace(summary, leaks=leaks, failed=failed, error_kinds=kinds, not_compared=not_compared)
    )
    hostile.feed(page)
    page.encode()  # no lone surrogate is left
    assert hostile.tags == plain.tags
    assert hostile.attributes <= plain.attributes


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("new-clusters>=1", "fail"),
        ("clusters>=5", "pass"),
        ("clusters>=4,errors>=5", "fail"),
        ("machines>=5", "pass"),
        ("machines>=4", "fail"),
        ("series>=4", "fail"),
        ("bytes-per-hour>=1M", "pass"),
        ("bytes-per-hour>=10K", "fail"),
        ("errors>=1", "fail"),
    ],
)
def test_the_gate_measures_the_fleet(text: str, verdict: str, summary: FleetSummary) -> None:
    gate = fleet_gate(parse_fleet_gate(text), summary)
    assert gate.verdict == verdict
    assert gate.summary.startswith(f"SUMMARY: {verdict.upper()}")
    assert "1 input could not be read" in gate.summary


def test_known_and_muted_leaks_are_not_new_and_muted_ones_do_not_count(
    summary: FleetSummary,
) -> None:
    states = ("known", "seen", "muted", "muted")
    leaks = tuple(
        replace(leak, state=state) for leak, state in zip(summary.leaks, states, strict=True)
    )
    other = replace(summary, leaks=leaks)
    for text, verdict in (
        ("new-clusters>=1", "pass"),
        ("clusters>=3", "pass"),
        ("clusters>=2", "fail"),
    ):
        assert fleet_gate(parse_fleet_gate(text), other).verdict == verdict


def test_a_rate_that_is_not_known_is_no_pass(summary: FleetSummary) -> None:
    leaks = tuple(replace(leak, bytes_per_hour=None) for leak in summary.leaks)
    gate = fleet_gate(parse_fleet_gate("bytes-per-hour>=1"), replace(summary, leaks=leaks))
    assert gate.verdict == "no-answer"
    assert "without times" in gate.summary


@pytest.mark.parametrize("text", ["", "bytes>=1", "clusters>=x", "clusters>1", "machines>=nan"])
def test_other_conditions_are_refused_and_the_right_ones_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"new-clusters>=N|not a number"):
        parse_fleet_gate(text)


def test_one_machine_without_leaks_reads_well(tmp_path: Path) -> None:
    datasets(Fleet([Life("PC-1", "app.exe", "1.0", 2, 1)], ()), tmp_path)
    assert headline(summarised(tmp_path, clustered(str(tmp_path)))) == "no leak is seen in 1 series"


def test_leaks_of_systems_are_counted_with_the_systems(summary: FleetSummary) -> None:
    system = VersionRow("", "", 1, 2, 1)
    leak = replace(summary.leaks[0], kind="tag", programs=(), versions=(), examples=("/d/a.dmp",))
    other = replace(summary, leaks=(leak, summary.leaks[1]), versions=(system, *summary.versions))
    assert leaks_in(other, system) == 1
    assert leaks_in(summary, system) == 0
    assert "dumpleak pool /d/a.dmp" in text_of(other)
