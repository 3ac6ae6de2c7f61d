"""Where answers go: files, links, devices, and pipes whose reader goes away."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from truth import TESTDATA

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-aslr"
BEFORE, AFTER = str(PAIR / "before.dmp.gz"), str(PAIR / "after.dmp.gz")


def _dumpleak(*args: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dumpleak", *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.fixture
def no_reader() -> int:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["--help"], 0),
        (["info", BEFORE], 0),
        (["allocations", BEFORE], 0),
        (["diff", BEFORE, AFTER], 0),
        (["diff", BEFORE, AFTER, "--format", "json", "--fail-on", "bytes>=1"], 1),
        (["diff", BEFORE, AFTER, "--format", "json", "--fail-on", "bytes>=1G"], 0),
    ],
    ids=lambda value: " ".join(Path(a).name for a in value) if isinstance(value, list) else "",
)
def test_a_reader_that_goes_away_changes_no_exit_code(
    no_reader: int, args: list[str], code: int
) -> None:
    done = _dumpleak(*args, stdout=no_reader)
    os.close(no_reader)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert "walked" not in done.stderr  # what was not asked for any more is not missing


@pytest.mark.parametrize("state", ["used", "all"])
def test_the_first_rows_of_a_good_dump_are_a_whole_answer(state: str) -> None:
    done = _dumpleak("allocations", BEFORE, "--top", "3", "--state", state)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4


def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # the answer fits into the pipe
    done = _dumpleak("info", BEFORE, "-o", str(pipe))
    received = os.read(reader, 1 << 16)
    os.close(reader)
    assert done.returncode == 0, done.stderr
    assert b"app.exe" in received
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("command", ["info", "snapshot"])
def test_a_link_stays_and_its_target_gets_the_answer(tmp_path: Path, command: str) -> None:
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    target.write_text("before")
    link.symlink_to(target)
    assert _dumpleak(command, BEFORE, "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert b"app.exe" in target.read_bytes() or target.read_bytes()[:4] == b"PAR1"
    assert {path.name for path in tmp_path.iterdir()} == {"real.txt", "link.txt"}


@pytest.mark.parametrize("command", ["info", "allocations", "snapshot", "diff"])
def test_an_answer_is_not_written_over_the_dump_it_is_about(tmp_path: Path, command: str) -> None:
    dump, same = tmp_path / "app.dmp.gz", tmp_path / "same.dmp.gz"
    content = Path(BEFORE).read_bytes()
    dump.write_bytes(content)
    same.symlink_to(dump)
    files = [str(dump), AFTER] if command == "diff" else [str(dump)]
    for output in (dump, same):
        done = _dumpleak(command, *files, "-o", str(output))
        assert done.returncode == 2
        assert "would overwrite" in done.stderr
        assert dump.read_bytes() == content
