"""A new population takes its producer, one row, and its names in the schemas: window stations, say.

A process of its own adds the first two, as files of the package would, and then runs command lines.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders.process_builder import ProcessBuilder

import dumpleak

# What somebody would write. A dump tells of window stations by its comments here.
ADDED = """
import json, sys
import numpy as np
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.populations import POPULATIONS, Population
from dumpleak.model.sites import key_site
from dumpleak.survey.populations import PRODUCERS
from dumpleak.survey.populations.members import Members, numbered

def station_members(session, process, by):
    if not session.dump.comments:
        raise CannotAnswerError("the dump does not list its window stations")
    rows = [row.split() for comment in session.dump.comments for row in comment.split(",")]
    sites, group = numbered(key_site(f"station|{by}", row[by == "session"]) for row in rows)
    return Members(sites, group, np.array([int(row[2]) for row in rows], np.int64))

PRODUCERS["stations"] = station_members
POPULATIONS["stations"] = Population({"name": "name", "session": "session"}, "station", "charged")
"""
RUNS = """
import contextlib, io
from dumpleak.cli import main
for line in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(line)
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
OF = ("--of", "stations")


def _dump(folder: Path, hour: int) -> Path:
    rows = ["WinSta0 s1 4096", *(f"Service-{n} s0 8192" for n in range(3))]
    rows += ["Leaked s0 1024"] * (10 * hour)
    process = ProcessBuilder(3600 * hour).image("app.exe").heap().thread()
    process.dump.comment(",".join(rows))
    file = folder / f"{hour}.dmp"
    file.write_bytes(process.build())
    return file


