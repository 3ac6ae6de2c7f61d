"""One cause is one row: shapes of very many sizes that hold the same."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from report_samples import growth

from dumpleak.attribution.contents import begins_with_length
from dumpleak.compare.alike import MIN_SIZES
from dumpleak.compare.answers import Comparison
from dumpleak.compare.diff import compare
from dumpleak.gate.baseline import Baseline, json_baseline, snapshot_baseline
from dumpleak.gate.conditions import parse_gate
from dumpleak.gate.gate import AnySite, Gate
from dumpleak.gate.suppressions import Suppression
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals, by_key
from dumpleak.reports.answers.diff import diff_json

SAID = ", length-prefixed UTF-16 text"


def shape(size: int, heap: int = 2, said: str = SAID) -> Site:
    name = f"{size} bytes in heap {heap} (nt){said}"
    return Site(SiteKind.SHAPE, f"shape|heap {heap}|nt|{size}|", name)


def snapshot(blocks: dict[Site, int]) -> Snapshot:
    """So many blocks of each shape, whose sizes their names say."""
    rows = [
        (site, Totals(count, count * size, count * size, size))
        for site, count in blocks.items()
        if (size := int(site.name.split()[0])) >= 0
    ]
    total = Totals()
    for _, totals in rows:
        total = total + totals
    made = growth().current
    return replace(
        made, groups=by_key(rows), totals=total, held_by={}, details={}, private={}, outside=None
    )


def compared(before: dict[Site, int], after: dict[Site, int]) -> list[tuple[str, int, int, int]]:
    found = compare(snapshot(before), snapshot(after), force=True)
    assert found.delta_bytes == sum(site.delta_bytes for site in found.sites)
    return [(s.site.name, s.delta_count, s.delta_bytes, len(s.parts)) for s in found.sites]


def test_very_many_sizes_of_one_content_are_one_row_with_its_parts() -> None:
    sizes = range(100, 100 + 10 * 200, 10)
    before = {shape(size): 1 for size in sizes}
    after = {shape(size): 3 for size in sizes}
    (row,) = compared(before, after)
    assert row == (f"varied sizes in heap 2 (nt){SAID}", 400, 2 * sum(sizes), 200)


def test_few_sizes_stay_as_they_are() -> None:
    sizes = [100 + n for n in range(MIN_SIZES - 1)]
    rows = compared({}, {shape(size): 1 for size in sizes})
    assert {name for name, *_ in rows} == {shape(size).name for size in sizes}


def test_a_size_that_stands_out_stays_a_row_of_its_own() -> None:
    after = {shape(100 + n): 1 for n in range(100)} | {shape(777): 1000}
    rows = compared({}, after)
    assert [name for name, *_ in rows] == [
        shape(777).name,
        f"varied sizes in heap 2 (nt){SAID}",
    ]


def test_what_holds_something_else_is_another_row_and_alike_heaps_are_one() -> None:
    kinds = [(2, SAID), (3, SAID), (2, ", ASCII text"), (2, "")]
    after = {shape(100 + n, heap, said): 1 for n in range(60) for heap, said in kinds}
    # Keys of shapes say nothing of contents: one size holds one thing in one heap.
    after = {
        replace(s, key=s.key + s.name[len(s.name.split(")")[0]) :]): c for s, c in after.items()
    }
    names = {name for name, *_ in compared({}, after)}
    assert names == {
        f"varied sizes in heaps 2 and 3 (nt){SAID}",
        "varied sizes in heap 2 (nt), ASCII text",
        "varied sizes in heap 2 (nt)",
    }


def test_the_parts_come_with_their_own_growth_and_a_note_of_their_sizes() -> None:
    after = {shape(100 + n): 1 + n % 3 for n in range(180)}
    (site,) = compare(snapshot({shape(100): 1}), snapshot(after), force=True).sites
    assert sum(part.delta_bytes for part in site.parts) == site.delta_bytes
    assert [p.delta_bytes for p in site.parts] == sorted(
        (p.delta_bytes for p in site.parts), reverse=True
    )
    assert any("180 sizes from 100 to 279 bytes" in note for note in site.notes)


def test_other_groupings_say_what_they_are_asked_for() -> None:
    after = {shape(100 + n): 1 for n in range(90)}
    sides = [replace(snapshot(blocks), grouping="size") for blocks in ({}, after)]
    assert len(compare(*sides, force=True).sites) == 90


@pytest.mark.parametrize("width", [4, 8])
@pytest.mark.parametrize("padded", [False, True])
def test_text_behind_its_length_is_known_when_the_length_fits(width: int, padded: bool) -> None:
    def found(length: int, room: int, text: str = "Reply 64 of") -> bool:
        raw = b"\xaa" * 4 * padded + struct.pack("<I", length) + text.encode("utf-16-le")
        raw = raw.ljust(4 * width, b"\0")[: 4 * width]
        words = np.frombuffer(raw, f"<u{width}").astype(np.uint64).reshape(1, 4)
        return bool(begins_with_length(words, width, np.array([room], np.int64))[0])

    head = 4 + 4 * padded
    known = width == 8 or not padded
    assert found(1000, head + 1002) == known
    assert found(999, head + 999 + 2) == known
    for length, room in ((1000, head + 999), (1000, 2000), (4, head + 6), (0xFFFFFFFF, 1000)):
        assert not found(length, room)
    assert not found(1000, head + 1002, "\u4e00\u4e01\u4e02\u4e03\u4e04\u4e05")


# -- gates count a cause as they counted its parts

SIZES = range(100, 160)
MANY: dict[Site, int] = {shape(size): 3 for size in SIZES}
GROWTH = 3 * sum(SIZES)


def judged(after: dict[Site, int] = MANY) -> Comparison:
    return compare(snapshot({}), snapshot(after), force=True)


def only(comparison: Comparison) -> AnySite:
    (site,) = comparison.sites
    assert len(site.parts) > 1
    return site


def written(folder: Path, comparison: Comparison) -> Baseline:
    (folder / "accepted.json").write_text(json.dumps(diff_json(comparison, None)))
    return json_baseline(folder / "accepted.json")


def test_a_snapshot_accepts_a_cause_by_the_shapes_it_has() -> None:
    half = snapshot({shape(size): 1 for size in SIZES})
    assert snapshot_baseline(half).beyond(only(judged())) == (2 * sum(SIZES), 2 * len(SIZES))


def test_an_accepted_run_accepts_a_cause_that_it_told_by_its_shapes(tmp_path: Path) -> None:
    few = {shape(size): 3 for size in SIZES[:20]}
    assert len(judged(few).sites) == 20
    beyond = written(tmp_path, judged(few)).beyond(only(judged()))
    assert beyond == (GROWTH - 3 * sum(SIZES[:20]), 3 * 40)


def test_an_accepted_cause_accepts_its_shapes_where_they_stand_alone(tmp_path: Path) -> None:
    accepted = written(tmp_path, judged())
    few = judged({shape(size): 3 for size in SIZES[:20]})
    assert {accepted.beyond(site) for site in few.sites} == {(0, 0)}
    assert accepted.beyond(only(judged())) == (0, 0)


@pytest.mark.parametrize(
    ("names", "passes"), [("1?? bytes in heap 2*", True), ("10? bytes*", False)]
)
def test_a_suppression_of_all_shapes_is_one_of_their_cause(names: str, passes: bool) -> None:
    allowed = Suppression(names, "known", date(2999, 1, 1), False)
    result = Gate(parse_gate("bytes>=1"), [allowed]).judge(judged())
    assert result.passed is passes
    assert result.unused == ()
