"""What grew in a series, and which rows of it people would call a leak."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders.fleet import Fleet, Leak, Life, dump_of, write

import dumpleak.fleets.growth as growth
from dumpleak.fleets.belonging import Series
from dumpleak.fleets.growth import LIKELY, NOISE, SURE, grown
from dumpleak.fleets.tables import GROWTH
from dumpleak.model.holding import Holding, StoredHolders
from dumpleak.model.pool_sites import site_key
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together
from dumpleak.model.totals import Totals
from windumps.errors import WindumpsError
from windumps.pool_tags import tag_number

LEAK = Leak("app.exe", "Node::New", 64, 30)
STRING = Leak("app.exe", "Node::Name", 40, 60)


def series_of(
    folder: Path, dumps: int, leaks: tuple[Leak, ...] = (LEAK,), *, one_life: bool = True
) -> list[dict[str, Any]]:
    fleet = Fleet([Life("PC-1", "app.exe", "1.0", dumps, 3)], leaks)
    ids = tuple(id_ for id_, _ in fleet.snapshots(folder))
    kind = ("single", "pair", "trend")[min(len(ids), 3) - 1]
    one = Series("s", kind, ids, "process", "app.exe", "1.0", "PC-1", one_life)
    table = grown(one, str(folder))
    assert table.column_names == [column.name for column in GROWTH]
    return table.to_pylist()


def named(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (row,) = (row for row in rows if row["name"] == f"app.exe!{name}")
    return row


def test_a_trend_has_its_suspects_as_sure_rows(tmp_path: Path) -> None:
    rows = series_of(tmp_path, 5)
    row = named(rows, "Node::New")
    assert (row["weight"], row["confidence"], row["shape"]) == (SURE, "suspect", "steady")
    assert (row["delta_count"], row["delta_bytes"]) == (120, 120 * 64)
    assert row["bytes_per_hour"] == pytest.approx(30 * 64)
    assert (row["series_kind"], len(row["dumps"])) == ("trend", 5)
    assert [other["name"] for other in rows if other["weight"]] == ["app.exe!Node::New"]


def test_a_pair_has_rows_that_are_likely_and_noise(tmp_path: Path) -> None:
    row = named(series_of(tmp_path, 2), "Node::New")
    assert (row["weight"], row["confidence"], row["delta_count"]) == (LIKELY, "growth", 30)
    few = named(series_of(tmp_path, 2, (Leak("app.exe", "Few", 64, 3),)), "Few")
    assert few["weight"] == NOISE


def test_a_single_dump_has_no_growth_where_nobody_looked_for_holders(tmp_path: Path) -> None:
    assert series_of(tmp_path, 1) == []


def test_lives_that_began_anew_are_compared_first_with_last(tmp_path: Path) -> None:
    ids = []
    for number in range(3):
        life = Life("PC-1", "app.exe", "1.0", 9, number)
        (tmp_path / "snapshots").mkdir(exist_ok=True)
        write(tmp_path / "snapshots" / f"{number}.dlsnap", *dump_of(life, (LEAK,), 2 * number))
        ids.append(str(number))
    one = Series("s", "trend", tuple(ids), "process", "app.exe", "1.0", "PC-1", False)
    row = named(grown(one, str(tmp_path)).to_pylist(), "Node::New")
    assert (row["delta_count"], row["bytes_per_hour"], row["weight"]) == (120, None, LIKELY)


def test_a_snapshot_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(WindumpsError, match="run again"):
        grown(Series("s", "single", ("a",)), str(tmp_path))


def test_long_series_are_thinned_evenly_with_both_ends() -> None:
    ids = [str(number) for number in range(1000)]
    chosen = growth._chosen(ids)
    assert (chosen[0], chosen[-1], len(set(chosen))) == ("0", "999", growth.MOST_DUMPS)


def _with_holders(monkeypatch: pytest.MonkeyPatch, held: dict[str, tuple[int, str]]) -> None:
    """Lets snapshots say by whom blocks of some functions are held, as recorded ones do."""
    plain = growth.open_snapshot

    def opened(path: Path, wanted: Any) -> Snapshot:
        snapshot = plain(path, wanted)
        known = {
            site.key: Holding(totals.count, 0, holder, min(count, totals.count))
            for site, totals in snapshot.groups.values()
            for function, (count, holder) in held.items()
            if site.name.endswith(function)
        }
        flags = np.zeros(snapshot.totals.count, np.bool_)
        return replace(snapshot, holders=StoredHolders(known, flags))

    monkeypatch.setattr(growth, "open_snapshot", opened)


@pytest.mark.parametrize("dumps", [2, 4])
def test_what_is_held_by_the_blocks_it_grows_with_is_a_part(
    dumps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_holders(monkeypatch, {"Node::Name": (1000, "blocks from app.exe!Node::New")})
    rows = series_of(tmp_path, dumps, (LEAK, STRING))
    assert named(rows, "Node::Name")["part_of"] == named(rows, "Node::New")["fingerprint"]
    assert named(rows, "Node::New")["part_of"] is None


@pytest.mark.parametrize(
    "held", [(1000, "blocks from app.exe!Other"), (10, "blocks from app.exe!Node::New")]
)
def test_growth_in_step_alone_makes_no_part(
    held: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_holders(monkeypatch, {"Node::Name": held})
    rows = series_of(tmp_path, 4, (LEAK, STRING))
    assert [row["part_of"] for row in rows] == [None] * len(rows)


def test_blocks_that_nothing_leads_to_make_a_single_dump_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = growth.open_snapshot

    def opened(path: Path, wanted: Any) -> Snapshot:
        snapshot = plain(path, wanted)
        assert snapshot.blocks is not None
        table = snapshot.blocks()
        leaked = [
            n for n, key in enumerate(table.keys) if "Node::New" in snapshot.groups[key][0].name
        ]
        flags = np.isin(table.group, leaked)
        return replace(snapshot, holders=StoredHolders({}, flags))

    monkeypatch.setattr(growth, "open_snapshot", opened)
    few = replace(LEAK, per_dump=0)
    (row,) = series_of(tmp_path, 1, (few,))
    assert (row["name"], row["weight"], row["confidence"]) == (
        "app.exe!Node::New",
        LIKELY,
        "suspect",
    )
    assert (row["delta_count"], row["bytes_per_hour"]) == (7, None)


@pytest.mark.parametrize("root", [True, False], ids=["root", "no-root"])
def test_tags_that_hang_on_another_one_are_parts_of_it(root: bool) -> None:
    names = ("File", "FMfc", "Rest")
    numbers = [tag_number(name) for name in names]
    rows = [
        growth._Row(
            Site(SiteKind.TAG, site_key(number, 1), f"{name} paged", tag=name),
            *((0, 500), 9000, 500, Totals(500, 9000, 9000, 18), "growth", LIKELY),
        )
        for name, number in zip(names, numbers, strict=True)
    ]
    group = Together(
        1, tuple(numbers[:2]), (500, 500), numbers[0] if root else None, False, ("why",)
    )
    pool = SimpleNamespace(
        tags={row.site.key: (n, 1) for row, n in zip(rows, numbers, strict=True)}
    )
    last = replace(dump_of(Life("PC-1", "", "", 1, 1), (), 0)[0], pool=pool)
    found = growth._Found(rows, last, (group,))
    prints = dict(enumerate(names))
    assert growth._tags_together(found, rows, prints) == ({1: "File"} if root else {})


def test_a_dump_of_which_too_little_is_known_does_not_keep_the_others_from_being_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, seen = growth.open_snapshot, []

    def opened(path: Path, wanted: Any) -> Snapshot:
        snapshot = plain(path, wanted)
        seen.append(path)
        if len(seen) == 3:
            return replace(snapshot, coverage=replace(snapshot.coverage, walked_bytes=0))
        return snapshot

    monkeypatch.setattr(growth, "open_snapshot", opened)
    row = named(series_of(tmp_path, 5), "Node::New")
    assert (row["weight"], row["delta_count"], len(row["dumps"])) == (SURE, 120, 5)


def test_what_grew_as_many_sites_did_is_load_and_what_stands_out_is_a_leak(tmp_path: Path) -> None:
    load = tuple(Leak("app.exe", f"Load{n}", 64, 20 + n % 7) for n in range(30))
    rows = series_of(tmp_path, 2, (*load, Leak("app.exe", "Node::New", 64, 150)))
    assert [row["name"] for row in rows if row["weight"]] == ["app.exe!Node::New"]
    assert len(rows) > 30


def test_a_few_leaks_alike_are_leaks(tmp_path: Path) -> None:
    leaks = tuple(Leak("app.exe", f"Leak{n}", 64, 30) for n in range(6))
    rows = series_of(tmp_path, 2, leaks)
    assert sum(row["weight"] == LIKELY for row in rows) == 6
