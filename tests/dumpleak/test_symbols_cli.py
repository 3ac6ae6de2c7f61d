"""The symbol path and `dumpleak symbols`, through the real entry point."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from builders.cabinet_builder import mszip
from builders.minidump_builder import MinidumpBuilder
from builders.symbol_server import Handler, serving
from made_symbols import OTHER_BUILD, made_pdb, put_in_store, sample_pdb
from truth import TESTDATA

from dumpleak.commands.options import Options
from dumpleak.commands.output import progress_bar
from dumpleak.symbols.dump_symbols import ENVIRONMENT
from windumps import open_dump
from windumps.images.modules import PdbIdentity
from windumps.symbols.download import Downloader
from windumps.symbols.functions import load_library
from windumps.symbols.provider import Symbols

DUMP = str(TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust" / "after.dmp.gz")
BEFORE = str(TESTDATA / "10.0.26100.5074-x64" / "leak-pair-ust" / "before.dmp.gz")
NO_STACKS = str(TESTDATA / "10.0.26100.5074-x64" / "tiny" / "dump.dmp.gz")
# As the dumps' own headers name them; read with a hex viewer.
APP = PdbIdentity("app.pdb", "114D20A12794E107D54A2A885CF4E7A5", 1)
WIDGETS = PdbIdentity("widgets.pdb", "2DFAFB398097E9DA2B538E433A8DCDFE", 1)
NTDLL = PdbIdentity("ntdll.pdb", "21EB609F5CD42F738B9AD508893634BD", 1)
PLACE = f"/store/app.pdb/{APP.key}"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    put_in_store(tmp_path / "store", APP, made_pdb(APP))
    return tmp_path / "store"


def _serve(data: bytes) -> Handler:
    return lambda server: server.give(data)


def _frames(run: Any, *args: str) -> set[str]:
    code, out, _ = run("stat", DUMP, "--format", "json", *args)
    assert code == 0
    return {frame for group in json.loads(out)["groups"] for frame in group["frames"]}


def _is_named(frames: set[str]) -> bool:
    program = [frame for frame in frames if frame.startswith("app.exe")]
    named = {"!" in frame for frame in program}
    assert len(named) == 1
    return named.pop()


# -- where symbols come from ----------------------------------------------------------------------


def test_a_symbol_path_is_an_option_a_list_and_a_variable(
    run: Any, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _is_named(_frames(run))
    assert _is_named(_frames(run, "--symbols", str(store)))
    assert _is_named(_frames(run, "--symbols", f"{tmp_path};srv*{store}"))
    assert _is_named(_frames(run, "--symbols", str(tmp_path), "--symbols", f"srv*{store}"))
    monkeypatch.setenv(ENVIRONMENT, f"srv*{store}")
    assert _is_named(_frames(run))


@pytest.mark.parametrize("command", ["info", "heaps", "allocations", "stat", "diff"])
def test_every_command_on_a_dump_takes_symbols(run: Any, store: Path, command: str) -> None:
    dumps = [BEFORE, DUMP] if command == "diff" else [DUMP]
    code, out, err = run(command, *dumps, "--symbols", str(store))
    assert (code, "Traceback" in err) == (0, False)
    if command not in ("info", "heaps"):
        assert "app.exe!app::f" in out


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere/symbols", "no such folder: nowhere/symbols"),
        ("srv*nowhere", "no such folder: nowhere"),
        ("cache*nowhere", "no such folder: nowhere"),
        ("cache*nowhere;gone;https://symbols.example.com", "no such folder: gone"),
        ("ftp://symbols.example.com", "http:// or https:// only"),
        ("foo*bar", "'foo' is unknown"),
    ],
)
def test_a_path_that_means_nothing_is_wrong_usage(run: Any, path: str, said: str) -> None:
    code, _, err = run("stat", DUMP, "--symbols", path)
    assert code == 2
    assert said in " ".join(err.split())


def test_a_variable_that_means_nothing_is_said_and_left_out(
    run: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENVIRONMENT, "foo*bar")
    code, out, err = run("stat", DUMP, "--symbols", str(store))
    assert code == 0
    assert "app.exe!app::f" in out
    assert "_NT_SYMBOL_PATH is not used" in err
    monkeypatch.setenv(ENVIRONMENT, "/no/such/folder;srv*")
    assert run("stat", DUMP)[0::2] == (0, "")


# -- downloads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "compressed"])
def test_a_server_in_the_path_gives_what_is_missing_and_the_cache_keeps_it(
    run: Any, tmp_path: Path, form: str
) -> None:
    pdb = made_pdb(APP)
    name, data = ("app.pdb", pdb) if form == "plain" else ("app.pd_", mszip(pdb))
    cache = tmp_path / "cache"
    with serving({f"{PLACE}/{name}": _serve(data)}) as (url, asked):
        path = f"srv*{cache}*{url}/store"
        assert _is_named(_frames(run, "--symbols", path))
        assert f"{PLACE}/{name}" in asked
        del asked[:]
        assert _is_named(_frames(run, "--symbols", path))
        assert not [place for place in asked if place.startswith(PLACE)]
    kept = cache / "app.pdb" / APP.key
    assert [file.name for file in kept.iterdir()] == ["app.pdb"]
    assert (kept / "app.pdb").read_bytes() == pdb


def test_a_cache_in_front_of_a_server_need_not_be_there_yet(run: Any, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    with serving({f"{PLACE}/app.pdb": _serve(made_pdb(APP))}) as (url, _):
        assert _is_named(_frames(run, "--symbols", f"cache*{cache};{url}/store"))
    assert (cache / "app.pdb" / APP.key / "app.pdb").is_file()


def test_nothing_is_asked_of_a_server_that_no_path_names(
    run: Any, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a download without a URL")

    monkeypatch.setattr(Downloader, "fetch", refuse)
    monkeypatch.setenv(ENVIRONMENT, f"srv*;cache*{store}")
    assert _is_named(_frames(run, "--symbols", f"srv*;srv*{store}"))


def test_a_server_that_does_not_answer_is_said_and_the_answer_comes_without_it(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windumps.symbols.download.Limits.backoff_seconds", 0.0)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with serving({}) as (url, _):
        pass  # and now it is gone
    code, out, _ = run("stat", DUMP, "--symbols", f"srv*{tmp_path}*{url}", "--format", "json")
    assert code == 0
    document = json.loads(out)
    assert document["groups"]
    (said,) = [item for item in document["diagnostics"] if item["code"] == "symbol-server"]
    assert "cannot be reached" in said["message"]


def test_a_download_shows_progress_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for force in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", force)
        symbols = Symbols([])
        with progress_bar(Options(symbols=symbols)):
            report = symbols._downloader.progress
            if report is not None:
                report("https://symbols.example.com/app.pdb/1/app.pdb", 10, 100)
        assert symbols._downloader.progress is None
        seen.append(capsys.readouterr().err)
    assert seen[0] == ""
    assert "downloading app.pdb" in seen[1]


# -- dumpleak symbols -----------------------------------------------------------------------------


def test_what_is_wanted_found_and_missing_is_listed_as_json(run: Any, store: Path) -> None:
    put_in_store(store, WIDGETS, made_pdb(OTHER_BUILD))
    code, out, _ = run("symbols", DUMP, "--symbols", str(store), "--format", "json")
    document = json.loads(out)
    assert (code, document["schema"]) == (0, "dumpleak/symbols/1")
    rows = {row["pdb"]: row for row in document["symbols"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "app.pdb": "found",
        "widgets.pdb": "wrong identity",
        "ntdll.pdb": "missing",
    }
    app = rows["app.pdb"]
    assert app["modules"] == ["app.exe"]
    assert (app["guid"], app["age"], app["key"]) == (APP.guid, 1, APP.key)
    assert Path(app["path"]) == store / "app.pdb" / APP.key / "app.pdb"
    assert (app["reason"], app["url"]) == (None, None)
    assert "another image" in rows["widgets.pdb"]["reason"]
    assert rows["ntdll.pdb"]["path"] is None
    assert rows["ntdll.pdb"]["url"].endswith(f"/ntdll.pdb/{NTDLL.key}/ntdll.pdb")


def test_the_list_is_a_table_of_comma_separated_values_too(run: Any, store: Path) -> None:
    code, out, _ = run("symbols", DUMP, "--symbols", str(store), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [(row["module"], row["pdb"], row["key"], row["status"]) for row in rows] == [
        ("ntdll.dll", "ntdll.pdb", NTDLL.key, "missing"),
        ("app.exe", "app.pdb", APP.key, "found"),
        ("widgets.dll", "widgets.pdb", WIDGETS.key, "missing"),
    ]


def test_the_list_for_people_says_where_and_why(run: Any, store: Path) -> None:
    code, out, _ = run("symbols", DUMP, "--symbols", str(store))
    assert code == 0
    assert "1 of 3 PDBs found" in out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert "found" in lines["app.exe"]
    assert "in no place of the symbol path" in lines["ntdll.dll"]
    assert "no symbol path given" in run("symbols", DUMP)[1]


def test_what_is_missing_can_be_fetched_by_another_machine(
    run: Any, store: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "wanted.txt"
    path = ("--symbols", str(store))
    assert run("symbols", DUMP, *path, "--format", "manifest", "-o", str(listed))[0] == 0
    assert listed.read_text() == f"ntdll.pdb,{NTDLL.key},1\nwidgets.pdb,{WIDGETS.key},1\n"
    urls = run("symbols", DUMP, *path, "--format", "urls")[1].splitlines()
    assert [url.split("/", 3)[3] for url in urls] == [
        f"download/symbols/ntdll.pdb/{NTDLL.key}/ntdll.pdb",
        f"download/symbols/widgets.pdb/{WIDGETS.key}/widgets.pdb",
    ]
    # What was fetched there and laid out as a store is found here.
    for identity in (NTDLL, WIDGETS):
        put_in_store(store, identity, made_pdb(identity))
    assert run("symbols", DUMP, *path, "--format", "manifest")[1] == ""


def test_listing_with_a_server_fetches_what_is_missing(run: Any, tmp_path: Path) -> None:
    with serving({f"{PLACE}/app.pdb": _serve(made_pdb(APP))}) as (url, _):
        path = f"srv*{tmp_path / 'cache'}*{url}/store"
        out = run("symbols", DUMP, "--symbols", path, "--format", "json")[1]
    rows = {row["pdb"]: row for row in json.loads(out)["symbols"]}
    assert Path(rows["app.pdb"]["path"]).read_bytes() == made_pdb(APP)
    assert "not on the server" in rows["widgets.pdb"]["reason"]


def test_a_volatility_table_stands_beside_a_missing_pdb(run: Any, tmp_path: Path) -> None:
    table = tmp_path / "ntdll.pdb" / f"{NTDLL.guid}-{NTDLL.age}.json"
    table.parent.mkdir()
    table.write_text("{}")
    out = run("symbols", DUMP, "--symbols", str(tmp_path), "--format", "json")[1]
    rows = {row["pdb"]: row for row in json.loads(out)["symbols"]}
    assert rows["ntdll.pdb"]["status"] == "missing"
    assert Path(rows["ntdll.pdb"]["table"]) == table
    assert rows["app.pdb"]["table"] is None


def test_the_dumps_name_these_pdbs() -> None:
    for dump in (DUMP, NO_STACKS):
        named = {m.name: m.pdb for m in open_dump(Path(dump)).modules}
        assert named == {"app.exe": APP, "widgets.dll": WIDGETS, "ntdll.dll": NTDLL}


def test_a_hostile_name_moves_no_cursor(run: Any, store: Path, tmp_path: Path) -> None:
    dump = tmp_path / "hostile.dmp"
    name = "..\\..\\evil\x1b[2J.pdb"
    dump.write_bytes(
        MinidumpBuilder().module("C:\\app.exe", 0x400000, 0x1000, pdb=(name, "A" * 32, 1)).build()
    )
    code, out, _ = run("symbols", str(dump), "--symbols", str(store))
    assert code == 0
    assert "\x1b" not in out
    assert "which is no file name" in " ".join(out.split())
    assert run("symbols", str(dump), "--format", "manifest")[1] == ""


def test_a_dump_without_images_cannot_answer(run: Any, tmp_path: Path) -> None:
    dump = tmp_path / "empty.dmp"
    dump.write_bytes(MinidumpBuilder().memory(0x10000, b"x").build())
    code, out, err = run("symbols", str(dump))
    assert (code, out) == (3, "")
    assert "lists no images" in err


def test_a_damaged_pdb_is_said_and_does_no_harm(run: Any, tmp_path: Path) -> None:
    data = bytearray(made_pdb(APP))
    data[0x400:] = b"\xff" * (len(data) - 0x400)
    put_in_store(tmp_path, APP, bytes(data))
    code, out, _ = run("stat", DUMP, "--symbols", str(tmp_path), "--format", "json")
    assert code == 0
    said = [d["message"] for d in json.loads(out)["diagnostics"] if d["structure"] == "app.exe"]
    assert any("damaged" in message for message in said)


def test_a_snapshot_file_names_the_pdbs_of_its_dump(run: Any, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    held = tmp_path / "held.parquet"
    assert run("snapshot", NO_STACKS, "-o", str(held))[0] == 0
    path = ("--symbols", str(store), "--format", "json")
    document, of_dump = (
        json.loads(run("symbols", str(file), *path)[1]) for file in (held, NO_STACKS)
    )
    assert document["symbols"] == of_dump["symbols"]
    assert {row["pdb"] for row in document["symbols"]} == {"app.pdb", "ntdll.pdb", "widgets.pdb"}


@pytest.mark.skipif(load_library() is None, reason="lines need symbolic")
def test_lines_stand_beside_frames_and_under_names(run: Any, tmp_path: Path) -> None:
    put_in_store(tmp_path, APP, sample_pdb(APP, "x64"))
    arguments = ("stat", DUMP, "--symbols", str(tmp_path))
    groups = json.loads(run(*arguments, "--format", "json")[1])["groups"]
    known = [group for group in groups if group["lines"]]
    assert known
    assert all(len(group["lines"]) == len(group["frames"]) for group in known)
    lines = {line for group in known for line in group["lines"]}
    assert any(line.startswith("C:\\src\\sample.cpp(") for line in lines)
    named = [
        line
        for group in known
        for frame, line in zip(group["frames"], group["lines"], strict=True)
        if frame == group["name"] and line
    ]
    shown = run(*arguments, "--top", "1000")[1]
    assert named
    assert all(f"at {line.removeprefix('C:' + chr(92))}" in shown for line in named)
