"""What commands write as JSON is what the JSON Schema files in the package say, and they say no more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fuzz.command_lines import LINE_BY_LINE, formats, run
from json_answers import ANSWERED, BASE, CURRENT, MADE, MORE_POOLS, REFUSED, Words
from truth import ROOT

import dumpleak
from dumpleak.cli import main_group
from dumpleak.model.populations import POPULATIONS

SCHEMAS: dict[str, Any] = {
    Path(file.name).name.removesuffix(".schema.json"): json.loads(file.read_text("utf-8"))
    for file in resources.files("dumpleak").joinpath("schemas").iterdir()
    if file.name.endswith(".json")
}
VALIDATORS = {
    name: jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    for name, schema in SCHEMAS.items()
}
# What may be null and is not in any answer here, by pattern, and why.
NEVER_NULL: dict[str, str] = {
    "*.build": "every dump here whose answers are these says its build",
    "info-1:system.time": "every system here tells its time",
    "processes-1:listed.time": "every system here tells its time",
    "verifier-1.time": "every system here tells its time",
    "processes-1:listed.kept_alive*": "the header of every ended process here is in its dump",
    "heaps-1:heap.used_*": "here are either all heaps of a process read or none, which is refused",
    "leaks-1.p*": "every dump here with stacks and images names its process",
    "leaks-1.lost_share": "every dump here with stacks and images lists its regions",
    "info-1:system.kdbg*": "every system here has its debugger data block",
    "info-1:system.kernel_base": "every system here has its kernel",
    "info-1:system.processors": "every system here has its kernel",
    "info-1:system.up_time_seconds": "every system here tells its time",
    "*.pointers[[]].driver": "every tag that points to objects here has an owner",
    "explain-1:of_sites.*": "every dump here with stacks and images tells its process, and is small",
    "stat-1.groups[].retained_*": "no dump here is so large that it would take too long",
    "*.drivers_*loaded": "no list of drivers here is cut",
    "trend-1.recurring*": "what grows alike in each boot here are tags of known drivers",
    "pool-1:*session_*": "no counters of session pool are partly absent here",
}

Answer = Callable[[Words], tuple[int, str, str]]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """Runs a line, and makes the files it names, each once."""
    folder = tmp_path_factory.mktemp("inputs")
    known: dict[Words, tuple[int, str, str]] = {}

    def word(text: object) -> str:
        make = MADE.get(str(text))
        if make is None:
            return str(text)
        file = folder / str(text)
        if not file.exists():
            make(file)
        return str(file)

    def answered(line: Words) -> tuple[int, str, str]:
        if line not in known:
            known[line] = run(*(word(text) for text in line), "--format", "json")
        return known[line]

    return answered


def told(line: Words) -> str:
    """A line as the name of a test case."""
    words = (text.relative_to(ROOT) if isinstance(text, Path) else text for text in line)
    return " ".join(str(text).removesuffix(".dmp.gz").removesuffix(".dmp.xz") for text in words)


def documents(command: str, output: str) -> list[tuple[str, Any]]:
    """What a command wrote, each document with the name of its schema."""
    if command in LINE_BY_LINE:
        return [(f"{command}-1", json.loads(line)) for line in output.splitlines()]
    document = json.loads(output)
    return [(document["schema"].removeprefix("dumpleak/").replace("/", "-"), document)]


@pytest.mark.parametrize("line", ANSWERED, ids=told)
def test_json_is_what_its_schema_says(line: Words, answer: Answer) -> None:
    code, output, said = answer(line)
    assert code in (0, 1, 3), said
    found = documents(str(line[0]), output)
    assert found
    for name, document in found:
        assert name == f"{line[0]}-1"
        VALIDATORS[name].validate(document)


@pytest.mark.parametrize("line", REFUSED, ids=told)
def test_what_cannot_be_answered_writes_no_json(line: Words, answer: Answer) -> None:
    code, output, said = answer(line)
    assert (code, output) == (3, "")
    assert said.startswith("dumpleak: ")


def test_every_command_that_writes_json_has_answers_here() -> None:
    writing = {name for name in main_group.commands if "json" in formats(name)}
    assert writing == {line[0] for line in ANSWERED}
    assert {f"{name}-1" for name in writing} == SCHEMAS.keys()


def test_every_schema_that_the_code_names_has_a_file() -> None:
    named = set()
    for file in Path(dumpleak.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r"dumpleak/([a-z]+)/(\d+)", file.read_text("utf-8")))
    # Snapshot files are no JSON, and lines of blocks do not name theirs.
    names = {f"{name}-{version}" for name, version in named} - {"snapshot-1"}
    assert names == SCHEMAS.keys() - {"allocations-1"}


def test_the_schemas_are_schemas_and_describe_every_key() -> None:
    for name, schema in SCHEMAS.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        for place, node in keys_of(schema, name):
            text = node.get("description", "")
            assert re.fullmatch(r"[A-Z0-9].{0,180}\.", text), place
            assert not takes_null(node) or "; null " in text, place


def test_the_schemas_are_closed() -> None:
    for name, schema in SCHEMAS.items():
        for node in objects_of(schema):
            assert node.get("additionalProperties", True) is not True, (name, node)


def test_the_schemas_name_every_population_and_every_grouping() -> None:
    groupings = dict.fromkeys(by for p in POPULATIONS.values() for by in p.groupings)
    for name in ("stat-1", "diff-1", "trend-1"):
        told = SCHEMAS[name]["properties"]
        assert told["of"]["enum"] == list(POPULATIONS), name
        assert told["by"]["enum"] == list(groupings), name


def test_what_schemas_share_they_say_alike() -> None:
    parts: dict[str, Any] = {}
    for schema in SCHEMAS.values():
        for name, part in schema.get("$defs", {}).items():
            if name not in ("account_row", "coverage"):
                assert parts.setdefault(name, part) == part, name


def test_every_key_of_every_schema_is_shown_by_an_answer(answer: Answer) -> None:
    declared, nullable = set(), set()
    for name, schema in SCHEMAS.items():
        for place, node in keys_of(schema, name):
            declared.add(place)
            if takes_null(node):
                nullable.add(place)
    shown: dict[str, bool] = {}  # whether it was null, too
    for line in ANSWERED:
        for name, document in documents(str(line[0]), answer(line)[1]):
            for place, value in shown_by(SCHEMAS[name], SCHEMAS[name], document, name):
                shown[place] = shown.get(place, False) or value is None
    assert not declared - shown.keys()
    never = sorted(nullable - {place for place, null in shown.items() if null})
    excused = {pattern: [p for p in never if fnmatchcase(p, pattern)] for pattern in NEVER_NULL}
    assert sorted({place for places in excused.values() for place in places}) == never
    assert [
        pattern for pattern, places in excused.items() if not places
    ] == []  # no excuse is needed


def takes_null(node: Any) -> bool:
    return "null" in node.get("type", ()) or None in node.get("enum", ())


def objects_of(node: Any) -> Iterator[Any]:
    """All descriptions of objects in a schema."""
    if isinstance(node, dict):
        kind = node.get("type", ())
        if kind == "object" or (isinstance(kind, list) and "object" in kind):
            yield node
        for part in node.values():
            yield from objects_of(part)


def place_of(whole: Any, node: Any, place: str) -> tuple[Any, str]:
    """A description that another place gives, and where."""
    if "$ref" not in node:
        return node, place
    name = node["$ref"].removeprefix("#/$defs/")
    return whole["$defs"][name], f"{place.partition(':')[0].partition('.')[0]}:{name}"


def keys_of(whole: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every key that a schema describes: where, and how; what is shared once."""
    yield from _keys_below(whole, place)
    for part, below in whole.get("$defs", {}).items():
        yield from _keys_below(below, f"{place}:{part}")


