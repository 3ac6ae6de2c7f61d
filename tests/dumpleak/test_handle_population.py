"""`--of handles`: handles are compared as blocks are, but have no bytes, and nothing says they have."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from truth import TESTDATA

TINY = TESTDATA / "10.0.19041.3324-x64" / "tiny" / "dump.dmp.gz"
OF = ("--of", "handles")


def _dump(folder: Path, time: int, counts: dict[str, int], name: str = "") -> Path:
    """A minidump with so many handles of each type, and with no heap at all."""
    rows = []
    for kind, count in counts.items():
        rows += [(4 * (len(rows) + number), kind, name) for number in range(count)]
    file = folder / f"{time}.dmp"
    builder = MinidumpBuilder(timestamp=1_700_000_000 + time).handles(rows)
    file.write_bytes(builder.module("C:\\app.exe", 0x400000, 0x5000).build())
    return file


def test_stat_counts_handles_by_type_and_name_without_bytes(run: Any, tmp_path: Path) -> None:
    file = _dump(tmp_path, 0, {"Event": 5, "": 2, "File": 3}, "\\Device\\x")
    status, out, _ = run("stat", file, *OF, "--format", "json")
    told = json.loads(out)
    assert (status, told["of"], told["by"]) == (0, "handles", "type")
    assert [(g["name"], g["type"], g["used_count"]) for g in told["groups"]] == [
        ("Event", "Event", 5),
        ("File", "File", 3),
        ("(no type in the dump)", None, 2),
    ]
    assert told["totals"] == {"used_bytes": None, "used_count": 10, "block_bytes": None}
    for group in told["groups"]:
        assert (group["used_bytes"], group["block_bytes"], group["largest"]) == (None, None, None)
    named = json.loads(run("stat", file, *OF, "--by", "name", "--format", "json")[1])
    assert [(g["name"], g["used_count"]) for g in named["groups"]] == [("\\Device\\x", 10)]
    text = run("stat", file, *OF)[1]
    assert "Total: 10 handles" in text
    assert "0 B" not in text


def test_diff_names_the_type_that_grew_and_has_no_bytes(run: Any, tmp_path: Path) -> None:
    base = _dump(tmp_path, 0, {"Event": 100, "File": 30})
    current = _dump(tmp_path, 3600, {"Event": 900, "File": 10})
    status, out, _ = run("diff", base, current, *OF, "--format", "json")
    told = json.loads(out)
    assert (status, told["verdict"], told["of"]) == (0, "growth", "handles")
    assert [(s["name"], s["delta_count"], s["delta_bytes"]) for s in told["sites"]] == [
        ("Event", 800, None),
        ("File", -20, None),
    ]
    assert told["totals"]["delta_count"] == 780
    assert told["totals"]["delta_bytes"] is None
    rows = {row["name"]: row for row in told["account"]}
    assert rows["handles.count"]["delta"] == 780
    assert rows["blocks.count"]["delta"] is None  # the dump has no heap, which is not none
    text = run("diff", base, current, *OF)[1]
    assert text.startswith("+780 handles")
    assert "Event (+800)" in text
    assert " B" not in text.split("Base:")[0].replace("BASE", "")
    (first, _) = csv.DictReader(io.StringIO(run("diff", base, current, *OF, "--format", "csv")[1]))
    assert (first["delta_bytes"], first["delta_count"]) == ("", "800")


def test_a_comment_counts_handles_and_shows_no_bytes(run: Any, tmp_path: Path) -> None:
    files = [_dump(tmp_path, 3600 * hour, {"Event": 100 + 800 * hour}) for hour in range(3)]
    for line, more in ((("diff", *files[:2]), ""), (("trend", *files), "shape | verdict | ")):
        status, out, _ = run(*line, *OF, "--format", "markdown")
        assert status == 0
        assert f"\n| handles +/- | {more}gate | type |\n" in out
        assert "`Event`" in out
        assert " B" not in out
    assert "**+1,600** handles in all: from 100 to 1,700." in out


def test_one_type_for_another_is_growth_of_that_type(run: Any, tmp_path: Path) -> None:
    base = _dump(tmp_path, 0, {"Event": 100, "File": 900})
    current = _dump(tmp_path, 3600, {"Event": 900, "File": 100})
    status, text, _ = run("diff", base, current, *OF)
    assert status == 0
    assert text.startswith("Handles of 1 type grew")


def test_a_few_handles_more_are_no_growth(run: Any, tmp_path: Path) -> None:
    base, current = _dump(tmp_path, 0, {"Event": 100}), _dump(tmp_path, 3600, {"Event": 130})
    told = json.loads(run("diff", base, current, *OF, "--format", "json")[1])
    assert told["verdict"] == "no-growth"
    assert told["sites"][0]["delta_count"] == 30


@pytest.mark.parametrize(
    ("condition", "status"), [("count>=800", 1), ("count>=801", 0), ("handles.count>=800", 1)]
)
def test_a_gate_counts_handles(run: Any, tmp_path: Path, condition: str, status: int) -> None:
    base, current = _dump(tmp_path, 0, {"Event": 100}), _dump(tmp_path, 3600, {"Event": 900})
    code, _, err = run("diff", base, current, *OF, "--fail-on", condition)
    assert code == status
    assert "800 handles" in err
    assert "bytes" not in err


@pytest.mark.parametrize(
    "words",
    [
        ("--by", "site"),
        ("--format", "html"),
        ("--fail-on", "bytes>=1"),
        ("--fail-on", "site.percent>=1"),
        ("--fail-on", "unreferenced.count>=1"),
    ],
)
def test_what_handles_cannot_tell_is_a_wrong_question(
    run: Any, tmp_path: Path, words: tuple[str, str]
) -> None:
    base, current = _dump(tmp_path, 0, {"Event": 100}), _dump(tmp_path, 3600, {"Event": 900})
    assert run("diff", base, current, *OF, *words)[0] == 2


def test_what_is_asked_for_by_name_and_is_not_there_is_refused(run: Any) -> None:
    status, out, err = run("stat", TINY, "--of", "pool")
    assert (status, out) == (3, "")
    assert "pools are in" in err
    assert json.loads(run("stat", TINY, "--of", "blocks", "--format", "json")[1])["of"] == "blocks"


def _series(folder: Path, *counts: dict[str, int]) -> list[Path]:
    return [_dump(folder, 3600 * hour, rows) for hour, rows in enumerate(counts)]


def test_trend_tells_handles_that_grow_steadily_from_those_that_do_not(
    run: Any, tmp_path: Path
) -> None:
    rows = [{"Event": 100 + 80 * n, "File": 30 + n, "Key": 90 + 300 * (n % 2)} for n in range(4)]
    files = _series(tmp_path, *rows)
    status, out, _ = run("trend", *files, *OF, "--format", "json")
    told = json.loads(out)
    assert (status, told["of"], told["by"], told["verdict"]) == (0, "handles", "type", "growth")
    sites = {site["name"]: site for site in told["sites"]}
    assert [sites[name]["confidence"] for name in ("Event", "File", "Key")] == [
        "suspect",
        "growth",  # steady, but three handles are no leak
        "growth",  # comes and goes
    ]
    assert sites["Event"]["count_per_hour"] == 80
    assert [point["count"] for point in sites["Event"]["points"]] == [100, 180, 260, 340]
    assert {value for point in sites["Event"]["points"] for value in [point["bytes"]]} == {None}
    for name in ("bytes_per_hour", "bytes_per_hour_low", "delta_bytes", "base_bytes", "exhaustion"):
        assert sites["Event"][name] is None, name
    assert [(dump["used_count"], dump["used_bytes"]) for dump in told["dumps"]] == [
        (sum(row.values()), None) for row in rows
    ]
    assert told["totals"]["delta_count"] == sum(rows[3].values()) - sum(rows[0].values())
    assert told["totals"]["delta_bytes"] is None
    text = run("trend", *files, *OF)[1]
    assert text.startswith("Suspect: handles of 1 type grew steadily.")
    assert " B " not in text
    first, *_ = csv.DictReader(io.StringIO(run("trend", *files, *OF, "--format", "csv")[1]))
    assert (first["name"], first["delta_bytes"], first["bytes_0"], first["count_0"]) == (
        *("Event", "", "", "100"),
    )


def test_handles_that_a_stopped_load_did_not_close_are_leaked_and_fail_a_gate(
    run: Any, tmp_path: Path
) -> None:
    rows = [{"Event": 100 + 80 * n, "File": 100 + 80 * n} for n in range(3)]
    *loaded, idle = _series(tmp_path, *rows, {"Event": 255, "File": 110})
    line = ("trend", *loaded, "--after-idle", idle, *OF)
    sites = {s["name"]: s for s in json.loads(run(*line, "--format", "json")[1])["sites"]}
    assert {name: site["confidence"] for name, site in sites.items()} == {
        "Event": "leaked",
        "File": "growth",
    }
    assert "bytes" not in " ".join(sites["Event"]["evidence"])
    code, _, said = run(*line, "--fail-on", "leaked>=1")
    assert (code, "FAIL leaked>=1 (it is 1)" in said) == (1, True)
    assert run(*line, "--fail-on", "leaked>=2")[0] == 0


def test_a_few_handles_more_in_every_dump_are_no_growth(run: Any, tmp_path: Path) -> None:
    files = _series(tmp_path, *({"Event": 100 + 20 * n} for n in range(4)))
    told = json.loads(run("trend", *files, *OF, "--format", "json")[1])
    assert (told["verdict"], told["sites"][0]["confidence"]) == ("no-growth", "growth")


def test_one_type_for_another_over_a_series_is_growth(run: Any, tmp_path: Path) -> None:
    files = _series(tmp_path, *({"Event": 100 + 90 * n, "File": 400 - 90 * n} for n in range(4)))
    assert json.loads(run("trend", *files, *OF, "--format", "json")[1])["verdict"] == "growth"


@pytest.mark.parametrize(
    "words",
    [("--by", "site"), ("--format", "html"), ("--fail-on", "site.bytes-per-hour>=1")],
)
def test_what_handles_of_a_series_cannot_tell_is_a_wrong_question(
    run: Any, tmp_path: Path, words: tuple[str, str]
) -> None:
    files = _series(tmp_path, *({"Event": 100 * n} for n in range(1, 4)))
    assert run("trend", *files, *OF, *words)[0] == 2


def test_blocks_have_no_names(run: Any) -> None:
    assert run("stat", TINY, "--by", "name")[0] == 2


def test_an_absent_or_cut_list_of_handles_is_refused_and_no_empty_table(
    run: Any, tmp_path: Path
) -> None:
    status, out, err = run("stat", TINY, *OF)
    assert (status, out) == (3, "")
    assert "does not list the process's handles" in err
    file = _dump(tmp_path, 0, {"Event": 100})
    data = file.read_bytes()
    at, _ = stream_place(data, 12)
    file.write_bytes(patched(data, at + 8, struct.pack("<I", 101)))
    status, out, err = run("stat", file, *OF)
    assert (status, out) == (3, "")
    assert "cut or damaged" in err


def test_a_snapshot_file_keeps_types_and_says_that_it_has_no_names(
    run: Any, tmp_path: Path
) -> None:
    data = MinidumpBuilder().handles([(4, "Event", "\\x"), (8, "Event", "")]).build()
    added = _with_handles_of(data, TINY, tmp_path)
    file = tmp_path / "a.dlsnap"
    assert run("snapshot", added, "-o", file, "--no-holders")[0] == 0
    told = json.loads(run("stat", file, *OF, "--format", "json")[1])
    assert [(g["name"], g["used_count"]) for g in told["groups"]] == [("Event", 2)]
    status, out, err = run("stat", file, *OF, "--by", "name")
    assert (status, out) == (3, "")
    assert "keeps no handles by name" in err
    taken = tmp_path / "b.dlsnap"
    assert run("snapshot", TINY, "-o", taken, "--no-holders")[0] == 0
    assert run("stat", taken, *OF)[0] == 3


def test_snapshot_files_make_a_series_of_handles_as_their_dumps_do(
    run: Any, tmp_path: Path
) -> None:
    dumps, files = [], []
    for hour in range(3):
        rows = [(4 * n + 4, "Event", "") for n in range(100 + 90 * hour)]
        dumps.append(
            _with_handles_of(MinidumpBuilder().handles(rows).build(), TINY, tmp_path, hour)
        )
        files.append(tmp_path / f"{hour}.dlsnap")
        assert run("snapshot", dumps[-1], "-o", files[-1], *OF)[0] == 0
    answers = [
        json.loads(run("trend", *series, *OF, "--format", "json")[1])
        for series in (dumps, files, [dumps[0], *files[1:]])
    ]
    for answer in answers:
        assert answer["sites"] == answers[0]["sites"]
        assert [site["confidence"] for site in answer["sites"]] == ["suspect"]
    status, out, err = run("trend", *files, *OF, "--by", "name")
    assert (status, out) == (3, "")
    assert "keeps no handles by name" in err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--of", "handles"), 3, "does not list the process's handles"),
        (("--of", "pool"), 3, "tells of blocks, not of pool"),
        (("--of", "blocks"), 0, ""),
        (("--of", "handles", "--format", "umdh"), 2, "--of are for --format dlsnap only"),
    ],
)
def test_a_snapshot_of_what_the_dump_does_not_tell_is_refused(
    run: Any, tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    file = tmp_path / "a.dlsnap"
    code, out, err = run("snapshot", TINY, "-o", file, "--no-holders", *words)
    assert (code, out, file.exists()) == (status, "", status == 0)
    assert said in err


def _with_handles_of(made: bytes, dump: Path, folder: Path, hour: int = 0) -> Path:
    """A dump of the test data with the made dump's stream of handles behind it, taken so much later."""
    data = bytearray(gzip.decompress(dump.read_bytes()))
    (stamp,) = struct.unpack_from("<I", data, 20)  # MINIDUMP_HEADER.TimeDateStamp
    struct.pack_into("<I", data, 20, stamp + 3600 * hour)
    start = len(data)
    at, size = stream_place(made, 12)
    body = bytearray(made)
    for row in range(at + 16, at + size, 32):
        for field in (row + 8, row + 12):
            (place,) = struct.unpack_from("<I", body, field)
            struct.pack_into("<I", body, field, place + start if place else 0)
    data += body
    count, rva = struct.unpack_from("<II", data, 8)
    directory = data[rva : rva + 12 * count] + struct.pack("<III", 12, size, start + at)
    struct.pack_into("<II", data, 8, count + 1, len(data))
    data += directory
    file = folder / f"with-handles{hour}.dmp"
    file.write_bytes(data)
    return file
