"""The back-end walk of one committed range: from header to header, a window of memory at a time.

In each window all possible headers are decoded at once; the chain then is a hop over a column of
sizes, which is the only sequential step. What the chain visited is checked as columns afterwards
(checksum, PreviousSize, end of range), so a damaged header is found even though the hop trusted it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U32
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import UNUSED_SENTINEL, Encoding, Entries, Mask

WINDOW_BYTES = 1 << 22
MAX_UNITS = 0xFFFF  # of one block
RESUME_TRIES = (
    4096  # candidates for the end of a damaged stretch that are checked in full, per window
)


class Window(NamedTuple):
    """All slots of a window that could be headers, decoded: slot i lies at start + i ×
    granularity.
    """

    start: int
    low: U32
    high: U32


@dataclass
class BackendWalker:
    """Walks [start, end), which the heap says is committed.

    Attributes:
        context: The process.
        encoding: The heap's.
        start: Address of the first header.
        end: Where the last block must end.
        lost_bytes: Bytes that were absent or damaged, once `pieces` has run.
        absent_bytes: Those of them that are not in the dump.
    """

    context: HeapContext
    encoding: Encoding
    start: int
    end: int
    lost_bytes: int = 0
    absent_bytes: int = 0
    _position: int = field(init=False)
    _previous: int | None = field(
        init=False, default=None
    )  # units of the last block, None after a gap
    _search_from: int | None = field(init=False, default=None)  # set while the chain is broken
    _run_start: int | None = field(init=False, default=None)  # of a run not yet vouched for
    _run: list[Entries] = field(init=False, default_factory=list)
    _damage: tuple[int, int] | None = field(init=False, default=None)  # where, lost before
    _checked: tuple[Window, Mask, Mask] | None = field(init=False, default=None)

    def pieces(self) -> Iterator[Entries]:
        """Decoded headers in address order, at most a window's worth at a time."""
        self._position = self.start
        granularity = self.context.granularity
        extents = self.context.memory.extents(self.start, self.end)
        for address, size in zip(extents.address.tolist(), extents.size.tolist(), strict=True):
            first = -(-(address - self.start) // granularity) * granularity + self.start
            stop = address + size
            for low in range(first, stop, WINDOW_BYTES):
                high = min(low + WINDOW_BYTES, stop)
                if high - low < granularity or self._position >= high:
                    continue
                if self._position < low:
                    self._absent(low)
                yield from self._window_pieces(self._decode(low, high))
        if self._position < self.end:
            self._absent(self.end)
        yield from self._vouched()
        self._say_damage()

    def _say_damage(self) -> None:
        """Says of the last damaged header how much it cost, once that is known."""
        if self._damage is not None:
            address, lost_before = self._damage
            self._say(
                "heap-header-damaged",
                address,
                "this block's header does not check out; the walk goes on behind it",
                self.lost_bytes - lost_before,
            )
        self._damage = None

    def _vouched(self) -> Iterator[Entries]:
        """The run behind damage, once it is known to be one of blocks."""
        yield from self._run
        self._run, self._run_start = [], None

    def _absent(self, until: int) -> None:
        """The chain leads into memory that is not there."""
        lost = until - self._position
        self.lost_bytes += lost
        self.absent_bytes += lost
        if self._search_from is None:
            self._say(
                "heap-memory-absent",
                self._position,
                "the next block lies in memory that is not in the dump",
                lost,
            )
        self._position = self._search_from = until
        self._previous = None

    def _decode(self, low: int, high: int) -> Window:
        granularity = self.context.granularity
        usable = (high - low) // granularity * granularity
        raw = self.context.memory.view(low, usable)
        words = raw.view("<u4").reshape(-1, granularity // 4)
        stored_low, stored_high = words[:, -2], words[:, -1]
        return Window(
            low,
            self.encoding.decode_low(stored_low),
            self.encoding.decode_high(stored_low, stored_high),
        )

    def _window_pieces(self, window: Window) -> Iterator[Entries]:
        granularity = self.context.granularity
        window_end = window.start + len(window.low) * granularity
        while self._position < window_end:
            if self._search_from is not None and not self._resume(window, window_end):
                return
            slots = hop(window.low, (self._position - window.start) // granularity)
            sound = self._sound(window, slots)
            sound -= self._is_denied(window, slots, sound)
            accepted = slots[:sound]
            if sound:
                units = window.low[accepted] & np.uint32(0xFFFF)
                piece = Entries(
                    np.uint64(window.start) + (accepted * granularity).astype(np.uint64),
                    units,
                    (window.low[accepted] >> 16).astype(np.uint8),
                    (window.high[accepted] >> 24).astype(np.uint8),
                )
                self._previous = int(units[-1])
                self._position = window.start + (int(accepted[-1]) + self._previous) * granularity
                if self._run_start is not None:
                    self._run.append(piece)
                    if self._position - self._run_start > MAX_UNITS * granularity:
                        yield from self._vouched()
                else:
                    yield piece
            if sound < len(slots) or (not len(slots) and self._position < window_end):
                if self._is_left_over(window):
                    continue
                yield from self._vouched()
                self._damage = self._position, self.lost_bytes
                self._search_from = self._position + granularity

    def _is_denied(self, window: Window, slots: I64, sound: int) -> bool:
        """True when the last block before damage has another size than its header says.

        Then that header is the damage, though it checks out: it is one of another block, say. The
        block behind the damage names it as its predecessor, at the distance of its true size.
        """
        if not sound:
            return False
        last = int(slots[sound - 1])
        behind = last + (int(window.low[last]) & 0xFFFF)
        if behind >= len(window.low) or (sound == len(slots) and int(window.low[behind]) & 0xFFFF):
            return False
        linked, ends = self._plausible(window)
        after = np.flatnonzero((linked | ends)[behind:]) + behind
        return bool((after - (window.high[after] & 0xFFFF).astype(np.int64) == last).any())

    def _is_left_over(self, window: Window) -> bool:
        """True when the run behind damage was one of headers left over inside a block, whose own
        header the damage took: the block behind it names one from before the run as its predecessor.
        Then the walk goes on there, and the run is lost.
        """
        granularity = self.context.granularity
        slot = (self._position - window.start) // granularity
        if self._run_start is None or not 0 <= slot < len(window.low):
            return False
        linked, last = self._plausible(window)
        before = self._position - (int(window.high[slot]) & 0xFFFF) * granularity
        if not (linked[slot] or last[slot]) or before >= self._run_start:
            return False
        lost = self._position - self._run_start
        self._say(
            "heap-header-damaged",
            self._run_start,
            "the headers behind the damage are left over inside a block whose own header it took",
            lost,
        )
        self.lost_bytes += lost
        self._run, self._run_start, self._previous = [], None, None
        return True

    def _sound(self, window: Window, slots: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
        """How many of the visited headers, from the first on, check out."""
        if not len(slots):
            return 0
        low, previous = window.low[slots], window.high[slots] & np.uint32(0xFFFF)
        ok = self.encoding.checks_out(low)
        ok[1:] &= previous[1:] == (low[:-1] & np.uint32(0xFFFF))
        if self._previous is not None:
            ok[0] &= int(previous[0]) == self._previous
        room = (self.end - window.start) // self.context.granularity - slots
        ok &= (low & np.uint32(0xFFFF)).astype(np.int64) <= room
        return len(slots) if ok.all() else int(np.argmin(ok))

    def _resume(self, window: Window, window_end: int) -> bool:
        """Finds where the chain can be taken up again behind damage; False when not in this window.

        The header that names the damaged block as its predecessor is the one. Without it, accepted is a
        header whose next links hold (checksum, and PreviousSize equal to the size before), or the
        range's sentinel. One link is a chance of 2**-32 for random bytes, and of 2**-16 where headers
        have no checksum.
        """
        granularity = self.context.granularity
        search_from = self._search_from if self._search_from is not None else self._position
        damaged = (self._position - window.start) // granularity
        linked, last = self._plausible(window)
        candidates = linked | last
        candidates[: max((search_from - window.start) // granularity, 0)] = False
        slots = np.flatnonzero(candidates)
        leading_back = slots[slots - (window.high[slots] & 0xFFFF).astype(np.int64) == damaged]
        slot = int(leading_back[0]) if len(leading_back) else -1
        for candidate in slots[:RESUME_TRIES].tolist() if slot < 0 else []:
            ends = last[candidate] and int(window.high[candidate]) >> 24 == UNUSED_SENTINEL
            if ends or self._chain_holds(window, linked, candidate):
                slot = candidate
                break
        if slot >= 0:
            self._lose(window.start + slot * granularity)
            self._search_from = None
            self._previous = None
            self._run_start = self._position
            self._say_damage()
            return True
        self._lose(window_end)
        self._search_from = window_end
        return False

    def _plausible(self, window: Window) -> tuple[Mask, Mask]:
        """Slots whose successor in this window points back to them, and slots that end the
        range; worked out once a window, however many headers in it are damaged.
        """
        if self._checked is not None and self._checked[0] is window:
            return self._checked[1].copy(), self._checked[2]
        units = (window.low & np.uint32(0xFFFF)).astype(np.int64)
        ok = self.encoding.checks_out(window.low)
        following = np.arange(len(units)) + units
        inside = ok & (following < len(units))
        linked = np.zeros(len(units), bool)
        target = following[inside]
        linked[inside] = ok[target] & ((window.high[target] & np.uint32(0xFFFF)) == units[inside])
        last = ok & (window.start + following * self.context.granularity == self.end)
        self._checked = window, linked, last
        return linked.copy(), last

    def _chain_holds(self, window: Window, linked: Mask, slot: int) -> bool:
        """True when enough links in a row hold from `slot` on, or all up to the window's end."""
        for _ in range(2 if self.encoding.mask else 4):
            if not linked[slot]:
                return False
            slot += int(window.low[slot]) & 0xFFFF
            if slot + (int(window.low[slot]) & 0xFFFF) >= len(linked):
                return True
        return True

    def _lose(self, until: int) -> None:
        self.lost_bytes += until - self._position
        self._position = until

    def _say(self, code: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, "_HEAP_ENTRY", address, message, lost)


def hop(low: U32, first: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Slots the chain visits from `first` to the end of the window, or to a size of zero."""
    sizes = (low & np.uint32(0xFFFF)).astype(np.uint16).data
    count = len(sizes)
    visited: list[int] = []
    append = visited.append
    slot = first
    while slot < count:
        size = sizes[slot]
        if not size:
            break
        append(slot)
        slot += size
    return np.array(visited, np.int64)
