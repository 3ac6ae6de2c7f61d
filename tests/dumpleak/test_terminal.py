"""What a terminal shows, held against golden files in tests/golden, and its numbers against the truth.

After a wanted change, write the golden files anew and read the diff before it is committed:

    DUMPLEAK_UPDATE_GOLDEN=1 pytest tests/dumpleak/test_terminal.py
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from report_samples import (
    CHANGES,
    GROWING,
    LONG_NAME,
    described,
    growth,
    no_growth,
    not_comparable,
    series,
    unreferenced,
)
from rich.cells import cell_len
from truth import TESTDATA, TruthDump

from dumpleak.cli import main
from dumpleak.compare.diff import compare
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth, Selection, take_growth, take_pool
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.answers.heaps import heaps_document
from dumpleak.reports.answers.info import info_document
from dumpleak.reports.answers.leaks import leaks_document
from dumpleak.reports.answers.pools import pool_document, pool_growth_document
from dumpleak.reports.answers.stat import stat_document
from dumpleak.reports.answers.trend import trend_document
from dumpleak.reports.document import Document
from dumpleak.reports.text.cells import sparkline
from dumpleak.reports.text.writer import write_text
from dumpleak.survey.pools import take_pool_snapshot
from windumps import open_dump

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"

KERNEL_PAIR = TESTDATA / "kernel" / "7601-x64" / "tiny-pair"


def _pools(name: str) -> Snapshot:
    taken = take_pool_snapshot(PoolReader(open_dump(KERNEL_PAIR / f"{name}.dmp.xz")))
    return replace(taken, source=replace(taken.source, file=f"{name}.dmp.xz"))


@lru_cache(maxsize=1)
def kernel_pool() -> PoolAnswer:
    return take_pool(_pools("after"), Selection())


@lru_cache(maxsize=1)
def kernel_pool_growth() -> PoolGrowth:
    growth = take_growth(compare(_pools("before"), _pools("after")), Selection())
    told = growth.comparison
    base, current = (
        replace(side, source=replace(side.source, file=f"{name}.dmp.xz"))
        for name, side in (("base", told.base), ("current", told.current))
    )
    return replace(growth, comparison=replace(told, base=base, current=current))


SCREENS: dict[str, Callable[[], Document]] = {
    "diff": lambda: diff_document(growth(), None),
    "diff-top-2": lambda: diff_document(growth(), 2),
    "no-growth": lambda: diff_document(no_growth(), None),
    "not-comparable": lambda: diff_document(not_comparable(), None),
    "trend": lambda: trend_document(series(after_idle=False), None),
    "trend-after-idle": lambda: trend_document(series(after_idle=True), None),
    "stat": lambda: stat_document(growth().current, None),
    "info": lambda: info_document(described(usable=True)),
    "info-unusable": lambda: info_document(described(usable=False)),
    "heaps": lambda: heaps_document(growth().current),
    "leaks": lambda: leaks_document(unreferenced(), None),
    "pool": lambda: pool_document(kernel_pool(), 12),
    "pool-growth": lambda: pool_growth_document(kernel_pool_growth(), None),
}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def screen(
    monkeypatch: pytest.MonkeyPatch, name: str, width: int | None, colour: bool = True
) -> str:
    """What is shown on a terminal of this width, or in a pipe (None)."""
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width or 80))
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO() if width is None else Terminal()
    write_text(SCREENS[name](), stream)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["80-colour", "80-plain", "140-colour", "140-plain", "pipe"])
@pytest.mark.parametrize("name", SCREENS)
def test_screens_are_as_they_were_reviewed(
    monkeypatch: pytest.MonkeyPatch, name: str, form: str
) -> None:
    width, _, colour = form.partition("-")
    shown = screen(monkeypatch, name, int(width) if colour else None, colour == "colour")
    golden = GOLDEN / f"{name}-{form}.txt"
    if os.environ.get("DUMPLEAK_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(shown, encoding="utf-8", newline="\n")
    assert shown == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("name", [name for name in SCREENS if name != "info-unusable"])
def test_no_line_is_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch, name: str, width: int
) -> None:
    lines = COLOUR.sub("", screen(monkeypatch, name, width)).splitlines()
    assert max(cell_len(line) for line in lines) <= width


@pytest.mark.parametrize("name", [name for name in SCREENS if name not in ("stat", "heaps")])
def test_the_first_lines_answer_and_every_doubt_ends_with_a_command(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Is it leaking, what, who, how sure, what next; within one screen of 24 lines."""
    shown = COLOUR.sub("", screen(monkeypatch, name, 80))
    first = shown.split("\n\n")[0]
    assert len(first.splitlines()) < 24
    words = {
        "diff": ("Leaking?", "What ", "Who ", "How sure", "What next", "dumpleak trend"),
        "trend": ("Suspect", "What ", "Who ", "How sure", "What next", "--after-idle"),
        "trend-after-idle": ("Leaking:", "What ", "Who ", "How sure"),
        "not-comparable": ("Cannot tell", "Why", "procdump -ma app.exe app.dmp"),
        "leaks": ("Nothing points to", "What ", "Who ", "How sure", "What next", "dumpleak diff"),
        "info-unusable": ("no:", "procdump -ma app.exe app.dmp"),
        "info": ("yes:", "gflags /i app.exe +ust"),
    }
    for word in words.get(name.removesuffix("-top-2"), ()):
        assert word in first


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = "\x1b[1;31m"
    assert hot in screen(monkeypatch, "diff", 80)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen(monkeypatch, "diff", 80, colour=False))
    assert "\x1b" not in screen(monkeypatch, "diff", None)


