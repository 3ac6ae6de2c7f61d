"""Logs of performance counters in place of dumps of a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import counters
from builders.process_builder import ProcessBuilder

from dumpleak.files.counter_csv import is_log
from dumpleak.files.counter_log import MAX_SNAPSHOTS, read_series
from dumpleak.files.detect import read_snapshot
from windumps.errors import WindumpsError

COUNT = 9
PRIVATE, HANDLES = r"\Process(app)\Private Bytes", r"\Process(app)\Handle Count"
GROWING: list[float | None] = [100e6 + 5e6 * n for n in range(COUNT)]
FLAT: list[float | None] = [200.0 + n % 2 for n in range(COUNT)]
USUAL = {
    PRIVATE: GROWING,
    HANDLES: FLAT,
    r"\Process(app)\Thread Count": [9.0] * COUNT,
    r"\Process(app)\Pool Paged Bytes": [90_000.0] * COUNT,
    r"\Process(app)\% Processor Time": [1.5] * COUNT,
    r"\Memory\Committed Bytes": [4e9] * COUNT,
}
OTHER = {
    r"\Process(other)\Private Bytes": [50e6] * COUNT,
    r"\Process(_Total)\Private Bytes": GROWING,
}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str, encoding: str = "utf-8", name: str = "log.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return _write


def points(path: Path, process: str | None = None) -> dict[str, list[int | None]]:
    found: dict[str, list[int | None]] = {}
    for snapshot in read_series(path, process):
        for figure in snapshot.outside or ():
            found.setdefault(figure.name, []).append(figure.value)
    return found


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_counters_of_a_process_are_rows_of_its_account(encoding: str, write: Write) -> None:
    path = write(counters(USUAL), encoding)
    assert points(path) == {
        "counters.private_bytes": GROWING,
        "handles.count": FLAT,
        "threads.count": [9] * COUNT,
        "counters.pool_paged_bytes": [90_000] * COUNT,
    }
    times = [snapshot.source.time for snapshot in read_series(path)]
    assert times[0] is not None
    assert times[0].isoformat() == "2026-11-01T08:00:00.123000+00:00"  # an hour west of its zone


def test_what_typeperf_says_at_its_end_is_no_damage(write: Write) -> None:
    text = (
        "\r\n" + counters(USUAL, zone="") + "Exiting, please wait...\r\nThe command completed.\r\n"
    )
    snapshot = read_series(write(text))[0]
    assert [item.code for item in snapshot.diagnostics] == ["counters-log", "counters-local-time"]


def test_one_file_is_a_trend_with_rates(write: Write, run: Any) -> None:
    path = write(counters(USUAL | OTHER))
    code, output, _ = run("trend", path, "--process", "APP.EXE")
    assert code == 0
    assert output.startswith("+38.1 MiB private bytes as Windows counts them.\n")
    assert "+9.5 MiB an hour, up in 8 of 8 intervals" in " ".join(output.split())
    assert "no blocks, no handles one by one" in " ".join(output.split())
    assert "100.0" not in output
    code, output, _ = run("trend", path, "--process", "app", "--format", "json")
    found = json.loads(output)
    rows = {row["name"]: row for row in found["account"]}
    assert found["verdict"] == "growth"
    assert rows["counters.private_bytes"]["points"] == GROWING
    assert set(rows) == {
        "counters.private_bytes",
        "handles.count",
        "threads.count",
        "counters.pool_paged_bytes",
    }


def test_a_diff_of_one_file_compares_its_first_sample_with_its_last(write: Write, run: Any) -> None:
    path = write(counters(USUAL))
    code, output, _ = run("diff", path, "--format", "json")
    found = json.loads(output)
    rows = {row["name"]: row["delta"] for row in found["account"]}
    assert (code, found["verdict"], rows["counters.private_bytes"]) == (0, "growth", 40_000_000)
    code, _, said = run("diff", path, "--fail-on", "counters.private_bytes>=16M,handles.count>=9")
    assert (code, said.startswith("SUMMARY: FAIL counters.private_bytes>=16M")) == (1, True)
    code, _, said = run("diff", path, "--fail-on", "handles.count>=9")
    assert (code, said.startswith("SUMMARY: PASS")) == (0, True)


def test_two_files_are_compared_by_their_last_samples(write: Write, run: Any) -> None:
    later = {
        path: [value + 8e6 if value else value for value in row] for path, row in USUAL.items()
    }
    base = write(counters(USUAL), name="monday.csv")
    current = write(counters(later, hour=20), name="tuesday.csv")
    code, output, _ = run("diff", base, current, "--format", "json")
    rows = {row["name"]: row["delta"] for row in json.loads(output)["account"]}
    assert (code, rows["counters.private_bytes"]) == (0, 8_000_000)
    code, output, _ = run("diff", current, base)
    assert code == 0
    assert "swapped" in output


def test_what_moves_a_little_is_no_growth(write: Write, run: Any) -> None:
    path = write(counters({PRIVATE: [100e6 + 1e5 * n for n in range(COUNT)], HANDLES: FLAT}))
    for command in ("diff", "trend"):
        code, output, _ = run(command, path, "--format", "json")
        assert (code, json.loads(output)["verdict"]) == (0, "no-growth")


def test_of_several_processes_one_must_be_chosen(write: Write, run: Any) -> None:
    path = write(counters(USUAL | OTHER))
    for words in (
        ("trend", path),
        ("diff", path),
        ("diff", path, write(counters(OTHER | USUAL), name="b.csv")),
    ):
        code, output, said = run(*words)
        assert (code, output) == (3, "")
        assert "choose one with --process NAME: app, other" in said
    code, _, said = run("trend", path, "--process", "nobody")
    assert code == 3
    assert "has no process nobody; it has _Total, app, Memory, other" in said


def test_stat_lists_all_processes_at_the_last_sample(write: Write, run: Any) -> None:
    path = write(counters(USUAL | OTHER))
    code, output, _ = run("stat", path, "--format", "json")
    groups = {group["name"]: group["used_bytes"] for group in json.loads(output)["groups"]}
    assert (code, groups) == (0, {"app": 140_000_000, "other": 50_000_000})
    _, output, _ = run("stat", path)
    assert "shows how much a process has and never of what" in output


def test_the_machine_itself_is_named_memory(write: Write) -> None:
    path = write(counters(USUAL))
    assert points(path, "memory") == {"memory.committed_bytes": [4_000_000_000] * COUNT}


def test_samples_that_could_not_be_taken_are_never_zero(write: Write, run: Any) -> None:
    rows: list[float | None] = [None, 5e6, None, -1.0, 6e6, 7e6, 8e6, 9e6, None]
    path = write(counters({PRIVATE: rows, HANDLES: [None, *FLAT[1:8], None]}))
    assert points(path)["counters.private_bytes"] == [5e6, None, None, 6e6, 7e6, 8e6, 9e6]
    only_handles = write(
        counters({PRIVATE: [None, *GROWING[1:8], None], HANDLES: FLAT}), name="h.csv"
    )
    code, _, said = run("diff", only_handles, "--fail-on", "counters.private_bytes>=1")
    assert code == 3
    assert "SUMMARY: NO ANSWER" in said


def test_counters_under_names_of_another_language_are_refused_by_name(write: Write) -> None:
    path = write(
        counters({r"\Prozess(app)\Private Bytes": GROWING, r"\Prozess(app)\Handleanzahl": FLAT})
    )
    with pytest.raises(WindumpsError, match=r"Prozess\(app\).Handleanzahl.*in English"):
        read_snapshot(path, "site")
    numbers = write(counters({r"\230(app)\186": GROWING, r"\230(app)\952": FLAT}), name="n.csv")
    assert set(points(numbers)) == {"counters.private_bytes", "handles.count"}


def test_damaged_lines_are_left_out_and_said(write: Write) -> None:
    lines = counters(USUAL).splitlines()
    lines[3] = lines[3][:60]
    lines[4] = lines[4].replace("200", "2x0").replace("201", "2x1")
    lines[-1] = lines[-1][:-20]
    path = write("\n".join(lines))
    series = read_series(path)
    assert len(series) == COUNT - 2
    notes = {item.code: item.message for item in series[0].diagnostics}
    assert notes["counters-damaged"].startswith("3 lines or values")
    assert points(path)["handles.count"][2] is None


def test_a_heading_that_is_cut_is_refused(write: Write) -> None:
    with pytest.raises(WindumpsError, match="cut or damaged"):
        read_series(write(counters(USUAL).splitlines()[0][:-5]))


def test_a_clock_that_runs_back_is_said(write: Write) -> None:
    lines = counters(USUAL).splitlines(keepends=True)
    path = write("".join([*lines[:6], *lines[2:]]))
    series = read_series(path)
    assert len(series) == COUNT
    assert "counters-clock" in {item.code for item in series[0].diagnostics}


def test_processes_that_share_a_name_are_not_told_apart(write: Write) -> None:
    text = counters({PRIVATE: GROWING, r"\Process(twin)\Private Bytes": GROWING})
    path = write(text.replace("(twin)", "(app)"))
    with pytest.raises(WindumpsError, match="does not tell them apart"):
        read_series(path)


def test_a_process_that_was_started_anew_makes_no_series(write: Write, run: Any) -> None:
    ids: list[float | None] = [700.0] * 4 + [704.0] * 5
    path = write(counters(USUAL | {r"\Process(app)\ID Process": ids}))
    code, output, _ = run("trend", path)
    assert code == 3
    assert "process 700 became 704" in output


def test_a_long_log_is_thinned_with_its_ends_kept(write: Write) -> None:
    values: list[float | None] = [1e6 * n + 1 for n in range(1000)]
    path = write(counters({PRIVATE: values}, minutes=10))
    found = points(path)["counters.private_bytes"]
    assert (len(found), found[0], found[-1]) == (MAX_SNAPSHOTS, 1, 999_000_001)


def test_several_machines_are_told_apart(write: Write) -> None:
    text = counters({PRIVATE: GROWING, r"\Process(twin)\Private Bytes": FLAT})
    path = write(text.replace(r"\\HOST\Process(twin)", r"\\OTHER\Process(app)"))
    with pytest.raises(WindumpsError, match=r"HOST\\app, OTHER\\app"):
        read_series(path)
    assert points(path, r"other\app")["counters.private_bytes"] == FLAT


def test_a_log_of_counters_and_a_dump_are_two_things(write: Write, run: Any) -> None:
    path = write(counters(USUAL))
    code, _, said = run("diff", path, path)
    assert code == 3
    assert "are of one moment" in said
    code, output, said = run("stat", path, "--of", "handles")
    assert (code, output) == (3, "")
    assert "tells of processes" in said


def test_a_log_of_counters_beside_a_dump_of_a_process_is_refused(
    write: Write, run: Any, tmp_path: Path
) -> None:
    log, dump = write(counters(USUAL)), tmp_path / "app.dmp"
    dump.write_bytes(ProcessBuilder().image("app.exe").heap().thread().build())
    for command in (("diff", log, dump), ("diff", dump, log), ("trend", log, dump, log)):
        code, output, said = run(*command)
        assert (code, output, len(said.splitlines())) == (3, "", 1)
        assert "tells of processes" in said
        assert "of blocks" in said


def test_other_text_is_no_log_of_counters() -> None:
    assert not is_log(b'"Name","PM"\r\n"app","1"\r\n')
    assert is_log(counters(USUAL).encode("utf-16")[:80])


def test_a_heading_of_very_many_processes_is_read_in_bounded_time(write: Write) -> None:
    names = ",".join(f'"\\\\H{n % 2}\\Process(p{n})\\Private Bytes"' for n in range(60_000))
    row = ",".join(['"11/30/2026 09:00:00.123"', *['"1.000000"'] * 60_000])
    path = write(f'"(PDH-CSV 4.0)",{names}\r\n{row}\r\n{row.replace("09:00", "10:00")}\r\n')
    with pytest.raises(WindumpsError, match=r"H0.p0, H0.p10, .* and 59980 more"):
        read_series(path)
    found = read_snapshot(path, "site")
    assert found is not None
    assert found.totals.count == 60_000


def test_a_process_called_memory_is_not_the_machine(write: Write) -> None:
    path = write(
        counters({r"\Process(Memory)\Private Bytes": GROWING, r"\Memory\Commit Limit": FLAT})
    )
    assert points(path) == {"counters.private_bytes": GROWING}


def test_three_files_are_a_series_of_their_last_samples(write: Write, run: Any) -> None:
    files = [
        write(counters({PRIVATE: [1e7 * (n + 1) + v for v in (1, 2)]}, hour=9 + n), name=f"{n}.csv")
        for n in range(3)
    ]
    code, output, _ = run("trend", *files, "--format", "json")
    rows = {row["name"]: row["points"] for row in json.loads(output)["account"]}
    assert (code, rows) == (0, {"counters.private_bytes": [10000002, 20000002, 30000002]})
