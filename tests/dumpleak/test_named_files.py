"""Whatever a command line names as a file: pipes, sockets and devices are refused and never waited for."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from truth import TESTDATA

import dumpleak
from dumpleak.reports.formats import FORMATS
from windumps.files import NotAFileError, open_file, whole_file

BEFORE, AFTER = (
    str(TESTDATA / build / "tiny" / "dump.dmp.gz")
    for build in ("10.0.19041.3324-x64", "6.1.7601.24384-x86")
)
KERNEL = str(TESTDATA / "kernel" / "22621-x64" / "tiny-pair" / "after.dmp.xz")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A test that waits for a pipe ends, as a failure."""

    def stop(*_: object) -> None:
        raise TimeoutError("it waits for the pipe")

    kept = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, kept)


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)


@pytest.mark.parametrize(
    "words",
    [
        *(
            ["info {}", "heaps {}", "allocations {}", "stat {}", "pool {}", "processes {}"]
            + ["modules {}", "leaks {}", "symbols {}", "snapshot {} -o out", "{}"]
        ),
        *("diff {} AFTER", "diff BEFORE {}", "trend BEFORE {} AFTER", "BEFORE {}"),
        *("trend BEFORE AFTER --after-idle {}", "pool {} KERNEL"),
        *("diff BEFORE AFTER --baseline {} --fail-on bytes>=1", "stat BEFORE --skip-frames {}"),
        *("diff BEFORE AFTER --suppressions {} --fail-on bytes>=1", "pool KERNEL --pooltag {}"),
    ],
)
def test_what_is_no_file_is_refused_in_one_line_by_every_command_and_option(
    words: str, pipe: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"{}": pipe, "BEFORE": BEFORE, "AFTER": AFTER, "KERNEL": KERNEL}
    code, out, err = run(*(given.get(word, word) for word in words.split()))
    assert (code, out) == (3, "")
    said = "a pipe, not a regular file; write what comes out of it to a file first"
    assert err == f"dumpleak: {pipe}: {said}\n"


