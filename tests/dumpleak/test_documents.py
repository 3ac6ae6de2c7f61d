"""Documents: what writes them knows types and no answers, and each format has all answers."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from truth import ROOT, TESTDATA

from dumpleak.model.totals import Totals
from dumpleak.reports.csv_writer import write_csv
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Remarks,
    Summary,
    Table,
    Tone,
    View,
    data_columns,
    left_out,
)
from dumpleak.reports.markdown_writer import write_markdown
from dumpleak.reports.page.data import page_of, unit_of
from dumpleak.reports.text.writer import write_text
from dumpleak.reports.values import Absent, Change, Name, Said, Share, Style

PAIR = [
    str(TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust" / f"{n}.dmp.gz")
    for n in ("before", "after")
]
KERNEL = [
    str(TESTDATA / "kernel" / "22621-x64" / "tiny-pair" / f"{n}.dmp.xz")
    for n in ("before", "after")
]
SERIES = [
    str(TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz") for n in (0, 2, 4)
]
# One line of each answer.
LINES = {
    "info": ["info", PAIR[0]],
    "info of a system": ["info", KERNEL[0]],
    "heaps": ["heaps", PAIR[0]],
    "modules": ["modules", PAIR[0]],
    "symbols": ["symbols", PAIR[0]],
    "processes": ["processes", KERNEL[0]],
    "pool": ["pool", KERNEL[0]],
    "pool growth": ["pool", *KERNEL],
    "stat": ["stat", PAIR[0], "--no-holders"],
    "diff": ["diff", *PAIR, "--no-holders"],
    "trend": ["trend", *SERIES, "--no-holders"],
    "leaks": ["leaks", PAIR[0]],
}
# A format of its own: one function and one row, made before the command line is.
TOY = """
import json, sys
from dumpleak.reports import formats
from dumpleak.reports.document import View

def write_toy(document, stream):
    table = document.tables(View.DATA)[0]
    heads = [column.name for column in table.shown(View.DATA)]
    rows = [dict(zip(heads, map(str, row))) for row in table.rows(View.DATA, table.top)]
    told = {"title": document.title, "heads": heads, "rows": len(rows), "asked": asked}
    stream.write(json.dumps(told) + "\\n")

formats.FORMATS["toy"] = write_toy
from dumpleak.cli import main
for asked, line in json.loads(sys.argv[1]).items():
    try:
        main([*line, "--format", "toy"])
    except SystemExit as end:
        assert end.code == 0, (line, end.code)
