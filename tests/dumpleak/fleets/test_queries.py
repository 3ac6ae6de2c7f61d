"""The five questions of the README, asked with DuckDB and pandas, have the same and the right answers."""

from __future__ import annotations

import os
import re
import runpy
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pytest
from builders.fleet import datasets, planted_fleet
from pyarrow import parquet
from truth import ROOT

from dumpleak.fleets.clusters import clustered

_TITLE = "## Five questions to a fleet's datasets\n"
TEXT = (ROOT / "README.md").read_text("utf-8").split(_TITLE)[1].split("\n## ")[0]
QUERIES = re.findall(
    r"-- [^\n]*\n(SELECT.*?);", re.findall(r"```sql\n(.*?)```", TEXT, re.S)[0], re.S
)
SCRIPT = re.findall(r"```python\n(.*?)```", TEXT, re.S)[0]
# What the script calls the answers.
NAMES = ("new", "rates", "lost", "unread", "most")


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: Any,
) -> tuple[list[list[tuple[Any, ...]]], list[list[tuple[Any, ...]]]]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    datasets(planted_fleet(machines=4, dumps=3), folder, broken=2)
    parquet.write_table(clustered(str(folder)), folder / "clusters.parquet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        asked = [duckdb.sql(query).fetchall() for query in QUERIES]
        Path("ask.py").write_text(SCRIPT)
        found = runpy.run_path("ask.py")
    finally:
        os.chdir(before)
    frames = [found[name].astype(object).where(found[name].notna(), None) for name in NAMES]
    return asked, [list(frame.itertuples(index=False, name=None)) for frame in frames]


def test_there_are_five_of_each() -> None:
    assert len(QUERIES) == len(NAMES) == 5
    assert pandas.__name__ in SCRIPT


@pytest.mark.parametrize("number", range(5), ids=NAMES)
def test_both_have_the_same_answers(number: int, answers: Any) -> None:
    asked, found = answers[0][number], answers[1][number]
    assert asked
    assert [tuple(row) for row in asked] == found


def test_the_answers_are_what_was_planted(answers: Any) -> None:
    new, rates, lost, unread, most = answers[0]
    assert {name.split(" in ")[0] for name, *_ in new} == {
        "app.exe!Cache::Insert",
        "app.exe!Session::Open",
        "service.exe!Queue::Push",
        "1368 bytes",
    }
    assert ("app.exe!Cache::Insert", "1.2", 3840.0, 1) in rates
    assert len(lost) == 4
    assert unread == [("NotADumpError", 2)]
    assert most[0][2] >= most[-1][2] > 0