def test_sockets_and_devices_are_refused_as_pipes_are(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
    for name, what in ((path, "a socket"), (os.devnull, "a device"), ("/dev/zero", "a device")):
        code, out, err = run("info", name)
        assert (code, out) == (3, "")
        assert err.startswith(f"dumpleak: {name}: {what}, not a regular file; ")


def test_a_shells_pipe_in_place_of_a_file_is_refused() -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -m dumpleak diff <(cat "$1") "$2"', sys.executable, BEFORE, AFTER],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("dumpleak: /dev/fd/")
    assert "a pipe, not a regular file" in done.stderr


def test_a_symbol_path_that_is_no_folder_is_wrong_usage(pipe: str, run: Run) -> None:
    for path in (pipe, f"srv*{pipe}"):
        code, _, err = run("symbols", BEFORE, "--symbols", path)
        assert (code, f"not a folder: {pipe}; give the folder" in err) == (2, True)


def test_pipes_in_a_symbol_store_are_passed_over(tmp_path: Path, run: Run) -> None:
    key = tmp_path / "ntdll.pdb" / "180BF1B90AA75697D0EFEA5E5630AC7E1"
    key.mkdir(parents=True)
    for name in ("ntdll.pdb", "ntdll.pd_", "file.ptr"):
        os.mkfifo(key / name)
    os.mkfifo(tmp_path / "ntdll.pdb.pipe")
    code, out, _ = run("symbols", BEFORE, "--symbols", tmp_path, "--format", "json")
    assert code == 0
    assert '"found"' not in out


def test_the_api_refuses_a_pipe_too(pipe: str) -> None:
    for function in (dumpleak.snapshot, dumpleak.open_dump):
        with pytest.raises(NotAFileError, match="a pipe"):
            function(pipe)


def test_a_file_that_becomes_a_pipe_while_it_is_opened_is_not_waited_for(
    pipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    about = file.stat()
    monkeypatch.setattr(os, "stat", lambda *_, **__: about)
    with pytest.raises(NotAFileError):
        open_file(pipe)


# -- what is written -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["heaps", "snapshot"])
@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_what_lies_beside_the_output_is_never_touched(
    command: str, kind: str, tmp_path: Path, run: Run
) -> None:
    victim, output = tmp_path / "victim", tmp_path / "out"
    victim.write_text("mine")
    beside = tmp_path / "out.partial"
    if kind == "link":
        beside.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(beside)
    else:
        beside.write_text("mine too")
    assert run(command, BEFORE, "-o", output)[0] == 0
    assert victim.read_text() == "mine"
    assert not output.is_symlink()
    assert output.stat().st_size > 0
    assert beside.lstat().st_mode
    assert kind != "file" or beside.read_text() == "mine too"
    assert len(list(tmp_path.iterdir())) == 3


def test_two_runs_into_one_file_give_the_whole_answer_of_one(tmp_path: Path) -> None:
    output = tmp_path / "c.csv"
    with whole_file(output) as first:
        first.write(b"first, ")
        with whole_file(output) as second:
            second.write(b"second")
            first.write(b"which is longer")
        assert output.read_bytes() == b"second"
    assert output.read_bytes() == b"first, which is longer"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_permissions_of_any_new_file(
    umask: int, tmp_path: Path, run: Run
) -> None:
    kept = os.umask(umask)
    try:
        output = tmp_path / "out"
        assert run("heaps", BEFORE, "-o", output)[0] == 0
        assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~umask
    finally:
        os.umask(kept)


def test_a_file_that_is_there_keeps_its_permissions(tmp_path: Path, run: Run) -> None:
    output, link = tmp_path / "out", tmp_path / "link"
    output.write_text("before")
    output.chmod(0o640)
    link.symlink_to(output)
    for name in (output, link):
        assert run("heaps", BEFORE, "-o", name)[0] == 0
        assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert link.is_symlink()


def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    output.write_text("mine")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # chmod does not stop root
    code, _, err = run("heaps", BEFORE, "-o", output)
    assert (code, err) == (3, f"dumpleak: {output}: Permission denied\n")
    assert output.read_text() == "mine"


def test_a_link_to_nothing_gets_its_target_and_one_to_itself_is_refused(
    tmp_path: Path, run: Run
) -> None:
    link, circle = tmp_path / "link", tmp_path / "circle"
    link.symlink_to("new")
    circle.symlink_to("circle")
    assert run("heaps", BEFORE, "-o", link)[0] == 0
    assert link.is_symlink()
    assert "heap" in (tmp_path / "new").read_text()
    code, _, err = run("heaps", BEFORE, "-o", circle)
    assert (code, len(err.splitlines())) == (3, 1)
    assert circle.is_symlink()


@pytest.mark.parametrize("command", ["heaps", "snapshot"])
@pytest.mark.parametrize(
    ("output", "why"),
    [
        ("x" * 300, "File name too long"),
        ("/dev/full", "No space left on device"),
    ],
    ids=["long", "full"],
)
def test_a_place_that_cannot_be_written_is_told_by_the_name_that_was_given(
    command: str,
    output: str,
    why: str,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    code, _, err = run(command, BEFORE, "-o", output)
    assert (code, err) == (3, f"dumpleak: {output}: {why}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_dash_is_standard_output_and_no_file(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "heap" in run("heaps", BEFORE, "-o", "-")[1]
    assert run("snapshot", BEFORE, "-o", "-")[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_the_very_word_of_an_input_is_refused(tmp_path: Path, run: Run) -> None:
    snapshot = str(tmp_path / "a.dlsnap")
    assert run("snapshot", BEFORE, "-o", snapshot)[0] == 0
    content = Path(snapshot).read_bytes()
    assert run("info", snapshot, "-o", snapshot)[0] == 2
    assert Path(snapshot).read_bytes() == content


def test_a_folder_in_place_of_files_is_called_one(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dumps").mkdir()
    for words in (("dumps",), ("dumps", BEFORE), (BEFORE, "dumps")):
        code, _, err = run(*words)
        assert (code, "dumps: is a folder, not a dump" in err) == (2, True)


def test_a_list_of_frames_that_is_no_text_gives_a_short_message(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "skip.txt"
    path.write_bytes(b"\x00\xff" * 100_000)
    code, _, err = run("stat", BEFORE, "--skip-frames", path)
    assert (code, len(err) < 1000) == (2, True)


@pytest.mark.parametrize("command", ["heaps", "snapshot"])
def test_a_full_disk_is_told_by_the_name_of_the_output_and_leaves_what_was_there(
    command: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    output.write_text("before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(command, BEFORE, "-o", output)
    assert (code, err) == (3, f"dumpleak: {output}: No space left on device\n")
    assert output.read_text() == "before"
    assert list(tmp_path.iterdir()) == [output]


def test_standard_output_under_another_name_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    output = tmp_path / "log"
    output.write_text("first\n")
    with output.open("a") as log:
        done = subprocess.run(
            [sys.executable, "-m", "dumpleak", "heaps", BEFORE, "-o", "/dev/stdout"],
            stdout=log,
            check=False,
        )
    assert done.returncode == 0
    assert output.read_text().startswith("first\n")
    assert "heap" in output.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_no_part_of_its_answer(
    number: signal.Signals, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.csv"
    seen: list[str] = []

    def end(*_: object) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())
        os.kill(os.getpid(), number)
        for _ in range(1000):
            time.sleep(0.01)

    monkeypatch.setitem(FORMATS, "csv", end)
    before = signal.getsignal(number)
    code, _, err = run("heaps", BEFORE, "--format", "csv", "-o", output)
    assert code == 128 + number
    assert [name.startswith(".out.csv.") for name in seen] == [True]
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in err
    assert signal.getsignal(number) is before


def test_an_answer_is_not_written_over_lists_that_it_is_made_with(tmp_path: Path, run: Run) -> None:
    skipped, tags = tmp_path / "skip.txt", tmp_path / "pooltag.txt"
    skipped.write_text("engine!*\n")
    tags.write_text("Leak - leak.sys - what leaks\n")
    for words in (
        ("stat", BEFORE, "--skip-frames", skipped, "-o", skipped),
        ("pool", KERNEL, "--pooltag", tags, "-o", tags),
    ):
        code, _, err = run(*words)
        assert (code, "would overwrite" in err) == (2, True)
    assert (skipped.read_text(), tags.read_text()[:4]) == ("engine!*\n", "Leak")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
def test_a_refusal_shows_control_characters_of_names_as_escapes(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[2Jb.dmp"
    file.write_bytes(b"no dump at all")
    code, _, err = run("info", file)
    assert code == 3
    assert "\x1b" not in err
    assert len(err.splitlines()) == 1
