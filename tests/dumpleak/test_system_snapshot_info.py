"""`info` of a snapshot file of a system, and a system's dumps in the wrong order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from truth import TESTDATA

PAIR = TESTDATA / "kernel" / "14393-x64" / "tiny-pair"


def test_info_of_a_system_kept_in_a_file_speaks_of_a_system(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.dlsnap"
    assert run("snapshot", PAIR / "after.dmp.xz", "-o", file)[0] == 0
    status, out, _ = run("info", file)
    assert status == 0
    assert "dumpleak pool" in out
    assert "Drivers" in out
    assert "12 processes" in out
    for words in ("of the same program", "partial memory", "Modules"):
        assert words not in out
    names = {row["name"] for row in json.loads(run("info", file, "--format", "json")[1])["account"]}
    assert {"pool.nonpaged_bytes", "processes.count"} <= names


@pytest.mark.parametrize("command", ["pool", "diff"])
def test_dumps_of_a_system_in_the_wrong_order_headline_no_growth(run: Any, command: str) -> None:
    status, out, _ = run(command, PAIR / "after.dmp.xz", PAIR / "before.dmp.xz")
    first = " ".join(out.split())[:120]
    assert status == 0
    assert first.startswith("Cannot tell: the current dump was taken before the base")
    assert "grew" not in first
    assert "dumpleak diff CURRENT BASE" in out
    assert "verifier" not in out
    out = run(command, PAIR / "before.dmp.xz", PAIR / "after.dmp.xz")[1]
    assert "taken before" not in out
