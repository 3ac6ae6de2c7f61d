"""Growth that is there never passes a gate, whatever happened to the later dump. Longer runs: `pairs.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fuzz.pairs import GREW, KernelPairSubject, Paired, PairSubject, pairs, report, trials, tried
from fuzz.running import Rounds

KERNEL = "testdata/kernel/14393-x64/tiny-pair/after"
NAME = "testdata/6.1.7601.24384-x86/leak-pair-ust/after"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairSubject:
    made = pairs()[NAME](tmp_path_factory.mktemp("pair"))
    assert isinstance(made, PairSubject)
    return made


@pytest.mark.parametrize("damage", PairSubject.damages)
def test_growth_never_passes_however_the_later_dump_is_damaged(
    pair: PairSubject, damage: str
) -> None:
    rows = [tried(pair, NAME, damage, 1, number)[0] for number in range(2)]
    assert {row.name: (row.code, row.said) for row in rows if row.wrong} == {}


def test_growth_of_pools_never_passes_however_the_later_dump_is_damaged(tmp_path: Path) -> None:
    made = pairs()[KERNEL](tmp_path)
    assert isinstance(made, KernelPairSubject)
    leaked = {page.address for page in made.pages} & made.planted
    assert 0 < len(leaked) < len(made.pages)
    # Every sixth damage: all of them take minutes.
    mine = ["none", "hide-drop", "hide-zero", *list(made.damages)[3::6]]
    rows = [tried(made, KERNEL, damage, 1, 0)[0] for damage in mine]
    assert {row.name: (row.code, row.said) for row in rows if row.wrong} == {}
    assert rows[0].code == GREW


@pytest.mark.parametrize(
    ("damage", "code", "wrong"),
    [
        ("cut", 0, "false PASS"),
        ("cut", 1, ""),
        ("cut", 3, ""),
        ("cut", 2, "other exit code"),
        ("none", 3, "other exit code"),
    ],
)
def test_a_pair_that_ends_otherwise_is_wrong(
    monkeypatch: pytest.MonkeyPatch, pair: PairSubject, damage: str, code: int, wrong: str
) -> None:
    monkeypatch.setattr(pair, "asked", lambda *_: (code, "", "said"))
    assert tried(pair, NAME, damage, 1, 0)[0].wrong == wrong


def test_the_limit_is_nine_tenths_of_what_grew(pair: PairSubject, tmp_path: Path) -> None:
    conditions = [tried(pair, NAME, "none", 1, number)[0].condition for number in range(4)]
    assert conditions == [
        f"{name}>={int(0.9 * pair.growth[name])}"
        for name in ("site.bytes", "bytes", "site.count", "count")
    ]
    assert all(growth > 10 for growth in pair.growth.values())


def test_the_hidden_pages_are_those_of_the_leak(pair: PairSubject) -> None:
    leaked = {page.address for page in pair.pages} & pair.planted
    assert 0 < len(leaked) < len(pair.pages)


def test_a_pair_in_swapped_order_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(trials([NAME], ["none"], 1, Rounds(1, None)))
    taken = Paired._whole

    def swapped(pair: Paired) -> dict[str, Any]:
        return {**taken(pair), "diagnostics": [{"code": "dumps-swapped"}]}

    monkeypatch.setattr(Paired, "_whole", swapped)
    rows += trials([NAME], ["none", "cut"], 1, Rounds(1, None))
    assert [row.is_swapped for row in rows] == [False, True]
    assert report(rows, 1) == 0
    assert f"swapped order: {NAME}" in capsys.readouterr().out
