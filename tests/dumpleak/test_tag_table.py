"""What is written about pool tags."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from dumpleak.owners.tag_table import (
    KERNEL,
    MAX_FILE_BYTES,
    PoolTagFileError,
    TagTable,
    built_in_table,
    find_pooltag,
    parse_pooltag,
    read_pooltag,
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("AcdN - tdi.sys     - TDI objects", ("AcdN", ("tdi.sys",), "", "TDI objects")),
        ("Io   - nt!io        - general IO", ("Io  ", (KERNEL,), "io", "general IO")),
        ("A-LB - foo.sys - x-y - z", ("A-LB", ("foo.sys",), "", "x-y - z")),
        ("CM?? -  nt!cm - registry", ("CM??", (KERNEL,), "cm", "registry")),
        ("FooB- bar.sys - hi", ("FooB", ("bar.sys",), "", "hi")),
        ("Ab - a.sys/b.sys, c.sys - both", ("Ab  ", ("a.sys", "b.sys", "c.sys"), "", "both")),
        ("NvGp - <nvlddmkm.sys> - graphics", ("NvGp", ("nvlddmkm.sys",), "", "graphics")),
        ("Lib1 - utils.lib - somebody's", ("Lib1", (), "", "somebody's")),
        ("Ünik - foo.sys - any character", ("Ünik", ("foo.sys",), "", "any character")),
    ],
)
def test_lines(line: str, expected: tuple[object, ...]) -> None:
    (note,) = parse_pooltag(line, "pooltag.txt")
    assert (note.tag, note.drivers, note.component, note.description) == expected


@pytest.mark.parametrize(
    "line", ["rem Leak - foo.sys - no", "REM", "// x", "", "Leak", "just words"]
)
def test_lines_that_say_nothing(line: str) -> None:
    assert parse_pooltag(line, "pooltag.txt") == []


def test_a_tag_that_begins_like_a_comment_is_none() -> None:
    assert parse_pooltag("remX - foo.sys - y", "pooltag.txt")[0].tag == "remX"


def test_written_out_tags_go_before_wildcards_and_narrow_before_wide() -> None:
    lines = "Nt*  - a.sys - wide\nNtf? - b.sys - narrow\nNtfX - c.sys - exact\n"
    table = TagTable(parse_pooltag(lines, "x"))
    found = {tag: table.find(tag) for tag in ("NtfX", "NtfY", "NtAb", "Naaa")}
    assert [note.drivers[0] if note else None for note in found.values()] == [
        "c.sys",
        "b.sys",
        "a.sys",
        None,
    ]


def test_the_built_in_table_knows_documented_tags() -> None:
    table = built_in_table()
    assert len(table) > 3000
    for tag, driver in (
        ("Proc", KERNEL),
        ("NtfF", "ntfs.sys"),
        ("FMfn", "fltmgr.sys"),
        ("Io  ", KERNEL),
    ):
        note = table.find(tag)
        assert note is not None
        assert note.drivers == (driver,)
        assert note.description == ""
    assert table.find("AcNb") is None


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "POOLTAG.TXT"
    path.write_bytes("Leak - foo.sys - one\r\n".encode("utf-16"))
    assert find_pooltag(tmp_path) == path
    note = read_pooltag(path).find("Leak")
    assert note is not None
    assert (note.description, note.source) == ("one", "POOLTAG.TXT")
    path.write_bytes(b"\xef\xbb\xbfLeak - foo.sys - \xfctwo\n")
    assert (note := read_pooltag(path).find("Leak")) is not None
    assert note.description.endswith("two")
    path.write_bytes(b"\0" * 100)
    with pytest.raises(PoolTagFileError, match="no line"):
        read_pooltag(path)
    path.write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(PoolTagFileError, match="too long"):
        read_pooltag(path)
    assert find_pooltag(tmp_path / "none") is None


@pytest.mark.parametrize(
    "line",
    [
        "Leak - " + "a" * 1_000_000,
        "Leak - " + "x.y" * 300_000,
        "Leak - x" + " " * 1_000_000 + "y",
        "Leak" + " " * 1_000_000 + "y",
        "Leak - " + "nt!" * 300_000,
        "Leak - " + "a.sys-" * 200_000,
    ],
    ids=["a word", "dots", "blanks", "blanks before the dash", "nt!", "names"],
)
def test_a_long_line_takes_time_in_proportion_to_its_length(line: str) -> None:
    """Where it does not, a line of this length takes hours."""
    assert len(parse_pooltag(line, "pooltag.txt")) <= 1


def test_a_table_full_of_wildcards_is_looked_up_as_fast_as_any() -> None:
    """Looked through one by one, these would be 2,000 million comparisons."""
    letters = "abcdefghijklmnopqrstuvwxyz+"
    tags = ["?" + "".join(three) for three in product(letters, repeat=3)]
    table = TagTable(parse_pooltag("".join(f"{tag} - a.sys - b\n" for tag in tags), "x"))
    assert len(table) == 27**3
    assert [table.find(f"z{n % 10}zz") for n in range(100_000)] == [None] * 100_000


def test_of_wildcards_that_are_equally_narrow_the_first_in_the_file_counts() -> None:
    for lines in (("Ab?? - a.sys", "?b?d - b.sys"), ("?b?d - b.sys", "Ab?? - a.sys")):
        note = TagTable(parse_pooltag("\n".join(lines), "x")).find("Abcd")
        assert note is not None
        assert note.drivers == (lines[0].rpartition(" ")[2],)
