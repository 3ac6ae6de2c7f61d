"""A folder in which everything is that a disk can hold."""

from __future__ import annotations

import os
import sys
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
