"""`dumpleak processes` of two: which process grew."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import FilledSystem
from builders.live_log_builder import counter_samples, counter_sets, counters, process_list

from dumpleak.reports.formats import FORMATS

MIB = 1 << 20


def _made(folder: Path, which: str) -> FilledSystem:
    return FilledSystem(folder, which=which).fill()


def _answer(run: Any, *files: Path) -> dict[str, Any]:
    code, out, err = run("processes", *files, "--format", "json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def test_the_process_that_grew_comes_first_with_all_its_figures(run: Any, tmp_path: Path) -> None:
    before = _made(tmp_path, "before").save()
    made = _made(tmp_path, "after")
    made.holds("acmesvc.exe", pages=0x4000, threads=31, nonpaged=0x104000, paged=0x9000)
    made.handles("acmesvc.exe", 150)
    made.holds("lsass.exe", pages=0x101)
    after = made.save()
    told = _answer(run, before, after)
    assert told["verdict"] == "growth"
    first, second = told["processes"]
    assert (first["name"], first["grew"], first["same_count"]) == ("acmesvc.exe", True, 1)
    assert first["delta_private_commit_bytes"] == 63 * MIB
    assert first["same_processes_delta_private_commit_bytes"] == 63 * MIB
    assert (first["delta_handle_count"], first["delta_thread_count"]) == (146, 30)
    assert first["delta_nonpaged_quota_bytes"] == MIB
    assert first["delta_paged_quota_bytes"] == 0x1000
    assert (second["name"], second["grew"]) == ("lsass.exe", False)
    code, out, _ = run("processes", before, after)
    assert code == 0
    assert out.startswith("acmesvc.exe (+63.0 MiB private commit, +146 handles, +30 threads")
    code, out, _ = run("processes", before, after, "--format", "csv")
    assert out.splitlines()[1].startswith("acmesvc.exe,running,1,1,1,1048576,67108864,66060288,")


def test_small_changes_are_no_growth(run: Any, tmp_path: Path) -> None:
    before = _made(tmp_path, "before").save()
    made = _made(tmp_path, "after")
    made.holds("acmesvc.exe", pages=0x110, threads=5)
    made.handles("acmesvc.exe", 20)
    told = _answer(run, before, made.save())
    assert told["verdict"] == "no-growth"
    assert [row["name"] for row in told["processes"]] == ["acmesvc.exe"]


def test_a_process_that_was_started_anew_is_not_taken_for_the_one_before(
    run: Any, tmp_path: Path
) -> None:
    before = _made(tmp_path, "before").save()
    made = _made(tmp_path, "after")
    made.holds("acmesvc.exe", pages=0x4000)
    created = made.address("acmesvc.exe") + made.n.created
    made.put(created, struct.pack("<Q", made.get(created) + 10**9))  # the id is used again
    first = _answer(run, before, made.save())["processes"][0]
    assert (first["name"], first["same_count"]) == ("acmesvc.exe", 0)
    assert first["delta_private_commit_bytes"] == 63 * MIB
    assert first["same_processes_delta_private_commit_bytes"] is None
    assert first["evidence"] == ["0 the same, 1 gone, 1 new: restarted, or others of that name"]


def test_ended_processes_that_something_keeps_alive_are_growth(run: Any, tmp_path: Path) -> None:
    before = _made(tmp_path, "before").save()
    made = _made(tmp_path, "after")
    for process in made.named("svchost.exe"):
        made.end(process, listed=False)
    after = made.save()
    told = _answer(run, before, after)
    first = told["processes"][0]
    assert (told["verdict"], first["name"], first["state"]) == ("growth", "svchost.exe", "ended")
    assert (first["base_count"], first["current_count"]) == (0, 3)
    assert "3 more ended" in run("processes", before, after)[1]


def test_what_one_side_does_not_tell_is_unknown_and_said(run: Any, tmp_path: Path) -> None:
    before = FilledSystem(tmp_path).save()  # no figures at all
    after = _made(tmp_path, "after").save()
    code, out, err = run("processes", before, after, "--format", "json")
    told = json.loads(out)
    assert (code, told["processes"], told["verdict"]) == (3, [], "not-comparable")
    assert "private commit of all programs: a side does not tell" in told["reasons"]
    assert "whether a process grew cannot be told" in err
    rows = {row["name"]: row for row in told["account"]}
    assert rows["processes.bytes"]["delta"] is None
    assert "before.dmp" in rows["processes.bytes"]["reason"]


def test_where_a_side_tells_no_figure_of_any_process_no_growth_is_not_all(
    run: Any, tmp_path: Path
) -> None:
    out = run("processes", FilledSystem(tmp_path).save(), _made(tmp_path, "after").save())[1]
    assert out.startswith("No process is seen to grow by more than is usual, but not all is known.")
    assert "Unknown      private commit of all programs: a side does not tell" in out
    assert "growth, not proof" not in out


def test_snapshot_files_tell_the_same(run: Any, tmp_path: Path) -> None:
    made = _made(tmp_path, "after")
    made.holds("acmesvc.exe", pages=0x4000)
    dumps = _made(tmp_path, "before").save(), made.save()
    files = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for dump, file in zip(dumps, files, strict=True):
        assert run("snapshot", dump, "-o", file)[0] == 0
    assert _answer(run, *files)["processes"] == _answer(run, *dumps)["processes"]
    hidden = tmp_path / "hidden.dlsnap"
    assert run("snapshot", dumps[0], "-o", hidden, "--strip-names")[0] == 0
    assert b"acmesvc" not in hidden.read_bytes()


def test_lists_of_a_live_system_tell_which_process_grew(run: Any, tmp_path: Path) -> None:
    rows = [("app", 4711, 507, 20 * MIB), ("svchost", 8, 90, 9 * MIB), ("svchost", 12, 91, MIB)]
    older, newer = tmp_path / "a.csv", tmp_path / "b.csv"
    older.write_text(process_list(rows))
    newer.write_text(process_list([("app", 4711, 9507, 21 * MIB), *rows[1:]]))
    told = _answer(run, older, newer)
    (only,) = told["processes"]
    assert (only["name"], only["delta_handle_count"], only["grew"]) == ("app", 9000, True)
    assert only["delta_thread_count"] is None
    assert "their start is not told" in only["evidence"][0]


COUNTED: dict[str, list[float | None]] = {
    r"\Process(app)\Private Bytes": [20e6, 30e6, 90e6],
    r"\Process(app)\Handle Count": [100, 150, 190],
    r"\Process(app)\Thread Count": [5, 5, 40],
    r"\Process(app)\ID Process": [4711, 4711, 4711],
    r"\Process(svchost)\Private Bytes": [9e6, 9e6, 9e6],
    r"\Process(svchost#1)\Private Bytes": [1e6, 1e6, None],
    r"\Process(_Total)\Private Bytes": [30e6, 40e6, 99e6],
    r"\Process(late)\Private Bytes": [None, None, 3e6],
    r"\Memory\Committed Bytes": [4e9, 4e9, 4e9],
}


@pytest.mark.parametrize("make", [counters, counter_sets, counter_samples])
def test_one_performance_log_tells_which_process_grew_over_it(
    run: Any, tmp_path: Path, make: Any
) -> None:
    log = tmp_path / "counters.csv"
    log.write_bytes(make(COUNTED).encode())
    told = _answer(run, log)
    assert told["verdict"] == "growth"
    rows = {row["name"]: row for row in told["processes"]}
    assert list(rows) == ["app", "late", "svchost"]
    assert rows["app"]["delta_private_commit_bytes"] == 70_000_000
    assert (rows["app"]["delta_handle_count"], rows["app"]["delta_thread_count"]) == (90, 35)
    assert rows["app"]["delta_paged_quota_bytes"] is None
    assert (rows["late"]["base_count"], rows["late"]["current_count"]) == (0, 1)
    assert rows["svchost"]["delta_private_commit_bytes"] == -1_000_000
    assert (rows["svchost"]["base_count"], rows["svchost"]["current_count"]) == (2, 1)
    status, out, _ = run("processes", log)
    assert status == 0
    assert out.startswith("app (+66.8 MiB private commit, +90 handles, +35 threads); 1 program")
    assert "dumpleak trend LOG --process NAME" in out
    notes = [note["code"] for note in told["diagnostics"]]
    assert ("counters-began" in notes) == (make is counters)


def test_two_performance_logs_are_compared_by_their_last_samples(run: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_bytes(counters(COUNTED).encode())
    grown = {path: [(v or 0) * 2 for v in values] for path, values in COUNTED.items()}
    second.write_bytes(counters(grown, hour=20).encode())
    told = _answer(run, first, second)
    rows = {row["name"]: row["delta_private_commit_bytes"] for row in told["processes"]}
    assert (rows["app"], rows["late"]) == (90_000_000, 3_000_000)
    code, out, err = run("processes", second, first)
    assert (code, "taken before" in err) == (3, True)
    assert out.startswith("Cannot tell")


def test_processes_that_a_log_does_not_tell_apart_have_no_figures(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "counters.csv"
    text = counters(COUNTED).replace("(svchost#1)", "(svchost)")
    log.write_bytes(text.encode())
    told = _answer(run, log)
    assert [row["name"] for row in told["processes"]] == ["app", "late"]
    assert "counters-shared" in [note["code"] for note in told["diagnostics"]]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({r"\Memory\Committed Bytes": [4e9, 4e9]}, "of no process"),
        ({r"\Process(app)\Private Bytes": [4e9]}, "is of one moment, name a later one"),
    ],
)
def test_a_log_that_cannot_tell_which_process_grew_is_refused(
    run: Any, tmp_path: Path, columns: Any, said: str
) -> None:
    log = tmp_path / "counters.csv"
    log.write_bytes(counters(columns).encode())
    code, out, err = run("processes", log)
    assert (code, out, said in err) == (3, "", True)


def test_a_dump_in_the_wrong_order_is_no_answer(run: Any, tmp_path: Path) -> None:
    before, after = _made(tmp_path, "before").save(), _made(tmp_path, "after").save()
    code, _, err = run("processes", before, before)
    assert (code, "one and the same file" in err) == (3, True)
    code, _, err = run("processes", after, before)
    assert (code, "taken before" in err) == (3, True)
    for form in FORMATS:  # a document in each, without a row
        code, out, _ = run("processes", after, before, "--format", form)
        assert (code, bool(out)) == (3, True)


def test_what_has_no_processes_is_refused(run: Any, tmp_path: Path) -> None:
    from builders.process_builder import ProcessBuilder

    path = tmp_path / "app.dmp"
    path.write_bytes(ProcessBuilder().image("app.exe").heap().thread().build())
    code, out, err = run("processes", path, path)
    assert (code, out, len(err.splitlines())) == (3, "", 1)


def test_where_a_side_lacks_some_handle_tables_no_growth_is_not_all(
    run: Any, tmp_path: Path
) -> None:
    before = _made(tmp_path, "before").save()
    made = _made(tmp_path, "after")
    made.lose_handles("lsass.exe")
    code, out, _ = run("processes", before, made.save())
    assert code == 3
    assert out.startswith("No process is seen to grow by more than is usual, but not all is known.")
    assert "Unknown      handles of lsass.exe: a side does not tell" in out
