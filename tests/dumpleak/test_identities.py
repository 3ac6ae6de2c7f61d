"""One image has one name in all dumps, and one heap in all dumps of a process life."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from module_records import ModuleRecords
from patching import with_bytes
from truth import TESTDATA

import dumpleak.attribution
from dumpleak.attribution.shape import ShapeAttributor
from dumpleak.attribution.type import TypeAttributor
from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare
from dumpleak.compare.life import Life, same_life
from dumpleak.compare.survivors import Fate
from dumpleak.compare.trend import find_trend
from dumpleak.files.reader import read_snapshot_file
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.stripping import stripped_snapshot
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.recording import write_snapshot
from windumps import open_dump

PAIR = TESTDATA / "10.0.19041.3324-x64" / "leak-pair-ust"
FILES = (PAIR / "before.dmp.gz", PAIR / "after.dmp.gz")
OWN = ("app.exe", "widgets.dll")
ALL = (*OWN, "ntdll.dll")

Change = Callable[[ModuleRecords], ModuleRecords]

# Poorer records of images that are in memory: the images say what the records lack.
IN_MEMORY: dict[str, Change] = {
    "no-codeview": lambda dump: dump.without_codeview(*ALL),
    "codeview-without-its-age": lambda dump: dump.codeview_cut("app.exe", 20),
    "no-time-stamp": lambda dump: dump.without_codeview(*OWN).stamp("app.exe", 0),
    "no-name": lambda dump: dump.called("app.exe", "").called("widgets.dll", ""),
    "other-case": lambda dump: dump.called("widgets.dll", r"D:\Elsewhere\WIDGETS.DLL"),
    "not-listed": lambda dump: dump.unlisted("widgets.dll"),
    "nothing-listed": lambda dump: dump.unlisted("widgets.dll").unlisted("app.exe"),
}
# Poorer records of images that cannot be asked: what both records say has to do.
BY_RECORD: dict[str, Change] = {
    "by-time-stamp": lambda dump: dump.without_codeview(*ALL).without_headers(*ALL),
    "by-version": lambda dump: (
        dump.without_codeview(*OWN).without_headers(*OWN).stamp("app.exe", 0)
    ),
    "by-place-and-size": lambda dump: (
        dump.without_codeview(*OWN)
        .without_headers(*OWN)
        .stamp("app.exe", 0)
        .without_version("app.exe")
    ),
    "unloaded": lambda dump: dump.unloaded("widgets.dll"),
}


def _snapshot(path: Path) -> Snapshot:
    return take_snapshot(Session.open(path), keep_blocks=True)


def _changed(number: int, change: Change, folder: Path) -> Snapshot:
    return _snapshot(change(ModuleRecords(FILES[number])).save(folder / f"{number}.dmp"))


def _rows(answer: Comparison) -> dict[tuple[str, tuple[str, ...]], tuple[int, int, object]]:
    """What a comparison says, by names: keys may differ, what is told may not."""
    return {
        (delta.site.name.lower(), tuple(frame.lower() for frame in delta.site.frames)): (
            delta.delta_bytes,
            delta.delta_count,
            delta.fate,
        )
        for delta in answer.sites
    }


@pytest.fixture(scope="module")
def whole() -> list[Snapshot]:
    return [_snapshot(path) for path in FILES]


@pytest.mark.parametrize("side", [0, 1], ids=["base", "current"])
@pytest.mark.parametrize("change", [pytest.param(c, id=n) for n, c in IN_MEMORY.items()])
def test_what_a_record_lacks_comes_from_the_image(
    whole: list[Snapshot], change: Change, side: int, tmp_path: Path
) -> None:
    poorer = _changed(side, change, tmp_path)
    assert poorer.groups.keys() == whole[side].groups.keys()
    pair = [poorer if number == side else whole[number] for number in (0, 1)]
    assert _rows(compare(*pair)) == _rows(compare(*whole))


@pytest.mark.parametrize("sides", [(0,), (1,), (0, 1)], ids=["base", "current", "both"])
@pytest.mark.parametrize("change", [pytest.param(c, id=n) for n, c in BY_RECORD.items()])
def test_images_are_matched_by_what_both_records_say(
    whole: list[Snapshot], change: Change, sides: tuple[int, ...], tmp_path: Path
) -> None:
    pair = [_changed(n, change, tmp_path) if n in sides else whole[n] for n in (0, 1)]
    answer = compare(*pair)
    assert _rows(answer) == _rows(compare(*whole))
    assert answer.survivors is not None
    assert answer.survivors.total == Fate(3968, 0, 3126)
    assert not [item for item in answer.diagnostics if item.code.startswith("rebuilt")]


@pytest.mark.parametrize("side", [0, 1], ids=["base", "current"])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda dump: dump.stamp("app.exe", 0x5F000001), id="time-stamp"),
        pytest.param(
            lambda dump: dump.stamp("app.exe", 0).called("app.exe", r"C:\other\app.exe"), id="none"
        ),
    ],
)
def test_records_that_contradict_each_other_stay_different_builds(
    whole: list[Snapshot], change: Change, side: int, tmp_path: Path
) -> None:
    def rebuilt(dump: ModuleRecords) -> ModuleRecords:
        # 8 KiB more than it was: no build of the same name is it.
        changed = change(dump.without_codeview("app.exe").without_headers("app.exe"))
        return changed.resized("app.exe", 0x14000)

    other = _changed(side, rebuilt, tmp_path)
    pair = [other if number == side else whole[number] for number in (0, 1)]
    answer = compare(*pair)
    assert "rebuilt-apart" in {item.code for item in answer.diagnostics}


@pytest.mark.parametrize("side", [0, 1], ids=["base", "current"])
def test_snapshot_files_and_those_without_names_are_matched_alike(
    whole: list[Snapshot], side: int, tmp_path: Path
) -> None:
    path = BY_RECORD["by-time-stamp"](ModuleRecords(FILES[side])).save(tmp_path / "poorer.dmp")
    files = [tmp_path / "0.dlsnap", tmp_path / "1.dlsnap"]
    for strip in (False, True):
        for number, file in enumerate(files):
            write_snapshot(
                Session.open(path if number == side else FILES[number]), file, strip_names=strip
            )
        answer = compare(*(read_snapshot_file(file, "site") for file in files))
        found = sorted(row[:2] for row in _rows(answer).values())
        assert found == sorted(row[:2] for row in _rows(compare(*whole)).values())
        assert answer.survivors is not None
        assert answer.survivors.total == Fate(3968, 0, 3126)


@pytest.mark.parametrize("side", [0, 1], ids=["base", "current"])
def test_objects_of_an_unloaded_image_are_the_objects_they_were(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The types of an unloaded image cannot be read: its objects have no class there.
    monkeypatch.setattr(dumpleak.attribution, "ATTRIBUTORS", (TypeAttributor, ShapeAttributor))
    pair = [_snapshot(path) for path in FILES]
    expected = compare(*pair)
    assert any("app::Button" in site.name for site, _ in pair[0].groups.values())
    pair[side] = _changed(side, BY_RECORD["unloaded"], tmp_path)
    assert not any("app::Button" in site.name for site, _ in pair[side].groups.values())
    assert _rows(compare(*pair)) == _rows(expected)


def test_stacks_through_an_image_that_one_dump_does_not_know_are_told_by_their_blocks(
    whole: list[Snapshot], tmp_path: Path
) -> None:
    poorer = _changed(
        1, lambda dump: dump.without_headers("widgets.dll").unlisted("widgets.dll"), tmp_path
    )
    answer = compare(whole[0], poorer)
    assert answer.survivors is not None
    assert answer.survivors.total == Fate(3968, 0, 3126)
    grown, expected = answer.sites[0], compare(*whole).sites[0]
    assert (grown.delta_bytes, grown.fate) == (expected.delta_bytes, expected.fate)
    assert grown.site.frames == expected.site.frames
    assert grown.evidence[-1] == (
        "named by less in another dump: the same blocks are at the same addresses"
    )


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_poorer_dump_anywhere_in_a_series_changes_no_trend(place: int, tmp_path: Path) -> None:
    def trend(poorer: int | None) -> dict[str, list[int]]:
        series = []
        for number in range(3):
            file = min(number, 1)
            change = BY_RECORD["by-place-and-size"] if number == poorer else lambda dump: dump
            taken = _changed(file, change, tmp_path)
            time = datetime(2026, 11, 30, number, tzinfo=UTC)
            series.append(replace(taken, source=replace(taken.source, time=time)))
        return {str(t.site.frames): [p.bytes for p in t.points] for t in find_trend(series).sites}

    assert trend(place) == trend(None) != {}


def test_unlisted_headers_that_were_not_mapped_as_an_image_are_none(tmp_path: Path) -> None:
    # A program that reads a DLL into memory of its own has headers there, and no image.
    dump = ModuleRecords(FILES[0]).unlisted("widgets.dll")
    base = ModuleRecords(FILES[0]).base("widgets.dll")
    listed = open_dump(dump.save(tmp_path / "image.dmp")).modules
    assert base in {module.base_address for module in listed}
    private = open_dump(dump.private(base).save(tmp_path / "private.dmp")).modules
    assert base not in {module.base_address for module in private}


# -- heaps -------------------------------------------------------------------------------------------

NUMBER_OF_HEAPS, PROCESS_HEAPS = 0xE8, 0xF0  # _PEB of x64


def _listing(number: int, order: list[int], by: str = "site") -> Snapshot:
    """A dump whose list of heaps has only some of them, or in another order; the others are destroyed."""
    dump = open_dump(FILES[number])
    peb = Session(dump).views[0].peb
    listed = dump.memory.read_uint(peb + PROCESS_HEAPS, 8)
    handles = [dump.memory.read_uint(listed + 8 * n, 8) for n in range(3)]
    patches = {listed + 8 * n: struct.pack("<Q", handles[old]) for n, old in enumerate(order)}
    patches[peb + NUMBER_OF_HEAPS] = struct.pack("<I", len(order))
    patches |= {handles[old]: bytes(0x400) for old in {0, 1, 2} - set(order)}
    return take_snapshot(Session(with_bytes(dump, patches)), by, keep_blocks=True)


@pytest.fixture
def shapes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumpleak.attribution, "ATTRIBUTORS", (ShapeAttributor,))


def _by_name(answer: Comparison) -> dict[str, tuple[int, int, object]]:
    return {d.site.name: (d.delta_bytes, d.delta_count, d.fate) for d in answer.sites}


@pytest.mark.usefixtures("shapes_only")
@pytest.mark.parametrize("by", ["site", "heap"])
def test_in_one_life_the_handle_says_which_heap_it_is(by: str) -> None:
    base = _listing(0, [0, 1, 2], by)
    expected = compare(base, _listing(1, [0, 1, 2], by))
    swapped = compare(base, _listing(1, [0, 2, 1], by))
    assert _by_name(swapped) == _by_name(expected)
    assert swapped.reasons == ()
    moved = [item.message for item in swapped.diagnostics if item.code == "heap-moved"]
    assert len(moved) == 2
    assert "heap 1 of this dump is called heap 2 here" in moved[0]


@pytest.mark.usefixtures("shapes_only")
def test_a_heap_that_is_gone_takes_no_other_heaps_name_along() -> None:
    base = _listing(0, [0, 1, 2])
    answer = compare(base, _listing(0, [0, 2]))
    assert {delta.current.count for delta in answer.sites} == {0}
    assert all(" in heap 1 (" in delta.site.name for delta in answer.sites)
    gone = sum(t.count for s, t in base.groups.values() if " in heap 1 (" in s.name)
    assert answer.survivors is not None
    assert answer.survivors.total == Fate(base.totals.count - gone, gone, 0)


@pytest.mark.usefixtures("shapes_only")
def test_a_new_heap_in_a_freed_place_of_the_list_is_a_new_heap() -> None:
    base = _listing(0, [0, 2])
    current = _listing(0, [0, 1, 2])
    answer = compare(base, current)
    assert {delta.base.count for delta in answer.sites} == {0}
    assert all(" in heap 3 (" in delta.site.name for delta in answer.sites)
    assert sorted(row.label for row in answer.current.heaps) == ["heap 0", "heap 1", "heap 3"]


@pytest.mark.usefixtures("shapes_only")
def test_a_trend_follows_heaps_by_their_handles() -> None:
    orders = ([0, 1, 2], [0, 2, 1], [0, 1, 2])
    found = []
    for lists in (orders, [[0, 1, 2]] * 3):
        series = [_listing(min(n, 1), order) for n, order in enumerate(lists)]
        for number, snapshot in enumerate(series):
            hours = timedelta(hours=number)
            time = datetime(2026, 11, 30, tzinfo=UTC) + hours
            series[number] = replace(snapshot, source=replace(snapshot.source, time=time))
        trend = find_trend(series)
        found.append({t.site.name: [p.bytes for p in t.points] for t in trend.sites})
    assert found[0] == found[1]


@pytest.mark.usefixtures("shapes_only")
def test_in_two_lives_the_place_in_the_list_says_which_heap_it_is() -> None:
    base, current = (_listing(0, order) for order in ([0, 1, 2], [0, 2, 1]))
    other = replace(current, source=replace(current.source, process_id=4))
    assert compare(base, other).sites
    assert compare(base, current).sites == ()


@pytest.mark.usefixtures("shapes_only")
def test_snapshots_without_names_follow_heaps_too() -> None:
    base, current = (_listing(n, order) for n, order in ((0, [0, 1, 2]), (1, [0, 2, 1])))
    expected = _by_name(compare(base, current))
    for kept in ((), ("app.exe",)):
        stripped = [stripped_snapshot(side, kept) for side in (base, current)]
        assert sorted(map(str, _by_name(compare(*stripped)).values())) == sorted(
            map(str, expected.values())
        )
        mixed = compare(stripped[0], current)
        assert sorted(map(str, _by_name(mixed).values())) == sorted(map(str, expected.values()))


def test_a_heap_of_another_address_is_known_whatever_its_place() -> None:
    # Where the list of heaps is not in a dump they are found one by one, in order of address.
    base = _listing(0, [0, 1, 2])
    current = _listing(1, [1, 2, 0])
    assert same_life(base, current).life is Life.SAME
