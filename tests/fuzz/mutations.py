"""Mutations that know structures: pointers, sizes, neighbours, and where in a file they lie."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.dice import Dice
from fuzz.seeds import PAGE, Seed
from fuzz.text_mutations import mutated_text

# Limits of integer types and of memory, and values that heaps and debuggers leave.
NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 0xF, 0x10, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, PAGE, PAGE + 1),
    *(0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF, 1 << 32),
    *((1 << 47) - 1, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - PAGE, (1 << 64) - 2),
    *((1 << 64) - 1, 0xCCDDCCDD, 0xFFEEFFEE, 0xEEFFEEFF, 0xABABABAB, 0xFEEEFEEE, 0xF0E0D0C0),
)
STEPS = (1, -1, 2, -2, 8, -8, 0x10, 0x100, PAGE, 0x10000)
STRUCTURE_SIZES = (4, 8, 0x10, 0x20, 0x28, 0x40, 0x100, PAGE)
FILLS = (0, 0xFF, 0xAA, 1)
HOW_MANY = (1, 1, 1, 2, 2, 3, 4, 8, 16)
TEXT_SHARE = 0.8


class Change:
    """A copy of a seed's bytes while it is mutated."""

    def __init__(self, seed: Seed, dice: Dice) -> None:
        self.seed, self.dice = seed, dice
        self.data = bytearray(seed.data)
        self.length = len(self.data)

    def put(self, offset: int, raw: bytes) -> None:
        """Overwrites; what would go beyond the end is left out."""
        offset = max(0, min(offset, len(self.data) - 1))
        raw = raw[: len(self.data) - offset]
        self.data[offset : offset + len(raw)] = raw

    def put_number(self, offset: int, value: int, size: int) -> None:
        self.put(offset, (value % (1 << 8 * size)).to_bytes(size, "little"))

    def number_at(self, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size], "little")

    def place(self) -> int:
        """Where to mutate: most often in a structure."""
        seed, dice = self.seed, self.dice
        last = len(self.data) - 1
        if seed.places and dice.chance(0.55):
            near = dice.pick((0, 0, 0, 4, 8, 2, 1, 0x10, -8, -4, dice.below(64)))
            return max(0, min(dice.pick(dice.pick(seed.places)) + near, last))
        if seed.pointers and dice.chance(0.4):
            return dice.pick(seed.pointers)
        if dice.chance(0.9):
            return min(dice.pick(dice.pick(seed.pages)) + dice.pick((0, 0, 4, 1, 6)), last)
        return dice.below(last + 1)

    def some_pointer(self) -> int:
        """An address that stands elsewhere, or any address in memory, or near one."""
        seed, dice = self.seed, self.dice
        if seed.pointers and dice.chance(0.5):
            value = self.number_at(dice.pick(seed.pointers), seed.pointer_size)
        elif seed.runs:
            address, size, _ = dice.pick(seed.runs)
            value = address + dice.below(max(size, 1))
        else:
            value = dice.below(len(self.data))
        return value + dice.pick((0, 0, 0, 1, 4, 8, -8, 0x10, PAGE))


def flip_bit(change: Change) -> None:
    at = change.place()
    change.data[at] ^= 1 << change.dice.below(8)


def other_byte(change: Change) -> None:
    change.data[change.place()] = change.dice.below(256)


def known_number(change: Change) -> None:
    dice, at = change.dice, change.place()
    size = dice.pick((1, 2, 4, 4, 8, 8))
    aligned = at - at % size if dice.chance(0.8) else at
    change.put_number(aligned, dice.pick(NUMBERS), size)


def near_number(change: Change) -> None:
    dice, at = change.dice, change.place()
    size = dice.pick((1, 2, 4, 8))
    at -= at % size
    change.put_number(at, change.number_at(at, size) + dice.pick(STEPS), size)


def length_of_file(change: Change) -> None:
    dice, at = change.dice, change.place()
    change.put_number(at - at % 4, len(change.data) + dice.pick((-1, 0, 1, 8)), dice.pick((4, 8)))


def self_pointer(change: Change) -> None:
    size, at = change.seed.pointer_size, change.place()
    at -= at % size
    near = change.dice.pick((0, 0, -size, size, 1))
    change.put_number(at, change.seed.address_of(at) + near, size)


def other_pointer(change: Change) -> None:
    """To another structure, back into a chain, misaligned, out of memory."""
    size, at = change.seed.pointer_size, change.place()
    change.put_number(at - at % size, change.some_pointer(), size)


def swapped(change: Change) -> None:
    size, one, two = change.dice.pick(STRUCTURE_SIZES), change.place(), change.place()
    first, second = (bytes(change.data[at : at + size]) for at in (one, two))
    change.put(one, second)
    change.put(two, first)


def repeated(change: Change) -> None:
    size, at, source = change.dice.pick(STRUCTURE_SIZES), change.place(), change.place()
    change.put(at, bytes(change.data[source : source + size]))


def filled(change: Change) -> None:
    size = change.dice.pick((4, 8, 0x10, 0x40, 0x200, PAGE))
    change.put(change.place(), bytes([change.dice.pick(FILLS)]) * size)


def random_bytes(change: Change) -> None:
    change.put(change.place(), change.dice.raw(change.dice.pick((4, 8, 0x10, 0x40, 0x200))))


def cut(change: Change) -> None:
    dice, size = change.dice, len(change.data)
    ends = (change.place(), dice.below(size), max(size - dice.between(1, 2 * PAGE), 0))
    change.length = min(change.length, dice.pick(ends))


OPERATIONS: tuple[tuple[int, Callable[[Change], None]], ...] = (
    (12, flip_bit),
    (6, other_byte),
    (18, known_number),
    (7, near_number),
    (2, length_of_file),
    (8, self_pointer),
    (17, other_pointer),
    (8, swapped),
    (10, repeated),
    (5, filled),
    (4, random_bytes),
    (3, cut),
)


def mutated(seed: Seed, dice: Dice) -> bytes:
    """The seed's bytes with one to sixteen mutations."""
    if seed.is_text and dice.chance(TEXT_SHARE):
        return mutated_text(seed.data, dice)
    change = Change(seed, dice)
    for _ in range(dice.pick(HOW_MANY)):
        dice.weighted(OPERATIONS)(change)
    return bytes(change.data[: change.length])
