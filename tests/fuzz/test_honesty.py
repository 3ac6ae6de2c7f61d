"""What is said of damaged dumps is true, or is said to be unknown. Longer runs: `honesty.py`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from builders.opening import open_bytes

from fuzz.criteria import CRITERIA, UNSAID, Answer, Found, Part, Total, Trial, Truth, tag_key
from fuzz.damages import DAMAGES, PAGE, WORD
from fuzz.dice import Dice
from fuzz.honesty import Row, family, judged, tried
from fuzz.kernel_damages import POOL_DAMAGES
from fuzz.subject import Subject
from fuzz.subjects import subjects
from windumps.dumps.kernel.reader import open_kernel_dump
from windumps.errors import DumpError
from windumps.memory.address_space import Presence

# What is known to lie still. Strict: the row goes with its fault.
OWN = [n for n in subjects() if n.startswith(("testdata/", "made/")) and "/leak-pair" not in n]
POOLS = [name for name in OWN if "/kernel" in name]
PROCESSES = [name for name in OWN if name not in POOLS]
TINY = "testdata/10.0.19041.3324-x64/tiny/dump"
KERNEL = "testdata/kernel/22621-x64/tiny-pair/after"
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


@pytest.mark.parametrize("name", PROCESSES)
def test_no_damage_makes_an_answer_lie(name: str) -> None:
    rows = [tried(_subject(name), name, damage, 1, 0) for damage in DAMAGES]
    assert {row.name: row.examples for row in rows if row.broken} == {}


@pytest.mark.parametrize("name", POOLS)
def test_no_damage_makes_an_answer_about_pools_lie(name: str) -> None:
    # Every eighth damage, others for each dump: all of all take minutes.
    mine = list(POOL_DAMAGES)[POOLS.index(name) % 8 :: 8]
    rows = [tried(_subject(name), name, damage, 1, 0) for damage in mine]
    assert {row.name: row.examples for row in rows if row.broken} == {}


# Seeds and trials that showed lies, by dump and damage.
FOUND = {
    ("kernel/14393-x64/tiny-pair", "blind-tables-zero"): (21, 1),
    ("kernel/19041-x64/traps", "blind-large-fill"): (21, 0),
    ("kernel/19041-x64/traps", "blind-words"): (21, 0),
    ("kernel/7601-x64/tiny-pair", "blind-tables-drop"): (21, 1),
    ("kernel/7601-x64/tiny-pair", "blind-pool-zero"): (21, 1),
    ("kernel-genuine/2600.5512-x86mp/basic", "blind-tables-fill"): (21, 1),
    ("kernel-genuine/3790.3959-x64/quota", "blind-large-fill"): (21, 0),
    ("kernel-genuine/6002.24565-x86/basic", "fill-1%"): (11, 0),
    ("kernel-genuine/6002.24565-x86/basic", "trackers-zero-20%"): (11, 1),
    ("kernel-genuine/7601.17514-x86pae/session", "blind-pool-fill"): (21, 0),
}


@pytest.mark.parametrize(("name", "damage"), FOUND)
def test_a_lie_that_was_found_is_told_no_more(name: str, damage: str) -> None:
    seed, number = FOUND[name, damage]
    row = tried(_subject(f"testdata/{name}/after"), f"testdata/{name}/after", damage, seed, number)
    assert row.broken == {}


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


TAG = tag_key(0x61626364, False)
EXTRA = {**WHOLE, 0x5000: 8, 0x6000: 8}


@pytest.mark.parametrize(
    ("said", "broken"),
    [
        ({TAG: Total(3, 96)}, set()),
        ({TAG: Total(3, 95)}, {"wrong total"}),
        ({TAG: Total(2, 95, 1)}, set()),
        ({TAG: Total(2, 94, 1)}, {"wrong total"}),
        ({TAG: Total(0, 0, None)}, set()),
        ({}, {"wrong total"}),
        ({UNSAID: Total(0, 0, 95)}, {"wrong total"}),
        ({UNSAID: Total(0, 0, 96)}, set()),
        ({TAG: Total(3, 96), tag_key(0x61626364, True): Total(1, 8)}, {"wrong total"}),
        (None, set()),
    ],
)
def test_a_total_that_is_another_is_a_lie_unless_it_is_said_to_be_unsure(
    said: dict[int, Total] | None, broken: set[str]
) -> None:
    truth, answer = _truth(), _answer(WHOLE)
    truth.totals, answer.totals = {TAG: (3, 96)}, said
    trial = Trial(truth, answer)
    assert {name for name, criterion in CRITERIA.items() if criterion(trial)} == broken


@pytest.mark.parametrize(("may_invent", "is_told"), [(15, False), (16, True)])
def test_pools_may_show_a_freed_block_only_where_as_much_is_said_to_be_unknown(
    may_invent: int, is_told: bool
) -> None:
    answer = _answer(EXTRA)
    answer.may_invent = may_invent
    assert (not CRITERIA["invented"](Trial(_truth(), answer))) == is_told


def test_commands_that_say_different_shares_are_a_lie() -> None:
    answer = _answer(WHOLE)
    answer.shares = {"pool": "99.9%", "stat": "99.9%"}
    assert not CRITERIA["coverage differs"](Trial(_truth(), answer))
    answer.shares["trend"] = "100.0%"
    assert CRITERIA["coverage differs"](Trial(_truth(), answer))


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


@pytest.mark.parametrize("damage", POOL_DAMAGES)
def test_a_damage_of_pools_is_the_same_each_time_and_damages(damage: str) -> None:
    subject = _subject(KERNEL)
    made = {POOL_DAMAGES[damage](subject, Dice(damage, 3)).data for _ in range(2)}
    assert len(made) == 1
    assert (made == {subject.data}) == (damage == "none")


@pytest.mark.parametrize("name", ["testdata/kernel/7601-x86pae/leak-pair/after", KERNEL])
def test_a_dropped_frame_is_absent_and_no_other(name: str) -> None:
    subject = _subject(name)
    data, (told,) = DAMAGES["drop-one"](subject, Dice(1))
    frame = int(told, 16)
    whole, less = (
        open_kernel_dump(Path("made.dmp"), np.frombuffer(raw, np.uint8)).physical
        for raw in (subject.data, data)
    )
    assert whole.total_bytes - less.total_bytes == PAGE
    assert less.presence(frame) is not Presence.PRESENT
    for at in (frame - PAGE, frame + PAGE):
        assert less.read_available(at, PAGE) == whole.read_available(at, PAGE)


def test_a_family_is_a_kind_of_heap_on_a_system() -> None:
    assert family("testdata/6.1.7601.24384-x86/tiny/dump", "nt-lfh") == "nt-lfh of 7"
    assert family("5.2.3790.3959-x64/nt-lfh/dump", "nt-lfh") == "nt-lfh of XP"
    assert family("10.0.19041.3324-x64/debug-crt-ust/dump", "nt-lfh") == "debug-crt of 10"
    assert family(KERNEL, "pool-large") == "pool-large of 22621-x64"
