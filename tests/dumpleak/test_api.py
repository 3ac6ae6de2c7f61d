"""The Python API: its examples run, and say the same as the commands."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import counter_samples, counter_sets, counters
from builders.process_builder import ProcessBuilder
from truth import ROOT, TESTDATA

import dumpleak
from dumpleak import api
from dumpleak.cli import main
from windumps.errors import WindumpsError

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
BEFORE, AFTER = PAIR / "before.dmp.gz", PAIR / "after.dmp.gz"
SERIES = [TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz" for n in range(4)]


def test_the_examples_in_the_documentation_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = doctest.testmod(api)
    assert result.attempted > 15
    assert result.failed == 0


def test_the_functions_are_in_the_package() -> None:
    for name in dumpleak.__all__:
        if name != "__version__":
            assert getattr(dumpleak, name) is getattr(api, name)


def _json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    with pytest.raises(SystemExit):
        main([*(str(argument) for argument in arguments), "--format", "json"])
    return json.loads(capsys.readouterr().out)


def test_tables_hold_what_the_commands_write(capsys: pytest.CaptureFixture[str]) -> None:
    for answer, command in (
        (dumpleak.compare(BEFORE, AFTER), ("diff", BEFORE, AFTER, "--no-holders")),
        (dumpleak.trend(SERIES), ("trend", *SERIES, "--no-holders")),
    ):
        rows = dumpleak.sites_table(answer).to_pylist()
        written = _json(capsys, *command)["sites"]
        assert len(rows) == len(written)
        for row, site in zip(rows, written, strict=True):
            for name in row.keys() & site.keys() - {"bytes_per_hour", "count_per_hour"}:
                assert row[name] == site[name], name


def test_dumps_sessions_snapshots_and_files_are_mixed_freely(tmp_path: Path) -> None:
    file = tmp_path / "before.dlsnap"
    dumpleak.write_snapshot(dumpleak.open_dump(BEFORE), file)
    expected = dumpleak.compare(BEFORE, AFTER).sites
    assert dumpleak.compare(file, dumpleak.open_dump(AFTER)).sites == expected
    assert dumpleak.compare(dumpleak.snapshot(file), str(AFTER)).sites == expected


def test_groups_and_blocks_of_one_dump_are_tables_too() -> None:
    taken = dumpleak.snapshot(BEFORE)
    blocks = dumpleak.blocks_table(taken)
    sites = dumpleak.sites_table(taken)
    assert blocks.num_rows == taken.totals.count == sum(sites["used_count"].to_pylist())
    assert set(blocks["key"].to_pylist()) == set(sites["key"].to_pylist())
    logless = dumpleak.snapshot(BEFORE)
    logless.blocks = None
    with pytest.raises(ValueError, match="does not know"):
        dumpleak.blocks_table(logless)


def test_what_cannot_be_answered_raises_a_typed_error(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.dmp"
    nothing.write_bytes(b"nothing")
    with pytest.raises(WindumpsError, match="not a Windows dump"):
        dumpleak.snapshot(nothing)


def _made(folder: Path, hour: int, *, listed: bool = True) -> Path:
    """A process with a thread, a view and a heap more every hour."""
    process = ProcessBuilder(3600 * hour).image("app.exe").heap(1 + hour)
    for _ in range(2 + 5 * hour):
        process.thread(process.bases["app.exe"] + 0x1234).views(1, 0x10000)
    process.with_regions = listed
    file = folder / f"{hour}{listed}.dmp"
    file.write_bytes(process.build())
    return file


@pytest.mark.parametrize("of", ["regions", "heaps", "threads", "modules"])
def test_every_population_is_answered_as_the_commands_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, of: str
) -> None:
    files = [_made(tmp_path, hour) for hour in range(3)]
    for answer, line in (
        (dumpleak.compare(*files[:2], of=of), ("diff", *files[:2])),
        (dumpleak.trend(files, of=of), ("trend", *files)),
        (dumpleak.compare(dumpleak.open_dump(files[0]), files[1], of=of), ("diff", *files[:2])),
    ):
        written = _json(capsys, *line, "--of", of)["sites"]
        rows = dumpleak.sites_table(answer).to_pylist()
        assert len(rows) == len(written)
        for row, site in zip(rows, written, strict=True):
            for name in row.keys() & site.keys() - {"bytes_per_hour", "count_per_hour"}:
                assert row[name] == site[name], name
    taken = dumpleak.snapshot(files[0], of=of)
    groups = _json(capsys, "stat", files[0], "--of", of)["groups"]
    table = dumpleak.sites_table(taken)
    assert sorted(table["used_count"].to_pylist()) == sorted(g["used_count"] for g in groups)
    assert sorted(table["used_bytes"].to_pylist()) == sorted(g["used_bytes"] for g in groups)


def test_what_is_only_counted_has_no_bytes_in_tables(tmp_path: Path) -> None:
    files = [_made(tmp_path, hour, listed=False) for hour in range(3)]
    for answer in (
        dumpleak.snapshot(files[0], of="threads"),
        dumpleak.compare(*files[:2], of="threads"),
        dumpleak.trend(files, of="threads"),
    ):
        (row,) = dumpleak.sites_table(answer).to_pylist()
        told = {name: value for name, value in row.items() if "bytes" in name}
        assert told
        assert set(told.values()) == {None}
        assert {point["bytes"] for point in row.get("points", ())} <= {None}


def test_a_grouping_or_a_population_that_is_not_there_is_a_value_error(tmp_path: Path) -> None:
    file = _made(tmp_path, 0)
    with pytest.raises(ValueError, match="no population things"):
        dumpleak.snapshot(file, of="things")
    with pytest.raises(ValueError, match="threads are not grouped by site, but by start"):
        dumpleak.snapshot(file, "site", of="threads")
    with pytest.raises(ValueError, match="cannot compare groups by size with use"):
        dumpleak.compare(dumpleak.snapshot(file, "size", of="regions"), file, of="regions")


def test_a_dump_or_a_snapshot_of_something_else_is_refused(tmp_path: Path) -> None:
    file = _made(tmp_path, 0, listed=False)
    with pytest.raises(WindumpsError, match="does not list the process's memory regions"):
        dumpleak.snapshot(file, of="regions")
    with pytest.raises(WindumpsError, match="tells of blocks, not of threads"):
        dumpleak.snapshot(dumpleak.snapshot(file), of="threads")
    with pytest.raises(WindumpsError, match="tells of blocks, not of pool"):
        dumpleak.snapshot(file, of="pool")


COUNTED: dict[str, list[float | None]] = {
    r"\Process(app)\Private Bytes": [100e6 + 5e6 * n for n in range(5)],
    r"\Process(app)\Handle Count": [200.0 + 40 * n for n in range(5)],
}
BESIDE: dict[str, list[float | None]] = {r"\Process(other)\Private Bytes": [50e6] * 5}


def _rows(table: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in table.to_pylist()}


@pytest.mark.parametrize("make", [counters, counter_sets, counter_samples])
def test_a_log_of_counters_is_answered_as_the_commands_answer(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, make: Any
) -> None:
    log = tmp_path / "counters.csv"
    log.write_bytes(make(COUNTED | BESIDE).encode())
    over = dumpleak.trend(log, process="app")
    written = _json(capsys, "trend", log, "--process", "app")
    assert over.verdict == written["verdict"]
    told = _rows(dumpleak.account_table(over))
    assert told.keys() == {row["name"] for row in written["account"]}
    for row in written["account"]:
        mine = told[row["name"]]
        assert {k: mine[k] for k in mine.keys() - {"per_hour"}} == {
            k: row[k] for k in mine.keys() - {"per_hour"}
        }
        assert round(mine["per_hour"], 3) == row["per_hour"]
    assert dumpleak.trend([log], process="app").account == over.account
    ends = dumpleak.compare(log, process="app")
    written = _json(capsys, "diff", log, "--process", "app")
    assert ends.verdict == written["verdict"]
    assert [row.delta for row in ends.account] == [row["delta"] for row in written["account"]]
    last = _rows(dumpleak.account_table(dumpleak.snapshot(log, process="app")))
    assert last["handles.count"]["value"] == 360


def test_what_a_log_of_counters_cannot_answer_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "counters.csv"
    log.write_bytes(counters(COUNTED | BESIDE).encode())
    with pytest.raises(WindumpsError, match="choose one with --process"):
        dumpleak.trend(log)
    with pytest.raises(WindumpsError, match="tells of processes, not of threads"):
        dumpleak.compare(log, of="threads", process="app")
    with pytest.raises(ValueError, match="of one moment, name a later one"):
        dumpleak.compare(_made(tmp_path, 0))


def test_two_logs_of_all_processes_are_compared_when_processes_are_meant(tmp_path: Path) -> None:
    logs = []
    for hour in (9, 20):
        more: dict[str, list[float | None]] = {
            k: [(v or 0) * hour for v in c] for k, c in BESIDE.items()
        }
        logs.append(tmp_path / f"{hour}.csv")
        logs[-1].write_bytes(counters(COUNTED | more, hour=hour).encode())
    (grown,) = dumpleak.compare(*logs, of="processes").sites
    assert (grown.site.name, grown.delta_bytes) == ("other", 11 * 50_000_000)
