"""The layers run one way; what the top level holds stays as it is."""

from __future__ import annotations

import ast
import re
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
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "later":
            found.add(ast.literal_eval(node.args[0]))  # a function that is loaded when it is called
    return found


# Rooms by floor, lowest first; a room may know what is below it, never its neighbours or what is above.
# On the ground, and at the way in, files may know each other.
WINDUMPS_FLOORS = (
    (
        "arrays",
        "blocks",
        "builds",
        "diagnostics",
        "errors",
        "file_structure",
        "files",
        "later",
        "pool_tags",
        "times",
        "unpack",
    ),
    ("memory",),
    ("images", "layouts"),
    ("symbols",),
    ("kernel", "process"),
    ("dump",),
    ("heaps",),
    ("pools",),
    ("dumps",),
)
DUMPLEAK_FLOORS = (
    ("interrupts", "model"),
    ("owners", "subjects", "symbols"),
    ("kernel", "process"),
    ("attribution",),
    ("pointers",),
    ("compare", "files"),
    ("gate", "survey"),
    ("fleets",),
    ("api",),
    ("reports",),
    ("commands",),
    ("__main__", "cli", "pytest_plugin"),
)
SAME_FLOOR = {*WINDUMPS_FLOORS[0], *DUMPLEAK_FLOORS[-1]}
# What opens files or walks memory. What is said, and what compares it, does without.
READERS = (
    "windumps.dumps",
    "windumps.heaps",
    "windumps.kernel",
    "windumps.pools",
    "windumps.process",
    "windumps.unpack",
    "dumpleak.files",
    "dumpleak.kernel",
    "dumpleak.process",
    "dumpleak.survey",
)


def _floors(package: str) -> dict[str, int]:
    floors = {"windumps": WINDUMPS_FLOORS, "dumpleak": DUMPLEAK_FLOORS}[package]
    return {room: number for number, rooms in enumerate(floors) for room in rooms}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part not in ("parsers", "__init__"))


MODULES = {_module(path): path for path in SOURCES}


def _needs(module: str) -> set[str]:
    """Modules of ours that a module imports, its package's `__init__` aside."""
    return {name for name in _imports(MODULES[module]) if name in MODULES} - {module}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    module = _module(path)
    package, _, inside = module.partition(".")
    imports = _imports(path)
    if package == "windumps":
        assert not {name for name in imports if name.split(".")[0] in ("dumpleak", "click", "rich")}
    if not inside:
        return
    floors = _floors(package)
    room = inside.split(".")[0]
    others = {name.split(".")[1] for name in imports if name.startswith(f"{package}.")} - {room}
    others = {other for other in others if other in floors}
    if room in SAME_FLOOR:
        others -= SAME_FLOOR
    assert {other for other in others if floors[other] >= floors[room]} == set()


@pytest.mark.parametrize("room", ["dumpleak.model", "dumpleak.compare"])
def test_what_is_said_and_compared_needs_no_reader(room: str) -> None:
    todo = [module for module in MODULES if module.startswith(f"{room}.")]
    seen = set(todo)
    while todo:
        module = todo.pop()
        assert not module.startswith(READERS), f"{room} needs {module}"
        new = _needs(module) - seen
        seen |= new
        todo += new
    assert len(seen) > 5


def test_no_module_needs_itself_on_a_way_round() -> None:
    """Packages' `__init__` aside: what they name again comes from their own rooms."""
    needs = {module: _needs(module) for module in MODULES}
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> None:
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in done or MODULES[module].name == "__init__.py":
            return
        way.append(module)
        for other in sorted(needs[module]):
            visit(other)
        way.pop()
        done.add(module)

    for module in sorted(MODULES):
        visit(module)


def _compares_a_build(node: ast.AST) -> bool:
    """Whether a comparison holds a build number against one that is written in the code."""
    if not isinstance(node, ast.Compare):
        return False
    if not any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops):
        return False
    sides = [node.left, *node.comparators]
    texts = [ast.unparse(side) for side in sides]
    written = [
        isinstance(side, ast.Constant) or bool(re.fullmatch(r"_?[A-Z][A-Z_0-9]+", text))
        for side, text in zip(sides, texts, strict=True)
    ]
    return any("build" in text.lower() for text in texts) and any(written)


@pytest.mark.parametrize("text", ["dump.build >= 26100", "6000 <= build", "a.first_build < FIRST"])
def test_comparisons_of_build_numbers_are_seen(text: str) -> None:
    assert _compares_a_build(ast.parse(text, mode="eval").body)


def test_facts_about_builds_are_rows() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare) and _compares_a_build(node)
    ]
    assert found == []


MOST_LINES, MOST_LINES_OF_FUNCTIONS = 400, 60


def _crowded(text: str) -> list[str]:
    """What of a file is too long, or takes yes and no by place."""
    found = ["the file"] if text.count("\n") > MOST_LINES else []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (node.end_lineno or 0) - node.lineno >= MOST_LINES_OF_FUNCTIONS:
            found.append(f"{node.name} is long")
        is_command = any("click" in ast.unparse(each) for each in node.decorator_list)
        by_place = () if is_command else (*node.args.posonlyargs, *node.args.args)
        found += [
            f"{node.name}: {each.arg}"
            for each in by_place
            if each.annotation is not None and ast.unparse(each.annotation) == "bool"
        ]
    return found


def test_what_is_crowded_is_seen() -> None:
    body = "    pass\n" * MOST_LINES_OF_FUNCTIONS
    assert _crowded(f"def f(a: int, b: bool, *, c: bool) -> None:\n{body}") == [
        "f is long",
        "f: b",
    ]
    assert _crowded("\n" * (MOST_LINES + 1)) == ["the file"]
    assert _crowded("@click.command()\ndef f(force: bool): ...") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short_and_bools_have_names(path: Path) -> None:
    assert _crowded(path.read_text(encoding="utf-8")) == []


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
