"""speedscope's file and collapsed stacks: valid, and with the numbers of the JSON report."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from report_samples import HOSTILE_NAMES, comparison, shape, stack
from truth import TESTDATA

from dumpleak.cli import main
from dumpleak.gate.gate import Judged
from dumpleak.reports.profiles import collapsed, speedscope

PAIR = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust"
FILES = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")]
# From the npm package speedscope 1.25.0 (MIT licence, beside it).
SCHEMA = Path(__file__).parent / "speedscope_schema" / "file-format-schema.json"


def validated(text: str) -> dict[str, Any]:
    jsonschema = pytest.importorskip("jsonschema")
    document: dict[str, Any] = json.loads(text)
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    for profile in document["profiles"]:
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] == sum(profile["weights"])
        assert min(profile["weights"], default=1) > 0
    return document


def written(report: Any, answer: Any) -> str:
    stream = io.StringIO()
    report(Judged(answer), None, stream)
    return stream.getvalue()


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert not stop.value.code
    return capsys.readouterr().out


def test_the_speedscope_file_is_valid_and_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    document = validated(run(capsys, "diff", *FILES, "--format", "speedscope"))
    totals = json.loads(run(capsys, "diff", *FILES, "--format", "json"))["totals"]
    amount = {profile["name"]: profile["endValue"] for profile in document["profiles"]}
    assert amount["growth in bytes"] - amount["shrinkage in bytes"] == totals["delta_bytes"]
    assert amount["growth in blocks"] - amount["shrinkage in blocks"] == totals["delta_count"]
    assert amount["current bytes"] == totals["current_bytes"]
    assert amount["base bytes"] == totals["base_bytes"]


def test_a_speedscope_file_of_one_dump(capsys: pytest.CaptureFixture[str]) -> None:
    document = validated(run(capsys, "stat", FILES[0], "--format", "speedscope"))
    totals = json.loads(run(capsys, "stat", FILES[0], "--format", "json"))["totals"]
    assert [profile["endValue"] for profile in document["profiles"]] == [
        totals["used_bytes"],
        totals["used_count"],
    ]


def test_stacks_run_from_the_outermost_caller_to_the_site() -> None:
    site = stack("app!site", "app!main")
    document = validated(written(speedscope.write_diff, comparison([(site, (10, 1), (30, 2))])))
    names = [frame["name"] for frame in document["shared"]["frames"]]
    growth = document["profiles"][0]
    assert [[names[n] for n in sample] for sample in growth["samples"]] == [
        ["app!main", "app!site"]
    ]
    assert growth["weights"] == [20]


def test_hostile_names_are_valid_and_stay_on_their_line() -> None:
    answer = comparison([(shape(name), (1, 1), (2, 2)) for name in HOSTILE_NAMES])
    validated(written(speedscope.write_diff, answer))
    lines = written(collapsed.write_diff, answer).splitlines()
    assert len(lines) == len(HOSTILE_NAMES)
    assert all(line.endswith(" 1 2") for line in lines)


def test_collapsed_stacks_have_base_and_current_as_difffolded_writes_them() -> None:
    changes = [
        (stack("app!site", "app!main"), (10, 1), (30, 2)),
        (stack("app!gone;odd", "app!main"), (7, 1), (0, 0)),
    ]
    assert written(collapsed.write_diff, comparison(changes)).splitlines() == [
        "app!main;app!gone:odd 7 0",
        "app!main;app!site 10 30",
    ]


def test_collapsed_stacks_of_dumps_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    totals = json.loads(run(capsys, "diff", *FILES, "--format", "json"))["totals"]
    added: Counter[str] = Counter()
    for line in run(capsys, "diff", *FILES, "--format", "collapsed").splitlines():
        _, base, current = line.rsplit(" ", 2)
        added["base_bytes"] += int(base)
        added["current_bytes"] += int(current)
    assert {name: totals[name] for name in added} == dict(added)
    one = run(capsys, "stat", FILES[1], "--format", "collapsed").splitlines()
    blocks = json.loads(run(capsys, "stat", FILES[1], "--format", "json"))["totals"]["used_bytes"]
    assert sum(int(line.rsplit(" ", 1)[1]) for line in one) == blocks
