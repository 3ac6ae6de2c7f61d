"""What a newcomer reads and types first: help, examples, and answers to lines that are not quite right."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA

from dumpleak.cli import main_group

ROOT = Path(__file__).resolve().parents[2]
PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
BEFORE, AFTER = str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")
# Outside double quotes a shell takes these for itself; inside them, only the last three.
TAKEN = re.compile(r"[<>|&;*?\[\]!$`()']")
TAKEN_IN_QUOTES = re.compile(r"[!$`]")


def _taken_by_a_shell(line: str) -> str:
    """What bash, PowerShell or cmd would not hand on as it stands."""
    quoted = "".join(re.findall(r'"([^"]*)"', line))
    bare = re.sub(r'"[^"]*"', "", line)
    return "".join(TAKEN.findall(bare) + TAKEN_IN_QUOTES.findall(quoted))


def _examples(run: Any, *command: str) -> list[str]:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "\\b" not in out
    assert out.count("Examples:") == 1
    lines = out.partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize("command", ["", *main_group.commands])
def test_examples_of_help_stand_on_lines_of_their_own_and_reach_any_shell_whole(
    run: Any, command: str
) -> None:
    examples = _examples(run, *filter(None, [command]))
    assert len(examples) >= 2
    for line in examples:
        assert shlex.split(line)[0] == "dumpleak"
        assert not _taken_by_a_shell(line), line


def test_values_in_the_readme_that_a_shell_would_take_apart_are_in_double_quotes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    values = re.findall(r"(?:--fail-on|--tag|pip install(?: -e)?) ([^\s`]*[\[<>*][^\s`]*)", text)
    assert len(values) >= 5
    assert not [value for value in values if not re.match(r'"[^"]+"', value)]


# -- Ctrl-C ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process")
@pytest.mark.parametrize("module", ["numpy", "click", "rich"])
@pytest.mark.parametrize("start", ["module", "script"])
def test_ctrl_c_while_the_command_is_imported_is_quiet(
    tmp_path: Path, module: str, start: str
) -> None:
    (tmp_path / f"{module}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    )
    script = tmp_path / "bin" / "dumpleak"
    script.parent.mkdir()
    script.write_text("from dumpleak.cli import main\nmain()\n")
    started = ["-m", "dumpleak"] if start == "module" else [str(script)]
    done = _python(tmp_path, *started, "info", "--help")
    assert (done.returncode, done.stderr, done.stdout) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signal to one process")
def test_ctrl_c_stays_with_a_program_that_uses_the_package(tmp_path: Path) -> None:
    program = tmp_path / "nightly.py"
    program.write_text(
        "import os, signal, dumpleak\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    print('mine')\n"
    )
    assert _python(tmp_path, str(program)).stdout == "mine\n"


def _python(first: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with a folder before all others it imports from."""
    places = [str(first), str(ROOT / "parsers"), str(ROOT)]
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        capture_output=True,
        text=True,
        check=False,
    )


# -- lines that are not quite right ----------------------------------------------------------------------


@pytest.mark.parametrize("output", ["missing/out", "missing/", "file/out"])
@pytest.mark.parametrize("command", ["heaps", "snapshot", "demo"])
def test_a_folder_for_the_answer_that_is_not_there_is_told_before_any_work_is_done(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(
        "dumpleak.process.session.open_dump", lambda path: pytest.fail("it was opened")
    )
    code, _, err = run(command, *([] if command == "demo" else [BEFORE]), "-o", output)
    assert code == 2
    assert f"{output}: {os.path.dirname(output)}: " in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_behind_standard_output_is_told_by_name(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dumpleak", "info", BEFORE],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        3,
        "dumpleak: standard output: No space left on device\n",
    )


def test_help_can_be_asked_for_by_a_word(run: Any) -> None:
    assert run("help") == run("--help")
    assert run("help", "diff") == run("diff", "--help")
    assert run("help", "nope")[0] == 2


def test_wildcards_that_a_shell_left_alone_name_the_dumps(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("1.dmp.gz", "2.dmp.gz"):
        shutil.copy(BEFORE if name < "2" else AFTER, name)
    assert run("*.dmp.gz") == run("1.dmp.gz", "2.dmp.gz")
    assert run("diff", "?.dmp.gz") == run("diff", "1.dmp.gz", "2.dmp.gz")
    assert "Ntf*" in main_group.spread(["pool", "1.dmp.gz", "--tag", "Ntf*"])
    (tmp_path / "Ntfs").write_bytes(b"")
    assert "Ntf*" in main_group.spread(["pool", "1.dmp.gz", "--tag", "Ntf*"]), "no file, a value"
    assert run("nope*.dmp")[0] == 2
