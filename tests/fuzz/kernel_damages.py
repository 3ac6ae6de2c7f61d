"""What happens to the pools of kernel dumps besides `DAMAGES`: damage to single kinds of tables."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Protocol

from fuzz.damages import (
    DAMAGES,
    ONE,
    Damage,
    Damageable,
    Damaged,
    Narrowed,
    dropped,
    filled,
    overwritten,
    something,
    zeros,
)
from fuzz.dice import Dice
from fuzz.kernel_frames import without_frames
from fuzz.seeds import PAGE

POOL, TRACKERS, LARGE, TABLES = "pool", "trackers", "large", "tables"


class PoolDamageable(Damageable, Protocol):
    """What a damage needs to know of a kernel dump.

    Attributes:
        places: Kind of place → addresses of its pages.
        rows: Offsets of the rows of tracker tables that are in use.
        row_bytes: Of each.
    """

    places: dict[str, set[int]]
    rows: list[int]
    row_bytes: int


PoolDamage = Callable[[PoolDamageable, Dice], Damaged]


def at(place: str, how: Damage) -> PoolDamage:
    """The damage in pages of one kind alone; none where the dump has no such pages."""

    def damage(dump: PoolDamageable, dice: Dice) -> Damaged:
        narrowed = Narrowed(dump, dump.places[place])
        return how(narrowed, dice) if narrowed.pages else Damaged(dump.data, [])

    return damage


def tracker_rows(count: int) -> PoolDamage:
    """Rows of tracker tables are others: noise, one field of it, nothing, or another row."""

    def damage(dump: PoolDamageable, dice: Dice) -> Damaged:
        data, told = bytearray(dump.data), []
        for row in dice.sample(dump.rows, count) if dump.rows else []:
            old = bytes(data[row : row + dump.row_bytes])
            new = dice.pick((_noise, _field, _field, _nothing, _another))(dump, dice, old)
            told.append(f"row at 0x{row:x}: {old.hex()} -> {new.hex()}")
            data[row : row + dump.row_bytes] = new
        return Damaged(bytes(data), told)

    return damage


def _noise(_: PoolDamageable, dice: Dice, old: bytes) -> bytes:
    return dice.raw(len(old))


def _nothing(_: PoolDamageable, __: Dice, old: bytes) -> bytes:
    return bytes(len(old))


def _another(dump: PoolDamageable, dice: Dice, old: bytes) -> bytes:
    row = dice.pick(dump.rows)
    return dump.data[row : row + len(old)]


def _field(_: PoolDamageable, dice: Dice, old: bytes) -> bytes:
    """One counter, or half of one, is another: by chance, too large, or a few off."""
    place = dice.below(len(old) // 4) * 4
    (value,) = struct.unpack_from("<I", old, place)
    new = dice.pick((dice.below(1 << 32), 0, 0xFFFFFFFF, value + 1000, value ^ 1 << dice.below(32)))
    return old[:place] + struct.pack("<I", new & 0xFFFFFFFF) + old[place + 4 :]


class _Changed:
    """A dump some of whose bytes are others already, for more damage."""

    def __init__(self, dump: PoolDamageable, data: bytes) -> None:
        self.data = data
        self.runs, self.pages, self.structures = dump.runs, dump.pages, dump.structures
        self.places, self.rows, self.row_bytes = dump.places, dump.rows, dump.row_bytes

    def without_pages(self, addresses: set[int]) -> bytes:
        return without_frames(self.data, {address // PAGE for address in addresses})


def blind(how: PoolDamage) -> PoolDamage:
    """More damage where no counter is left that could tell: all tracker tables are zeros or noise."""

    def damage(dump: PoolDamageable, dice: Dice) -> Damaged:
        lost = at(TRACKERS, filled(100, dice.pick((zeros, something))))(dump, dice)
        changed = _Changed(dump, lost.data)
        data, told = how(changed, dice)
        return Damaged(data, [f"trackers: {' '.join(lost.told)}", *told])

    return damage


_PAGES: dict[str, Damage] = {
    "drop": dropped(ONE),
    "zero": filled(ONE, zeros),
    "fill": filled(ONE, something),
}

POOL_DAMAGES: dict[str, Callable[[Any, Dice], Damaged]] = {
    **DAMAGES,
    **{
        f"{place}-{name}": at(place, how)
        for place in (TRACKERS, LARGE, TABLES)
        for name, how in _PAGES.items()
    },
    "trackers-drop-20%": at(TRACKERS, dropped(20)),
    "trackers-zero-20%": at(TRACKERS, filled(20, zeros)),
    "pool-zero-20%": at(POOL, filled(20, zeros)),
    **{
        f"blind-{place}-{name}": blind(at(place, how))
        for place in (POOL, LARGE, TABLES)
        for name, how in _PAGES.items()
    },
    "blind": blind(lambda dump, _: Damaged(dump.data, [])),
    "blind-words": blind(overwritten(4)),
    "rows-1": tracker_rows(1),
    "rows-4": tracker_rows(4),
    "rows-16": tracker_rows(16),
}
