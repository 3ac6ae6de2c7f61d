"""What README.md shows of populations is what the commands print, and its table has every one of them."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from truth import ROOT

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.model.populations import BLOCKS, POOL, POPULATIONS
from dumpleak.survey.pools import POOL_GROUPINGS

SECTION = (
    (ROOT / "README.md").read_text("utf-8").split("## Of what, by what\n")[1].split("\n## ")[0]
)
EXAMPLES = re.findall(r"^\$ dumpleak (.+)\n((?:(?!\$|```).+\n)+)", SECTION, re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize(("line", "shown"), EXAMPLES)
def test_an_example_prints_what_is_shown(
    run: Any, monkeypatch: pytest.MonkeyPatch, line: str, shown: str
) -> None:
    monkeypatch.chdir(ROOT)
    status, out, _ = run(*shlex.split(line))
    assert status == 0
    assert shown in out


def test_the_table_has_every_population_with_its_keys() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]+) \|$", SECTION, re.MULTILINE)
    assert [of for of, _ in rows] == list(POPULATIONS)
    for of, keys in rows:
        named = keys.split(", ")
        assert named[0] == POPULATIONS[of].default
        known = {BLOCKS: GROUPINGS, POOL: POOL_GROUPINGS}.get(of, POPULATIONS[of].groupings)
        assert set(named) <= set(known)
        assert of in (BLOCKS, POOL) or named == list(POPULATIONS[of].groupings)
