"""What `Get-Counter` writes with Export-Csv and Export-Counter, in place of dumps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders.live_log_builder import counter_samples, counter_sets, counters

from dumpleak.files.counter_log import read_series
from dumpleak.files.detect import is_series, read_snapshot
from windumps.errors import WindumpsError

COUNT = 9
GROWING: list[float | None] = [100e6 + 5e6 * n for n in range(COUNT)]
HANDLES: list[float | None] = [200.0 + n % 2 for n in range(COUNT)]
USUAL = {
    r"\Process(app)\Private Bytes": GROWING,
    r"\Process(app)\Handle Count": HANDLES,
    r"\Process(app)\Virtual Bytes": [2_203_595_001_856.0] * COUNT,
    r"\Process(app)\% Processor Time": [1.5] * COUNT,
    r"\Memory\Committed Bytes": [4e9] * COUNT,
}
OTHER = {r"\Process(other)\Private Bytes": [50e6] * COUNT}
Make = Callable[..., str]
BOTH = pytest.mark.parametrize("make", [counter_sets, counter_samples])
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


@BOTH
@pytest.mark.parametrize("style", ["us", "gb", "de", "iso"])
@pytest.mark.parametrize("typed", [True, False])
def test_objects_of_get_counter_are_rows_of_the_account_in_every_style_of_dates(
    make: Make, style: str, typed: bool, write: Write
) -> None:
    path = write(make(USUAL, style=style, typed=typed), "utf-16" if typed else "utf-8")
    assert is_series(path)
    assert points(path) == {
        "counters.private_bytes": GROWING,
        "handles.count": HANDLES,
        "counters.virtual_bytes": [2_203_595_001_856] * COUNT,
    }
    first, *_, last = read_series(path)
    assert (str(first.source.time), str(last.source.time)) == (
        "2026-11-30 09:00:00+00:00",
        "2026-11-30 13:00:00+00:00",
    )
    assert first.source.program == "app"


@BOTH
def test_they_give_the_trend_that_typeperf_gives(make: Make, write: Write, run: Any) -> None:
    rates = []
    for number, text in enumerate((counters(USUAL), make(USUAL))):
        status, out, err = run("trend", write(text, name=f"{number}.csv"), "--format", "json")
        assert status == 0, err
        row = next(r for r in json.loads(out)["account"] if r["name"] == "counters.private_bytes")
        rates.append((row["points"], row["per_hour"], row["state"]))
    assert rates[0] == rates[1]
    assert rates[0][2] == "grew"


@BOTH
def test_of_several_processes_one_is_chosen_and_all_are_listed(
    make: Make, write: Write, run: Any
) -> None:
    path = write(make({**USUAL, **OTHER}))
    assert points(path, "other") == {"counters.private_bytes": OTHER[next(iter(OTHER))]}
    status, _, err = run("trend", path)
    assert (status, "choose one with --process NAME: app, other" in err) == (3, True)
    listed = read_snapshot(path, "name")
    assert listed is not None
    assert {s.name: t.bytes for s, t in listed.groups.values()} == {"app": 140e6, "other": 50e6}


@BOTH
def test_a_sample_that_is_not_there_is_never_zero(make: Make, write: Write) -> None:
    lacking: list[float | None] = [*HANDLES[:4], None, *HANDLES[5:]]
    columns = {**USUAL, r"\Process(app)\Handle Count": lacking}
    assert points(write(make(columns)))["handles.count"] == lacking


def test_a_semicolon_parts_fields_where_the_user_has_it_so(write: Write) -> None:
    path = write(counter_sets(USUAL, style="de", delimiter=";"))
    assert points(path)["counters.private_bytes"] == GROWING


def test_single_samples_without_ticks_are_parted_by_their_time(write: Write) -> None:
    path = write(counter_samples(USUAL, ticks=False))
    assert points(path)["counters.private_bytes"] == GROWING


@BOTH
def test_names_of_another_language_are_refused_by_name(make: Make, write: Write) -> None:
    path = write(make({r"\Prozess(app)\Handleanzahl": HANDLES}))
    with pytest.raises(WindumpsError, match=r"prozess\(app\)\\handleanzahl") as caught:
        read_series(path)
    assert "write the names in the file in English" in str(caught.value)


@BOTH
def test_records_that_are_cut_or_damaged_are_left_out_and_said(make: Make, write: Write) -> None:
    text = make(USUAL)
    cut = write(text[: len(text) - 40])
    damaged = write(text.replace("105000000", "1o5", 1), name="b.csv")
    for path in (cut, damaged):
        taken = read_series(path)
        assert "counters-damaged" in [note.code for note in taken[-1].diagnostics]
    assert points(damaged)["counters.private_bytes"] == [GROWING[0], None, *GROWING[2:]]


def test_dates_that_can_be_read_in_two_ways_are_said(write: Write) -> None:
    text = counter_sets(USUAL, style="gb").replace("30/11/2026", "05/11/2026")
    taken = read_series(write(text))
    assert str(taken[0].source.time) == "2026-05-11 09:00:00+00:00"
    notes = {note.code: note.message for note in taken[0].diagnostics}
    assert notes["counters-dates"].endswith("they were taken for month/day")
    over_midnight = counter_sets(USUAL, style="gb", minutes=180)
    over_midnight = over_midnight.replace("30/11", "05/11").replace("01/12", "06/11")
    first, *_, last = read_series(write(over_midnight, name="b.csv"))
    assert str(first.source.time) == "2026-11-05 09:00:00+00:00"
    assert str(last.source.time) == "2026-11-06 09:00:00+00:00"


def test_sets_without_their_readings_are_refused_with_the_way_out(write: Write) -> None:
    space = "Microsoft.PowerShell.Commands.GetCounter.PerformanceCounterSample"
    path = write(f'#TYPE {space}Set\r\n"Timestamp","CounterSamples"\r\n"x","{space}[]"\r\n')
    with pytest.raises(WindumpsError, match=r"no readings .*CounterSamples \| Export-Csv"):
        read_series(path)


def test_what_export_counter_writes_is_read_with_commas_and_with_tabs(write: Write) -> None:
    text = counters(USUAL)
    tabs = text.replace('","', '"\t"').replace("PDH-CSV", "PDH-TSV")
    for number, one in enumerate((text, tabs)):
        path = write(one, name=f"{number}.csv")
        assert points(path)["counters.private_bytes"] == GROWING


@pytest.mark.parametrize("filling", ["\\\\", '""', "a, ", "0/"])
def test_a_record_without_end_is_read_in_bounded_time(filling: str, write: Write) -> None:
    long = filling * (1 << 20)
    path = write(counter_sets(USUAL) + f'"{long}","{long}\r\n')
    assert points(path)["counters.private_bytes"] == GROWING
