"""Processes, handles, threads and drivers of a system: counted one by one, and compared."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.filled_system import NUMBERS, FilledSystem
from builders.kernel_builder import System, triage
from builders.live_log_builder import process_list

MIB = 1 << 20
BUILDS = pytest.mark.parametrize("build", list(NUMBERS))


def _groups(run: Any, *line: object) -> dict[str, tuple[int, int | None]]:
    code, out, err = run("stat", *line, "--format", "json")
    assert (code, err) == (0, "")
    return {g["name"]: (g["used_count"], g["used_bytes"]) for g in json.loads(out)["groups"]}


@BUILDS
def test_processes_are_told_with_what_each_has_committed(
    build: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build).fill()
    made.holds("acmesvc.exe", pages=0x1234)
    path = made.save()
    found = _groups(run, path, "--of", "processes")
    assert found["acmesvc.exe"] == (1, 0x1234 * 0x1000)
    assert found["svchost.exe"] == (3, 3 * MIB)
    assert sum(count for count, _ in found.values()) == len(made.processes)


@BUILDS
def test_ended_processes_stand_apart_whether_the_kernel_lists_them_or_not(
    build: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build).fill()
    first, second, _ = made.named("svchost.exe")
    made.end(first, listed=False)
    made.end(second, listed=True)
    path = made.save()
    found = _groups(run, path, "--of", "processes")
    assert found["svchost.exe"] == (1, MIB)
    assert found["svchost.exe (ended)"] == (2, 2 * MIB)
    states = _groups(run, path, "--of", "processes", "--by", "state")
    assert states == {"running": (10, 10 * MIB), "ended": (2, 2 * MIB)}


def test_without_any_commit_processes_are_only_counted(run: Any, tmp_path: Path) -> None:
    path = FilledSystem(tmp_path).save()
    assert _groups(run, path, "--of", "processes")["svchost.exe"] == (3, None)


@BUILDS
def test_handles_are_told_by_process_and_by_type(build: str, run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path, build).fill(handles=3)
    made.handles("acmesvc.exe", 40)
    path = made.save()
    by_process = _groups(run, path, "--of", "handles", "--by", "process")
    assert by_process["acmesvc.exe"] == (40, None)
    assert by_process["svchost.exe"] == (9, None)
    # All of them are of process objects, as the tag of their blocks says.
    assert _groups(run, path, "--of", "handles") == {"Process": (11 * 3 + 40, None)}


@pytest.mark.parametrize("whole", [False, True], ids=["a page", "the table"])
@BUILDS
def test_handles_whose_tables_are_not_there_are_said_and_those_of_others_counted(
    build: str, run: Any, tmp_path: Path, *, whole: bool
) -> None:
    made = FilledSystem(tmp_path, build).fill()
    made.lose_handles("lsass.exe", whole=whole)
    path = made.save()
    everyone = {name for name, _ in made.processes}
    found = _groups(run, path, "--of", "handles", "--by", "process")
    assert found.keys() == everyone - {"lsass.exe"}
    assert sum(count for count, _ in found.values()) == 4 * 11
    assert _groups(run, path, "--of", "handles") == {"Process": (4 * 11, None)}
    code, out, _ = run("stat", path, "--of", "handles")
    assert code == 0
    assert "Total: at least 44 handles" in out
    assert "handles of 1 process are not all in the dump: lsass.exe" in out
    code, out, _ = run("processes", path, "--format", "json")
    told = {p["name"]: p["handle_count"] for p in json.loads(out)["processes"]}
    assert (told["lsass.exe"], told["services.exe"]) == (None, 4)
    code, out, _ = run("info", path, "--format", "json")
    row = next(r for r in json.loads(out)["account"] if r["name"] == "handles.count")
    assert row["value"] is None
    assert "1 process" in row["reason"]


def test_processes_without_handles_have_none(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    for name, _ in made.processes:
        if name not in ("smss.exe", "svchost.exe"):
            made.handles(name, 5)
    made.handles("smss.exe", 0)  # a table of free entries
    for address in made.named("svchost.exe"):
        made.pointer(address + made.n.table, 0)  # as the kernel's own minimal processes
    path = made.save()
    _, out, _ = run("processes", path, "--format", "json")
    told = {p["name"]: p["handle_count"] for p in json.loads(out)["processes"]}
    assert (told["smss.exe"], told["svchost.exe"], told["lsass.exe"]) == (0, 0, 5)
    found = _groups(run, path, "--of", "handles", "--by", "process")
    assert sum(count for count, _ in found.values()) == 5 * 8
    assert "at least" not in run("stat", path, "--of", "handles")[1]


def test_without_any_table_there_is_nothing_to_tell(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path).fill()
    for name in {name for name, _ in made.processes}:
        made.lose_handles(name)
    for address in made.named("svchost.exe"):
        made.pointer(made.get(address + made.n.table) + made.n.code, 0xFFFFE0FFFFFF0000)
    code, out, err = run("stat", made.save(), "--of", "handles", "--by", "process")
    assert (code, out) == (3, "")
    assert "handle tables of 12 processes are not wholly in the dump" in err


def _partly_lost(folder: Path, *, grown: int) -> tuple[Path, Path]:
    """Two moments: lsass's handles are lost in the second, another process opens some."""
    before = FilledSystem(folder).fill().save()
    made = FilledSystem(folder, which="after").fill()
    made.handles("acmesvc.exe", 4 + grown)
    made.lose_handles("lsass.exe")
    return before, made.save()


