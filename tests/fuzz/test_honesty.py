"""What is said of damaged dumps is true, or is said to be unknown. Longer runs: `honesty.py`."""

from __future__ import annotations

from functools import cache

import pytest
from builders.opening import open_bytes

from fuzz.criteria import CRITERIA, Answer, Found, Part, Trial, Truth
from fuzz.damages import DAMAGES, PAGE, WORD
from fuzz.dice import Dice
from fuzz.honesty import Row, family, judged, tried
from fuzz.subjects import Subject, subjects
from windumps.errors import DumpError

# What is known to lie still. Strict: the row goes with its fault.
OWN = [n for n in subjects() if n.startswith(("testdata/", "made/")) and "/leak-pair" not in n]
TINY = "testdata/10.0.19041.3324-x64/tiny/dump"
HEAP = 0x10000


@cache
def _subject(name: str) -> Subject:
    return subjects()[name]()


@pytest.mark.parametrize("name", OWN)
def test_what_is_said_of_a_whole_dump_is_the_truth(name: str) -> None:
    row = tried(_subject(name), name, "none", 1, 0)
    assert row.blocks
    assert not row.lost
    assert not row.broken


@pytest.mark.parametrize(
    "name",
    OWN,
)
def test_no_damage_makes_an_answer_lie(name: str) -> None:
    rows = [tried(_subject(name), name, damage, 1, 0) for damage in DAMAGES]
    assert {row.name: row.examples for row in rows if row.broken} == {}


# -- the criteria


def _truth() -> Truth:
    used = {0x1000: 64, 0x1100: 32, 0x1200: 0}
    blocks = {address: Found(size, "nt-lfh", HEAP) for address, size in used.items()}
    return Truth(used, blocks, stands_for={0x0FF0: 0x1000}, optional={0x1300})


def _answer(
    used: dict[int, int], unwalked: int = 0, unread: str = "", shown: str = "97.5%"
) -> Answer:
    found = {address: Found(size, "nt-lfh", HEAP) for address, size in used.items()}
    return Answer(found, [], [], {HEAP: Part(unread, unwalked)}, 1, 1, shown)


WHOLE = {0x1000: 64, 0x1100: 32, 0x1200: 0}
LESS = {0x1000: 64}


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        (_answer(WHOLE, shown="100.0%"), set()),
        (_answer({**WHOLE, 0x1300: 8}), set()),
        (_answer({0x0FF0: 90, 0x1100: 32, 0x1200: 0}), set()),
        (_answer({**WHOLE, 0x1100: -1}), set()),
        (_answer({**WHOLE, 0x5000: 8}), {"invented"}),
        (_answer({**WHOLE, 0x1100: 31}), {"wrong size"}),
        (_answer(LESS, unwalked=33), set()),
        (_answer(LESS, unwalked=32), {"lost untold"}),
        (_answer(LESS, unread="damaged"), set()),
        (_answer(LESS, unwalked=33, shown="100.0%"), {"lost at 100.0 %"}),
        (_answer({}, unread="damaged", shown="100.0%"), {"lost at 100.0 %"}),
    ],
)
def test_a_criterion_is_broken_by_its_lie_and_by_nothing_else(
    answer: Answer, broken: set[str]
) -> None:
    trial = Trial(_truth(), answer)
    assert {name for name, criterion in CRITERIA.items() if criterion(trial)} == broken


def test_blocks_that_come_twice_or_overlap_are_lies() -> None:
    answer = _answer(WHOLE)
    answer.twice, answer.overlaps = [0x1000], [0x1100]
    trial = Trial(_truth(), answer)
    broken = {name for name, criterion in CRITERIA.items() if criterion(trial)}
    assert broken == {"twice", "overlapping"}


@pytest.mark.parametrize(("listed", "is_told"), [(1, False), (2, True)])
def test_blocks_of_a_heap_that_is_not_listed_are_told_where_the_list_says_so(
    listed: int, is_told: bool
) -> None:
    answer = Answer({}, [], [], {}, listed, 1, "50.0%")
    lost = CRITERIA["lost untold"](Trial(_truth(), answer))
    assert (not lost) == is_told


def test_a_lie_about_the_whole_dump_is_told_once() -> None:
    subject = _subject(TINY)
    mistaken = Subject.__new__(Subject)
    mistaken.truth, mistaken.mistakes = subject.truth, ([0x1234], [])
    row = judged(mistaken, Row(TINY, "none", 0), subject.answer(subject.data))
    assert row.broken == {"lost whole": {"unknown": 1}}
    assert not judged(mistaken, Row(TINY, "cut", 0), subject.answer(subject.data)).broken


@pytest.mark.parametrize(("error", "refused"), [(DumpError("cut"), True), (ValueError("x"), False)])
def test_only_a_typed_error_refuses_a_dump(
    monkeypatch: pytest.MonkeyPatch, error: Exception, refused: bool
) -> None:
    subject = _subject(TINY)

    def answer(_: bytes) -> Answer:
        raise error

    monkeypatch.setattr(subject, "answer", answer)
    row = tried(subject, TINY, "cut", 1, 0)
    assert (bool(row.refused), bool(row.broken)) == (refused, not refused)


# -- the damages


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_the_same_each_time(damage: str) -> None:
    subject = _subject(TINY)
    assert len({DAMAGES[damage](subject, Dice(damage, 3)).data for _ in range(2)}) == 1


def test_a_dropped_page_is_absent_and_no_other() -> None:
    subject = _subject(TINY)
    data, (told,) = DAMAGES["drop-one"](subject, Dice(1))
    whole, less = open_bytes(subject.data).memory, open_bytes(data).memory
    page = int(told, 16)
    assert whole.total_bytes - less.total_bytes == PAGE
    assert (whole.present_bytes(page, page + PAGE), less.present_bytes(page, page + PAGE)) == (
        PAGE,
        0,
    )
    for at in (page - PAGE, page + PAGE):
        assert less.read_available(at, PAGE) == whole.read_available(at, PAGE)


@pytest.mark.parametrize(
    ("damage", "most"), [("zero-one", PAGE), ("fill-one", PAGE), ("words-4", 4 * WORD)]
)
def test_other_contents_are_where_they_were_put(damage: str, most: int) -> None:
    subject = _subject(TINY)
    data = DAMAGES[damage](subject, Dice(2)).data
    changed = sum(one != other for one, other in zip(data, subject.data, strict=True))
    assert 0 < changed <= most


def test_a_cut_file_ends_in_its_memory() -> None:
    subject = _subject(TINY)
    first = min(offset for _, _, offset in subject.runs)
    for number in range(20):
        data = DAMAGES["cut"](subject, Dice(number)).data
        assert first <= len(data) < len(subject.data)
        assert subject.data.startswith(data)


def test_a_family_is_a_kind_of_heap_on_a_system() -> None:
    assert family("testdata/6.1.7601.24384-x86/tiny/dump", "nt-lfh") == "nt-lfh of 7"
    assert family("5.2.3790.3959-x64/nt-lfh/dump", "nt-lfh") == "nt-lfh of XP"
    assert family("10.0.19041.3324-x64/debug-crt-ust/dump", "nt-lfh") == "debug-crt of 10"
