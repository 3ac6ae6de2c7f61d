"""New evidence for sites, and a new key of `--by`, as somebody would add them.

Evidence takes a file, a row and the name of its kind; a key takes two rows: how blocks are put together, and
what the population's groups are called.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA

import dumpleak

# What the files would hold: blocks of a page and more are known by how they are aligned, say.
ADDED = """
import json, sys
from enum import StrEnum

import numpy as np

import dumpleak.interrupts
from dumpleak.model import sites

kinds = {kind.name: kind.value for kind in sites.SiteKind}
sites.SiteKind = StrEnum("SiteKind", {**kinds, "ALIGNED": "aligned"})
for module in [module for name, module in sys.modules.items() if name.startswith("dumpleak")]:
    if "SiteKind" in vars(module):
        module.SiteKind = sites.SiteKind

from dumpleak import attribution
from dumpleak.attribution import grouping
from dumpleak.model.populations import BLOCKS, POPULATIONS

class AlignedAttributor:
    def __init__(self, session, table):
        self.table = table

    def assign(self, source, blocks):
        found = np.full(len(blocks), -1, np.int64)
        large = blocks.size >= 1024
        for odd in (0, 1):
            site = sites.Site(sites.SiteKind.ALIGNED, f"aligned|{odd}", f"aligned {odd}")
            found[large & (blocks.size % 2 == odd)] = self.table.index_of(site)
        return found

attribution.ATTRIBUTORS = (AlignedAttributor, *attribution.ATTRIBUTORS)
grouping.GROUPINGS["digit"] = grouping._by_key(
    "digit",
    lambda session, source, blocks: blocks.size % 10,
    lambda session, source, digit: f"ends with {digit}",
)
POPULATIONS[BLOCKS].groupings["digit"] = "last digit"
"""
RUNS = """
import contextlib, io
from dumpleak.cli import main
for line in json.load(sys.stdin):
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(line)
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, out.getvalue()]))
"""
PAIR = [
    str(TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr" / f"{name}.dmp.gz")
    for name in ("before", "after")
]
ALIGNED = {"aligned 0", "aligned 1"}

Answers = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Exit code and output of command lines by name."""
    file = str(tmp_path_factory.mktemp("evidence") / "before.dlsnap")
    lines = {
        "stat": ("stat", PAIR[1], "--format", "json", "--no-holders"),
        "text": ("stat", PAIR[1], "--no-holders"),
        "diff": ("diff", *PAIR, "--format", "json", "--no-holders"),
        "snapshot": ("snapshot", PAIR[0], "-o", file),
        "diff of a file": ("diff", file, PAIR[1], "--format", "json", "--no-holders"),
        "pprof": ("stat", PAIR[1], "--format", "collapsed", "--no-holders"),
        "digits": ("stat", PAIR[1], "--by", "digit", "--format", "json"),
        "digits grew": ("diff", *PAIR, "--by", "digit"),
        "help": ("diff", "--help"),
    }
    places = os.pathsep.join([str(Path(dumpleak.__file__).parent.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", ADDED + RUNS],
        input=json.dumps(list(lines.values())),
        capture_output=True, text=True, encoding="utf-8", check=True,
        env=os.environ | {"PYTHONPATH": places, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    told = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert [code for code, _ in told] == [0] * len(lines)
    return dict(zip(lines, told, strict=True))


def _sites(answers: Answers, name: str, rows: str = "sites") -> dict[str, Any]:
    told = json.loads(answers[name][1])
    return {row["name"]: row for row in told[rows]}


def test_new_evidence_names_sites_before_weaker_evidence_does(answers: Answers) -> None:
    groups = _sites(answers, "stat", "groups")
    assert groups.keys() > ALIGNED
    assert {groups[name]["kind"] for name in ALIGNED} == {"aligned"}
    others = [row for name, row in groups.items() if name not in ALIGNED]
    assert max(row["largest"] for row in others) < 1024
    assert all(name in answers["text"][1] for name in ALIGNED)


def test_new_evidence_is_compared_and_kept_in_snapshot_files(answers: Answers) -> None:
    grown, kept = _sites(answers, "diff"), _sites(answers, "diff of a file")
    assert grown.keys() > ALIGNED
    assert {name: row["delta_bytes"] for name, row in grown.items()} == {
        name: row["delta_bytes"] for name, row in kept.items()
    }


def test_new_evidence_is_in_profiles(answers: Answers) -> None:
    lines = answers["pprof"][1].splitlines()
    assert {line.split(";")[1].rpartition(" ")[0] for line in lines} >= ALIGNED


def test_a_new_key_puts_blocks_together(answers: Answers) -> None:
    groups = _sites(answers, "digits", "groups")
    assert groups.keys() == {f"ends with {digit}" for digit in range(10)}
    told = json.loads(answers["digits"][1])
    assert sum(row["used_count"] for row in groups.values()) == told["totals"]["used_count"]
    assert "last digits grew" in answers["digits grew"][1]
    assert "digit" in answers["help"][1]
