"""What happens to dumps: missing pages, pages with other contents, cut files, overwritten structures."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fuzz.dice import Dice
from fuzz.seeds import PAGE, Run

WORD = 16
FILLS = (0xFF, 0xCC, 0xDD, 0x41, 0x01)


class Page(NamedTuple):
    """A page of a heap: where it lies in memory and in the file."""

    address: int
    offset: int


class Damageable(Protocol):
    """What a damage needs to know of a dump.

    Attributes:
        data: The whole file.
        runs: Memory in it.
        pages: Pages of what is walked.
        structures: Offsets of structures and of headers, one list a kind of place.
    """

    data: bytes
    runs: list[Run]
    pages: list[Page]
    structures: list[list[int]]

    def without_pages(self, addresses: set[int]) -> bytes:
        """The file as if these pages had not been captured."""
        ...


class Damaged(NamedTuple):
    """A damaged file, and what was done to it, for people."""

    data: bytes
    told: list[str]


Damage = Callable[[Damageable, Dice], Damaged]


def none(dump: Damageable, _: Dice) -> Damaged:
    return Damaged(dump.data, [])


def _some_pages(dump: Damageable, dice: Dice, percent: float) -> list[Page]:
    return dice.sample(dump.pages, max(1, round(len(dump.pages) * percent / 100)))


def _told(pages: list[Page]) -> list[str]:
    return [f"0x{page.address:x}" for page in sorted(pages)]


def dropped(percent: float) -> Damage:
    """Pages that the writer of the dump could not read."""

    def damage(dump: Damageable, dice: Dice) -> Damaged:
        pages = _some_pages(dump, dice, percent)
        return Damaged(dump.without_pages({page.address for page in pages}), _told(pages))

    return damage


def filled(percent: float, fill: Callable[[Dice], bytes]) -> Damage:
    """Pages with other contents."""

    def damage(dump: Damageable, dice: Dice) -> Damaged:
        pages = _some_pages(dump, dice, percent)
        data = bytearray(dump.data)
        for page in pages:
            size = min(PAGE, len(data) - page.offset)
            data[page.offset : page.offset + size] = fill(dice)[:size]
        return Damaged(bytes(data), _told(pages))

    return damage


def zeros(_: Dice) -> bytes:
    return bytes(PAGE)


def something(dice: Dice) -> bytes:
    """One byte over and over, or no order at all."""
    return dice.raw(PAGE) if dice.chance(0.3) else bytes([dice.pick(FILLS)]) * PAGE


def cut(dump: Damageable, dice: Dice) -> Damaged:
    """The file ends somewhere in its memory."""
    at = dice.between(min(offset for _, _, offset in dump.runs), len(dump.data))
    return Damaged(dump.data[:at], [f"0x{at:x} of 0x{len(dump.data):x} bytes"])


def cut_tail(dump: Damageable, dice: Dice) -> Damaged:
    """The end of the file is missing, as of a copy that stopped too soon."""
    missing = dice.pick((1, 100, 0x1000, 20_000, 0x10000))
    return Damaged(dump.data[:-missing], [f"{missing} bytes at the end"])


def overwritten(count: int) -> Damage:
    """16 bytes of a structure or a header are others."""

    def damage(dump: Damageable, dice: Dice) -> Damaged:
        data, told = bytearray(dump.data), []
        for _ in range(count):
            at = _structure(dump, dice) + dice.pick((0, 0, 0, -8, 8))
            at = max(0, min(at, len(data) - WORD))
            source = _structure(dump, dice)
            new = dice.pick(
                (
                    *(dice.raw(WORD), bytes(WORD), b"\xff" * WORD),
                    bytes(data[source : source + WORD]).ljust(WORD, b"\0"),
                )
            )
            told.append(f"0x{_address(dump, at):x}: {data[at : at + WORD].hex()} -> {new.hex()}")
            data[at : at + WORD] = new
        return Damaged(bytes(data), told)

    return damage


def _structure(dump: Damageable, dice: Dice) -> int:
    return dice.pick(dice.pick(dump.structures))


def _address(dump: Damageable, at: int) -> int:
    for address, size, offset in dump.runs:
        if offset <= at < offset + size:
            return address + at - offset
    return at


class Narrowed:
    """A dump of which only some pages get damaged."""

    def __init__(self, dump: Damageable, addresses: set[int]) -> None:
        self.data, self.runs, self.structures = dump.data, dump.runs, dump.structures
        self.pages = [page for page in dump.pages if page.address in addresses]
        self.without_pages = dump.without_pages


ONE = 0.0  # percent: one page

DAMAGES: dict[str, Damage] = {
    "none": none,
    "drop-one": dropped(ONE),
    "drop-1%": dropped(1),
    "drop-5%": dropped(5),
    "drop-20%": dropped(20),
    "cut": cut,
    "zero-one": filled(ONE, zeros),
    "zero-1%": filled(1, zeros),
    "zero-5%": filled(5, zeros),
    "fill-one": filled(ONE, something),
    "fill-1%": filled(1, something),
    "words-1": overwritten(1),
    "words-4": overwritten(4),
    "words-16": overwritten(16),
}
