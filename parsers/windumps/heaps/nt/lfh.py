"""The NT heap's low-fragmentation front end: blocks inside `_HEAP_USERDATA_HEADER` areas.

All areas that a piece of the back-end walk finds are decoded together: block addresses, headers
and states of thousands of areas are single numpy columns.

What an area says is held against itself: the busy bitmap against each header's UnusedBytes, the
header's index against its place, the subsegment's count of free blocks against both. A block of
which they differ is of unknown state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.heaps.nt.entries import UNUSED_LFH, Mask, user_extents
from windumps.heaps.nt.lfh_areas import HEADER, SUBSEGMENT, AreaReader, Areas


class AreaBlocks(NamedTuple):
    """What areas hold.

    Attributes:
        blocks: The blocks.
        lost: Bytes of areas and blocks that could not be read, or whose state is unknown.
        doubtful: Bytes of blocks whose state may be another, by the subsegments' counts of free
            blocks; which ones is not known.
    """

    blocks: Blocks
    lost: int
    doubtful: int


NOTHING = AreaBlocks(Blocks.empty(), 0, 0)


@dataclass
class LfhReader(AreaReader):
    """Decodes areas of one heap; see `AreaReader`."""

    _own: list[tuple[U64, I64]] = field(init=False, default_factory=list)
    _damaged: list[Areas] = field(init=False, default_factory=list)

    def sort_out(self, user: U64, room: I64) -> AreaBlocks:
        """Blocks of those of the heap's own back-end blocks that are areas.

        The others, and areas that contradict their subsegments, are kept for `left_over`.

        Args:
            user: uint64, where the contents of the heap's own blocks begin.
            room: int64, their sizes without the header.
        """
        found = self.is_area(user)
        self._own.append((user[~found], room[~found]))
        areas, ok = self.describe(user[found], room[found], self.subsegments_of(user[found]))
        self._damaged.append(areas.take(~ok))
        return self.read(areas.take(ok))

    def left_over(self) -> AreaBlocks:
        """Blocks of damaged areas, by the subsegments in use that name them.

        An area without its signature is a block of the heap's own like any other, but for the
        subsegment that points to it; one that names a wrong subsegment, likewise. Where that is
        damaged, too, the headers of its blocks tell what is lost.
        """
        if not self._own and not self._damaged:
            return NOTHING
        damaged = _joined([(areas.address, areas.room) for areas in self._damaged])
        own = _joined(self._own)
        user, room = _joined([damaged, own])
        places = self.zone_places(*own)
        named = self.zone_subsegments(places)
        subsegment = np.array([named.get(area, 0) for area in user.tolist()], np.uint64)
        areas, ok = self.describe(user, room, subsegment, damaged=True)
        given_up = ~ok[: len(damaged[0])]
        self.say_unreadable(damaged[0][given_up], damaged[1][given_up])
        recovered = areas.take(ok)
        for address in recovered.address.tolist():
            self._say(
                "lfh-area-recovered",
                HEADER,
                address,
                "the header of this LFH area is damaged; its blocks were found by its subsegment",
            )
        read = self.read(recovered)
        self._own, self._damaged = [], []
        rest = ~ok[len(damaged[0]) :]
        user, room = own[0][rest], own[1][rest]
        hidden = self.has_blocks(user, room, places)
        self.say_unreadable(user[hidden], room[hidden])
        lost = int(damaged[1][given_up].sum()) + int(room[hidden].sum())
        return read._replace(lost=read.lost + lost)

    def read(self, areas: Areas) -> AreaBlocks:
        """All blocks of areas that agree with their subsegments."""
        if not len(areas.address):
            return NOTHING
        located = self._locate_first(areas)
        lost = int(areas.room.sum()) - int(located.room.sum())
        areas = located
        header, owner = self._headers(areas)
        if not len(header):
            return AreaBlocks(Blocks.empty(), lost, 0)
        if self.key is None:
            self._solve(areas)
        stride = areas.stride[owner]
        low, unused, index, present = self._read_headers(header)
        expected = self._expected_low(header, areas, owner)
        sound = present & (unused >= UNUSED_LFH) & (low == (expected ^ np.uint32(self.key or 0)))
        busy = unused > UNUSED_LFH
        extents = user_extents(
            self.context.memory, self.context.pointer_size, header, stride, unused
        )
        sound &= ~(busy & extents.doubtful)
        contradicted = np.zeros(len(header), bool)
        if self.has_bitmap:
            place = self.block_indices(areas, owner)
            sound &= index == place
            contradicted = sound & (self._bitmap(areas, owner, place) != busy)
            sound &= ~contradicted
        else:  # the same byte in all headers (0 on 7), where there is no index to check
            flags = (index >> 8).astype(np.uint8)
            sound &= flags == np.bincount(flags[sound], minlength=1).argmax()
        if not sound.all():
            lost += int(stride[~sound].sum())
            self._say_unsound(header, stride, present, contradicted, ~sound)
        doubtful = self._miscounted(areas, owner, sound, busy)
        unclear = busy & sound & ~extents.valid
        for at in header[unclear][: self.context.log.limit + 1].tolist():
            self._say(
                "unused-bytes-unclear",
                "_HEAP_ENTRY.UnusedBytes",
                at,
                "the size the program asked for is not readable; the block's own size is used",
            )
        granularity = np.uint64(self.context.granularity)
        blocks = Blocks.build(
            np.where(busy, extents.address, header + granularity),
            np.where(extents.valid, extents.size, SIZE_UNKNOWN),
            stride,
            busy,
            Kind.NT_LFH,
            self.ordinal,
            extents.trace,
        )
        return AreaBlocks(blocks if sound.all() else blocks.select(sound), lost, doubtful)

    def _say_unsound(
        self, header: U64, stride: I64, present: Mask, contradicted: Mask, unsound: Mask
    ) -> None:
        for row in np.flatnonzero(unsound).tolist()[: self.context.log.limit + 1]:
            if contradicted[row]:
                code, what = "lfh-state-unclear", "and the busy bitmap contradict each other"
            elif present[row]:
                code, what = "lfh-header-damaged", "contradicts its area"
            else:
                code, what = "lfh-block-absent", "is not in the dump"
            self._say(
                code,
                "_HEAP_ENTRY",
                int(header[row]),
                f"the header of this LFH block {what}; its state is unknown",
                int(stride[row]),
            )

    def _miscounted(self, areas: Areas, owner: I64, sound: Mask, busy: Mask) -> int:
        """Bytes of blocks by which areas and the free counts of their subsegments differ."""
        count = len(areas.address)
        free = np.bincount(owner[sound & ~busy], minlength=count)
        unknown = np.bincount(owner[~sound], minlength=count)
        # Blocks of unknown state are counted as lost already: they may be free or not.
        differing = np.maximum(free - areas.depth, areas.depth - free - unknown)
        differing = np.where(areas.depth < 0, 0, np.minimum(differing, areas.blocks))
        for row in np.flatnonzero(differing > 0).tolist()[: self.context.log.limit + 1]:
            self._say(
                "lfh-count-differs",
                f"{SUBSEGMENT}.AggregateExchg",
                int(areas.subsegment[row]),
                f"the subsegment counts {int(areas.depth[row])} free blocks, its area has "
                f"{int(free[row])}: as many may be in another state than shown",
                int(differing[row] * areas.stride[row]),
            )
        return int((np.maximum(differing, 0) * areas.stride).sum())

    def _bitmap(self, areas: Areas, owner: I64, place: I64) -> Mask:
        """True where the busy bitmap says busy; it lies in the area, right behind its header."""
        at = self.layout.offset(HEADER, "BitmapData") + (place >> 3)
        octet, _ = self.context.memory.gather(areas.address[owner] + at.astype(np.uint64), "u1")
        return np.asarray((octet.astype(np.int64) >> (place & 7)) & 1 == 1)


def _joined(pieces: list[tuple[U64, I64]]) -> tuple[U64, I64]:
    users = [np.empty(0, np.uint64), *(user for user, _ in pieces)]
    rooms = [np.empty(0, np.int64), *(room for _, room in pieces)]
    return np.concatenate(users), np.concatenate(rooms)
