"""`--of handles`: handles are compared as blocks are, but have no bytes, and nothing says they have."""

from __future__ import annotations

import csv
import gzip
import io
import json
import struct
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
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


def test_one_type_for_another_is_growth_of_that_type(run: Any, tmp_path: Path) -> None:
    base = _dump(tmp_path, 0, {"Event": 100, "File": 900})
    current = _dump(tmp_path, 3600, {"Event": 900, "File": 100})
    status, text, _ = run("diff", base, current, *OF)
    assert status == 0
    assert text.startswith("1 type grew")


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
    assert "tells of blocks, not of pool" in err
    assert json.loads(run("stat", TINY, "--of", "blocks", "--format", "json")[1])["of"] == "blocks"


@pytest.mark.parametrize("command", ["info", "stat", "diff"])
def test_json_of_handles_is_what_its_schema_says(run: Any, tmp_path: Path, command: str) -> None:
    files = [_dump(tmp_path, 0, {"Event": 100, "": 3}), _dump(tmp_path, 3600, {"Event": 900})]
    words = () if command == "info" else OF
    document = json.loads(
        run(command, *files[: 1 + (command == "diff")], *words, "--format", "json")[1]
    )
    schema = resources.files("dumpleak").joinpath("schemas", f"{command}-1.schema.json")
    jsonschema.Draft202012Validator(json.loads(schema.read_text("utf-8"))).validate(document)


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
    assert "names" in err
    taken = tmp_path / "b.dlsnap"
    assert run("snapshot", TINY, "-o", taken, "--no-holders")[0] == 0
    assert run("stat", taken, *OF)[0] == 3


def _with_handles_of(made: bytes, dump: Path, folder: Path) -> Path:
    """A dump of the test data with the made dump's stream of handles behind it."""
    data = bytearray(gzip.decompress(dump.read_bytes()))
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
    file = folder / "with-handles.dmp"
    file.write_bytes(data)
    return file
