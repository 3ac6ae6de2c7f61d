"""What an input is of is told by its snapshot, and where it is by its place where that says more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from builders.fleet import Life, dump_of, write

from dumpleak.fleets.identity import described, site_rows
from dumpleak.fleets.tables import DUMPS, SITES
from dumpleak.model.boots import Boot
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import stripped_snapshot
from dumpleak.model.subject import Subject
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.wanted import Wanted

LIFE = Life("PC-1", "app.exe", "1.2", 2, 1)
COLUMNS = {column.name for column in DUMPS}


def taken(life: Life = LIFE, number: int = 0) -> Snapshot:
    return dump_of(life, (), number)[0]


def without_computer(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, source=replace(snapshot.source, computer=""))


def test_a_snapshot_tells_machine_program_and_version(tmp_path: Path) -> None:
    path = tmp_path / "a.dlsnap"
    write(path, *dump_of(LIFE, (), 0))
    told = described(open_snapshot(path, Wanted()), "s3://a")
    assert told.keys() <= COLUMNS
    assert (told["computer"], told["computer_from"]) == ("PC-1", "environment")
    assert (told["subject"], told["program"], told["version"]) == ("process", "app.exe", "1.2")
    assert str(told["program_id"]).endswith("1")
    account = json.loads(str(told["account"]))
    assert account["blocks.count"] == told["used_count"]


def test_the_place_names_the_machine_where_the_dump_does_not() -> None:
    bare = without_computer(taken())
    told = described(bare, "s3://dumps/PC-77/a.dmp", r"dumps/([^/]+)/")
    assert (told["computer"], told["computer_from"]) == ("PC-77", "path")
    assert described(taken(), "s3://dumps/PC-77/a.dmp", r"dumps/([^/]+)/")["computer"] == "PC-1"


def test_the_boot_stands_for_a_machine_that_nothing_names() -> None:
    one, same = (described(without_computer(taken(number=n)), "x") for n in (0, 1))
    other = described(without_computer(taken(replace(LIFE, number=5))), "x")
    assert one["computer_from"] == "boot"
    assert one["computer"] == same["computer"] != other["computer"]


def test_dumps_of_one_life_have_one_value_and_other_lives_another() -> None:
    one, later = (described(taken(number=n), "x")["life"] for n in (0, 1))
    other = described(taken(replace(LIFE, number=2)), "x")["life"]
    assert one == later != other
    machine = described(taken(replace(LIFE, computer="PC-2")), "x")["life"]
    assert machine not in (one, other)
    flags = replace(taken().source, nt_global_flag=0x1000)
    assert described(replace(taken(), source=flags), "x")["life"] != one


def test_a_boot_is_one_although_its_clock_was_set() -> None:
    def system(hours: int, drift: int, base: int = 7) -> object:
        source = taken().source
        time = source.time and source.time + timedelta(hours=hours)
        up = timedelta(hours=hours + 1, seconds=drift)
        boot = Boot(base, time, up, "x")
        of = replace(source, subject=Subject.SYSTEM, program="", time=time)
        return described(replace(taken(), source=of, boot=boot), "x")["boot"]

    assert system(0, 0) == system(5, 2)
    assert system(0, 0) != system(0, 3600)
    assert system(0, 0) != system(0, 0, base=8)


def test_a_snapshot_without_names_hides_the_machine_and_still_tells_it_apart() -> None:
    names = [
        described(stripped_snapshot(taken(replace(LIFE, computer=name)), ()), "x")["computer"]
        for name in ("PC-1", "PC-1", "PC-2")
    ]
    assert names[0] == names[1] != names[2]
    assert "PC" not in str(names)


def test_every_site_is_a_row() -> None:
    table = site_rows(taken())
    assert table.column_names == [column.name for column in SITES][1:]
    assert sum(table["bytes"].to_pylist()) == taken().totals.bytes
    assert len(set(table["fingerprint"].to_pylist())) == table.num_rows
    assert table["unreferenced_count"].null_count == table.num_rows
