"""Whatever is done to an input: an answer that can be true, or a typed error. Longer runs: `fuzz.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from truth import ROOT

from dumpleak.model.coverage import Coverage
from fuzz.cases import ANSWERED, REFUSED, Finding, case_of, outcome
from fuzz.command_lines import PROCESS_LINES, checked, filled
from fuzz.dice import Dice
from fuzz.fuzz import Supervisor
from fuzz.invariants import (
    ViolationError,
    check_account,
    check_blocks,
    check_coverage,
    check_session,
)
from fuzz.kinds import all_kinds
from fuzz.mutations import OPERATIONS, Change, mutated
from fuzz.seeds import Seed
from fuzz.text_mutations import mutated_json
from fuzz.worker import lift_limit, limit_memory, work
from windumps.blocks import Blocks, Kind
from windumps.errors import DumpError
from windumps.heaps.base import HeapAccount

CASES = 2
WHOLE_USES, MOST_USES = 2, 60  # of a kernel without pools most lines are refused
# A case of these takes seconds; fuzz.py tries them.
SLOW = (
    "kernel-leak",
    "kernel-traps",
    "kernel-truncated",
    "kernel-tiny-pair-2",
    "kernel-tiny-pair-1",
)
SECONDS = 20  # far more than any case takes; so that no test hangs


@pytest.fixture(scope="module")
def seed_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seed]:
    """Seeds by name, each made once."""

    @cache
    def made(kind: str) -> Seed:
        return all_kinds(tmp_path_factory.mktemp(kind))[kind]()

    return made


def _own_kinds() -> list[str]:
    """Kinds whose seeds are in the repository, so that every clone runs the same cases."""
    kinds = all_kinds(ROOT)  # nothing is written until a seed is made
    return [
        name
        for name, make in kinds.items()
        if not name.startswith(SLOW)
        and not any(
            isinstance(part, Path) and part.suffix and not part.is_relative_to(ROOT)
            for part in getattr(make, "args", ())
        )
    ]


def _made(use: Callable[[bytes, Dice], None], data: bytes = b"\x01" * 64) -> Seed:
    return Seed(data, use)


@pytest.mark.parametrize("kind", _own_kinds())
def test_inputs_of_every_kind_are_read_whole_and_mutated(
    seed_of: Callable[[str], Seed], kind: str
) -> None:
    seed = seed_of(kind)
    whole: list[str | Finding] = []
    while len(whole) < WHOLE_USES or (ANSWERED not in whole and len(whole) < MOST_USES):
        whole.append(outcome(seed, seed.data, Dice("whole", len(whole)), SECONDS))
    assert ANSWERED in whole
    cases = [outcome(seed, *case_of(seed, kind, 1, n), SECONDS) for n in range(CASES)]
    assert [found for found in whole + cases if isinstance(found, Finding)] == []


def test_a_case_is_known_by_its_kind_its_seed_and_its_number(
    seed_of: Callable[[str], Seed],
) -> None:
    seed = seed_of("heap-nt-8-x64")
    same = {case_of(seed, "heap-nt-8-x64", 1, 5)[0] for _ in range(3)}
    others = {
        *(case_of(seed, "heap-nt-8-x64", 1, number)[0] for number in range(6, 9)),
        case_of(seed, "heap-nt-8-x64", 2, 5)[0],
        case_of(seed, "heap-nt-8-x86", 1, 5)[0],
    }
    assert len(same) == 1
    assert len(others - same) == 5


@pytest.mark.parametrize("change", [row[1] for row in OPERATIONS], ids=lambda c: c.__name__)
def test_every_mutation_changes_bytes_and_keeps_the_length_or_cuts(
    seed_of: Callable[[str], Seed], change: Callable[[Change], None]
) -> None:
    seed = seed_of("heap-nt-8-x64")
    changed = 0
    for number in range(20):
        made = Change(seed, Dice(change.__name__, number))
        change(made)
        assert len(made.data) == len(seed.data)
        assert made.length <= len(seed.data)
        changed += bytes(made.data[: made.length]) != seed.data
    assert changed > 10


def test_mutations_hit_the_structures_of_a_heap_more_often_than_the_rest(
    seed_of: Callable[[str], Seed],
) -> None:
    seed = seed_of("heap-segment")
    places = {place // 64 for places in seed.places for place in places}
    hits = 0
    for number in range(200):
        at = Change(seed, Dice("place", number)).place()
        hits += at // 64 in places
    assert hits > 80
    assert len(places) * 64 < len(seed.data) / 4


def test_mutated_json_is_json_and_other_json() -> None:
    text = b'{"a": [1, 2, {"b": "c"}], "d": null}'
    made = {mutated_json(text, Dice("json", number)) for number in range(50)}
    assert len(made) > 20


def test_mutated_text_is_other_text() -> None:
    seed = Seed(b"rem one\r\nT001 - a.sys - text\r\n", lambda *_: None, is_text=True)
    assert len({mutated(seed, Dice("text", number)) for number in range(50)}) > 40


# -- what a case comes to


def _raises(error: BaseException) -> Callable[[bytes, Dice], None]:
    def use(_: bytes, __: Dice) -> None:
        raise error

    return use


def test_a_typed_error_is_a_refusal() -> None:
    assert outcome(_made(_raises(DumpError("cut"))), b"", Dice(1)) == REFUSED


@pytest.mark.parametrize(
    "error", [ValueError("x"), MemoryError(), RecursionError(), DumpError(""), DumpError("a\nb")]
)
def test_any_other_error_is_a_finding(error: Exception) -> None:
    assert isinstance(outcome(_made(_raises(error)), b"", Dice(1)), Finding)


def test_a_warning_of_numpy_is_a_finding() -> None:
    def use(_: bytes, __: Dice) -> None:
        np.array([255], np.uint8)[0] + np.uint8(1)

    found = outcome(_made(use), b"", Dice(1))
    assert isinstance(found, Finding)
    assert found.what == "RuntimeWarning"


def test_a_case_that_does_not_end_is_a_finding() -> None:
    def use(_: bytes, __: Dice) -> None:
        while True:
            pass

    found = outcome(_made(use), b"", Dice(1), 0.05)
    assert isinstance(found, Finding)
    assert found.what == "over time"


def test_a_case_that_takes_more_memory_than_it_may_is_a_finding() -> None:
    limit_memory(1 << 28)
    try:
        found = outcome(_made(lambda *_: np.ones(1 << 27).sum()), b"", Dice(1))
    finally:
        lift_limit()
    assert isinstance(found, Finding)
    assert found.what.endswith("MemoryError")


# -- invariants


def _blocks(*rows: tuple[int, int]) -> Blocks:
    address = np.array([row[0] for row in rows], np.uint64)
    size = np.array([row[1] for row in rows], np.int64)
    used = np.ones(len(rows), np.bool_)
    return Blocks.build(address, size, size + 16, used, Kind.NT_BACKEND, 1)


@pytest.mark.parametrize(
    "rows", [[(0x1000, 64), (0x1000, 64)], [(0x1000, 65), (0x1040, 8)], [((1 << 64) - 8, 16)]]
)
def test_blocks_that_share_bytes_break_an_invariant(rows: list[tuple[int, int]]) -> None:
    check_blocks([_blocks((0x1000, 64)), _blocks((0x1040, 8))])
    with pytest.raises(ViolationError):
        check_blocks([_blocks(row) for row in rows])


@pytest.mark.parametrize(
    "account",
    [
        HeapAccount(committed_bytes=100, used_block_bytes=90),
        HeapAccount(committed_bytes=100, used_block_bytes=110, overhead_bytes=-10),
        HeapAccount(committed_bytes=100, unwalked_bytes=100, absent_bytes=101),
    ],
)
def test_an_account_that_does_not_add_up_breaks_an_invariant(account: HeapAccount) -> None:
    check_account(HeapAccount(committed_bytes=100, used_block_bytes=90, unwalked_bytes=10))
    with pytest.raises(ViolationError):
        check_account(account)


@pytest.mark.parametrize(
    "covered",
    [Coverage(101, 100, 100, 1, 1), Coverage(100, 101, 100, 1, 1), Coverage(1, 1, 1, 1, 2)],
)
def test_more_than_everything_breaks_an_invariant(covered: Coverage) -> None:
    check_coverage(Coverage(100, 100, 100, 2, 1))
    with pytest.raises(ViolationError):
        check_coverage(covered)


def test_two_heaps_that_give_one_block_break_an_invariant() -> None:
    twice = [(None, _blocks((0x1000, 64))), (None, _blocks((0x1000, 64)))]
    with pytest.raises(ViolationError, match="two used blocks"):
        check_session(SimpleNamespace(blocks=lambda: twice))


# -- command lines


def test_a_command_line_has_a_format_and_a_grouping_of_its_command() -> None:
    made = [
        filled(line, Dice(line.words, n), Path("in"), Path("whole"))
        for line in PROCESS_LINES
        for n in range(20)
    ]
    assert not [words for words in made if any(word.startswith("<") for word in words)]
    assert {words[-1] for words in made if words[0] == "diff"} >= {"sarif", "html", "umdh"}


@pytest.mark.parametrize("words", [["stat", "no-such-file"], ["diff", "--wrong"]])
def test_a_command_line_that_is_wrong_is_a_finding(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ViolationError):
        checked(words, tmp_path / "output")


# -- processes


def test_a_worker_tells_each_case_before_and_after_it(tmp_path: Path) -> None:
    told: list[dict[str, object]] = []
    plan = {"run": 1, "limit_s": SECONDS, "limit_bytes": 1 << 32}
    try:
        work(plan | {"slices": [["heap-nt-8-x64", 7, 0, 2]]}, tmp_path, told.append)
    finally:
        lift_limit()
    assert [row["n"] for row in told] == [-1, 7, 7, 8, 8]
    assert ["outcome" in row for row in told] == [False, False, True, False, True]


DYING_WORKER = """
import json, os, sys
kind, first, *_ = json.loads(sys.argv[1])["slices"][0]
for number in range(first, 4):
    print(json.dumps({"kind": kind, "n": number}), flush=True)
    if number == 1:
        os._exit(11)
    print(json.dumps({"kind": kind, "n": number, "s": 0, "outcome": "answered"}), flush=True)
"""


@pytest.fixture
def dying_worker(tmp_path: Path) -> Path:
    script = tmp_path / "dying.py"
    script.write_text(DYING_WORKER)
    return script


def test_a_case_that_ends_its_process_is_a_finding_and_the_next_is_tried(
    dying_worker: Path,
) -> None:
    supervisor = Supervisor(1, worker=dying_worker)
    supervisor.work([["kind", 0, SECONDS, 1]])
    assert supervisor.tally.cases == {"kind": {"answered": 3, "finding": 1}}
    ((row,),) = supervisor.tally.findings.values()
    assert (row["n"], row["finding"]["what"]) == (1, "the process ended")


def test_a_process_that_says_nothing_is_ended_and_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "silent.py"
    script.write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setattr("fuzz.fuzz.select.select", lambda *_: ([], [], []))
    supervisor = Supervisor(1, worker=script)
    supervisor.work([["kind", 0, SECONDS, 1], ["other", 0, SECONDS, 1]])
    found = [row["finding"] for rows in supervisor.tally.findings.values() for row in rows]
    assert [item["what"] for item in found] == ["the seed cannot be made"] * 2
    assert all(item["text"].startswith("no answer for") for item in found)
