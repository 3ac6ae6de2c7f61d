"""`dumpleak pool` of two dumps: the gate and the formats of CI say what `diff` of the same files says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA

from dumpleak.cli import main

PAIR = TESTDATA / "kernel" / "22621-x64" / "tiny-pair"
BEFORE, AFTER = str(PAIR / "before.dmp.xz"), str(PAIR / "after.dmp.xz")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        told = capsys.readouterr()
        return int(stop.value.code or 0), told.out, told.err

    return call


def _summary(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("SUMMARY")]


@pytest.mark.parametrize(
    ("condition", "code"), [("bytes>=1K", 1), ("site.bytes>=1G", 0), ("count>=100000", 0)]
)
def test_a_gate_on_pool_ends_as_the_same_gate_on_diff(run: Any, condition: str, code: int) -> None:
    ends = [run(command, BEFORE, AFTER, "--fail-on", condition) for command in ("pool", "diff")]
    assert [end[0] for end in ends] == [code, code]
    assert _summary(ends[0][2]) == _summary(ends[1][2]) != []
    assert " blocks" in _summary(ends[0][2])[0]


@pytest.mark.parametrize("format_", ["markdown", "junit", "sarif"])
def test_formats_of_ci_are_those_of_diff(run: Any, format_: str) -> None:
    told = [
        run(command, BEFORE, AFTER, "--format", format_, "--fail-on", "site.count>=200")
        for command in ("pool", "diff")
    ]
    assert told[0] == told[1]
    assert told[0][0] == 1
    assert "AcNb" in told[0][1]


def test_a_snapshot_file_is_judged_as_its_dump(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "before.dlsnap"
    assert run("snapshot", BEFORE, "-o", file)[0] == 0
    ends = [run("pool", base, AFTER, "--fail-on", "bytes>=1K") for base in (BEFORE, file)]
    assert ends[0][0] == ends[1][0] == 1
    assert _summary(ends[0][2]) == _summary(ends[1][2])


def test_a_baseline_of_the_same_growth_accepts_it(run: Any, tmp_path: Path) -> None:
    accepted = tmp_path / "accepted.json"
    assert run("diff", BEFORE, AFTER, "--format", "json", "-o", accepted)[0] == 0
    code, _, err = run("pool", BEFORE, AFTER, "--fail-on", "bytes>=1K", "--baseline", accepted)
    assert (code, f"baseline {accepted}" in err) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        (AFTER, "--fail-on", "bytes>=1K"),
        (AFTER, "--format", "junit"),
        (BEFORE, AFTER, "--fail-on", "bytes>=1K", "--tag", "AcNb"),
        (BEFORE, AFTER, "--fail-on", "bytes>=1K", "--type", "paged"),
        (BEFORE, AFTER, "--format", "sarif", "--no-walk"),
    ],
)
def test_what_cannot_be_judged_is_a_wrong_question(run: Any, words: tuple[str, ...]) -> None:
    code, out, err = run("pool", *words)
    assert (code, out) == (2, "")
    assert re.search(r"--tag, --exclude, --type and --no-walk|take two", err)
