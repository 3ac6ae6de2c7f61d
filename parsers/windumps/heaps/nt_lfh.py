"""The NT heap's low-fragmentation front end: blocks inside `_HEAP_USERDATA_HEADER` areas.

All areas that a piece of the back-end walk finds are decoded together: block addresses, headers
and states of thousands of areas are single numpy columns.

`RtlpLFHKey`, which ntdll mixes into area offsets and block headers, is solved from the heap
itself: every
block header is the XOR of known addresses and the key (Windows 8 and later), so the value that all
slots at
one stride imply is the key. On Vista and 7 offsets are plain, and headers of one area need only
agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windumps.blocks import Blocks, Kind
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt_entries import I64, U8, U32, U64, UNUSED_LFH, Mask, user_extents
from windumps.windows.layouts import LayoutRow

SIGNATURE = 0xF0E0D0C0
KEY_AREAS = 64  # areas that vote on the key
FIRST_TRIES = 64  # candidates for an area's first block


class Areas(NamedTuple):
    """User-data areas as columns.

    Attributes:
        address: uint64, of the `_HEAP_USERDATA_HEADER`.
        room: int64, bytes the back end gave for it.
        stride: int64, bytes from block to block.
        blocks: int64, how many.
        first: int64, offset of the first block; -1 until known.
        bitmap: uint64, address of the busy bitmap; 0 where there is none.
    """

    address: U64
    room: I64
    stride: I64
    blocks: I64
    first: I64
    bitmap: U64

    def take(self, keep: Mask) -> Areas:
        """The areas where `keep` is true."""
        address, room, stride, blocks, first, bitmap = self
        return Areas(
            address[keep], room[keep], stride[keep], blocks[keep], first[keep], bitmap[keep]
        )


@dataclass
class LfhReader:
    """Decodes areas of one heap.

    Attributes:
        context: The process.
        layout: The heap's layout row.
        heap: Address of the `_HEAP`.
        front_end: Address of the `_LFH_HEAP`; 0 when unknown.
        ordinal: Of the heap.
        key: `RtlpLFHKey`, once solved.
    """

    context: HeapContext
    layout: LayoutRow
    heap: int
    front_end: int
    ordinal: int
    key: int | None = None

    @property
    def has_offsets(self) -> bool:
        """Windows 8 and later store first offset and stride, encoded, and a busy bitmap."""
        return self.layout.has("_HEAP_USERDATA_HEADER", "EncodedOffsets")

    def is_area(self, user: U64) -> Mask:
        """True where memory begins with a `_HEAP_USERDATA_HEADER`."""
        at = user + np.uint64(self.layout.offset("_HEAP_USERDATA_HEADER", "Signature"))
        signature, _ = self.context.memory.gather(at, "<u4")
        return np.asarray(signature == SIGNATURE)

    def blocks(self, user: U64, room: I64) -> tuple[Blocks, int]:
        """All blocks of the areas at `user`, whose back-end blocks have `room` bytes behind the
        header.

        Returns:
            The blocks, and the bytes of areas and blocks that could not be read (diagnostics say
            why).
        """
        areas = self._locate_first(self._describe(user, room))
        lost = int(room.sum()) - int(areas.room.sum())
        header, owner = self._headers(areas)
        stride = areas.stride[owner]
        low, unused, present = self._read_headers(header)
        sound = present & (unused >= UNUSED_LFH) & self._headers_agree(header, areas, owner, low)
        if not sound.all():
            bad = np.flatnonzero(~sound)
            lost += int(stride[bad].sum())
            for index in bad.tolist()[: self.context.log.limit + 1]:
                self._say(
                    "lfh-header-damaged" if present[index] else "lfh-block-absent",
                    "_HEAP_ENTRY",
                    int(header[index]),
                    "the header of this LFH block "
                    + ("contradicts its area" if present[index] else "is not in the dump")
                    + "; its state is unknown",
                    int(stride[index]),
                )
            header, owner = header[sound], owner[sound]
            stride, unused = stride[sound], unused[sound]
        busy = unused > UNUSED_LFH
        if self.has_offsets:
            busy &= self._bitmap_allows(header, areas, owner, stride)
        extents = user_extents(
            self.context.memory, self.context.pointer_size, header, stride, unused
        )
        unclear = busy & ~extents.valid
        for index in np.flatnonzero(unclear).tolist()[: self.context.log.limit + 1]:
            self._say(
                "unused-bytes-unclear",
                "_HEAP_ENTRY.UnusedBytes",
                int(header[index]),
                "the size the program asked for is not readable; the block's own size is used",
            )
        size = np.where(extents.valid, extents.size, -1)
        blocks = Blocks.build(
            np.where(busy, extents.address, header + np.uint64(self.context.granularity)),
            size,
            stride,
            busy,
            Kind.NT_LFH,
            self.ordinal,
            extents.trace,
        )
        return blocks, lost

    # -- areas -------------------------------------------------------------------------------------------

    def _describe(self, user: U64, room: I64) -> Areas:
        """Reads each area's subsegment; areas that contradict it are dropped with a diagnostic."""
        memory, layout = self.context.memory, self.layout
        names = ("SubSegment",) + (("SizeOfBitMap", "BitmapBuffer") if self.has_offsets else ())
        head, ok = memory.gather(user, layout.dtype("_HEAP_USERDATA_HEADER", *names))
        sub, sub_ok = memory.gather(
            head["SubSegment"].astype(np.uint64),
            layout.dtype("_HEAP_SUBSEGMENT", "UserBlocks", "BlockSize", "BlockCount"),
        )
        count = sub["BlockCount"].astype(np.int64)
        stride = sub["BlockSize"].astype(np.int64) * self.context.granularity
        bitmap = np.zeros(len(user), np.uint64)
        if self.has_offsets:
            bitmap = head["BitmapBuffer"].astype(np.uint64)
            ok &= head["SizeOfBitMap"] >= count
        ok &= sub_ok & (sub["UserBlocks"].astype(np.uint64) == user) & (stride > 0)
        ok &= stride * count <= room
        for index in np.flatnonzero(~ok).tolist()[: self.context.log.limit + 1]:
            self._say(
                "lfh-area-unreadable",
                "_HEAP_USERDATA_HEADER",
                int(user[index]),
                "this LFH area and its _HEAP_SUBSEGMENT do not agree or are not in the dump; "
                "its blocks are left out",
                int(room[index]),
            )
        areas = Areas(user, room, stride, count, np.full(len(user), -1, np.int64), bitmap)
        return areas.take(ok)

    def _locate_first(self, areas: Areas) -> Areas:
        """Fills in where the first block of each area lies; drops areas where nothing fits."""
        if not self.has_offsets:
            behind = self.layout.size("_HEAP_USERDATA_HEADER")
            return areas._replace(first=np.full(len(areas.address), behind, np.int64))
        if self.key is None:
            self.key = self._solve_key(areas)
        decoded = np.full(len(areas.address), -1, np.int64)
        if self.key is not None:
            decoded = self._decoded_first(areas)
            for index in np.flatnonzero(decoded < 0).tolist():
                # Windows 8.0 keeps the offset elsewhere, and a damaged word must not cost the area.
                decoded[index] = self._searched_first(areas, index)
        for index in np.flatnonzero(decoded < 0).tolist()[: self.context.log.limit + 1]:
            self._say(
                "lfh-offsets-unreadable",
                "_HEAP_USERDATA_HEADER.EncodedOffsets",
                int(areas.address[index]),
                "where this LFH area's first block lies cannot be told; its blocks are left out",
                int(areas.room[index]),
            )
        return areas._replace(first=decoded).take(decoded >= 0)

    def _decoded_first(self, areas: Areas) -> I64:
        """First offsets from EncodedOffsets (8.1 and later); -1 where the stride in it
        disagrees.
        """
        at = self.layout.offset("_HEAP_USERDATA_HEADER", "EncodedOffsets")
        encoded, _ = self.context.memory.gather(areas.address + np.uint64(at), "<u4")
        mixed = areas.address.astype(np.uint32) ^ np.uint32(self.front_end & 0xFFFFFFFF)
        plain = encoded.astype(np.uint32) ^ mixed ^ np.uint32(self.key or 0)
        first = (plain & np.uint32(0xFFFF)).astype(np.int64)
        agrees = (plain >> 16).astype(np.int64) == areas.stride
        agrees &= first >= self.layout.offset("_HEAP_USERDATA_HEADER", "BitmapBuffer")
        agrees &= first + areas.stride * areas.blocks <= areas.room
        return np.where(agrees, first, -1)

    def _solve_key(self, areas: Areas) -> int | None:
        """The key that most slots of the first areas agree on: every block header of an area holds
        it.
        """
        votes: dict[int, int] = {}
        for index in range(min(len(areas.address), KEY_AREAS)):
            keys = self._slot_keys(areas, index)[1]
            values, counts = np.unique(keys, return_counts=True)
            # A block's worth of chance hits is common in user data (runs of one byte), so cap an
            # area's say.
            best = int(np.argmax(counts)) if len(counts) else -1
            if best >= 0:
                key = int(values[best])
                votes[key] = votes.get(key, 0) + min(int(counts[best]), int(areas.blocks[index]))
        return max(votes, key=lambda key: votes[key]) if votes else None

    def _slot_keys(self, areas: Areas, index: int) -> tuple[I64, U32]:
        """Offsets of all slots of an area that may hold a block header, and the key each
        implies.
        """
        area, room = int(areas.address[index]), int(areas.room[index])
        offsets = np.arange(0, room - self.context.granularity + 1, self.context.granularity)
        headers = np.uint64(area) + offsets.astype(np.uint64)
        low, unused, present = self._read_headers(headers)
        keys = low ^ self._expected_low(headers, np.full(len(headers), area, np.uint64))
        likely = present & (unused >= UNUSED_LFH)
        return offsets[likely], keys[likely]

    def _searched_first(self, areas: Areas, index: int) -> int:
        """The lowest offset from which a header with the right key stands at every stride; else
        -1.
        """
        offsets, keys = self._slot_keys(areas, index)
        hits = offsets[keys == np.uint32(self.key or 0)]
        stride, count = int(areas.stride[index]), int(areas.blocks[index])
        for first in hits[:FIRST_TRIES].tolist():
            wanted = first + stride * np.arange(count)
            if wanted[-1] + stride <= int(areas.room[index]) and np.isin(wanted, hits).all():
                return int(first)
        return -1

    # -- blocks ------------------------------------------------------------------------------------------

    def _headers(self, areas: Areas) -> tuple[U64, I64]:
        """Header addresses of all blocks, and the index of the area of each."""
        owner = np.repeat(np.arange(len(areas.address)), areas.blocks)
        before = np.cumsum(areas.blocks) - areas.blocks
        index = np.arange(len(owner)) - before[owner]
        offset = areas.first[owner] + index * areas.stride[owner]
        return areas.address[owner] + offset.astype(np.uint64), owner

    def _read_headers(self, header: U64) -> tuple[U32, U8, Mask]:
        """The encoded low word and UnusedBytes of each header, and which are in the dump."""
        raw, present = self.context.memory.gather(
            header + np.uint64(self.context.granularity - 8), "<u8"
        )
        words = raw.astype(np.uint64)
        return words.astype(np.uint32), (words >> np.uint64(56)).astype(np.uint8), present

    def _expected_low(self, header: U64, area: U64) -> U32:
        """What the low word of each header is, but for the key (Windows 8 and later)."""
        shift, distance_shift = (3, 13) if self.context.pointer_size == 4 else (4, 12)
        place = (header >> np.uint64(shift)).astype(np.uint32)
        distance = ((header - area) << np.uint64(distance_shift)).astype(np.uint32)
        return np.asarray(place ^ distance ^ np.uint32(self.heap & 0xFFFFFFFF))

    def _headers_agree(self, header: U64, areas: Areas, owner: I64, low: U32) -> Mask:
        """True where a header decodes to its own area."""
        if not len(header):
            return np.empty(0, bool)
        if self.has_offsets:
            expected = self._expected_low(header, areas.address[owner])
            return np.asarray(low == (expected ^ np.uint32(self.key or 0)))
        # Vista and 7: the word names the subsegment, one value per area once the address is taken
        # out.
        shift = 3 if self.context.pointer_size == 4 else 4
        spread = low ^ (header >> np.uint64(shift)).astype(np.uint32)
        starts = np.concatenate(([0], np.flatnonzero(np.diff(owner)) + 1))
        return equals_majority(spread, starts)

    def _bitmap_allows(self, header: U64, areas: Areas, owner: I64, stride: I64) -> Mask:
        """True where the busy bitmap says busy, or is not in the dump (then UnusedBytes alone
        decides).
        """
        index = (header - areas.address[owner]).astype(np.int64) - areas.first[owner]
        index //= np.maximum(stride, 1)
        octet, present = self.context.memory.gather(
            areas.bitmap[owner] + (index >> 3).astype(np.uint64), "u1"
        )
        bit = (octet.astype(np.int64) >> (index & 7)) & 1
        return np.asarray((bit == 1) | ~present)

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)


def equals_majority(values: U32, starts: I64) -> Mask:
    """For each group beginning at `starts`: True where a value equals the group's most frequent
    one.
    """
    result = np.zeros(len(values), bool)
    ends = np.append(starts[1:], len(values))
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        group = values[start:end]
        middle = np.partition(group, len(group) // 2)[
            len(group) // 2
        ]  # a majority holds the median
        result[start:end] = group == middle
    return result
