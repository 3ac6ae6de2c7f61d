"""Leaks of one call as memory shows them: many sizes, heaps, kinds of text; and what must not be joined."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.heaps_process import APP, Heaps, lfh_heap, nt_heap, process_of, segment_heap

from dumpleak.api import compare, trend
from dumpleak.compare.alike import FEW_SIZES
from dumpleak.model.units import format_bytes
from dumpleak.process.session import Session
from dumpleak.reports.answers.leaks import leaks_document, leaks_json
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.answers.summary_trend import summarize_trend
from dumpleak.survey.leaks import find_leaks

Generator = np.random.Generator
Maker = Callable[[Generator, int], bytes]
LETTERS = np.frombuffer(b"abcdefghij klmno/pq=rs", np.uint8)
Compared = Callable[..., list[tuple[str, int]]]
MANY, FEW = 500, 20


def ascii_text(dice: Generator, size: int) -> bytes:
    return dice.choice(LETTERS, size).tobytes()


def utf16_text(dice: Generator, size: int) -> bytes:
    return ascii_text(dice, size // 2).decode().encode("utf-16-le")


def bstr(dice: Generator, size: int) -> bytes:
    text = utf16_text(dice, size)
    return b"\xaa" * 4 + struct.pack("<I", len(text)) + text + b"\0\0"


def bstr_x86(dice: Generator, size: int) -> bytes:
    return bstr(dice, size)[4:]


def plain(dice: Generator, size: int) -> bytes:
    return dice.bytes(size)


def small_text(dice: Generator, size: int) -> bytes:
    return ascii_text(dice, size % 150 + 10)


def array_of(element: int, head: int = 0) -> Maker:
    def make(dice: Generator, size: int) -> bytes:
        count = max(1, size // element)
        elements = (struct.pack("<II", dice.integers(999), 7) for _ in range(count))
        return b"\2" * head + b"".join(each.ljust(element, b"\1") for each in elements)

    return make


def some(make: Maker, count: int, seed: int, low: int = 20, high: int = 900) -> list[bytes]:
    dice = np.random.default_rng(seed)
    return [make(dice, int(dice.integers(low, high))) for _ in range(count)]


def steady() -> list[bytes]:
    """What a process has that does not leak."""
    return some(plain, 60, 1, 16, 300)


@pytest.fixture
def compared(tmp_path: Path) -> Compared:
    """The names and counts of what changed between two processes with these heaps."""

    def run(
        before: Heaps, after: Heaps, x64: bool = True, build: int = 17763
    ) -> list[tuple[str, int]]:
        files = []
        for number, heaps in enumerate((before, after)):
            files.append(tmp_path / f"{number}.dmp")
            data = process_of(
                heaps, x64=x64, version=(10, 0, build), time=1_700_000_000 + 3600 * number
            )
            files[-1].write_bytes(data)
        found = compare(*files)
        assert found.delta_bytes == sum(site.delta_bytes for site in found.sites)
        for site in found.sites:
            if site.parts:
                assert site.delta_count == sum(part.delta_count for part in site.parts)
        return [(site.site.name, site.delta_count) for site in found.sites]

    return run


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (ascii_text, "varied sizes in heap 1 (nt), ASCII text"),
        (utf16_text, "varied sizes in heap 1 (nt), UTF-16 text"),
        (bstr, "varied sizes in heap 1 (nt), length-prefixed UTF-16 text"),
        (plain, "varied sizes in heap 1 (nt)"),
        (array_of(24), "multiples of 24 bytes in heap 1 (nt)"),
        (array_of(32), "multiples of 32 bytes in heap 1 (nt)"),
        (array_of(40, head=8), "8 bytes and multiples of 40 bytes in heap 1 (nt)"),
    ],
)
def test_what_one_call_asks_for_in_many_sizes_is_one_row(
    compared: Compared, make: Maker, name: str
) -> None:
    sides = ([nt_heap(0, steady()), nt_heap(1, some(make, n, 2))] for n in (FEW, MANY))
    assert compared(*sides) == [(name, MANY - FEW)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (ascii_text, ", ASCII text"),
        (bstr_x86, ", length-prefixed UTF-16 text"),
        (plain, ""),
    ],
)
def test_it_is_one_row_in_a_32_bit_process(compared: Compared, make: Maker, said: str) -> None:
    sides = (
        [nt_heap(0, steady(), x64=False), nt_heap(1, some(make, n, 2), x64=False)]
        for n in (FEW, MANY)
    )
    assert compared(*sides, x64=False) == [(f"varied sizes in heap 1 (nt){said}", MANY - FEW)]


def test_it_is_one_row_in_the_front_end_of_a_heap(
    compared: Compared,
) -> None:
    sides = ([nt_heap(0, steady()), lfh_heap(1, some(small_text, n, 2))] for n in (FEW, MANY))
    assert compared(*sides) == [("varied sizes in heap 1 (nt), ASCII text", MANY - FEW)]


@pytest.mark.parametrize("make", [ascii_text, bstr])
def test_it_is_one_row_in_a_segment_heap(compared: Compared, make: Maker) -> None:
    sides = ([segment_heap([*some(plain, 9, 1), *some(make, n, 2)])] for n in (FEW, MANY))
    first, *others = compared(*sides, build=19041)
    assert first[0].startswith("varied sizes in heap 0 (segment), ")
    assert first[1] > 0.9 * (MANY - FEW)
    assert len(others) < FEW_SIZES, "sizes that text shares with something else"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (ascii_text, "varied sizes in heaps 1, 2 and 3 (nt), ASCII text"),
        (bstr, "varied sizes in heaps 1, 2 and 3 (nt), length-prefixed UTF-16 text"),
        (plain, "varied sizes in heaps 1, 2 and 3 (nt)"),
        (array_of(24), "multiples of 24 bytes in heaps 1, 2 and 3 (nt)"),
        (lambda dice, _: plain(dice, 64), "64 bytes in heaps 1, 2 and 3 (nt)"),
        (lambda dice, _: ascii_text(dice, 64), "64 bytes in heaps 1, 2 and 3 (nt), ASCII text"),
    ],
)
def test_three_heaps_with_one_cause_are_one_row(compared: Compared, make: Maker, name: str) -> None:
    sides = (
        [nt_heap(0, steady()), *(nt_heap(heap, some(make, n, heap)) for heap in (1, 2, 3))]
        for n in (FEW, MANY)
    )
    assert compared(*sides) == [(name, 3 * (MANY - FEW))]


def test_objects_of_one_class_are_one_row_however_unlike_the_numbers_are(
    compared: Compared,
) -> None:
    object_ = struct.pack("<QQ", APP + 0x2000, 0) + bytes(32)
    sides = (
        [nt_heap(0, steady()), *(nt_heap(heap, [object_] * (n // heap**3)) for heap in (1, 2, 3))]
        for n in (FEW, MANY)
    )
    ((name, _),) = compared(*sides)
    assert name == "48 bytes in heaps 1, 2 and 3 (nt) -> app.exe"


def test_two_causes_stay_two_rows(compared: Compared) -> None:
    object_ = struct.pack("<QQ", APP + 0x2000, 0) + bytes(48)
    for first, second in (
        (lambda n: some(ascii_text, n, 3, 16, 60), lambda n: some(ascii_text, n, 4, 2000, 4000)),
        (lambda n: some(array_of(24), n, 3), lambda n: some(plain, n // 2, 4)),
        (lambda n: some(ascii_text, n, 3), lambda n: [bytes(96)] * n),
        (lambda n: some(ascii_text, n, 3), lambda n: [b"GET /index.html".ljust(96)] * n),
        (lambda n: [object_] * n, lambda n: [b"GET /index.html".ljust(64)] * n),
    ):
        sides = ([nt_heap(0, steady()), nt_heap(1, [*first(n), *second(n)])] for n in (FEW, MANY))
        rows = compared(*sides)
        assert len(rows) == 2 or (len(rows) == 3 and "->" in rows[0][0] + rows[1][0]), rows


def test_two_kinds_of_leaks_in_two_heaps_stay_two_rows(
    compared: Compared,
) -> None:
    for first, second in (
        (ascii_text, utf16_text),
        (array_of(24), array_of(40)),
        (lambda dice, _: ascii_text(dice, 64), lambda dice, _: bytes(64)),
    ):
        sides = (
            [nt_heap(0, steady()), nt_heap(1, some(first, n, 3)), nt_heap(2, some(second, n, 4))]
            for n in (FEW, MANY)
        )
        assert len(compared(*sides)) == 2


@pytest.mark.parametrize("heap", [1, 2])
def test_a_leak_beside_something_alike_that_shrinks_is_not_hidden(
    compared: Compared, heap: int
) -> None:
    def process(leaked: int, cached: int) -> Heaps:
        leak, cache = some(ascii_text, leaked, 3, 16, 500), some(ascii_text, cached, 4, 800, 1500)
        if heap == 1:
            return [nt_heap(0, steady()), nt_heap(1, [*leak, *cache])]
        return [nt_heap(0, steady()), nt_heap(1, leak), nt_heap(2, cache)]

    first, *_, last = compared(process(FEW, MANY), process(MANY, FEW))
    assert first == ("varied sizes in heap 1 (nt), ASCII text", pytest.approx(MANY - FEW, abs=60))
    assert last[1] < -0.8 * (MANY - FEW)


def test_classes_of_objects_with_a_size_each_stay_rows_of_their_own(
    compared: Compared,
) -> None:
    structures = [bytes(40 + 8 * number) for number in range(30)]
    after = [nt_heap(0, [*steady(), *structures * 100])]
    assert len(compared([nt_heap(0, steady())], after)) == len(structures)


BSTR = "length-prefixed UTF-16 text (BSTR) of "


def three_heaps(count: int) -> Heaps:
    return [nt_heap(0, steady()), *(nt_heap(heap, some(bstr, count, heap)) for heap in (1, 2, 3))]


def written(folder: Path, *sides: Heaps) -> list[Path]:
    files = []
    for number, heaps in enumerate(sides):
        files.append(folder / f"{number}.dmp")
        files[-1].write_bytes(process_of(heaps, time=1_700_000_000 + 3600 * number))
    return files


def test_a_series_judges_the_cause_and_not_each_size(tmp_path: Path) -> None:
    found = trend(written(tmp_path, *map(three_heaps, (20, 90, 160, 230, 300))))
    (site,) = found.sites
    assert (site.confidence, site.delta_count) == ("suspect", 3 * 280)
    assert site.site.name == "varied sizes in heaps 1, 2 and 3 (nt), length-prefixed UTF-16 text"
    assert sum(part.delta_bytes for part in site.parts) == site.delta_bytes == found.delta_bytes
    headline, size = summarize_trend(found).headline, format_bytes(found.delta_bytes)
    assert headline.startswith(f"Suspect: {BSTR}")
    assert headline.endswith(f" sizes in heaps 1, 2 and 3 grew steadily, by {size} in 840 blocks.")


def test_the_first_line_says_the_cause_in_plain_words(tmp_path: Path) -> None:
    found = compare(*written(tmp_path, *map(three_heaps, (20, 300))))
    headline = summarize_comparison(found).headline
    assert headline.startswith("Length-prefixed UTF-16 text (BSTR) of ")
    size = format_bytes(found.delta_bytes)
    assert f" sizes in heaps 1, 2 and 3 grew by {size} in 840 blocks. " in headline


def test_what_nothing_points_to_is_told_by_cause_and_kept_by_group(tmp_path: Path) -> None:
    (file,) = written(tmp_path, three_heaps(300))
    leaks = find_leaks(Session.open(str(file)))
    summary = leaks_document(leaks, None).summary
    assert summary is not None
    assert summary.headline.startswith(f"Nothing points to {BSTR}")
    made = leaks_json(leaks)
    assert len(made["groups"]) == len(leaks.groups) > 500
    cause, other = made["causes"]
    assert cause["unreferenced_count"] == 900
    assert other["name"] == "varied sizes in heap 0 (nt)"
    for each in made["causes"]:
        parts = [made["groups"][rank - 1] for rank in each["parts"]]
        assert sum(part["unreferenced_bytes"] for part in parts) == each["unreferenced_bytes"]
