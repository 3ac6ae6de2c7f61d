"""What kinds of text blocks hold, told without what is written there."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from builders.heaps_process import Heaps, nt_heap, process_of
from click.testing import CliRunner

from dumpleak.attribution.text_kinds import kind_of
from dumpleak.cli import main_group
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.texts import Texts

HOUR, WHEN = 3600, 1_700_000_000
WRITTEN = "hunter2"


def url(number: int) -> str:
    return f"https://example.org/{WRITTEN}/{number:04}"


def prose(number: int) -> str:
    return f"Dear reader, {WRITTEN} is no {number:04}."


def bstr(text: str) -> bytes:
    raw = text.encode("utf-16-le")
    return b"\xaa" * 4 + struct.pack("<I", len(raw)) + raw + b"\0\0"


def ascii_z(text: str) -> bytes:
    return text.encode() + b"\0"


def wide_z(text: str) -> bytes:
    return text.encode("utf-16-le") + b"\0\0"


def padded(contents: Sequence[bytes], size: int = 160) -> list[bytes]:
    """Of one size: text, and what an earlier owner left behind its end."""
    return [content + b"\xcd" * (size - len(content)) for content in contents]


def written(path: Path, heaps: Heaps, *, hour: int = 0, x64: bool = True) -> Path:
    path.write_bytes(process_of(heaps, x64=x64, time=WHEN + HOUR * hour))
    return path


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(main_group, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        ("URLs", ["https://a.example/b?c=d", "ftp://x", "ms-settings://network", "file:///C:/a"]),
        (
            "paths",
            [
                "C:\\Windows\\system32\\a.dll",
                "c:/users/x",
                "\\\\server\\share\\a",
                "\\\\?\\C:\\a",
                "\\Device\\HarddiskVolume3\\a",
                "%TEMP%\\x",
                "/usr/lib/x.so",
                "..\\src\\main.cpp",
            ],
        ),
        (
            "registry keys",
            ["HKEY_LOCAL_MACHINE\\Software", "HKLM\\Software", "\\REGISTRY\\MACHINE"],
        ),
        (
            "GUIDs",
            ["{00000000-0000-0000-C000-000000000046}", "6b29fc40-ca47-1067-b31d-00dd010662da"],
        ),
        ("XML", ["<?xml version='1.0'?>", "<Item id='1'>", "<a:b/>", "  <x>y</x>", "<!-- c -->"]),
        ("HTML", ["<!DOCTYPE html><html>", "<html>", "<div class='x'>", "<a href='x'>y</a>"]),
        ("JSON", ['{"a": 1}', '[{"a":1}]', '["a", "b"]', "[1, 2, 3]", '{ "k" :', "{}"]),
        (
            "SQL",
            [
                "SELECT a FROM b ",
                "select *\n from t where x=1",
                "INSERT INTO t (a) VALUES (1)",
                "UPDATE t SET a=1",
                "CREATE TABLE t (a)",
                "DELETE FROM t WHERE 1",
            ],
        ),
        (
            "HTTP",
            [
                "GET /index.html HTTP/1.1",
                "HTTP/1.1 200 OK",
                "Content-Type: text/html",
                "X-Request-Id: 4",
                "user-agent: curl/8",
            ],
        ),
        (
            "log lines",
            [
                "2023-11-14 22:13:20.123 started",
                "[2023-11-14T22:13:20Z] worker up",
                "12:00:01 [main] hello",
                "[INFO] ready",
                "ERROR: no such thing",
            ],
        ),
        ("hex digits", ["deadbeef00112233445566", "0123456789ABCDEF"]),
        ("base64", ["SGVsbG8gV29ybGQsIHRoaXM+IGlz", "TWFueSBoYW5kcyBtYWtlIGxpZ2h0IHdvcms0Lg=="]),
        ("name=value", ["PATHEXT=.COM;.EXE", "windows_tracing_flags=3"]),
        (
            "",
            [
                "Select a file from the list",  # a sentence
                "Create a new folder",
                "1234567890123456789",
                "ConnectionManagerSessionState01234",
                "deadbeef",
                "<3 you",
                "a < b",
                "{curly}",
                "[bracket] x",
                "C:",
                "http:",
                "10:30 at the station",
                "Error while reading",
                "Update the set of rules",
                "Delete from here",
                "Insert into the slot",
                "Create table of contents",
                "and/or",
                "Note: this",
                "x = y",
                "",
                "   ",
            ],
        ),
    ],
)
def test_a_text_is_of_the_kind_it_begins_like_and_of_none_when_in_doubt(
    kind: str, texts: list[str]
) -> None:
    assert {text: kind_of(text) for text in texts} == dict.fromkeys(texts, kind)


@pytest.mark.parametrize(
    "text", ["<" * 5000, "[" * 5000, "%" + "w" * 5000, "/a" * 5000, " " * 5000]
)
def test_no_text_takes_long_to_be_told(text: str) -> None:
    assert isinstance(kind_of(text), str)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("make", [ascii_z, wide_z, bstr])
def test_a_row_of_text_says_what_kinds_and_nothing_that_is_written(
    tmp_path: Path, make: Any, x64: bool
) -> None:
    texts = [make(url(n)) for n in range(48)] + [make(prose(n)) for n in range(12)]
    if make is bstr and not x64:
        texts = [text[4:] for text in texts]
    dump = written(tmp_path / "a.dmp", [nt_heap(0, padded(texts), x64=x64)], x64=x64)
    if make is not bstr:  # a length must fit its block
        output = run("stat", dump)
        assert "text in 60 of 60 blocks: 48 URLs, 12 other" in output
        assert WRITTEN not in output
    exact = written(tmp_path / "b.dmp", [nt_heap(0, texts, x64=x64)], x64=x64)
    output = run("stat", exact)
    assert "48 URLs" in output
    assert WRITTEN not in output
    assert WRITTEN not in run("stat", exact, "--format", "json")


def test_what_stands_behind_the_end_of_a_text_or_a_block_is_not_looked_at(tmp_path: Path) -> None:
    hidden = [b"some text\0" + url(n).encode() for n in range(20)]
    small = [b"deadbeef"[:8] for _ in range(20)]  # the next header's bytes are no part of it
    output = run("stat", written(tmp_path / "a.dmp", [nt_heap(0, hidden + small)]))
    assert "URLs" not in output
    assert "hex" not in output


def test_growth_of_many_sizes_says_the_kinds_of_all_its_parts(tmp_path: Path) -> None:
    def texts(count: int) -> list[bytes]:
        return [ascii_z(url(n) + "x" * (n * 7 % 640)) for n in range(count)]

    before = written(tmp_path / "a.dmp", [nt_heap(0, texts(20))])
    after = written(tmp_path / "b.dmp", [nt_heap(0, texts(600))], hour=1)
    output = run("diff", before, after)
    assert "varied sizes in heap 0 (nt), ASCII text" in output
    assert "text in 600 of 600 blocks: 600 URLs" in output
    assert WRITTEN not in output


def test_a_snapshot_file_keeps_kinds_and_nothing_that_is_written(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    dump = written(tmp_path / "a.dmp", [nt_heap(0, padded([ascii_z(url(n)) for n in range(30)]))])
    run("snapshot", dump, "-o", tmp_path / "a.dlsnap")
    output = run("stat", tmp_path / "a.dlsnap")
    assert "text in 30 of 30 blocks: 30 URLs" in output
    assert WRITTEN not in output


def test_what_was_not_looked_at_is_said() -> None:
    texts = Texts(5000, 1000, 990, {"URLs": 700, "paths": 240, "SQL": 3})
    assert texts.evidence == (
        "text in 990 of 1,000 blocks looked at: 700 URLs, 240 paths, 50 other",
    )
    assert Texts(100, 100, 49, {"URLs": 49}).evidence == ()  # most are no text
    assert Texts(100, 100, 100, {"URLs": 2}).evidence == ()  # by chance
    assert (texts + Texts(10, 10, 10, {"URLs": 10})).kinds["URLs"] == 710


@pytest.mark.parametrize("make", [ascii_z, wide_z])
def test_contents_shows_a_few_texts_of_each_row_only_when_asked(tmp_path: Path, make: Any) -> None:
    letters = [f"{n:02} letters\tb\r\nc \x1b[31m {'long ' * 30}" for n in range(30)]
    same = ["all the same"] * 20
    heaps = [nt_heap(0, padded([make(text) for text in same], 64) + [make(t) for t in letters])]
    before = written(tmp_path / "a.dmp", [nt_heap(0, [])])
    after = written(tmp_path / "b.dmp", heaps, hour=1)
    for words in (("stat", after), ("leaks", after), ("diff", before, after)):
        assert "all the same" not in run(*words)
        assert "samples" not in run(*words, "--format", "json")
        output = run(*words, "--contents")
        assert output.count('"all the same"') == 1
        assert '"00 letters\\tb\\r\\nc "' in output  # what is no text ends it
        assert output.count("\\tb\\r") == 3
        assert "\x1b" not in output
        made = json.loads(run(*words, "--contents", "--format", "json"))
        groups = made["sites" if words[0] == "diff" else "groups"]
        shown = [group["samples"] for group in groups if "samples" in group]
        assert sorted(map(len, shown)) == [1, 3]


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    dump = written(tmp_path / "a.dmp", [nt_heap(0, [ascii_z("x" * 200)] * 5)])
    assert f'"{"x" * 60}…"' in run("stat", dump, "--contents")


def test_what_cannot_be_seen_is_escaped(tmp_path: Path) -> None:
    dump = written(tmp_path / "a.dmp", [nt_heap(0, [wide_z("abcd\u202e\u00adefgh ü")] * 5)])
    assert '"abcd\\u202e\\xadefgh ü"' in run("stat", dump, "--contents")


def test_contents_of_a_file_that_has_none_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    dump = written(tmp_path / "a.dmp", [nt_heap(0, [ascii_z(url(n)) for n in range(30)])])
    run("snapshot", dump, "-o", tmp_path / "a.dlsnap")
    for words in (("stat",), ("diff", dump)):
        result = CliRunner().invoke(
            main_group, [*map(str, words), str(tmp_path / "a.dlsnap"), "--contents"]
        )
        assert isinstance(result.exception, CannotAnswerError)
        assert "what is written in blocks" in str(result.exception)
