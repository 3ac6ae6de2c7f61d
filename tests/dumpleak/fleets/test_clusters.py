"""Every planted leak is one cluster with exact numbers, and nothing healthy is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from builders.fleet import LEAKS, Fleet, Leak, Life, datasets, planted_fleet
from pyarrow import parquet

from dumpleak.fleets.clusters import clustered
from dumpleak.fleets.known import Known, KnownLeak
from dumpleak.fleets.tables import CLUSTERS


def rows_of(folder: Path, known: Known | None = None, previous: Any = None) -> list[dict[str, Any]]:
    table = clustered(str(folder), known, previous)
    assert table.column_names == [column.name for column in CLUSTERS]
    return table.to_pylist()


def name_of(row: dict[str, Any]) -> str:
    return re.sub(r" in heap.*", "", row["name"])


@pytest.fixture(scope="module", params=[2, 4], ids=["pairs", "trends"])
def made(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Path, Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    fleet = planted_fleet(machines=6, dumps=request.param)
    datasets(fleet, folder)
    return folder, fleet


def test_every_planted_leak_is_one_cluster_with_exact_counts(
    made: tuple[Path, Fleet], tmp_path: Path
) -> None:
    folder, fleet = made
    truth = fleet.write(tmp_path).leaks
    rows = rows_of(folder)
    assert {name_of(row) for row in rows} == truth.keys()
    assert len(rows) == len(truth)
    for row in rows:
        found = truth[name_of(row)]
        told = (
            row["machines"],
            row["series"],
            row["dumps"],
            row["delta_count"],
            row["delta_bytes"],
        )
        assert told == (
            *(len(found.machines), found.series, found.dumps),
            *(found.count, found.bytes),
        )
        assert set(row["versions"]) == found.versions
        assert row["confidence"] == "suspect" or row["series"] < 3


def test_a_leak_appears_and_disappears_by_the_numbers_of_versions(made: tuple[Path, Fleet]) -> None:
    told = {
        name_of(row): (row["appeared_in"], row["disappeared_in"], row["versions"])
        for row in rows_of(made[0])
    }
    assert told["app.exe!Cache::Insert"] == ("1.2", None, ["1.2", "1.3"])
    assert told["app.exe!Session::Open"] == (None, None, ["1.1", "1.2", "1.3"])
    assert told["service.exe!Queue::Push"] == ("2.9", "2.10", ["2.9"])


def test_rates_are_the_planted_ones_and_examples_can_be_opened(made: tuple[Path, Fleet]) -> None:
    by_name = {leak.name: leak for leak in LEAKS}
    for row in rows_of(made[0]):
        planted = by_name[name_of(row)]
        rate = planted.size * planted.per_dump
        for column in ("bytes_per_hour_p10", "bytes_per_hour", "bytes_per_hour_p90"):
            assert row[column] == pytest.approx(rate)
        assert row["examples"]
        assert all(url.startswith("s3://crashes/PC-") for url in row["examples"])


def test_the_order_of_the_inputs_changes_nothing(made: tuple[Path, Fleet], tmp_path: Path) -> None:
    datasets(made[1], tmp_path, reverse=True)
    assert rows_of(tmp_path) == rows_of(made[0])


def test_known_muted_seen_and_new_leaks_are_told_apart(made: tuple[Path, Fleet]) -> None:
    before = rows_of(made[0])
    known = Known(
        (
            KnownLeak("app.exe!cache::*", "", "JIRA-1"),
            KnownLeak("", before[1]["fingerprint"], "JIRA-2", muted=True),
        )
    )
    rows = rows_of(made[0], known, clustered(str(made[0])).slice(0, 3))
    states = {name_of(row): (row["state"], row["known"]) for row in rows}
    assert states["app.exe!Cache::Insert"] in {("known", "JIRA-1"), ("muted", "JIRA-2")}
    assert sorted(state for state, _ in states.values())[-1] == "seen"
    assert [row["state"] for row in before] == ["new"] * len(before)
    assert rows[3]["state"] in ("new", "known", "muted")


def test_a_healthy_fleet_has_no_clusters(tmp_path: Path) -> None:
    datasets(planted_fleet(machines=6, dumps=5, leaks=()), tmp_path)
    assert rows_of(tmp_path) == []


def _growth(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "growth.parquet"
    table = parquet.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        change(row)
    parquet.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_what_a_leak_holds_is_a_part_of_it(tmp_path: Path) -> None:
    leaks = (Leak("app.exe", "Node::New", 64, 30), Leak("app.exe", "Node::Name", 40, 30))
    lives = [Life(f"PC-{n}", "app.exe", "1.0", 4, n) for n in range(3)]
    datasets(Fleet(lives, leaks), tmp_path)
    assert [name_of(row) for row in rows_of(tmp_path)] == [
        "app.exe!Node::New",
        "app.exe!Node::Name",
    ]
    prints = {row["name"]: row["fingerprint"] for row in rows_of(tmp_path)}

    def held(row: dict[str, Any]) -> None:
        if row["name"] == "app.exe!Node::Name":
            row["part_of"] = prints["app.exe!Node::New"]

    _growth(tmp_path, held)
    (row,) = rows_of(tmp_path)
    assert (row["name"], row["parts"]) == ("app.exe!Node::New", ["app.exe!Node::Name"])


def test_code_without_names_is_one_leak_also_where_another_one_shares_its_modules(
    tmp_path: Path,
) -> None:
    lives = [Life(f"PC-{n}", "app.exe", "1.0", 4, n) for n in range(2)]
    datasets(Fleet(lives, (Leak("app.exe", "A", 64, 30), Leak("app.exe", "B", 96, 20))), tmp_path)
    first, second = rows_of(tmp_path)

    def shared(row: dict[str, Any]) -> None:
        row["fingerprint"] = "stack-1"  # both look alike on one machine, where only one of them is
        if row["computer"] == "PC-0":
            row["fingerprint"] += "-a" if row["name"].endswith("A") else "-b"
        elif row["name"].endswith("B"):
            row["weight"] = 0

    _growth(tmp_path, shared)
    told = {row["fingerprint"]: (row["name"], row["machines"]) for row in rows_of(tmp_path)}
    names = {first["name"], second["name"]}
    assert names == {"app.exe!A", "app.exe!B"}
    assert told == {"stack-1-a": ("app.exe!A", 2), "stack-1-b": ("app.exe!B", 1)}


def test_a_version_of_which_nothing_can_be_told_is_not_without_the_leak(tmp_path: Path) -> None:
    leak = Leak("app.exe", "A", 64, 30, since="1.1", until="1.2")
    lives = [Life("PC-0", "app.exe", f"1.{n}", 3, n) for n in range(3)]
    every = datasets(Fleet(lives, (leak,)), tmp_path)
    (row,) = clustered(str(tmp_path)).to_pylist()
    assert (row["appeared_in"], row["disappeared_in"]) == ("1.1", "1.2")
    unknown = [one.id for one in every if one.version != "1.1"]
    (row,) = clustered(str(tmp_path), not_compared=unknown).to_pylist()
    assert (row["appeared_in"], row["disappeared_in"]) == (None, None)
