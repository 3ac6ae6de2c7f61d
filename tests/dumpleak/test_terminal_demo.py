"""`dumpleak demo`, the progress bar, and output where there is no terminal of today."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from builders.minidump_builder import MinidumpBuilder
from truth import ROOT, TESTDATA, TruthDump

from dumpleak.cli import main
from dumpleak.model.optional_libraries import install_command
from dumpleak.process.session import Session
from dumpleak.reports.page import writer as html_page

demo_module = import_module(
    "dumpleak.commands.demo"
)  # `dumpleak.commands.demo` is also the command

PAIR = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust"
TINY = str(TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz")


def test_the_demo_prints_the_answer_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("plotly")
    shown: list[str] = []
    monkeypatch.setattr(demo_module.webbrowser, "open", shown.append)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["demo"])
    assert not stop.value.code
    page = tmp_path / "dumpleak-demo.html"
    out = capsys.readouterr().out
    truths = [
        TruthDump(PAIR / f"{name}.dmp.gz", PAIR / f"truth-{name}.json.gz").read_truth()
        for name in ("before", "after")
    ]
    grown = len(truths[1].sizes) - len(truths[0].sizes)
    assert f"{grown:+,} blocks in all" in out
    assert str(page) in out
    assert str(ROOT) not in page.read_text(encoding="utf-8")
    assert shown == []
    with pytest.raises(SystemExit):
        main(["demo", "--open", "-o", "other.html"])
    assert shown == [(tmp_path / "other.html").as_uri()]


def test_the_demo_without_the_extra_still_answers_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    html_page._plotly.cache_clear()
    html_page._packed_charts.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(SystemExit) as stop:
        main(["demo", "-o", str(tmp_path / "page.html")])
    assert stop.value.code == 3
    out, err = capsys.readouterr()
    assert "grew" in out
    assert install_command("html") in err
    assert not list(tmp_path.iterdir())


def test_the_demo_without_its_dumps_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_module, "_PLACES", (tmp_path,))
    with pytest.raises(SystemExit) as stop:
        main(["demo", "-o", str(tmp_path / "page.html")])
    assert stop.value.code == 3
    assert "dumpleak A B" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_wheel_is_told_to_carry_the_demo_dumps_and_the_templates() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folder = ROOT / setup["package-dir"]["dumpleak.demo_dumps"]
    assert all((folder / name).is_file() for name in setup["package-data"]["dumpleak.demo_dumps"])
    assert set(setup["package-data"]["dumpleak.demo_dumps"]) == set(demo_module.NAMES)
    packages = {
        ".".join(path.relative_to(root).parent.parts)
        for root, name in ((ROOT, "dumpleak"), (ROOT / "parsers", "windumps"))
        for path in (root / name).rglob("*.py")
    }
    assert packages <= set(setup["packages"]), "a package is missing from the wheel"


def test_a_walk_tells_its_progress_in_bytes() -> None:
    told: list[tuple[str, int, int]] = []
    session = Session.open(TESTDATA / "10.0.19041.3324-x64" / "mixed" / "dump.dmp.gz")
    for _ in session.blocks(lambda *step: told.append(step)):
        pass
    done = [step[1] for step in told]
    assert done == sorted(done)
    assert len({step[2] for step in told}) == 1
    total = told[-1][2]
    assert done[-1] == total
    blocks = sum(
        source.entry.heap.account.used_block_bytes + source.entry.heap.account.free_block_bytes
        for source in session.readable_heaps
        if source.entry.heap is not None
    )
    assert 0.5 * total < blocks <= total
    assert {step[0] for step in told} > {"walking heap 0", "walking heap 1"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("option", ["-q", "--quiet", "--no-progress"])
def test_the_progress_bar_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    def on_a_terminal(*args: str) -> str:
        stream = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            patch.setenv("TERM", "xterm-256color")
            with pytest.raises(SystemExit):
                main(["stat", TINY, *args])
        return stream.getvalue()

    assert "walk" in on_a_terminal()
    assert on_a_terminal(option) == ""
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["stat", TINY])
    assert capsys.readouterr().err == ""


def test_a_console_without_these_characters_gets_escapes_and_no_error() -> None:
    series = TESTDATA / "10.0.22621.4541-x64" / "series-ust"
    dumps = [str(series / f"dump{number}.dmp.gz") for number in range(3)]
    pytest.importorskip("scipy")
    done = subprocess.run(
        [sys.executable, "-m", "dumpleak", "trend", *dumps],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert b"bytes/hour" in done.stdout


def test_every_refusal_of_a_dump_without_heaps_ends_with_a_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = tmp_path / "small.dmp"
    small.write_bytes(MinidumpBuilder().build())
    for command in ("heaps", "stat", "leaks", "allocations"):
        with pytest.raises(SystemExit) as stop:
            main([command, str(small)])
        assert stop.value.code == 3
        assert "procdump -ma" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["info", str(small)])
    out = capsys.readouterr().out
    assert out.split("\n\n")[0].rstrip().splitlines()[-1].strip().startswith("procdump -ma")
