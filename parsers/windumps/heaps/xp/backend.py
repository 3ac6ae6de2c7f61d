"""The back-end walk of Windows XP and 2003: headers in the clear, without a checksum.

A header vouches for nothing by itself. What checks it is its neighbourhood: the next header's PreviousSize
must be its Size, its SegmentIndex must be its segment's, and the last block must end where the range ends.
So when a link fails, either of two headers may be the damaged one, and the last block before the break is
held back until that is settled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from windumps.heaps.nt.backend import RESUME_TRIES, BackendWalker, Window, hop
from windumps.heaps.nt.entries import Encoding, Entries, Mask
from windumps.heaps.xp.entries import SIZE, rearranged

PLAIN = Encoding(0, 0, 0)


@dataclass
class XpBackendWalker(BackendWalker):
    """Walks a committed range; see `BackendWalker`.

    Attributes:
        segment_index: What every header's SegmentIndex must be.
    """

    segment_index: int = 0
    _held: Entries | None = field(init=False, default=None)  # not yet vouched for by a successor
    _broken: tuple[int, int] | None = field(init=False, default=None)  # where, lost bytes before
    _hole: bool = field(init=False, default=False)  # the chain led into absent memory

    def pieces(self) -> Iterator[Entries]:
        """See `BackendWalker.pieces`."""
        yield from super().pieces()
        self._settle()
        yield from self._release()

    def _release(self) -> Iterator[Entries]:
        if self._held is not None:
            yield self._held
        self._held = None

    def _absent(self, until: int) -> None:
        super()._absent(until)
        self._hole = True

    def _decode(self, low: int, high: int) -> Window:
        granularity = self.context.granularity
        usable = (high - low) // granularity * granularity
        words = self.context.memory.view(low, usable).view("<u4").reshape(-1, granularity // 4)
        decoded_low, decoded_high = rearranged(words[:, -2], words[:, -1])
        # Size 0 is no header: so one of another segment is none either.
        ours = ((decoded_high >> 16) & np.uint32(0xFF)) == np.uint32(self.segment_index)
        return Window(low, np.where(ours, decoded_low, np.uint32(0)), decoded_high)

    def _window_pieces(self, window: Window) -> Iterator[Entries]:
        granularity = self.context.granularity
        window_end = window.start + len(window.low) * granularity
        while self._position < window_end:
            if self._search_from is not None:
                found = self._resume(window, window_end)
                yield from self._release()
                if not found:
                    return
            slots = hop(window.low, (self._position - window.start) // granularity)
            sound = self._sound(window, slots)
            if sound:
                yield from self._release()
                last = self._entries(window, slots[sound - 1 : sound])
                self._held = last
                self._previous = int(last.units[0])
                self._position = int(last.header[0]) + self._previous * granularity
                yield self._entries(window, slots[: sound - 1])
            if sound < len(slots) or (not len(slots) and self._position < window_end):
                self._break()

    def _entries(
        self, window: Window, slots: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> Entries:
        return Entries(
            np.uint64(window.start) + (slots * self.context.granularity).astype(np.uint64),
            window.low[slots] & SIZE,
            (window.low[slots] >> 16).astype(np.uint8),
            (window.high[slots] >> 24).astype(np.uint8),
        )

    # -- behind a broken link

    def _resume(self, window: Window, window_end: int) -> bool:
        """Settles which header is damaged and where the walk goes on; False when not in this window."""
        slot = None if self._hole else self._linked_back(window)
        if slot is None:
            linked, _ = self._plausible(window)
            linked[: max(self._position - window.start, 0) // self.context.granularity] = False
            candidates = np.flatnonzero(linked)[:RESUME_TRIES].tolist()
            slot = next((c for c in candidates if self._chain_holds(window, linked, c)), None)
        if slot is None:
            self._lose(window_end)
            self._search_from = window_end
            self._hole = True  # what is searched for now is no successor of a known block
            return False
        self._lose(window.start + slot * self.context.granularity)
        self._settle()
        self._search_from = self._previous = None
        self._hole = False
        return True

    def _linked_back(self, window: Window) -> int | None:
        """The slot behind the damage that names one of the two headers in question as the one before it.

        Let d be the place where the link failed and h the block held back, whose Size led there:

        - d is sound and names a block between the two as the one before it: h's Size is wrong;
        - a header behind d names d, or what is left of d fits h or the rest of the range: d is damaged;
        - else, when another header names h, h's Size is wrong.
        """
        units = (window.low & SIZE).astype(np.int64)
        before = np.arange(len(units)) - (window.high & SIZE).astype(np.int64)
        linked, last = self._plausible(window)
        sound = linked | last
        d = (self._position - window.start) // self.context.granularity
        behind = _first(sound & (before == d), d + 1, len(units))
        if self._held is None:
            return behind
        h = (int(self._held.header[0]) - window.start) // self.context.granularity
        names_h = sound & (before == h)
        names_h[d : d + 1] = False
        true_next = _first(names_h, h + 1, len(units))
        if d >= len(units):
            return behind
        inner = int(before[d])
        names_inner = bool(sound[d]) and max(h, -1) < inner < d and inner + int(units[inner]) == d
        fits = bool(sound[d]) or d - inner == int(self._held.units[0])
        if names_inner or (behind is None and not fits and true_next is not None):
            self._held = None
            self._position = window.start + h * self.context.granularity
            if self._broken is not None:
                self._broken = (self._position, self._broken[1])
            return inner if true_next is None else true_next
        return behind

    def _break(self) -> None:
        self._search_from = self._position
        self._broken = (self._position, self.lost_bytes)

    def _settle(self) -> None:
        if self._broken is not None:
            address, lost_before = self._broken
            self._say(
                "heap-header-damaged",
                address,
                "this block's header does not fit its neighbours; the walk goes on behind it",
                self.lost_bytes - lost_before,
            )
        self._broken = None


def _first(mask: Mask, start: int, end: int) -> int | None:
    """Index of the first True in [start, end)."""
    start = max(start, 0)
    hits = np.flatnonzero(mask[start : max(end, start)])
    return start + int(hits[0]) if len(hits) else None
