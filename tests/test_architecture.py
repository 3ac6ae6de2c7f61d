"""The layers run one way; what the top level holds stays as it is."""

from __future__ import annotations

import ast
import subprocess
import tomllib
from pathlib import Path

import pytest
from truth import ROOT

WINDUMPS = ROOT / "parsers" / "windumps"
SOURCES = sorted([*WINDUMPS.rglob("*.py"), *(ROOT / "dumpleak").rglob("*.py")])


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


# Floors of `windumps`, lowest first; a room may know what is below it, never its neighbours or what is above.
FLOORS = (
    ("arrays", "blocks", "diagnostics", "errors", "file_structure", "files", "times", "unpack"),
    ("memory",),
    ("images", "layouts"),
    ("symbols",),
    ("kernel", "process"),
    ("dump",),
    ("heaps",),
    ("pools",),
    ("dumps",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    imports = _imports(path)
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "parsers":
        assert not {name for name in imports if name.split(".")[0] in ("dumpleak", "click", "rich")}
        room = parts[2]
        if room == "__init__":
            return
        others = {name.split(".")[1] for name in imports if name.startswith("windumps.")} - {room}
        ground = set(FLOORS[0]) if room in FLOORS[0] else set()
        assert {other for other in others - ground if FLOOR[other] >= FLOOR[room]} == set()
    if parts[0] == "dumpleak" and parts[-1] in ("comparison", "gate"):
        # A comparison knows snapshots only.
        assert not {
            name for name in imports if name.startswith(("windumps.dumps", "windumps.heaps"))
        }


def test_every_package_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(setup["tool"]["setuptools"]["packages"]) - {"dumpleak.demo_dumps"}
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    assert listed == {".".join(folder.parts).removeprefix("parsers.") for folder in folders}


def test_the_sources_were_found() -> None:
    assert len(SOURCES) > 30


def test_the_top_level_stays() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    top = {name.split("/")[0] for name in listed}
    allowed = {"pyproject.toml", "README.md", "LICENSE", "dumpleak", "parsers", "testdata", "tests"}
    assert {name for name in top if not name.startswith(".")} <= allowed


def test_the_test_data_stays_small() -> None:
    size = sum(p.stat().st_size for p in (ROOT / "testdata").rglob("*") if p.is_file())
    assert size < 10 << 20
