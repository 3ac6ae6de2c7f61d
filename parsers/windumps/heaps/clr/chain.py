"""The chain of objects in a window of memory: each begins where the one before it ends.

Followed one by one it would be slow, so many lanes of the window are followed at once, each from a guess;
then the chain from the known first object goes through the lanes, and takes over what it meets. A guess that
it does not meet counts for nothing: what comes out is the chain as if it were followed one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.heaps.clr.method_tables import MethodTables

LANE = 1024  # words
GUESS = (64, 256)  # words at the beginning of a lane where an object may begin
AGREE = 64  # objects that a chain has to go on for, to be believed behind damage
NEAR = 256  # words behind damage where the chain may begin again
_COUNT = np.uint64(0xFFFFFFFF)


class Stop(NamedTuple):
    """Where a chain ended in a window.

    Attributes:
        position: In words; not less than the window's length where the chain goes on behind it.
        broken: There is no object at `position`.
    """

    position: int
    broken: bool


class Window:
    """The words of a stretch of memory, and what objects are in it.

    Args:
        tables: The MethodTables.
        address: Of the first word.
        words: All of them, and one behind them where there is one.
        count: How many; no object begins behind them.
        end: Where the segment's objects end, at most.
        align: Objects are multiples of so many bytes.
        jumps: Addresses where objects stop and go on elsewhere, with that address.
    """

    def __init__(
        self,
        tables: MethodTables,
        address: int,
        words: NDArray[np.unsignedinteger],
        count: int,
        end: int,
        align: int,
        jumps: Mapping[int, int],
    ) -> None:
        self._tables = tables
        self._address = address
        self._words = words
        self._count = count
        self._width = tables.pointer_size
        self._limit = (end - address) // self._width
        self._align = align
        self._jumps = jumps
        self._mask = np.uint64((1 << 64) - tables.pointer_size)
        self._visited = np.zeros(count, np.bool_)
        self._lanes = -(-count // LANE)
        self._exit = np.full(self._lanes, -1, np.int64)
        self._low = np.full(self._lanes, count, np.int64)  # the chain takes over from here
        self._extra: list[int] = []
        self._dropped: list[int] = []
        self._follow_guesses()

    def follow(self, position: int) -> Stop:
        """Takes the chain from a position on, to the window's end or where it breaks."""
        at = position
        while at < self._count:
            lane = at // LANE
            if self._visited[at] and self._low[lane] > at:
                self._low[lane] = at
                leaves = int(self._exit[lane])
                if leaves >= 0:
                    at = leaves
                    continue
                at = ~leaves  # where the lane broke
            following = self._step(at)
            if following is None:
                jump = self._jumps.get(self._address + at * self._width)
                if jump is None:
                    return Stop(at, True)
                at = (jump - self._address) // self._width
            else:
                self._extra.append(at)
                at = following
        return Stop(at, False)

    def again(self, position: int) -> int | None:
        """Where the chain surely goes on behind damage at a position; None where nothing tells.

        Of all places near by where an object may begin, one is where it does; where all that go on for
        long agree, they are right.
        """
        at = position + 1
        while at < self._count:
            end = min(at + LANE * 128, self._count)
            near = self._tables.known(self._values(np.arange(at, end))) >= 0
            places = np.flatnonzero(near) + at
            if not len(places):
                at = end
                continue
            first = int(places[0])
            found = self._common(places[places < first + NEAR])
            if found is not None:
                return found
            at = first + NEAR
        return None

    def drop_last(self, position: int) -> int:
        """Leaves out the object that ends where the chain breaks, since nothing confirms its size.

        Returns:
            Its bytes; 0 where there is none.
        """
        before = self.starts
        before = before[before < position][-1:]
        if not len(before):
            return 0
        size = int(self._sizes(before, self._numbers(before))[0])
        if int(before[0]) * self._width + size != position * self._width:
            return 0
        self._dropped.append(int(before[0]))
        return size

    @property
    def starts(self) -> I64:
        """Where the objects begin that the chain has met, ascending, in words."""
        met = np.flatnonzero(self._visited)
        met = met[met >= self._low[met // LANE]]
        if self._extra:
            met = np.concatenate([met, np.array(self._extra, np.int64)])
            met.sort()
        return met[~np.isin(met, self._dropped)] if self._dropped else met

    def objects(self, starts: I64) -> tuple[U64, I64, I64]:
        """(address, number of the MethodTable, bytes) of objects."""
        numbers = self._numbers(starts)
        address = np.uint64(self._address) + (starts * self._width).astype(np.uint64)
        return address, numbers, self._sizes(starts, numbers)

    def marked(self, starts: I64) -> int:
        """How many of them have marks of a collection in their first word."""
        return int(np.count_nonzero(self._words[starts] & self._words.dtype.type(self._width - 1)))

    def _values(self, positions: I64) -> U64:
        return self._words[positions].astype(np.uint64) & self._mask

    def _numbers(self, starts: I64) -> I64:
        return self._tables.index_of(self._values(starts))

    def _sizes(self, starts: I64, numbers: I64) -> I64:
        """Bytes of objects whose MethodTables are known."""
        counted = np.minimum(starts + 1, len(self._words) - 1)
        counts = (self._words[counted].astype(np.uint64) & _COUNT).astype(np.int64)
        size = self._tables.base[numbers] + self._tables.component[numbers] * counts
        return (size + (self._align - 1)) & -self._align

    def _step(self, at: int) -> int | None:
        """The position behind the object at a position; None when there is none."""
        here = np.array([at], np.int64)
        numbers = self._numbers(here)
        if numbers[0] < 0:
            return None
        following = at + int(self._sizes(here, numbers)[0]) // self._width
        whole = at + 1 < len(self._words) or not self._tables.component[numbers[0]]
        return following if following <= self._limit and whole else None

    def _steps(self, at: I64) -> tuple[I64, NDArray[np.bool_]]:
        """As `_step`, of many positions; what follows where there is an object, and where there is one."""
        numbers = self._numbers(at)
        following = at + self._sizes(at, numbers) // self._width
        good = (numbers >= 0) & (following <= self._limit)
        good &= (at + 1 < len(self._words)) | (self._tables.component[numbers] == 0)
        return following, good

    def _follow_guesses(self) -> None:
        """Follows the chain of each lane from where an object may begin in it."""
        lanes, at = self._guesses()
        ends = np.minimum((lanes + 1) * LANE, self._count)
        while len(at):
            following, good = self._steps(at)
            self._visited[at[good]] = True
            self._exit[lanes[~good]] = ~at[~good]
            over = good & (following >= ends)
            self._exit[lanes[over]] = following[over]
            on = good & ~over
            lanes, at, ends = lanes[on], following[on], ends[on]

    def _guesses(self) -> tuple[I64, I64]:
        """Lanes with the first position in each that names a MethodTable."""
        missing = np.arange(self._lanes)
        lanes, places = [], []
        for words in GUESS:
            rows = missing[missing * LANE + words <= self._count]
            inside = rows[:, None] * LANE + np.arange(words)
            values = self._values(inside)
            self._meet(values)
            hit = self._tables.known(values.ravel()).reshape(values.shape) >= 0
            found = hit.any(axis=1)
            lanes.append(rows[found])
            places.append(inside[found, hit[found].argmax(axis=1)])
            missing = np.setdiff1d(rows, rows[found])
        return np.concatenate(lanes), np.concatenate(places)

    def _meet(self, values: U64) -> None:
        """Looks at what words name that come several times: MethodTables do."""
        distinct, times = np.unique(values, return_counts=True)
        self._tables.meet(distinct[(times > 1) & (distinct > np.uint64(0xFFFF))])

    def _common(self, places: I64) -> int | None:
        """Where all chains from these places that go on for long have become one."""
        chains = np.arange(len(places))
        at, met = places, [(chains, places)]
        done = np.zeros(len(places), np.bool_)
        behind = int(places[-1])
        for step in range(NEAR):
            following, good = self._steps(at)
            chains, at = chains[good], following[good]
            done[chains[at >= self._count]] = True  # it left the window as it should
            on = at < self._count
            chains, at = chains[on], at[on]
            if not len(at):
                break
            met.append((chains, at))
            if step >= AGREE and int(at.min()) > behind:
                break
        done[chains] = True
        if not done.any():
            return None
        owner = np.concatenate([lane for lane, _ in met])
        position = np.concatenate([place for _, place in met])
        both, times = np.unique(position[done[owner]], return_counts=True)
        shared = both[times == np.count_nonzero(done)]
        return int(shared[0]) if len(shared) else None