def test_handles_that_are_not_known_are_neither_growth_nor_none(run: Any, tmp_path: Path) -> None:
    pair = _partly_lost(tmp_path, grown=0)
    for dumps in (pair, pair[::-1]):
        line = ("diff", *dumps, "--force", "--of", "handles", "--by", "process")
        code, out, _ = run(*line, "--format", "json")
        assert json.loads(out)["sites"] == []
        line = ("diff", *dumps, "--of", "handles", "--by", "process")
        code, out, err = run(*line, "--format", "json")
        assert (code, json.loads(out)["verdict"]) == (3, "not-comparable")
    line = ("diff", *pair, "--of", "handles", "--by", "process")
    code, _, err = run(*line)
    assert "handles of 1 process are not all known" in err
    for gate in ("count>=1000000", "site.count>=1", "handles.count>=1"):
        code, _, err = run(*line, "--fail-on", gate)
        assert (code, "NO ANSWER" in err) == (3, True), gate


def test_processes_whose_handles_both_dumps_have_are_compared(run: Any, tmp_path: Path) -> None:
    pair = _partly_lost(tmp_path, grown=200)
    line = ("diff", *pair, "--of", "handles", "--by", "process")
    code, out, _ = run(*line, "--format", "json")
    told = json.loads(out)
    changed = {site["name"]: site["delta_count"] for site in told["sites"]}
    assert (code, told["verdict"], changed) == (0, "growth", {"acmesvc.exe": 200})
    said = [item["message"] for item in told["diagnostics"]]
    assert any("handles of lsass.exe are not compared" in message for message in said)
    assert run(*line, "--fail-on", "count>=1000000")[0] == 3


def test_types_of_handles_are_not_compared_where_some_are_not_known(
    run: Any, tmp_path: Path
) -> None:
    code, out, err = run("diff", *_partly_lost(tmp_path, grown=200), "--of", "handles")
    assert (code, "--by process" in err) == (3, True)
    assert "did not grow" not in out


def test_a_snapshot_file_keeps_whose_handles_are_not_known(run: Any, tmp_path: Path) -> None:
    dumps = _partly_lost(tmp_path, grown=200)
    files = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for dump, file in zip(dumps, files, strict=True):
        assert run("snapshot", dump, "-o", file)[0] == 0
    answers = []
    for pair in (dumps, files, (dumps[0], files[1])):
        for by in ("process", "type"):
            code, out, _ = run("diff", *pair, "--of", "handles", "--by", by, "--format", "json")
            told = json.loads(out)
            answers.append((by, code, told["verdict"], told["sites"]))
    assert answers[:2] == answers[2:4] == answers[4:]
    code, out, _ = run("stat", files[1], "--of", "handles")
    assert (code, "lsass.exe" in out) == (0, True)
    hidden = tmp_path / "hidden.dlsnap"
    assert run("snapshot", dumps[1], "-o", hidden, "--strip-names")[0] == 0
    assert "lsass" not in run("stat", hidden, "--of", "handles")[1]


