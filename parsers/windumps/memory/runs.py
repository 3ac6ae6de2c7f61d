"""Memory given as ranges of a file: sorted runs in numpy, looked up with `searchsorted`.

Why runs and not a dict of pages: a dump of many gigabytes has few contiguous ranges, and a
vectorised look-up of a million addresses takes milliseconds.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import ADDRESS_LIMIT, I64, U8, U64
from windumps.memory.address_space import AddressSpace, Extents, Presence
from windumps.memory.mapped import AROUND
from windumps.memory.regions import Regions


class RunMemory(AddressSpace):
    """An address space whose ranges lie in the file as they are.

    Args:
        data: The file's bytes.
        address: uint64 starts; any order.
        size: int64 bytes of each range; zero-sized ones are dropped.
        offset: int64 file offsets; ranges must lie inside `data` and end at or below 2**64.
        regions: What the process had mapped, where the dump says so.

    Where ranges overlap, the one that starts lower counts, and of two that start together the one
    that comes first in the arguments; `overlapping_bytes` tells how many bytes of the others are
    not used.
    """

    def __init__(
        self, data: U8, address: U64, size: I64, offset: I64, regions: Regions | None = None
    ) -> None:
        self.data = data
        self.regions = regions if regions is not None else Regions.empty()
        starts, sizes, offsets, self.overlapping_bytes = _sorted_runs(address, size, offset)
        self._starts = starts
        self._sizes = sizes
        self._offsets = offsets
        # Run 0 is empty and stands for "below all runs", so that a look-up needs no special case.
        self._base = np.concatenate((np.zeros(1, np.uint64), starts))
        self._room = np.concatenate((np.zeros(1, np.uint64), sizes.astype(np.uint64)))
        self._file_offset = np.concatenate((np.zeros(1, np.int64), offsets))

    @property
    def runs(self) -> Extents:
        """All ranges, ascending and merged."""
        return Extents(self._starts, self._sizes, self._offsets)

    @property
    def total_bytes(self) -> int:
        """Bytes of memory in the file."""
        return int(self._sizes.sum())

    def extents(self, start: int, end: int) -> Extents:
        """See `AddressSpace.extents`."""
        start, end = max(start, 0), min(end, ADDRESS_LIMIT)
        if end <= start:
            return Extents(self._starts[:0], self._sizes[:0], self._offsets[:0])
        first = int(self._starts.searchsorted(np.uint64(start), "right"))
        first = max(first - 1, 0)
        last = int(self._starts.searchsorted(np.uint64(end - 1), "right"))
        if last - first == 1:
            return self._of_one(first, start, end)
        low = self._starts[first:last].copy()
        size = self._sizes[first:last].copy()
        offset = self._offsets[first:last].copy()
        if len(low) and int(low[0]) < start:
            cut = min(start - int(low[0]), int(size[0]))
            low[0] += np.uint64(cut)
            size[0] -= cut
            offset[0] += cut
        if len(low):
            size[-1] = max(min(int(size[-1]), end - int(low[-1])), 0)
        keep = size > 0
        return Extents(low[keep], size[keep], offset[keep])

    def _of_one(self, run: int, start: int, end: int) -> Extents:
        """The piece of [start, end) in one run: most are, and need no columns cut."""
        low = int(self._starts[run])
        begin = max(start, low)
        size = min(end, low + int(self._sizes[run])) - begin
        if size <= 0:
            return Extents(self._starts[:0], self._sizes[:0], self._offsets[:0])
        offset = int(self._offsets[run]) + begin - low
        return Extents(
            np.array([begin], np.uint64), np.array([size], np.int64), np.array([offset], np.int64)
        )

    def view(self, address: int, size: int) -> U8:
        """See `AddressSpace.view`; most reads lie in one range, and are found without columns."""
        if size > 0 and 0 <= address < ADDRESS_LIMIT:
            index = int(self._starts.searchsorted(np.uint64(address), "right")) - 1
            into = address - int(self._starts[index]) if index >= 0 else -1
            if 0 <= into <= int(self._sizes[index]) - size:
                offset = int(self._offsets[index]) + into
                self._note(size + AROUND)
                return self.data[offset : offset + size]
        return super().view(address, size)

    def locate(self, addresses: U64, size: int) -> I64:
        """See `AddressSpace.locate`."""
        index = self._starts.searchsorted(addresses, "right")
        # An address below its run's start cannot be: run 0 starts at 0. So nothing wraps here.
        into = addresses - self._base[index]
        # The value fits when into + size <= room, written so that it cannot overflow.
        behind = np.minimum(np.uint64(max(size, 1) - 1), self._room)
        absent = into >= (self._room - behind)[index]
        offsets = into.view(np.int64)
        offsets += self._file_offset[index]
        offsets[absent] = -1
        return offsets

    def presence(self, address: int) -> Presence:
        """See `AddressSpace.presence`."""
        if not 0 <= address < ADDRESS_LIMIT:
            return Presence.NOT_MAPPED
        if self.locate(np.array([address], np.uint64), 1)[0] >= 0:
            return Presence.PRESENT
        return Presence.NOT_MAPPED if self.regions.is_unmapped(address) else Presence.ABSENT


def _sorted_runs(address: U64, size: I64, offset: I64) -> tuple[U64, I64, I64, int]:
    """Sorts ranges, drops empty ones, cuts overlaps, merges what is contiguous in the file."""
    keep = size > 0
    starts, sizes, offsets = address[keep], size[keep], offset[keep]
    order = np.argsort(starts, kind="stable")
    starts, sizes, offsets = starts[order], sizes[order], offsets[order]
    overlap = 0
    if len(starts) > 1:
        # Cut what an earlier run covers already. Last bytes, not ends: an end may be 2**64.
        last = starts + (sizes - 1).astype(np.uint64)
        covered = np.maximum.accumulate(last)[:-1]
        behind = np.where(covered >= starts[1:], covered - starts[1:] + np.uint64(1), np.uint64(0))
        cut = np.minimum(behind, sizes[1:].astype(np.uint64)).astype(np.int64)
        overlap = int(cut.sum())
        starts[1:] += cut.astype(np.uint64)
        sizes[1:] -= cut
        offsets[1:] += cut
        keep = sizes > 0
        starts, sizes, offsets = starts[keep], sizes[keep], offsets[keep]
        new = np.ones(len(starts), bool)
        new[1:] = (starts[1:] != starts[:-1] + sizes[:-1].astype(np.uint64)) | (
            offsets[1:] != offsets[:-1] + sizes[:-1]
        )
        first = np.flatnonzero(new)
        if len(first):
            sizes = np.add.reduceat(sizes, first)
        starts, offsets = starts[first], offsets[first]
    return starts, sizes, offsets, overlap
