"""MethodTables: the word every .NET object begins with, checked before anything is believed of it.

One layout from .NET Core 2.0 to 10 as far as sizes need (RuntimeTypeSystem.md of dotnet/runtime's data
contracts). What makes the check structural: the EEClass of a MethodTable points back to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U32, U64
from windumps.memory import AddressSpace

HAS_COMPONENTS = 0x80000000  # then the low 16 bits of the flags are the size of a component
_COMPONENT = 0xFFFF
# Free stretches: components of a byte, nothing more than an array's header, no parent and no class.
_FREE_FLAGS = 0x8000FFFF
_FREE = 0x80000001
_TAGS = np.uint64(3)  # of the EEClass word: it is the canonical MethodTable
_BACK = 2  # words into an EEClass stands its MethodTable
_CLASS = 3  # words behind the parent stands the EEClass
_HEAD = 0x10
MAX_REFUSED = 1 << 16  # words that are remembered to be none
MAX_BASE = 1 << 27  # of an instance without its components


def record_of(pointer_size: int) -> np.dtype[np.void]:
    """The head of a MethodTable."""
    word = f"<u{pointer_size}"
    names = ("flags", "base", "token", "virtuals", "interfaces")
    words = ("parent", "module", "auxiliary", "class", "element")
    formats = ["<u4", "<u4", "<u4", "<u2", "<u2", *([word] * len(words))]
    return np.dtype({"names": [*names, *words], "formats": formats})


@dataclass(frozen=True)
class Checked:
    """What a column of words are.

    Attributes:
        good: bool, it is a MethodTable.
        free: bool, it is the one of free stretches.
        flags: uint32.
        base: int64, bytes of an instance without components.
        canonical: uint64, the MethodTable that has the class; itself mostly.
    """

    good: NDArray[np.bool_]
    free: NDArray[np.bool_]
    flags: U32
    base: I64
    canonical: U64


class MethodTables:
    """All MethodTables met so far, numbered in the order of meeting.

    Args:
        memory: The process's memory.
        pointer_size: 4 or 8.
        release: Gives mapped pages back to the system; called now and then by all who go through much memory.

    Attributes:
        memory: As given.
        pointer_size: As given.
        release: As given.
        address: uint64, in order of meeting.
        flags: uint32.
        base: int64, bytes of an instance without components.
        component: int64, bytes of a component; 0 where there are none.
        free: bool, of free stretches.
    """

    def __init__(
        self,
        memory: AddressSpace,
        pointer_size: int,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.release = release
        self.memory = memory
        self.pointer_size = pointer_size
        self.address = np.empty(0, np.uint64)
        self.flags = np.empty(0, np.uint32)
        self.base = np.empty(0, np.int64)
        self.component = np.empty(0, np.int64)
        self.free = np.empty(0, np.bool_)
        self._sorted = np.full(
            1, (1 << 64) - 1, np.uint64
        )  # never asked for: it is no multiple of 4
        self._number = np.full(1, -1, np.int64)
        # What was looked at and is none: walks meet the same few values over and over.
        self._refused = np.empty(0, np.uint64)

    def index_of(self, words: U64) -> I64:
        """The number of the MethodTable each word names; -1 where it names none.

        Args:
            words: uint64, low bits taken off.
        """
        found = self.known(words)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            asked = words[missing]
            new = np.unique(asked[~np.isin(asked, self._refused)])
            if len(new) and self._meet(new):
                found[missing] = self.known(asked)
        return found

    def known(self, words: U64) -> I64:
        """As `index_of`, of those met before."""
        place = np.searchsorted(self._sorted, words)
        np.minimum(place, len(self._sorted) - 1, out=place)
        return np.where(self._sorted[place] == words, self._number[place], -1)

    def meet(self, words: U64) -> None:
        """Looks at words that may be MethodTables, each once."""
        self._meet(np.unique(words[self.known(words) < 0]))

    def check(self, words: U64) -> Checked:
        """What words are, by the memory they point to."""
        width = self.pointer_size
        head, there = self.memory.gather(words, record_of(width))
        flags, base = head["flags"], head["base"].astype(np.int64)
        own = head["class"].astype(np.uint64)
        tagged = (own & _TAGS) != 0
        canonical = np.where(tagged, own & ~_TAGS, words)
        where = canonical + np.uint64(_HEAD + _CLASS * width)
        owner, sound = self._words(where)
        back_at = owner + np.uint64(_BACK * width)
        back, led = self._words(back_at)
        # Native images of 2.0 and 2.1 hold it relative to the field.
        relative = (back + back_at) & np.uint64((1 << (8 * width)) - 1)
        good = (
            there & sound & led & (canonical != 0) & ((back == canonical) | (relative == canonical))
        )
        good &= (base >= 2 * width + 4) & (base < MAX_BASE) & (words % np.uint64(width) == 0)
        good &= ((flags & HAS_COMPONENTS) != 0) | (base % width == 0)
        bare = (head["parent"] == 0) & (own == 0) & (base == 3 * width)
        free = there & bare & ((flags & _FREE_FLAGS) == _FREE)
        return Checked(good | free, free, flags, base, canonical)

    def heads(self) -> NDArray[Any]:
        """The heads of all that were met, in order."""
        return self.memory.gather(self.address, record_of(self.pointer_size))[0]

    def _words(self, addresses: U64) -> tuple[U64, NDArray[np.bool_]]:
        values, there = self.memory.gather(addresses, f"<u{self.pointer_size}")
        return values.astype(np.uint64), there

    def _meet(self, words: U64) -> bool:
        """Takes in what is new among distinct words; whether there was any."""
        checked = self.check(words)
        self._refused = np.union1d(self._refused[-MAX_REFUSED:], words[~checked.good])
        if not checked.good.any():
            return False
        good = checked.good
        flags = checked.flags[good]
        size = np.where(flags & HAS_COMPONENTS, flags & _COMPONENT, 0).astype(np.int64)
        first = len(self.address)
        self.address = np.concatenate([self.address, words[good]])
        self.flags = np.concatenate([self.flags, flags])
        self.base = np.concatenate([self.base, checked.base[good]])
        self.component = np.concatenate([self.component, size])
        self.free = np.concatenate([self.free, checked.free[good]])
        at = np.searchsorted(self._sorted, words[good])
        self._sorted = np.insert(self._sorted, at, words[good])
        self._number = np.insert(self._number, at, np.arange(first, len(self.address)))
        return True
