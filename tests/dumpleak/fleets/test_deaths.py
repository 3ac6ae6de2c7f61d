"""Real processes that die in the middle: nothing is lost, nothing is read twice without need."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from fleet_inputs import rows, some_of_all
from pyarrow import parquet
from truth import ROOT

COUNT = 48
PYTHONPATH = os.pathsep.join([str(ROOT / "parsers"), str(ROOT)])
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    some_of_all(folder, COUNT)
    return folder


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python modules, which end with the test."""
    with ExitStack() as stack:

        def start(*words: object) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", *map(str, words)],
                    env=os.environ | {"PYTHONPATH": PYTHONPATH, "PYTHONSAFEPATH": "1"},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


def _readers(client: subprocess.Popen[str]) -> list[psutil.Process]:
    family = psutil.Process(client.pid).children(recursive=True)
    return [each for each in family if "serving" in " ".join(each.cmdline())]


def _ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def _wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def _snapshots(folder: Path) -> int:
    return len(list(folder.glob("snapshots/*.*")))


def _whole(inputs: Path, folder: Path) -> None:
    """The rows are those of a run in which nobody died."""
    found = parquet.read_table(folder / "dumps.parquet")
    assert [row["url"] for row in sorted(rows(found), key=lambda row: row["url"])] == sorted(
        str(path) for path in inputs.iterdir() if path.name != "README.txt"
    )
    for row in rows(found):
        assert (row["status"] == "error") == row["url"].endswith(".dmp"), row["error"]


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _scheduler(start: Callable[..., subprocess.Popen[str]], port: int) -> subprocess.Popen[str]:
    where = ("--host", "127.0.0.1", "--port", port, "--no-dashboard")
    return start("distributed.cli.dask_scheduler", *where)


def _worker(start: Callable[..., subprocess.Popen[str]], port: int) -> subprocess.Popen[str]:
    where = (f"tcp://127.0.0.1:{port}", "--nthreads", 1, "--no-dashboard", "--no-nanny")
    return start("distributed.cli.dask_worker", *where)


def test_a_worker_and_the_scheduler_may_die_in_the_middle(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    port, folder = _port(), tmp_path / "fleet"
    scheduler, worker = _scheduler(started, port), _worker(started, port)
    _worker(started, port)
    address = f"tcp://127.0.0.1:{port}"
    client = started("dumpleak", "fleet", inputs, "-o", folder, "--scheduler", address)
    _wait_for(lambda: _snapshots(folder) > 5)
    worker.kill()
    _wait_for(lambda: _snapshots(folder) > 15)
    scheduler.kill()
    scheduler.wait()
    scheduler = _scheduler(started, port)
    _worker(started, port)
    code, out, err = _ended(client)
    assert code == 0, err
    assert f"{COUNT * 3 // 4} of {COUNT} inputs" in out
    assert "Traceback" not in err
    _whole(inputs, folder)


def test_a_run_that_is_killed_goes_on_where_it_stopped(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "fleet"
    line = ("dumpleak", "fleet", inputs, "-o", folder, "--workers", 1)
    first = started(*line)
    _wait_for(lambda: _snapshots(folder) > 20)
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("snapshots/*.*")}
    code, _, err = _ended(started(*line))
    assert code == 0, err
    known = int(err.split("inputs: ")[1].split(" known")[0])
    assert 0 < known < COUNT
    assert all(path.stat().st_mtime_ns == before for path, before in list(kept.items())[:1])
    _whole(inputs, folder)


@pytest.mark.slow
def test_a_local_worker_that_dies_costs_a_retry(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "fleet"
    client = started("dumpleak", "fleet", inputs, "-o", folder, "--workers", 2)
    _wait_for(lambda: _snapshots(folder) > 5)
    _readers(client)[0].parent().kill()
    code, _, err = _ended(client)
    assert code == 0, err
    _whole(inputs, folder)


@pytest.mark.slow
def test_a_reading_process_that_dies_costs_a_retry(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "fleet"
    client = started("dumpleak", "fleet", inputs, "-o", folder, "--workers", 1)
    _wait_for(lambda: _snapshots(folder) > 5)
    for reader in _readers(client):
        reader.kill()
    code, _, err = _ended(client)
    assert code == 0, err
    _whole(inputs, folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_takes_its_workers_along(
    inputs: Path,
    tmp_path: Path,
    started: Callable[..., subprocess.Popen[str]],
    number: signal.Signals,
) -> None:
    folder = tmp_path / "fleet"
    client = started("dumpleak", "fleet", inputs, "-o", folder, "--workers", 2)
    _wait_for(lambda: _snapshots(folder) > 5)
    family = psutil.Process(client.pid).children(recursive=True)
    assert len(family) > 3
    client.send_signal(number)
    code, out, err = _ended(client)
    assert (code, out) == (128 + number, "")
    assert "Traceback" not in err
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive


@pytest.mark.slow
def test_two_runs_in_one_folder_do_not_mix(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "fleet"
    first = started("dumpleak", "fleet", inputs, "-o", folder, "--workers", 1)
    _wait_for(lambda: _snapshots(folder) > 5)
    code, _, err = _ended(started("dumpleak", "fleet", inputs, "-o", folder, "--workers", 1))
    assert code == 3
    assert "another run is at work in this folder" in err
    assert _ended(first)[0] == 0


@pytest.mark.slow
def test_without_a_scheduler_nothing_is_read_and_the_line_says_so(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    address = f"tcp://127.0.0.1:{_port()}"
    line = ("dumpleak", "fleet", inputs, "-o", tmp_path / "fleet", "--scheduler", address)
    code, _, err = _ended(started(*line))
    assert code == 3
    assert "no scheduler answers" in err
    assert "Traceback" not in err
