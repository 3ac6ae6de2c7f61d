"""What makes an answer about a damaged dump a lie, one row each in `CRITERIA`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U64

TAG_KIND = "pool-tag"
UNSAID = -1  # stands for tags that an answer does not name


def tag_key(tag: int, paged: bool) -> int:
    """A tag in nonpaged or paged pool as a number that is no address."""
    return -(tag << 1 | paged) - 2


def named(key: int) -> str:
    """An address or a tag, for people."""
    if key >= 0:
        return f"0x{key:x}"
    if key == UNSAID:
        return "all"
    tag = -key - 2
    text = (tag >> 1).to_bytes(4, "little").decode("latin-1")
    return f"{text!r} {'paged' if tag & 1 else 'nonpaged'}"


class Found(NamedTuple):
    """A used block of an answer.

    Attributes:
        size: Bytes the program asked for; below zero where the answer does not say.
        kind: What holds it, "nt-lfh".
        part: What it is counted to: the address of its heap.
    """

    size: int
    kind: str
    part: int


class Part(NamedTuple):
    """What an answer says of one heap.

    Attributes:
        unread: Why it was not read; "" when it was.
        unwalked: Bytes that it says it does not know.
    """

    unread: str
    unwalked: int


class Total(NamedTuple):
    """What an answer says one tag holds in one pool.

    Attributes:
        count: Blocks.
        bytes: Their bytes.
        may_lack: Bytes by which it may be off, for as many are said not to be known; None without a bound.
    """

    count: int
    bytes: int
    may_lack: int | None = 0


@dataclass
class Answer:
    """What was said of a dump.

    Attributes:
        used: Used blocks by address.
        twice: Addresses that came more than once.
        overlaps: Addresses of blocks whose bytes the block before has, too.
        parts: Heaps by address.
        listed: Heaps that the process has, as far as is known.
        read: Heaps that were read.
        shown: The share that is shown to people, "99.8%".
        messages: What was said of damage.
        may_invent: Bytes of used blocks that may be none, for as many are said not to be known: of pools,
            where whether a block was given back may stand elsewhere.
        totals: Of pools: what is said of each tag, by `tag_key`; None where there are none.
        shares: What each command says of how much was walked; all must say the same.
    """

    used: dict[int, Found]
    twice: list[int]
    overlaps: list[int]
    parts: dict[int, Part]
    listed: int
    read: int
    shown: str
    messages: list[str] = field(default_factory=list)
    may_invent: int = 0
    totals: dict[int, Total] | None = None
    shares: dict[str, str] = field(default_factory=dict)


@dataclass
class Truth:
    """What is in a dump.

    Attributes:
        used: Address → size of every used block.
        blocks: What an answer about the undamaged dump says of each.
        stands_for: Addresses that may come instead of others: of the header a runtime puts in front.
        optional: Addresses that may come or not.
        totals: Of pools: blocks and bytes of each tag, by `tag_key`.
    """

    used: dict[int, int]
    blocks: dict[int, Found]
    stands_for: dict[int, int] = field(default_factory=dict)
    optional: set[int] = field(default_factory=set)
    totals: dict[int, tuple[int, int]] = field(default_factory=dict)

    def kind_of(self, address: int) -> str:
        return self.blocks[address].kind


@dataclass
class Trial:
    """One answer held against the truth.

    Attributes:
        truth: What is so.
        answer: What was said.
        lost: Used blocks that the answer lacks.
    """

    truth: Truth
    answer: Answer
    lost: list[int] = field(init=False)

    def __post_init__(self) -> None:
        said = {self.truth.stands_for.get(address, address) for address in self.answer.used}
        self.lost = [address for address in self.truth.used if address not in said]

    def kind_of(self, address: int) -> str:
        """The kind of a block: in truth, or, where there is none, as the answer says; or of a tag."""
        if address < 0:
            return TAG_KIND
        known = self.truth.blocks.get(address)
        return (known or self.answer.used[address]).kind


def invented(trial: Trial) -> list[int]:
    """Used blocks that no one ever asked for, unless no more bytes than are said not to be known."""
    truth, used = trial.truth, trial.answer.used
    extra = [
        address
        for address in trial.answer.used
        if address not in truth.used
        and address not in truth.optional
        and address not in truth.stands_for
    ]
    held = sum(max(used[address].size, 1) for address in extra)
    return [] if held <= trial.answer.may_invent else extra


def twice(trial: Trial) -> list[int]:
    return trial.answer.twice


def overlapping(trial: Trial) -> list[int]:
    return trial.answer.overlaps


def wrong_size(trial: Trial) -> list[int]:
    """Blocks whose size is said, and is another."""
    truth = trial.truth.used
    return [
        address
        for address, found in trial.answer.used.items()
        if found.size >= 0 and truth.get(address, found.size) != found.size
    ]


def lost_at_100(trial: Trial) -> list[int]:
    """Lost, while the answer is shown as whole."""
    return trial.lost if trial.answer.shown == "100.0%" else []


def lost_untold(trial: Trial) -> list[int]:
    """Lost, while their heap says that it does not know less than these blocks' bytes."""
    answer, by_part = trial.answer, dict[int, list[int]]()
    for address in trial.lost:
        by_part.setdefault(trial.truth.blocks[address].part, []).append(address)
    untold: list[int] = []
    for heap, addresses in by_part.items():
        part = answer.parts.get(heap)
        if part is None:
            is_told = answer.read < answer.listed
        else:
            size = sum(max(trial.truth.used[address], 1) for address in addresses)
            is_told = bool(part.unread) or size <= part.unwalked
        if not is_told:
            untold += addresses
    return untold


def wrong_total(trial: Trial) -> list[int]:
    """Tags that hold something else than is said to be known; a tag that is not said holds nothing."""
    answer = trial.answer
    if answer.totals is None:
        return []
    wrong = []
    for key in {**trial.truth.totals, **answer.totals}:
        count, held = trial.truth.totals.get(key, (0, 0))
        said = answer.totals.get(key, answer.totals.get(UNSAID, Total(0, 0)))
        if said.may_lack == 0:
            is_right = (said.count, said.bytes) == (count, held)
        else:
            is_right = said.may_lack is None or abs(said.bytes - held) <= said.may_lack
        if not is_right and key != UNSAID:
            wrong.append(key)
    return wrong


def coverage_differs(trial: Trial) -> list[int]:
    """Commands say different things of how much was walked."""
    return [UNSAID] if len(set(trial.answer.shares.values())) > 1 else []


CRITERIA: dict[str, Callable[[Trial], list[int]]] = {
    "invented": invented,
    "wrong size": wrong_size,
    "twice": twice,
    "overlapping": overlapping,
    "lost at 100.0 %": lost_at_100,
    "lost untold": lost_untold,
    "wrong total": wrong_total,
    "coverage differs": coverage_differs,
}


def by_kind(trial: Trial, addresses: list[int]) -> Counter[str]:
    """How many blocks of each kind."""
    return Counter(trial.kind_of(address) for address in addresses)


def overlaps(address: U64, taken: I64) -> list[int]:
    """Addresses of blocks whose bytes the block before has, too; `taken` is how many bytes each has."""
    order = np.argsort(address, kind="stable")
    address = address[order]
    over = address[:-1] + taken[order][:-1].astype(np.uint64) > address[1:]
    return [int(value) for value in address[1:][over & (address[1:] != address[:-1])]]
