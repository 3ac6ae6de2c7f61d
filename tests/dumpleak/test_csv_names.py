"""Names out of dumps in CSV: seen as in all other formats, and never calculated by a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.minidump_builder import MinidumpBuilder
from pyarrow import feather, parquet
from report_samples import HOSTILE_NAMES, comparison, shape, snapshot, unreferenced
from truth import TESTDATA

from dumpleak.compare.trend import find_trend
from dumpleak.model.block_page import BlockPage, Names
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import HeapRow
from dumpleak.model.totals import Totals
from dumpleak.reports.answers.allocations import BLOCK_WRITERS
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.answers.heaps import heaps_document
from dumpleak.reports.answers.leaks import leaks_document
from dumpleak.reports.answers.stat import stat_document
from dumpleak.reports.answers.trend import trend_document
from dumpleak.reports.csv_writer import write_csv
from dumpleak.reports.names import cell, visible
from windumps.blocks import Blocks, Kind

Run = Callable[..., tuple[int, str, str]]
FORMULAS = ("=cmd|' /C calc'!A1", "+1+1", "-2+3", "@SUM(1)", "＝1+1", "＋1", "－1", "＠SUM(1)")
BROKEN = ("\t=1+1", "\r=1+1", "\n=1+1", "a\r\nINJECTED,0x0,1", "a\u2028b\u2029c\x85d", "\ufeff=1")
NAMES = (*HOSTILE_NAMES, *FORMULAS, *BROKEN, 'quote"s, and commas', "app.exe!main+0x12", "")


def _rows(text: str) -> list[dict[str, str]]:
    """The records; none is cut in two, and none shows what would not be seen or be calculated."""
    text.encode("utf-8")
    assert len(text.splitlines()) == len(list(csv.reader(io.StringIO(text))))
    for row in csv.reader(io.StringIO(text)):
        for value in row:
            assert value.isprintable()
            try:
                float(value)
            except ValueError:
                assert value[:1] not in ("=", "+", "-", "@", "＝", "＋", "－", "＠")
    return list(csv.DictReader(io.StringIO(text)))


def _shown(name: str) -> str:
    return f"'{name}" if name in (*FORMULAS, "--> <!-- <script>") else visible(name)


def _written(write: Callable[[io.StringIO], None]) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    write(stream)
    return _rows(stream.getvalue())


@pytest.mark.parametrize("value", [0, -5, 12, -0.25, True, None])
def test_numbers_stay_numbers(value: object) -> None:
    assert cell(value) is value


def test_paths_are_shown_as_names_are() -> None:
    assert cell(Path("a\u202eb")) == "a\\u202eb"


def test_each_name_of_a_comparison_is_one_cell_that_can_be_seen() -> None:
    changes = [(shape(name), (400, 4), (100 + n, 1)) for n, name in enumerate(NAMES)]
    found = comparison(changes)
    rows = _written(lambda stream: write_csv(diff_document(found, None), stream))
    assert sorted(row["name"] for row in rows) == sorted(map(_shown, NAMES))
    assert {int(row["delta_bytes"]) for row in rows} == {n - 300 for n in range(len(NAMES))}


def test_each_name_of_all_other_tables_is_one_cell_that_can_be_seen() -> None:
    def grown(hour: int) -> dict[str, tuple[Site, Totals]]:
        sites = [replace(shape(name), type=name, tag=name) for name in NAMES]
        count = 10 * (hour + 1)
        return {site.key: (site, Totals(count, 8 * count, 8 * count, 8)) for site in sites}

    groups = grown(0)
    taken = snapshot("=1+1.dmp", groups, 8)
    taken.heaps = [HeapRow(n, 0, n, "x64", n) for n in NAMES]
    trend = find_trend([snapshot(f"{hour}.dmp", grown(hour), hour) for hour in range(3)])
    leaks = unreferenced()
    leaks = replace(
        leaks, groups=tuple(replace(leaks.groups[0], site=site) for site, _ in groups.values())
    )
    expected = sorted(map(_shown, NAMES))
    for write, columns in (
        (lambda stream: write_csv(stat_document(taken, None), stream), ("name", "type", "tag")),
        (lambda stream: write_csv(heaps_document(taken), stream), ("label", "kind", "reason")),
        (lambda stream: write_csv(trend_document(trend, None), stream), ("name", "type", "tag")),
        (lambda stream: write_csv(leaks_document(leaks, None), stream), ("name", "type", "tag")),
    ):
        rows = _written(write)
        for column in columns:
            assert sorted(row[column] for row in rows) == expected


def test_each_name_of_a_list_of_blocks_is_one_cell_that_can_be_seen() -> None:
    places = np.arange(len(NAMES), dtype=np.uint64) * np.uint64(32)
    sizes = np.full(len(NAMES), 16, np.int64)
    blocks = Blocks.build(places, sizes, sizes + 16, np.ones(len(NAMES), bool), Kind.NT_BACKEND, 0)
    page = BlockPage(0x10000, 8, blocks, Names.of(NAMES), Names.of(NAMES), "=heap")
    rows = _written(lambda stream: BLOCK_WRITERS["csv"]([page, page], None, stream))
    assert [row["site"] for row in rows] == 2 * list(map(_shown, NAMES))
    assert [row["type"] for row in rows] == 2 * list(map(_shown, NAMES))
    assert {row["heap"] for row in rows} == {"'=heap"}


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A minidump whose images and PDBs have such names, as far as the format can hold them."""
    made = MinidumpBuilder()
    for number, name in enumerate(NAMES):
        if name and "\ud800" not in name:
            made.module(
                name + ".dll", 0x400000 + 0x10000 * number, 0x1000, pdb=(name, "AB" * 16, 1)
            )
    path = tmp_path / "names.dmp"
    path.write_bytes(made.build())
    return path


def test_the_lists_of_images_and_symbols_are_rows_that_can_be_seen(dump: Path, run: Run) -> None:
    for command in ("modules", "symbols"):
        code, out, _ = run(command, dump, "--format", "csv")
        assert code == 0
        assert len(_rows(out)) > len(FORMULAS)


@pytest.mark.parametrize("format_", ["manifest", "urls"])
def test_lists_of_missing_symbols_have_one_line_a_pdb(format_: str, dump: Path, run: Run) -> None:
    code, out, _ = run("symbols", dump, "--format", format_)
    lines = out.split("\n")[:-1]
    assert code == 0
    assert len(lines) > len(FORMULAS)
    assert lines == out.splitlines()
    assert all(line.isprintable() and "AB" * 16 in line for line in lines)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_tables_of_blocks_have_the_rows_that_csv_has(run: Run, tmp_path: Path, form: str) -> None:
    dump = str(TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust" / "after.dmp.gz")
    told = run("allocations", dump, "--state", "all", "--format", "csv")[1].splitlines()
    target = tmp_path / f"blocks.{form}"
    code, out, _ = run("allocations", dump, "--state", "all", "--format", form, "-o", str(target))
    assert (code, out) == (0, "")
    table = parquet.read_table(target) if form == "parquet" else feather.read_table(target)
    rows = table.to_pylist()
    for row in rows:
        row["address"] = f"0x{row['address']:016x}"
        row["stack_id"] = "" if row["stack_id"] is None else f"0x{row['stack_id']:x}"
        row["size"] = "" if row["size"] is None else str(row["size"])
        row["block_bytes"] = str(row["block_bytes"])
    assert rows == list(csv.DictReader(told))
    assert len(rows) > 9000
