"""`dumpleak fleet` from inputs to the gate: planted leaks are found, known ones named, new ones fail it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.fleet import Truth, planted_fleet
from pyarrow import parquet
from truth import ROOT

KNOWN = '[[known]]\nsite = "app.exe!Cache::*"\nname = "JIRA-1: the cache"\n'


def fleet(*words: object) -> subprocess.CompletedProcess[str]:
    places = os.pathsep.join(map(str, (ROOT / "parsers", ROOT)))
    return subprocess.run(
        [sys.executable, "-m", "dumpleak", "fleet", *map(str, words), "--workers", "1"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": places, "COLUMNS": "100", "PYTHONWARNINGS": "ignore"},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> tuple[Path, Truth, subprocess.CompletedProcess[str]]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    truth = planted_fleet(machines=3, dumps=3, broken=2).write(folder / "in")
    (folder / "known.toml").write_text(KNOWN)
    ran = fleet(
        *(folder / "in", "-o", folder / "out", "--known", folder / "known.toml"),
        *("--fail-on", "new-clusters>=1"),
    )
    return folder, truth, ran


def test_the_first_run_finds_every_planted_leak_and_fails_for_new_ones(made: Any) -> None:
    folder, truth, ran = made
    assert ran.returncode == 1, ran.stderr
    rows = parquet.read_table(folder / "out" / "clusters.parquet").to_pylist()
    told = {row["name"].split(" in ")[0]: (row["delta_count"], row["machines"]) for row in rows}
    assert told == {name: (f.count, len(f.machines)) for name, f in truth.leaks.items()}
    states = {row["state"] for row in rows}
    assert states == {"new", "known"}
    assert "SUMMARY: FAIL new-clusters>=1" in ran.stderr
    assert "2 inputs could not be read" in ran.stderr
    assert "leaks on 3 of 3 machines" in ran.stdout
    assert "JIRA-1: the cache" in ran.stdout


def test_the_report_stands_beside_the_datasets(made: Any) -> None:
    folder, truth, _ = made
    page = (folder / "out" / "report.html").read_text("utf-8")
    assert all(path.name in page for path in truth.broken)
    assert "JIRA-1: the cache" in page


def test_the_next_run_has_nothing_new_and_passes(made: Any) -> None:
    folder, _, first = made
    assert first.returncode == 1
    again = fleet(folder / "in", "-o", folder / "out", "--fail-on", "new-clusters>=1")
    assert again.returncode == 0, again.stderr
    assert "SUMMARY: PASS" in again.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--fail-on", "bytes>=1"), "new-clusters>=N"),
        (("--machine-from", "(["), "no pattern"),
        (("--machine-from", "PC"), "has no group"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_read(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    ran = fleet(tmp_path, "-o", tmp_path / "out", *words)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_of_known_leaks_that_says_nothing_is_refused(made: Any, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text("[[known]]\nname = 'x'\n")
    ran = fleet(made[0] / "in", "-o", tmp_path / "out", "--known", path)
    assert ran.returncode == 2
    assert "--known" in ran.stderr