def test_empty_handle_tables_of_all_processes_are_no_answer(run: Any, tmp_path: Path) -> None:
    code, out, err = run("stat", FilledSystem(tmp_path).save(), "--of", "handles")
    assert (code, out) == (3, "")
    assert "hold no handles" in err


@BUILDS
def test_threads_are_told_by_process(build: str, run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path, build).fill()
    found = _groups(run, made.save(), "--of", "threads", "--by", "process")
    assert found["svchost.exe"] == (3, None)
    assert sum(count for count, _ in found.values()) == len(made.processes)


@BUILDS
def test_threads_have_the_kernel_stacks_that_their_fields_tell(
    build: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path, build).fill()
    for number, (_, process) in enumerate(made.processes):
        made.stack(process, 6 + number)
    path = made.save()
    found = _groups(run, path, "--of", "threads", "--by", "process")
    pages = {name: 6 + n for n, (name, _) in enumerate(made.processes) if name != "svchost.exe"}
    for name, count in pages.items():
        assert found[name] == (1, count * 0x1000)
    total = sum(range(6, 6 + len(made.processes)))
    assert sum(size or 0 for _, size in found.values()) == total * 0x1000
    text = run("stat", path, "--of", "threads")[1]
    assert f"{4 * total} KiB for their kernel stacks, 12 threads" in text.replace(".0 KiB", " KiB")


@pytest.mark.parametrize("what", ["a limit above the base", "a pointer outside", "no page"])
def test_stacks_that_contradict_themselves_are_not_told(
    what: str, run: Any, tmp_path: Path
) -> None:
    made = FilledSystem(tmp_path).fill()
    for _, process in made.processes:
        made.stack(process, 6)
    thread = made.thread_of[made.address("lsass.exe")]
    base = made.get(thread + 0x38)
    place, value = {
        "a limit above the base": (0x30, base + 0x1000),
        "a pointer outside": (0x58, base + 8),
        "no page": (0x30, base - 0x5FF8),
    }[what]
    made.pointer(thread + place, value)
    found = _groups(run, made.save(), "--of", "threads", "--by", "process")
    assert set(found.values()) == {(1, None), (3, None)}
    out = run("stat", made.path, "--of", "threads")[1]
    assert "the dump does not tell how large threads are" in out
    later = tmp_path / "later.dmp"
    raw = bytearray(made.path.read_bytes())
    time = struct.unpack_from("<Q", raw, 0xFA8)[0]  # DUMP_HEADER64.SystemTime
    struct.pack_into("<Q", raw, 0xFA8, time + 36_000_000_000)
    later.write_bytes(raw)
    _, out, _ = run("diff", made.path, later, "--of", "threads")
    assert out.startswith("Threads did not become more between these two dumps; how large they are")


def test_threads_of_a_list_that_is_not_whole_are_said(run: Any, tmp_path: Path) -> None:
    before = FilledSystem(tmp_path).fill().save()
    made = FilledSystem(tmp_path, which="after").fill()
    made.holds("acmesvc.exe", threads=9)  # of which the list has one
    after = made.save()
    code, out, _ = run("stat", after, "--of", "threads")
    assert (code, "Total: at least 12 threads" in out) == (0, True)
    assert "threads of 1 process are not all in the dump: acmesvc.exe" in out
    for by in ("start", "process"):
        code, out, err = run("diff", before, after, "--of", "threads", "--by", by)
        assert (code, "threads of 1 process are not all" in err) == (3, True), by
        assert run("diff", before, before, "--of", "threads", "--by", by)[0] == 3


