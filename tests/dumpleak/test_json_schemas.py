"""What commands write as JSON is what the JSON Schema files in the package say."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from truth import TESTDATA

from dumpleak.cli import main

ASLR = TESTDATA / "10.0.26100.5074-x64" / "leak-pair-aslr"
UST = TESTDATA / "6.1.7601.24384-x86" / "leak-pair-ust"
SERIES = [TESTDATA / "10.0.22621.4541-x64" / "series-ust" / f"dump{n}.dmp.gz" for n in range(6)]
MIXED = TESTDATA / "10.0.26100.5074-x64" / "mixed" / "dump.dmp.gz"
SCHEMAS = {
    Path(file.name).name.removesuffix(".schema.json"): json.loads(file.read_text("utf-8"))
    for file in resources.files("dumpleak").joinpath("schemas").iterdir()
    if file.name.endswith(".json")
}
KERNEL = tuple(
    TESTDATA / "kernel" / "14393-x64" / "tiny-pair" / f"{side}.dmp.xz"
    for side in ("before", "after")
)
PAIR = (UST / "before.dmp.gz", UST / "after.dmp.gz")
GATE = ("--fail-on", "bytes>=1,site.percent>=1")
LINES: list[tuple[object, ...]] = [
    ("info", MIXED),
    ("heaps", MIXED),
    ("modules", MIXED),
    *(("stat", MIXED, "--by", by) for by in ("site", "size", "type", "stack")),
    ("diff", *PAIR),
    ("diff", *PAIR, *GATE),
    ("diff", *PAIR, "--by", "size", "--no-holders"),
    ("diff", ASLR / "before.dmp.gz", ASLR / "after.dmp.gz"),
    ("diff", ASLR / "before.dmp.gz", PAIR[0]),
    ("trend", *SERIES),
    ("trend", *SERIES, "--after-idle", SERIES[5], "--fail-on", "leaked>=1"),
    ("trend", *SERIES[:2], PAIR[0]),
    *((command, KERNEL[1]) for command in ("info", "heaps", "modules", "stat", "pool")),
    ("diff", *KERNEL),
    ("pool", *KERNEL),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(Path(str(p)).name for p in line))
def test_json_is_what_its_schema_says(
    line: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*(str(part) for part in line), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    _validate(document)


def _validate(document: Any) -> None:
    name = document["schema"].removeprefix("dumpleak/").replace("/", "-")
    validator = jsonschema.Draft202012Validator(
        SCHEMAS[name], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(document)


@pytest.mark.parametrize("name", ["counters", "dump_type", "coverage"])
def test_what_a_kernel_dump_is_has_its_own_part_of_the_contract(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["info", str(KERNEL[1]), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    document.pop(name)
    with pytest.raises(jsonschema.ValidationError):
        _validate(document)


def test_the_schemas_are_schemas() -> None:
    assert {"info-1", "heaps-1", "modules-1", "stat-1", "diff-1", "trend-1"} <= SCHEMAS.keys()
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("verdict"),
        lambda d: d.update(verdict="maybe"),
        lambda d: d["sites"][0].pop("delta_bytes"),
        lambda d: d["sites"][0].update(confidence="sure"),
        lambda d: d["totals"].update(delta_bytes=1.5),
        lambda d: d["diagnostics"].append({}),
    ],
)
def test_a_document_that_breaks_the_contract_is_not_valid(
    change: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["diff", *(str(file) for file in PAIR), "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    change(document)
    with pytest.raises(jsonschema.ValidationError):
        _validate(document)