"""


@pytest.fixture(scope="module")
def toys() -> dict[str, dict[str, Any]]:
    """What the toy format says of each answer."""
    done = subprocess.run(
        [sys.executable, "-c", TOY, json.dumps(LINES)],
        capture_output=True, check=True, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return {each["asked"]: each for each in told}


@pytest.mark.parametrize("asked", LINES)
def test_a_new_format_is_one_row_and_has_every_answer(
    asked: str, toys: dict[str, dict[str, Any]], run: Any
) -> None:
    _, out, _ = run(*LINES[asked], "--format", "csv")
    heads, *rows = csv.reader(io.StringIO(out))
    toy = toys[asked]
    assert (toy["heads"], toy["rows"]) == (heads, len(rows))
    assert toy["title"]


@pytest.mark.parametrize(
    "path",
    [
        *(ROOT / "dumpleak" / "reports" / "text").glob("*.py"),
        *(ROOT / "dumpleak" / "reports" / "page").glob("*.py"),
        ROOT / "dumpleak" / "reports" / "csv_writer.py",
        ROOT / "dumpleak" / "reports" / "markdown_writer.py",
    ],
    ids=lambda path: str(path.name),
)
def test_who_writes_documents_knows_no_answer(path: Path) -> None:
    known = {
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    rooms = ("dumpleak.reports.answers", "dumpleak.compare", "dumpleak.survey", "dumpleak.gate")
    assert not [module for module in known if module.startswith(rooms)]


COLUMNS = (
    Column("text", Kind.TEXT, "text"),
    Column("bytes", Kind.BYTES, "bytes"),
    Column("change", Kind.BYTES, "change", signed=True),
    Column("count", Kind.COUNT, "count"),
    Column("share", Kind.SHARE),
    Column("totals", Kind.TOTALS),
    Column("rate", Kind.RATE, "rate"),
    Column("time", Kind.TIME, "time"),
    Column("address", Kind.ADDRESS, "address"),
    Column("short", Kind.ADDRESS, digits=0),
    Column("flag", Kind.FLAG, "flag"),
    Column("series", Kind.SERIES),
    *data_columns("clauses value", clauses=Kind.CLAUSES),
    Column("name", Kind.NAME, "name"),
)
WHOLE = (
    *(Said("said", Style.BAD), 1536, Change(-2048, 0.0), 1234, Share(1, 4), Totals(3, 2048)),
    *(1.25, datetime(2026, 11, 30, 12, tzinfo=UTC), 0x7FF0, 0x7FF0, True, [0, 4]),
    *(("one", "two"), 7, Name("a!b", more="c", lines=("from d",))),
)
TEXT = (
    "said 1.5 KiB -2.0 KiB 1,234 25.0% 2.0 KiB in 3 +1.2 2026-11-30 12:00:00 0x0000000000007ff0 0x7ff0 yes "
    "▁▇ a!b c"
)
CSV = "said,1536,-2048,1234,1.25,2026-11-30T12:00:00+00:00,0x0000000000007ff0,True,one; two,7,a!b"
PAGE = [
    *("said", 1536, -2048, 1234, 0.25, 2048, 1, "2026-11-30 12:00:00"),
    *("0x0000000000007ff0", "0x7ff0", "yes", [0, 4], "a!b"),
]


def _document(*rows: Any, top: int | None = None, noun: str = "") -> Document:
    table = Table("t", "T", COLUMNS, rows, lambda _, row: row, noun=noun, top=top)
    return Document("made", None, [table])


def _text(document: Document) -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    write_text(document, stream)
    stream.seek(0)
    return [" ".join(line.split()) for line in stream.read().splitlines()]


def _csv(document: Document) -> list[str]:
    stream = io.StringIO()
    write_csv(document, stream)
    return stream.getvalue().splitlines()


def test_each_kind_of_column_is_written_by_its_type() -> None:
    document = _document(WHOLE)
    assert _text(document)[1:] == [TEXT, "from d"]
    assert _csv(document)[1] == CSV
    assert page_of(document).grids[0].rows == [PAGE]


@pytest.mark.parametrize("absent", Absent)
def test_what_is_absent_is_said_to_people_and_empty_for_machines(
    absent: Absent,
) -> None:
    document = _document([absent] * len(COLUMNS))
    people = [column for column in COLUMNS if column.is_in(View.TEXT)]
    assert _text(document)[1].split() == [absent.value] * len(people) * bool(absent.value)
    assert set(_csv(document)[1]) == {","}
    cells = zip(page_of(document).grids[0].columns, page_of(document).grids[0].rows[0], strict=True)
    for column, value in cells:
        assert value == (absent.value if unit_of(column) == "text" else None)


def test_a_share_of_less_than_all_is_never_all() -> None:
    assert [Share(n, 1000, digits=0).text for n in (999, 1000)] == ["99%", "100%"]
    assert Share(0, 0).text == ""
    assert Share(0, 0).value is None


def test_rows_are_made_only_for_those_who_see_them() -> None:
    made = []

    def row(rank: int, item: int) -> list[Any]:
        made.append(rank)
        return [item]

    columns = [Column("n", Kind.NAME, "n")]
    table = Table("t", "T", columns, range(1_000_000), row, noun="process", top=2)
    document = Document("made", None, [table])
    assert _text(document)[-1] == "… and 999998 more processes; --top N shows more."
    assert _csv(document) == ["n", "0", "1"]
    assert made == [1, 2, 1, 2]


def test_one_more_is_one_and_none_is_not_told() -> None:
    assert left_out(1, "tag") == "… and 1 more tag; --top N shows more."
    assert left_out(0, "tag") == ""


def test_a_page_without_a_verdict_is_headed_by_what_it_is() -> None:
    page = page_of(Document("what it is", None, ()))
    assert (page.summary.headline, page.summary.tone) == ("what it is", Tone.GOOD)


def test_a_verdict_for_pages_is_not_said_twice_by_terminals() -> None:
    document = Document("made", Summary(Tone.BAD, "bad"), (), judged_in=View.PAGE)
    assert _text(document) == []
    assert page_of(document).summary.tone is Tone.BAD


@pytest.mark.parametrize("asked", LINES)
def test_every_answer_has_a_page(asked: str, tmp_path: Path, run: Any) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    path = tmp_path / "page.html"
    code, _, _ = run(*LINES[asked], "--format", "html", "-o", path)
    held = re.search(r' id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert code == 0
    assert held is not None
    grids = json.loads(held[1])["grids"]
    assert grids[0]["rows"]
    for grid in grids:
        assert {len(row) for row in grid["rows"]} <= {len(grid["columns"])}


@pytest.mark.parametrize("asked", LINES)
def test_every_answer_is_a_comment_whose_tables_have_all_their_cells(asked: str, run: Any) -> None:
    code, out, _ = run(*LINES[asked], "--format", "markdown")
    assert code == 0
    assert out.startswith("### ")
    assert "\n\n\n" not in out
    heads = re.findall(r"^\|.*\|\n\|[ -:|]+\|$", out, re.MULTILINE)
    assert heads
    counted = [len(re.findall(r"(?<!\\)\|", line)) for line in out.splitlines() if line[:1] == "|"]
    assert len(set(counted)) <= len(heads)


def test_a_comment_shows_what_a_document_has_for_reviews_and_nothing_else() -> None:
    table = Table("t", "T", [Column("n", Kind.NAME)], [1], lambda _, n: [Name(str(n))], View.TEXT)
    for_terminals = Document("made", Summary(Tone.BAD, "bad | <b>"), [table, Line("a\\b")])
    stream = io.StringIO()
    write_markdown(for_terminals, stream)
    whole = "### made", "**bad \\| \\<b\\>**", "**T**", "| n |\n| --- |\n| `1` |", "a\\\\b"
    assert stream.getvalue() == "\n\n".join(whole) + "\n"
    stream = io.StringIO()
    code = Said("a|b", Style.CODE)
    remarks = Remarks([("one ", Said("two", Style.STRONG)), ("at ", code)], listed=True)
    write_markdown(Document("made", None, [table, remarks]), stream)
    assert stream.getvalue() == "- one **two**\n- at `a\\|b`\n"
