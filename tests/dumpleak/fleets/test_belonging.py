"""What belongs together is found without being told, in any order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

from dumpleak.fleets.belonging import series, version_order
from dumpleak.fleets.tables import DUMPS, schema_of

START = datetime(2026, 11, 1, tzinfo=UTC)


def row(id_: str, hour: int | None = 0, **changed: Any) -> dict[str, Any]:
    told = {
        "id": id_,
        "url": f"/dumps/{id_}.dmp",
        "status": "read",
        "subject": "process",
        "kind": "minidump",
        "computer": "PC-1",
        "architecture": "x64",
        "time": None if hour is None else START + timedelta(hours=hour),
        "program": "app.exe",
        "version": "1.0",
        "life": "a",
    }
    return told | changed


def found(*rows: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    table = pa.Table.from_pylist(list(rows), schema=schema_of(DUMPS))
    return sorted((one.kind, one.ids) for one in series(table.to_batches()))


def test_dumps_of_one_life_are_a_series_in_order_of_time() -> None:
    assert found(row("b", 2), row("c", 1), row("a", 3)) == [("trend", ("c", "b", "a"))]


def test_other_lives_of_a_program_are_other_series() -> None:
    rows = row("a", 1), row("b", 2), row("c", 3, life="z"), row("d", 4, life="z")
    assert found(*rows) == [("pair", ("a", "b")), ("pair", ("c", "d"))]


def test_single_dumps_of_several_lives_are_put_together_by_the_age_of_the_process() -> None:
    old = row("a", 9, life="x", process_created=START)
    young = row("b", 10, life="y", process_created=START + timedelta(hours=9))
    assert found(old, young) == [("pair", ("b", "a"))]


@pytest.mark.parametrize(
    "other",
    [{"computer": "PC-2"}, {"program": "b.exe"}, {"version": "1.1"}, {"architecture": "x86"}],
    ids=lambda o: next(iter(o)),
)
def test_other_machines_programs_and_versions_never_belong_together(other: dict[str, str]) -> None:
    assert found(row("a", life="x"), row("b", life="y", **other)) == [
        ("single", ("a",)),
        ("single", ("b",)),
    ]


def test_systems_belong_together_by_boot() -> None:
    of = {"subject": "system", "program": None, "version": None, "life": None}
    rows = [row(n, hour, boot=boot, **of) for n, hour, boot in (("a", 1, "x"), ("b", 2, "x"))]
    assert found(*rows, row("c", 3, boot="y", **of)) == [("pair", ("a", "b")), ("single", ("c",))]


def test_logs_of_an_unknown_machine_belong_together_by_folder() -> None:
    of = {"kind": "umdh-log", "computer": None, "life": None, "hour": None}
    one = [row(f"log{n}", url=f"/a/log{n}.txt", **of) for n in (10, 9)]
    other = row("z", url="/b/log1.txt", **of)
    assert found(*one, other) == [("pair", ("log9", "log10")), ("single", ("z",))]


def test_inputs_that_could_not_be_read_are_in_no_series() -> None:
    assert found(row("a", status="error"), row("b")) == [("single", ("b",))]


def test_dumps_of_one_moment_belong_together_by_folder_and_stand_in_the_order_of_their_names() -> (
    None
):
    rows = [
        row(n, url=f"/{place}/{n}.dmp")
        for n, place in (("after", "a"), ("before", "a"), ("x", "b"))
    ]
    assert found(*rows) == [("pair", ("before", "after")), ("single", ("x",))]


def test_names_of_series_and_their_members_do_not_depend_on_the_order() -> None:
    rows = [row("a", 1), row("b", 2), row("c", 2, life="z"), row("d", 2)]
    answers = {
        tuple(series(pa.Table.from_pylist(list(order), schema=schema_of(DUMPS)).to_batches()))
        for order in permutations(rows)
    }
    assert len(answers) == 1


def test_versions_are_ordered_by_their_numbers() -> None:
    versions = ["10.0", "2.10", "2.9.1", "2.9", "1.0.0-beta"]
    assert sorted(versions, key=version_order) == ["1.0.0-beta", "2.9", "2.9.1", "2.10", "10.0"]
