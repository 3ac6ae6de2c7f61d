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


@pytest.mark.parametrize(
    "args", [["info", BEFORE], ["snapshot", BEFORE]], ids=["report", "snapshot file"]
)
def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path, args: list[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        done = _dumpleak(*args, "-o", str(pipe))
        received = reader.communicate()[0]
    assert done.returncode == 0, done.stderr
    assert received
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_and_its_target_gets_the_answer(tmp_path: Path) -> None:
    target, link = tmp_path / "real.txt", tmp_path / "link.txt"
    target.write_text("before")
    link.symlink_to(target)
    assert _dumpleak("info", BEFORE, "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert "app.exe" in target.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"real.txt", "link.txt"}