def _keys_below(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    for name, part in node.get("properties", {}).items():
        yield f"{place}.{name}", part
        yield from _keys_below(part, f"{place}.{name}")
    for word, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(node.get(word), dict):
            yield from _keys_below(node[word], place + mark)


def shown_by(whole: Any, node: Any, value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every key of a schema that a document has, with its value."""
    if "if" in node:
        branch = "then" if set(node["if"]["required"]) <= value.keys() else "else"
        yield from shown_by(whole, node[branch], value, place)
    node, place = place_of(whole, node, place)
    if isinstance(value, dict):
        for name, item in value.items():
            known = name in node.get("properties", {})
            below = f"{place}.{name}" if known else f"{place}.*"
            part = node["properties"][name] if known else node.get("additionalProperties")
            if known:
                yield below, item
            if isinstance(part, dict):
                yield from shown_by(whole, part, item, below)
    elif isinstance(value, list) and "items" in node:
        for item in value:
            yield from shown_by(whole, node["items"], item, f"{place}[]")


@pytest.mark.parametrize("name", ["counters", "dump_type", "coverage"])
def test_what_a_kernel_dump_is_has_its_own_part_of_the_contract(name: str, answer: Answer) -> None:
    document = json.loads(answer(("info", MORE_POOLS))[1])
    document.pop(name)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATORS["info-1"].validate(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("verdict"),
        lambda d: d.update(verdict="maybe"),
        lambda d: d.update(more=1),
        lambda d: d["sites"][0].pop("delta_bytes"),
        lambda d: d["sites"][0].update(confidence="sure"),
        lambda d: d["sites"][0].update(base_count=None),
        lambda d: d["totals"].update(delta_bytes=1.5),
        lambda d: d["diagnostics"].append({}),
    ],
)
def test_a_document_that_breaks_the_contract_is_not_valid(change: Any, answer: Answer) -> None:
    document = json.loads(answer(("diff", BASE, CURRENT, "--holders"))[1])
    VALIDATORS["diff-1"].validate(document)
    change(document)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATORS["diff-1"].validate(document)