Answers = dict[str, tuple[int, str, str]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Exit code, output and errors of command lines by name."""
    folder = tmp_path_factory.mktemp("stations")
    dumps = [str(_dump(folder, hour)) for hour in range(3)]
    bare = folder / "bare.dmp"
    bare.write_bytes(ProcessBuilder().image("app.exe").heap().thread().build())
    snaps = [str(folder / f"{hour}.dlsnap") for hour in range(3)]
    two, three = ("diff", *dumps[:2], *OF), ("trend", *dumps, *OF)
    lines: dict[str, tuple[str, ...]] = {
        "stat json": ("stat", dumps[1], *OF, "--by", "session", "--format", "json"),
        "stat text": ("stat", dumps[1], *OF),
        "stat absent": ("stat", str(bare), *OF),
        "stat wrong key": ("stat", dumps[1], *OF, "--by", "use"),
        "diff json": (*two, "--format", "json"),
        "diff csv": (*two, "--format", "csv"),
        "diff text": two,
        "diff html": (*two, "--format", "html"),
        "diff markdown": (*two, "--format", "markdown"),
        "diff fails": (*two, "--fail-on", "site.count>=10"),
        "diff passes": (*two, "--fail-on", "bytes>=10241"),
        "trend json": (*three, "--format", "json"),
        "trend text": three,
        "trend html": (*three, "--format", "html"),
        "trend fails": (*three, "--fail-on", "suspects>=1"),
        **{f"snapshot {n}": ("snapshot", dumps[n], "-o", snaps[n], *OF) for n in range(3)},
        "snapshot absent": ("snapshot", str(bare), "-o", str(folder / "x.dlsnap"), *OF),
        "stat of snapshot": ("stat", snaps[1], *OF, "--by", "session", "--format", "json"),
        "diff of snapshots": ("diff", *snaps[:2], *OF, "--format", "json"),
        "trend of snapshots": ("trend", *snaps, *OF, "--format", "json"),
        "help": ("diff", "--help"),
    }
    places = os.pathsep.join([str(Path(dumpleak.__file__).parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ADDED + RUNS],
        input=json.dumps(list(lines.values())),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": places, "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    told = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(lines, told, strict=True))


def _told(answers: Answers, name: str) -> Any:
    """A document that its schema, with the new names in it, takes."""
    code, out, err = answers[name]
    assert code == 0, err
    document = json.loads(out)
    command = name.partition(" ")[0]
    file = resources.files("dumpleak").joinpath(f"schemas/{command}-1.schema.json")
    schema = json.loads(file.read_text("utf-8"))
    schema["properties"]["of"]["enum"].append("stations")
    schema["properties"]["by"]["enum"].append("session")
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def test_it_is_in_the_totals_of_one_dump(answers: Answers) -> None:
    told = _told(answers, "stat json")
    assert (told["of"], told["by"]) == ("stations", "session")
    groups = [(g["name"], g["used_count"], g["used_bytes"]) for g in told["groups"]]
    assert groups == [("s0", 13, 3 * 8192 + 10 * 1024), ("s1", 1, 4096)]
    text = answers["stat text"][1]
    assert "Total: 38.0 KiB charged, 14 stations" in text
    assert "stations" in text.splitlines()[2]


def test_it_is_in_comparisons_of_every_format(answers: Answers) -> None:
    told = _told(answers, "diff json")
    assert (told["verdict"], told["of"], told["by"]) == ("growth", "stations", "name")
    (site,) = told["sites"]
    assert (site["name"], site["delta_count"], site["delta_bytes"]) == ("Leaked", 10, 10240)
    (row,) = csv.DictReader(io.StringIO(answers["diff csv"][1]))
    assert (row["name"], row["delta_count"], row["delta_bytes"]) == ("Leaked", "10", "10240")
    text = answers["diff text"][1]
    assert text.startswith("Stations of 1 name grew. ")
    assert "+10.0 KiB and +10 stations in all" in text
    assert "all stations are listed" in text
    assert "Growth of stations" in answers["diff markdown"][1]
    assert "blocks" not in text + answers["diff markdown"][1]


def test_it_is_in_series(answers: Answers) -> None:
    told = _told(answers, "trend json")
    (site,) = told["sites"]
    assert (site["name"], site["confidence"]) == ("Leaked", "suspect")
    assert [point["count"] for point in site["points"]] == [0, 10, 20]
    text = answers["trend text"][1]
    assert text.startswith("Suspect: stations of 1 name grew steadily.")
    assert "4 stations and 256 B" in text
    assert "blocks" not in text


@pytest.mark.parametrize("name", ["diff html", "trend html"])
def test_it_is_on_pages(answers: Answers, name: str) -> None:
    code, page, err = answers[name]
    assert code == 0, err
    data = json.loads(page.split('id="data">', 1)[1].split("</script>", 1)[0])
    grid = data["grids"][0]
    assert grid["title"] == "Stations by name that changed"
    assert "stations +/-" in [column["title"] for column in grid["columns"]]
    assert data["members"] == "stations"
    assert "all stations are listed" in page


def test_a_gate_counts_it(answers: Answers) -> None:
    code, _, said = answers["diff fails"]
    assert (
        code,
        "FAIL site.count>=10 (it is 10); 1 name grew by 10240 bytes in 10 stations" in said,
    ) == (
        1,
        True,
    )
    assert answers["diff passes"][0] == 0
    assert answers["trend fails"][0] == 1


def test_snapshot_files_keep_it(answers: Answers) -> None:
    for number in range(3):
        assert answers[f"snapshot {number}"][0] == 0
    assert _told(answers, "stat of snapshot")["groups"] == _told(answers, "stat json")["groups"]
    for ours, of_dumps in (
        ("diff of snapshots", "diff json"),
        ("trend of snapshots", "trend json"),
    ):
        first, second = _told(answers, ours), _told(answers, of_dumps)
        assert (first["sites"], first["totals"]) == (second["sites"], second["totals"])


def test_a_dump_that_does_not_tell_of_it_is_refused(answers: Answers) -> None:
    for name in ("stat absent", "snapshot absent"):
        code, out, err = answers[name]
        assert (code, out) == (3, "")
        assert "does not list its window stations" in err
    code, out, err = answers["stat wrong key"]
    assert (code, out) == (2, "")
    assert "stations are not grouped by use, but by name, session" in err


def test_help_tells_of_it(answers: Answers) -> None:
    assert "Of stations: name, session." in " ".join(answers["help"][1].split())
