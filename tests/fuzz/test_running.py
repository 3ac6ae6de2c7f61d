"""What the scripts share."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fuzz import fuzz, honesty, pairs
from fuzz.running import Rounds, chosen, kept, read_rows


def test_every_dump_has_its_rounds_whatever_the_time() -> None:
    shared = {name: list(numbers) for name, numbers in Rounds(3, None).shared(["a", "b"])}
    assert shared == {"a": [0, 1, 2], "b": [0, 1, 2]}
    assert [list(numbers) for _, numbers in Rounds(None, 0).shared(["a", "b"])] == [[0], [0]]


def test_the_time_is_shared_by_all_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("fuzz.running.time.monotonic", lambda: next(clock))
    shared = {name: len(list(numbers)) for name, numbers in Rounds(None, 100).shared(["a", "b"])}
    assert shared["a"] in range(45, 55)
    assert shared["b"] in range(45, 55)


def test_names_are_chosen_by_patterns() -> None:
    assert chosen(["a/b", "a/c", "d"], "a/*,x") == ["a/b", "a/c"]


def test_rows_on_disk_are_the_rows(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    rows = kept([honesty.Row("dump", "cut", 1), honesty.Row("dump", "cut", 2)], out)
    assert [honesty.Row(**row) for row in read_rows(out)] == rows


def test_a_report_names_each_lie_with_the_line_that_shows_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = honesty.Row("testdata/10.0.1.1-x64/tiny/dump", "cut", 3, blocks={"nt-lfh": 9})
    assert honesty.report([row], 1, 1) == 0
    row.broken, row.examples = {"invented": {"nt-lfh": 2}}, {"invented": ["0x10"]}
    assert honesty.report([row], 1, 1) == 1
    assert honesty.report([], 1, 1) == 1  # nothing was tried
    said = capsys.readouterr().out
    assert "--seed 1 --replay 'testdata/10.0.1.1-x64/tiny/dump:cut:3'" in said
    assert "1 with a lie, invented: 1" in said
    honesty.table([row])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("| nt-lfh of 10 | 1 | 9 | 0.00% | 0 (0) | 2 (1) |")


def test_a_report_names_each_pair_that_passes(capsys: pytest.CaptureFixture[str]) -> None:
    row = pairs.Row("pair", "cut", 3, "bytes>=9", 3)
    assert pairs.report([row], 1) == 0
    row.code, row.wrong = 0, pairs.FALSE_PASS
    assert pairs.report([row], 1) == 1
    assert "--replay 'pair:cut:3'" in capsys.readouterr().out


def test_a_report_names_each_finding_once(capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz.Tally()
    found = {"what": "ValueError", "text": "x", "where": ["a.py:1 f"], "key": "k"}
    for number in (4, 9):
        tally.add({"kind": "heap-nt-8-x64", "n": number, "s": 0.1, "finding": found})
    tally.add({"kind": "heap-nt-8-x64", "n": 5, "s": 0.1, "outcome": "answered"})
    fuzz.report(tally, 1)
    said = capsys.readouterr().out
    assert "--replay 'heap-nt-8-x64:4'" in said
    assert ":9'" not in said
    assert said.endswith("3 cases of 1 kinds: 1 answered, 0 refused, 2 findings of 1 causes\n")


def test_families_of_kinds() -> None:
    kinds = ["heap-nt-8-x64", "process-made-x86", "process-tiny-10.0.1.1-x64", "umdh-log"]
    assert [fuzz.family(kind) for kind in kinds] == ["heap-nt", "process-made", "process", "umdh"]
