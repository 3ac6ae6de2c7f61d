"""Areas of the NT heap's low-fragmentation front end: what each `_HEAP_USERDATA_HEADER` is divided
into.

`RtlpLFHKey`, which ntdll mixes into area offsets and block headers, is solved from the heap
itself: every block header is the XOR of known addresses and the key, so the value that all headers
at one stride imply is the key. Up to Windows 8.0 a header names its subsegment and offsets are
plain; from 8.1 on it names the distance to its area.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt_entries import I64, U8, U32, U64, UNUSED_LFH, Mask
from windumps.windows.layouts import LayoutRow

HEADER = "_HEAP_USERDATA_HEADER"
SUBSEGMENT = "_HEAP_SUBSEGMENT"
SIGNATURE = 0xF0E0D0C0
KEY_AREAS = 64  # areas that vote on the key
FIRST_TRIES = 64  # candidates for an area's first block
FIRST_OFFSETS = (
    0x400  # the first block lies nearer than this to the area's start, but for huge bitmaps
)
ZONE_BYTES = (0x100, 0x800)  # room of an `_LFH_BLOCK_ZONE`; 1,016 and 1,008 were seen


class Areas(NamedTuple):
    """User-data areas as columns.

    Attributes:
        address: uint64, of the `_HEAP_USERDATA_HEADER`.
        room: int64, bytes the back end gave for it.
        subsegment: uint64, of the `_HEAP_SUBSEGMENT`.
        stride: int64, bytes from block to block.
        blocks: int64, how many.
        depth: int64, how many of them are free, as the subsegment counts; -1 when it does not say.
        first: int64, offset of the first block; -1 until known.
    """

    address: U64
    room: I64
    subsegment: U64
    stride: I64
    blocks: I64
    depth: I64
    first: I64

    def take(self, keep: Mask) -> Areas:
        """The areas where `keep` is true."""
        address, room, subsegment, stride, blocks, depth, first = self
        return Areas(
            address[keep],
            room[keep],
            subsegment[keep],
            stride[keep],
            blocks[keep],
            depth[keep],
            first[keep],
        )


@dataclass
class AreaReader:
    """Finds out how the areas of one heap are divided.

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
    def has_bitmap(self) -> bool:
        """Windows 8 and later keep a busy bitmap and each block's index."""
        return self.layout.has(HEADER, "SizeOfBitMap")

    @property
    def encodes_offsets(self) -> bool:
        """Windows 8.1 and later."""
        return self.layout.has(HEADER, "EncodedOffsets")

    def is_area(self, user: U64) -> Mask:
        """True where memory begins with a `_HEAP_USERDATA_HEADER`."""
        at = user + np.uint64(self.layout.offset(HEADER, "Signature"))
        signature, _ = self.context.memory.gather(at, "<u4")
        return np.asarray(signature == SIGNATURE)

    # -- what an area consists of

    def subsegments_of(self, user: U64) -> U64:
        """Subsegments that areas name; 0 where absent."""
        at = user + np.uint64(self.layout.offset(HEADER, "SubSegment"))
        return self.context.memory.gather(at, f"<u{self.context.pointer_size}")[0].astype(np.uint64)

    def describe(self, user: U64, room: I64, subsegment: U64) -> tuple[Areas, Mask]:
        """Reads each area's subsegment, and tells which areas agree with theirs."""
        memory, layout = self.context.memory, self.layout
        names = ["UserBlocks", "BlockSize", "BlockCount"]
        names += ["Depth"] if layout.has(SUBSEGMENT, "Depth") else []
        sub, present = memory.gather(subsegment, layout.dtype(SUBSEGMENT, *names))
        count = sub["BlockCount"].astype(np.int64)
        stride = sub["BlockSize"].astype(np.int64) * self.context.granularity
        ok = present & (sub["UserBlocks"].astype(np.uint64) == user) & (stride > 0)
        ok &= stride * count <= room
        if self.has_bitmap:
            at = user + np.uint64(layout.offset(HEADER, "SizeOfBitMap"))
            ok &= memory.gather(at, "<u4")[0] == count
        depth = sub["Depth"].astype(np.int64) if len(names) > 3 else np.full(len(user), -1)
        unknown = np.full(len(user), -1, np.int64)
        return Areas(user, room, subsegment, stride, count, depth, unknown), np.asarray(ok)

    def _describe(self, user: U64, room: I64) -> Areas:
        """Areas with subsegments; those that contradict theirs are left out with a diagnostic."""
        areas, ok = self.describe(user, room, self.subsegments_of(user))
        self.say_unreadable(user[~ok], room[~ok])
        return areas.take(ok)

    def say_unreadable(self, user: U64, room: I64) -> None:
        """Says of areas that they are left out."""
        for address, size in zip(user.tolist(), room.tolist(), strict=True):
            self._say(
                "lfh-area-unreadable",
                HEADER,
                address,
                "this LFH area and its _HEAP_SUBSEGMENT do not agree or are not in the dump; "
                "its blocks are left out",
                size,
            )

    def zone_subsegments(self, user: U64, room: I64) -> dict[int, int]:
        """Areas that subsegments in use name, with those subsegments.

        Args:
            user: uint64, where the contents of the heap's own blocks begin; zones are among them.
            room: int64, their sizes.
        """
        size = self.layout.size(SUBSEGMENT)
        first = self.layout.size("_LFH_BLOCK_ZONE")
        low, high = ZONE_BYTES
        zones = (room >= low) & (room < high)
        named: dict[int, int] = {}
        for zone, bytes_ in zip(user[zones].tolist(), room[zones].tolist(), strict=True):
            places = np.arange(first, bytes_ - size + 1, size).astype(np.uint64) + np.uint64(zone)
            at = places + np.uint64(self.layout.offset(SUBSEGMENT, "UserBlocks"))
            areas, _ = self.context.memory.gather(at, f"<u{self.context.pointer_size}")
            named.update(zip(areas.tolist(), places.tolist(), strict=True))
        named.pop(0, None)
        return named

    # -- where its first block lies

    def _locate_first(self, areas: Areas) -> Areas:
        """Fills in where the first block of each area lies; drops areas where nothing fits."""
        if not len(areas.address):
            return areas
        if not self.has_bitmap:
            behind = self.layout.size(HEADER)
            return areas._replace(first=np.full(len(areas.address), behind, np.int64))
        if self.key is None:
            self.key = self._solved_key(areas)
        first = np.full(len(areas.address), -1, np.int64)
        if self.key is not None:
            first = self._stored_first(areas)
            for index in np.flatnonzero(first < 0).tolist():
                # A damaged word must not cost the area.
                first[index] = self._searched_first(areas, index)
        for index in np.flatnonzero(first < 0).tolist():
            self._say(
                "lfh-offsets-unreadable",
                f"{HEADER}.EncodedOffsets",
                int(areas.address[index]),
                "where this LFH area's first block lies cannot be told; its blocks are left out",
                int(areas.room[index]),
            )
        return areas._replace(first=first).take(first >= 0)

    def _stored_first(self, areas: Areas) -> I64:
        """First offsets as the areas keep them; -1 where the stride beside them disagrees."""
        if self.encodes_offsets:
            words = self._mixed_offsets(areas) ^ np.uint32(self.key or 0)
        else:
            words = self._offset_words(areas, "FirstAllocationOffset")
        first = (words & np.uint32(0xFFFF)).astype(np.int64)
        agrees = (words >> 16).astype(np.int64) == areas.stride
        agrees &= first >= self.layout.offset(HEADER, "BitmapData") + areas.blocks // 8
        agrees &= first + areas.stride * areas.blocks <= areas.room
        return np.where(agrees, first, -1)

    def _offset_words(self, areas: Areas, name: str) -> U32:
        at = areas.address + np.uint64(self.layout.offset(HEADER, name))
        return self.context.memory.gather(at, "<u4")[0].astype(np.uint32)

    def _mixed_offsets(self, areas: Areas) -> U32:
        """EncodedOffsets but for the key: the first offset, and the stride in the upper half."""
        encoded = self._offset_words(areas, "EncodedOffsets")
        return np.asarray(
            encoded ^ areas.address.astype(np.uint32) ^ np.uint32(self.front_end & 0xFFFFFFFF)
        )

    def _solved_key(self, areas: Areas) -> int | None:
        """The key that the offsets of an area and its first block's header imply alike, by areas'
        votes; else the key that most headers agree on.
        """
        some = areas.take(np.arange(len(areas.address)) < KEY_AREAS)
        if not self.encodes_offsets:
            first = (self._offset_words(some, "FirstAllocationOffset") & 0xFFFF).astype(np.int64)
            return self._voted_key(some._replace(first=first))
        step = self.context.granularity
        offset = np.arange(0, FIRST_OFFSETS, step)
        wanted = self._mixed_offsets(some) ^ (some.stride << 16).astype(np.uint32)
        keys = wanted[:, None] ^ offset.astype(np.uint32)
        headers = some.address[:, None] + offset.astype(np.uint64)
        low, unused, _, present = self._read_headers(headers.ravel())
        owner = np.repeat(np.arange(len(some.address)), len(offset))
        proven = low ^ self._expected_low(headers.ravel(), some, owner) == keys.ravel()
        hits = keys.ravel()[proven & present & (unused >= UNUSED_LFH)]
        if len(hits):
            return _most_frequent(hits)
        return self._slot_key(some)

    def _voted_key(self, areas: Areas) -> int | None:
        """The key that most block headers imply, first offsets being known."""
        header, owner = self._headers(areas.take(np.arange(len(areas.address)) < KEY_AREAS))
        low, unused, _, present = self._read_headers(header)
        keys = low ^ self._expected_low(header, areas, owner)
        keys = keys[present & (unused >= UNUSED_LFH)]
        return _most_frequent(keys) if len(keys) else self._slot_key(areas)

    def _slot_key(self, areas: Areas) -> int | None:
        """The key that most slots of the areas agree on, wherever their blocks begin."""
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
        low, unused, _, present = self._read_headers(headers)
        keys = low ^ self._expected_low(headers, areas, np.full(len(headers), index))
        likely = present & (unused >= UNUSED_LFH)
        return offsets[likely], keys[likely]

    def _searched_first(self, areas: Areas, index: int) -> int:
        """The lowest offset from which a header with the right key stands at nearly every stride;
        else -1.
        """
        offsets, keys = self._slot_keys(areas, index)
        hits = offsets[keys == np.uint32(self.key or 0)]
        stride, count = int(areas.stride[index]), int(areas.blocks[index])
        for first in hits[:FIRST_TRIES].tolist():
            wanted = first + stride * np.arange(count)
            right = np.count_nonzero(np.isin(wanted, hits))
            if wanted[-1] + stride <= int(areas.room[index]) and right * 4 >= count * 3:
                return int(first)
        return -1

    # -- headers of blocks

    def _headers(self, areas: Areas) -> tuple[U64, I64]:
        """Header addresses of all blocks, and the index of the area of each."""
        owner = np.repeat(np.arange(len(areas.address)), areas.blocks)
        offset = areas.first[owner] + self.block_indices(areas, owner) * areas.stride[owner]
        return areas.address[owner] + offset.astype(np.uint64), owner

    def block_indices(self, areas: Areas, owner: I64) -> I64:
        """Index of each block in its area."""
        before = np.cumsum(areas.blocks) - areas.blocks
        return np.asarray(np.arange(len(owner)) - before[owner])

    def _read_headers(self, header: U64) -> tuple[U32, U8, U32, Mask]:
        """The encoded low word, UnusedBytes and block index of each header, and which are in the
        dump.
        """
        raw, present = self.context.memory.gather(
            header + np.uint64(self.context.granularity - 8), "<u8"
        )
        words = raw.astype(np.uint64)
        index = (words >> np.uint64(40)).astype(np.uint32) & np.uint32(0xFFFF)
        return (
            words.astype(np.uint32),
            (words >> np.uint64(56)).astype(np.uint8),
            index,
            present,
        )

    def _expected_low(self, header: U64, areas: Areas, owner: I64) -> U32:
        """What the low word of each header is, but for the key."""
        shift, distance_shift = (3, 13) if self.context.pointer_size == 4 else (4, 12)
        place = (header >> np.uint64(shift)).astype(np.uint32)
        if self.encodes_offsets:
            what = (header - areas.address[owner]) << np.uint64(distance_shift)
            return np.asarray(place ^ what.astype(np.uint32) ^ np.uint32(self.heap & 0xFFFFFFFF))
        what = areas.subsegment[owner] >> np.uint64(0 if shift == 3 else 4)
        heap = self.heap >> (0 if shift == 3 else 4)
        return np.asarray(place ^ what.astype(np.uint32) ^ np.uint32(heap & 0xFFFFFFFF))

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)


def _most_frequent(values: U32) -> int:
    unique, counts = np.unique(values, return_counts=True)
    return int(unique[np.argmax(counts)])
