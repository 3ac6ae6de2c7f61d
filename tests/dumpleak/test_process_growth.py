"""`dumpleak processes` of two: which process grew."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from builders.filled_system import FilledSystem
from builders.live_log_builder import process_list

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
    told = _answer(run, before, after)
    assert told["processes"] == []
    assert told["verdict"] == "no-growth"
    rows = {row["name"]: row for row in told["account"]}
    assert rows["processes.bytes"]["delta"] is None
    assert "before.dmp" in rows["processes.bytes"]["reason"]


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
    assert code == 0
    assert out.startswith("No process is seen to grow by more than is usual, but not all is known.")
    assert "Unknown      handles of lsass.exe: a side does not tell" in out
