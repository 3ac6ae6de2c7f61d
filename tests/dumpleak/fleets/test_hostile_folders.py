"""A folder in which everything is that a disk can hold."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fleet_inputs import dump

import dumpleak


@pytest.mark.skipif(sys.platform == "win32", reason="names and links that Windows has not")
def test_what_a_folder_holds_besides_files_ends_no_run(tmp_path: Path) -> None:
    top = tmp_path / "in"
    top.mkdir()
    odd_names = (b"new\nline.dmp.gz", b"caf\xe9.dmp.gz", b"[bold]x[bold].dmp.gz")
    for number, name in enumerate(odd_names):
        Path(os.fsdecode(os.fsencode(top) + b"/" + name)).write_bytes(dump(number))
    (top / "loop.dmp").symlink_to("loop.dmp")
    (top / "loop.txt").symlink_to("loop.txt")
    (top / "nowhere.dmp").symlink_to("nothing")
    (top / "again").symlink_to(".")
    os.mkfifo(top / "pipe.dmp")
    ran = dumpleak.fleet(top, top / "out", workers=1)
    found = {row["url"].removeprefix(f"{top}/"): row for row in ran.dumps.to_pylist()}
    assert {name: row["status"] for name, row in found.items()} == {
        "new\nline.dmp.gz": "read",
        "caf\\xe9.dmp.gz": "read",
        "[bold]x[bold].dmp.gz": "read",
        "loop.dmp": "error",
        "nowhere.dmp": "error",
    }
    assert "symbolic links" in found["loop.dmp"]["error"]
    again = dumpleak.fleet(top, top / "out", workers=1)
    assert (again.seen.to_read, again.seen.known) == (0, 5)


def _tar_with(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as made:
        about = tarfile.TarInfo("first")
        about.size, about.pax_headers = len(content), {"path": name}
        made.addfile(about, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_members_of_an_archive_are_called_each_has_a_row(tmp_path: Path) -> None:
    names = ["a.dmp.gz", "a.dmp.gz", "a.dmp.gz", "..", "../up.dmp.gz", f"{'漢' * 150}.dmp.gz"]
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as many:
        for number, name in enumerate(names):
            many.writestr(name, dump(number))
    with zipfile.ZipFile(tmp_path / "noise.zip", "w") as noise:
        noise.writestr("a.dmp", b"MDMP" + bytes(8))
        noise.writestr("a.dmp", b"no dump")
    (tmp_path / "null.tar").write_bytes(_tar_with("a\0b.dmp.gz", dump(len(names))))
    ran = dumpleak.fleet(tmp_path, tmp_path / "out", workers=1)
    found = {row["url"].removeprefix(f"{tmp_path}/"): row for row in ran.dumps.to_pylist()}
    labels = [*names[:1], "#2:a.dmp.gz", "#3:a.dmp.gz", *names[3:]]
    good = {f"many.zip!{label}" for label in labels}
    bad = {"noise.zip!a.dmp", "noise.zip!#2:a.dmp"}
    null = next(name for name in found if name.startswith("null.tar"))
    assert found.keys() == good | bad | {null}
    assert {name for name, row in found.items() if row["status"] == "read"} >= good
    for row in found.values():
        assert (row["error"] or row["url"]).count(str(tmp_path)) == 1, row["error"]
