"""An input that takes too long, too much memory, or ends the process that reads it, is one row."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fleet_inputs import TINY

import dumpleak
from dumpleak.fleets import child, work
from dumpleak.fleets.child import Child, ChildError, Limits
from dumpleak.fleets.store import Task, lost_id
from dumpleak.fleets.work import TRIES, How, read_task

READY = "import json, os, sys, time\nprint('{}', flush=True)\nfor line in sys.stdin:\n "


def _doing(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Lets the process do something else with each request."""
    monkeypatch.setattr(child, "_CODE", READY + what)


def _fails(limits: Limits) -> ChildError:
    with Child(limits) as asked, pytest.raises(ChildError) as failed:
        asked.ask({})
    return failed.value


def test_what_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    _doing(monkeypatch, "time.sleep(600)")
    error = _fails(Limits(seconds=0.2))
    assert error.kind == "TimeLimit"
    assert "0.2 seconds" in str(error)
    assert "--timeout" in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_process_that_is_killed_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    _doing(monkeypatch, "os.kill(os.getpid(), 9)")
    error = _fails(Limits())
    assert error.kind == "Killed"
    assert "SIGKILL" in str(error)


def test_a_process_that_fails_says_with_what(monkeypatch: pytest.MonkeyPatch) -> None:
    _doing(monkeypatch, "raise ValueError('seven')")
    error = _fails(Limits())
    assert (error.kind, str(error)) == (
        "Crash",
        "internal error (ValueError: seven); please report it",
    )


def test_the_next_input_has_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Child(Limits())
    _doing(monkeypatch, "sys.exit(3)")
    with pytest.raises(ChildError, match="exit code 3"):
        asked.ask({})
    _doing(monkeypatch, "print(json.dumps({'pid': os.getpid()}), flush=True)")
    first = asked.ask({})
    assert asked.ask({}) == first
    asked.close()


def test_a_process_ends_in_the_middle_of_its_work_when_nobody_waits_for_it(tmp_path: Path) -> None:
    asked = Child(Limits())
    asked._start()
    process = asked._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="others are looked at now and then")
def test_memory_beyond_the_limit_is_refused_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    what = (
        "from dumpleak.fleets.serving import _limit_memory; _limit_memory('1000000'); bytearray({})"
    )
    _doing(monkeypatch, what.format(1 << 30))
    error = _fails(Limits(memory=1_000_000))
    assert error.kind == "MemoryLimit"
    assert "--memory-limit" in str(error)
    _doing(monkeypatch, what.format(1000) + "; print('{}', flush=True)")
    with Child(Limits()) as asked:
        assert asked.ask({}) == {}


def test_the_content_of_an_input_that_ends_its_process_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _doing(monkeypatch, "print(json.dumps({'begun': {'id': 'ab'}}), flush=True); time.sleep(600)")
    assert _fails(Limits(seconds=0.5)).begun == {"id": "ab"}


def test_an_input_that_ends_its_process_is_tried_again_and_then_a_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _doing(monkeypatch, f"open({str(tmp_path / 'tries')!r}, 'a').write('x'); os._exit(9)")

    class Worker:
        local_directory = str(tmp_path)

    monkeypatch.setattr(work, "get_worker", Worker)
    outcome = read_task(Task("/a.dmp"), How(str(tmp_path), "", Limits()))
    assert (tmp_path / "tries").read_text() == "x" * TRIES
    assert outcome.id == lost_id("/a.dmp")
    assert outcome.told["attempts"] == TRIES
    assert outcome.told["error_kind"] == "Crash"
    assert outcome.told["error"].startswith("/a.dmp: ")


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("TimeLimit", {"timeout": 0.001}),
        pytest.param(
            "MemoryLimit",
            {"memory_limit": 1 << 20},
            marks=pytest.mark.skipif(sys.platform != "linux", reason="looked at now and then only"),
        ),
    ],
)
def test_limits_make_rows_and_can_be_raised(
    tmp_path: Path, kind: str, limits: dict[str, float]
) -> None:
    first = dumpleak.fleet(TINY[5], tmp_path, workers=1, **limits)
    row = first.dumps.to_pylist()[0]
    assert (first.read, first.errors, row["url"]) == (0, 1, str(TINY[5]))
    # A library that gets no memory may also end the process.
    assert row["error_kind"] in (kind, "Killed")
    assert "allow more with --" in row["error"]
    again = dumpleak.fleet(TINY[5], tmp_path, workers=1, retry_errors=True)
    assert (again.read, again.errors) == (1, 0)