def test_without_any_list_of_threads_there_is_nothing_to_tell(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path).fill()
    for _, process in made.processes:
        made.pointer(process + 0x5E0, process + 0x5E0)  # ThreadListHead
    code, out, err = run("stat", made.save(), "--of", "threads")
    assert (code, out) == (3, "")
    assert "lists of threads of 12 processes are not whole" in err


def test_drivers_are_the_modules_of_a_system(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path)
    found = _groups(run, made.save(), "--of", "modules")
    assert found == {m["name"]: (1, m["size"]) for m in made.truth["modules"]}


def _pair(folder: Path) -> tuple[Path, Path]:
    before = FilledSystem(folder).fill().save()
    made = FilledSystem(folder, which="after").fill()
    made.holds("acmesvc.exe", pages=0x10000)
    made.handles("acmesvc.exe", 200)
    for process in made.named("svchost.exe"):
        made.end(process, listed=False)
    return before, made.save()


def test_the_program_that_grew_is_named_and_fails_a_gate(run: Any, tmp_path: Path) -> None:
    before, after = _pair(tmp_path)
    line = "diff", before, after, "--of", "processes"
    code, out, _ = run(*line, "--format", "json")
    found = json.loads(out)
    first = found["sites"][0]
    assert (code, found["verdict"], first["name"]) == (0, "growth", "acmesvc.exe")
    assert first["delta_bytes"] == 255 * MIB
    assert run(*line, "--fail-on", "site.bytes>=200M")[0] == 1
    assert run(*line, "--fail-on", "processes.ended_count>=3")[0] == 1
    assert run(*line, "--fail-on", "processes.ended_count>=4")[0] == 0


def test_snapshot_files_answer_as_their_dumps_do(run: Any, tmp_path: Path) -> None:
    dumps = _pair(tmp_path)
    files = [tmp_path / f"{number}.dlsnap" for number in range(2)]
    for dump, file in zip(dumps, files, strict=True):
        assert run("snapshot", dump, "-o", file, "--of", "processes")[0] == 0
    for of in (
        ("processes",),
        ("processes", "--by", "state"),
        ("handles", "--by", "process"),
        ("threads",),
        ("modules",),
    ):
        answers = []
        for pair in (dumps, files, (dumps[0], files[1])):
            code, out, err = run("diff", *pair, "--of", *of, "--format", "json")
            assert (code, err) == (0, "")
            told = json.loads(out)
            answers.append((told["sites"], told["verdict"], [r["delta"] for r in told["account"]]))
        assert answers[0] == answers[1] == answers[2]


def test_a_list_of_live_processes_is_compared_with_a_dump(run: Any, tmp_path: Path) -> None:
    made = FilledSystem(tmp_path).fill()
    rows = [
        (name.removesuffix(".exe"), number, 9, MIB)
        for number, (name, _) in enumerate(made.processes)
    ]
    rows = [(n, i, h, 77 * MIB if n == "acmesvc" else size) for n, i, h, size in rows]
    log = tmp_path / "later.csv"
    log.write_text(process_list(rows))
    code, out, _ = run("diff", made.save(), log, "--of", "processes", "--format", "json")
    changed = {site["name"]: site["delta_bytes"] for site in json.loads(out)["sites"]}
    assert (code, changed) == (0, {"acmesvc": 76 * MIB})


def test_what_a_dump_of_one_process_does_not_have_is_refused(run: Any, tmp_path: Path) -> None:
    from builders.process_builder import ProcessBuilder

    path = tmp_path / "app.dmp"
    path.write_bytes(ProcessBuilder().image("app.exe").heap().thread().build())
    for line in (("--of", "processes"), ("--of", "threads", "--by", "process")):
        code, out, err = run("stat", path, *line)
        assert (code, out, len(err.splitlines())) == (3, "", 1)


def test_a_small_dump_has_drivers_and_no_processes(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "small.dmp"
    path.write_bytes(triage(System()))
    found = _groups(run, path, "--of", "modules")
    assert found.keys() == {name for name, *_ in System().modules}
    code, out, err = run("stat", path, "--of", "processes")
    assert (code, out, len(err.splitlines())) == (3, "", 1)
