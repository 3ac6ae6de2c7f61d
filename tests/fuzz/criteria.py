"""What makes an answer about a damaged dump a lie, one row each in `CRITERIA`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


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
    """

    used: dict[int, Found]
    twice: list[int]
    overlaps: list[int]
    parts: dict[int, Part]
    listed: int
    read: int
    shown: str
    messages: list[str] = field(default_factory=list)


@dataclass
class Truth:
    """What is in a dump.

    Attributes:
        used: Address → size of every used block.
        blocks: What an answer about the undamaged dump says of each.
        stands_for: Addresses that may come instead of others: of the header a runtime puts in front.
        optional: Addresses that may come or not.
    """

    used: dict[int, int]
    blocks: dict[int, Found]
    stands_for: dict[int, int] = field(default_factory=dict)
    optional: set[int] = field(default_factory=set)

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
        """The kind of a block: in truth, or, where there is none, as the answer says."""
        known = self.truth.blocks.get(address)
        return (known or self.answer.used[address]).kind


def invented(trial: Trial) -> list[int]:
    """Used blocks that no one ever asked for."""
    truth = trial.truth
    return [
        address
        for address in trial.answer.used
        if address not in truth.used
        and address not in truth.optional
        and address not in truth.stands_for
    ]


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


CRITERIA: dict[str, Callable[[Trial], list[int]]] = {
    "invented": invented,
    "wrong size": wrong_size,
    "twice": twice,
    "overlapping": overlapping,
    "lost at 100.0 %": lost_at_100,
    "lost untold": lost_untold,
}


def by_kind(trial: Trial, addresses: list[int]) -> Counter[str]:
    """How many blocks of each kind."""
    return Counter(trial.kind_of(address) for address in addresses)