def test_long_names_keep_both_ends_on_a_terminal_and_are_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = COLOUR.sub("", screen(monkeypatch, "diff", 80))
    assert re.search(r"engine\.dll!\S*….*allocate\+0x9c", narrow)
    assert LONG_NAME not in narrow
    assert LONG_NAME in screen(monkeypatch, "diff", None)


def test_names_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = COLOUR.sub("", screen(monkeypatch, "diff", 140))
    assert "bell\\x07 and right-to-left \\u202e name" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


def test_the_numbers_shown_are_those_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = COLOUR.sub("", screen(monkeypatch, "diff", 140))
    row = next(line for line in shown.splitlines() if line.endswith(GROWING.name))
    # 448 KiB and 448 blocks more, of all growth of 458752 + 77700 + 24000 + 400 bytes.
    growth_bytes = sum(max(after[0] - before[0], 0) for _, before, after in CHANGES)
    assert growth_bytes == 560_852
    assert re.split(r"\s{2,}", row.strip()) == [
        "+448 KiB",
        "+448",
        "64.0 KiB in 64",
        "512 KiB in 512",
        "81.8%",
        GROWING.name,
    ]


def test_the_rate_of_a_trend_is_that_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = COLOUR.sub("", screen(monkeypatch, "trend", 140))
    row = next(line for line in shown.splitlines() if line.endswith(GROWING.name))
    # 1,000 blocks of 100 bytes an hour for three hours.
    assert re.split(r"\s{2,}", row.strip()) == [
        "+97.7 KiB",
        "+1000.0",
        "+293 KiB",
        "▂▄▆█",
        "1000 2000 3000 4000",
        "steady",
        "suspect",
        GROWING.name,
    ]


def test_the_text_of_a_real_pair_has_the_sums_of_the_truth(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        TruthDump(PAIR / f"{name}.dmp.gz", PAIR / f"truth-{name}.json.gz").read_truth().sizes
        for name in ("before", "after")
    ]
    grown = len(sizes[1]) - len(sizes[0])
    files = [str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")]
    with pytest.raises(SystemExit):
        main(["diff", *files, "--no-holders"])
    text = capsys.readouterr().out
    assert f"{grown:+,} blocks in all" in text
    with pytest.raises(SystemExit):
        main(["diff", *files, "--format", "json", "--no-holders"])
    sites = json.loads(capsys.readouterr().out)["sites"]
    rows = re.findall(r"^ *\+[\d.]+ \w+ +([+-][\d,]+) ", text, re.M)
    assert [int(row.replace(",", "")) for row in rows] == [s["delta_count"] for s in sites[:20]]


def test_a_sparkline_grows_with_its_values_in_any_encoding() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], "utf-8") == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 50, 100], "cp1252").isascii()
    assert sparkline([0, 0], "utf-8") == "▁▁"
    assert sparkline([], "utf-8") == ""
