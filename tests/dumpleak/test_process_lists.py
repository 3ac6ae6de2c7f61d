"""Summaries of handle.exe and lists of Get-Process in place of dumps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import handle_summary, process_list
from builders.minidump_builder import MinidumpBuilder

from dumpleak.files.detect import read_snapshot
from dumpleak.model.snapshot import Snapshot
from windumps.errors import WindumpsError

TYPES = [("ALPC Port", 11), ("Event", 108), ("Process", 3), ("Process", 38), ("File", 25)]
ROWS = [
    ("app", 4711, 507, 20_934_656),
    ("svchost", 8, 90, 9_000_000),
    ("svchost", 12, 91, 1_000_000),
]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(name: str, text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return _write


def read(path: Path, process: str | None = None) -> Snapshot:
    found = read_snapshot(path, "site", process=process)
    assert found is not None
    return found


def held(path: Path) -> dict[str, tuple[int, int]]:
    return {site.name: (t.count, t.bytes) for site, t in read(path).groups.values()}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_handle_summary_counts_handles_by_type(encoding: str, write: Write) -> None:
    path = write("handles.txt", handle_summary(TYPES), encoding)
    assert held(path) == {
        "ALPC Port": (11, 0),
        "Event": (108, 0),
        "Process": (41, 0),
        "File": (25, 0),
    }
    assert read(path).population == "handles"


def test_two_handle_summaries_show_the_type_that_leaks(write: Write, run: Any) -> None:
    base = write("a.txt", handle_summary(TYPES))
    current = write("b.txt", handle_summary([*TYPES[:4], ("File", 30_025)]))
    code, output, _ = run("diff", base, current, "--format", "json")
    found = json.loads(output)
    assert (code, found["verdict"]) == (0, "growth")
    assert (found["sites"][0]["name"], found["sites"][0]["delta_count"]) == ("File", 30_000)
    assert {row["name"]: row["delta"] for row in found["account"]} == {"handles.count": 30_000}
    code, _, _ = run("diff", base, current, "--fail-on", "handles.count>=1000")
    assert code == 1
    _, output, _ = run("diff", base, current)
    assert "counts handles by type: no names" in " ".join(output.split())


def test_a_summary_is_compared_with_a_dump_that_lists_its_handles(
    write: Write, run: Any, tmp_path: Path
) -> None:
    dump = tmp_path / "app.dmp"
    rows = [(4 * n, kind, "") for n, kind in enumerate(["Event"] * 8 + ["File"] * 25, 1)]
    made = MinidumpBuilder().handles(rows).module("C:\\app.exe", 0x400000, 0x5000)
    dump.write_bytes(made.build())
    current = write("b.txt", handle_summary([("Event", 108), ("File", 25)]))
    code, output, _ = run("diff", dump, current, "--of", "handles", "--format", "json")
    found = json.loads(output)
    assert code == 0
    assert [(site["name"], site["delta_count"]) for site in found["sites"]] == [("Event", 100)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (handle_summary(TYPES).rsplit("Total", 1)[0], "the summary is cut"),
        (handle_summary(TYPES, total=186), "come to 185 handles, and it says 186"),
        (
            handle_summary(TYPES).replace("Event           : 108", "Event           : 1O8"),
            "damaged",
        ),
        (handle_summary(TYPES) * 2, "several summaries in one file"),
    ],
)
def test_a_summary_that_does_not_add_up_is_refused(text: str, said: str, write: Write) -> None:
    with pytest.raises(WindumpsError, match=said):
        read(write("handles.txt", text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
@pytest.mark.parametrize(("typed", "delimiter"), [(True, ","), (False, ";")])
def test_a_process_list_adds_private_bytes_up_by_name(
    encoding: str, typed: bool, delimiter: str, write: Write, run: Any
) -> None:
    path = write("p.csv", process_list(ROWS, typed=typed, delimiter=delimiter), encoding)
    assert held(path) == {"app": (1, 20_934_656), "svchost": (2, 10_000_000)}
    code, output, _ = run("stat", path)
    assert code == 0
    assert "shows how much a process has and never of what" in output


@pytest.mark.parametrize("process", ["app", "APP.exe", "4711"])
def test_one_process_of_two_lists_is_compared_by_its_account(
    process: str, write: Write, run: Any
) -> None:
    base = write("a.csv", process_list(ROWS))
    current = write("b.csv", process_list([("app", 4711, 9507, 220_934_656), *ROWS[1:]]))
    code, output, _ = run("diff", base, current, "--process", process, "--format", "json")
    found = json.loads(output)
    rows = {row["name"]: row["delta"] for row in found["account"]}
    assert (code, found["verdict"]) == (0, "growth")
    assert (rows["counters.private_bytes"], rows["handles.count"]) == (200_000_000, 9000)
    assert "threads.count" not in rows  # the list tells the name of a type there


def test_processes_of_one_name_are_chosen_by_id(write: Write) -> None:
    path = write("a.csv", process_list(ROWS))
    with pytest.raises(WindumpsError, match="2 processes svchost; give its id: 12, 8"):
        read(path, "svchost")
    figures = {figure.name: figure.value for figure in read(path, "12").outside or ()}
    assert figures["counters.private_bytes"] == 1_000_000
    with pytest.raises(WindumpsError, match="no process nobody; it has app, svchost"):
        read(path, "nobody")


def test_lists_of_many_processes_are_not_compared_without_a_choice(write: Write, run: Any) -> None:
    base = write("a.csv", process_list(ROWS))
    current = write("b.csv", process_list(ROWS[:2]))
    code, output, said = run("diff", base, current)
    assert (code, output) == (3, "")
    assert "choose one with --process NAME: app, svchost" in said


def test_damaged_rows_of_a_list_are_left_out_and_said(write: Write) -> None:
    text = process_list([*ROWS, ("gone", 5, 1, 2)])
    path = write("a.csv", text.replace('"20934656"', '"2093x656"')[:-30])
    snapshot = read(path)
    assert not snapshot.has_bytes  # of app nobody knows them
    assert held(path) == {"app": (1, 0), "svchost": (2, 0)}
    notes = {item.code: item.message for item in snapshot.diagnostics}
    assert notes["counters-damaged"].startswith("2 lines or figures")
    assert (read(path, "app").outside or ())[0].value is None


def test_a_list_without_processes_or_columns_is_refused(write: Write) -> None:
    with pytest.raises(WindumpsError, match="it is cut"):
        read(write("a.csv", process_list([])))
    with pytest.raises(WindumpsError, match="lacks columns"):
        read(
            write(
                "b.csv", '#TYPE System.Diagnostics.Process\r\n"Name","Company"\r\n"app","ACME"\r\n'
            )
        )
