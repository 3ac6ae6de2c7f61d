"""Areas of the NT heap's low-fragmentation front end: what each `_HEAP_USERDATA_HEADER` is divided
into.

`RtlpLFHKey`, which ntdll mixes into area offsets and block headers, is solved from the heap
itself: every block header is the XOR of known addresses and the key, so the value that all headers
at one stride imply is the key. Up to Windows 8.0 a header names its subsegment and offsets are
plain; from 8.1 on it names the distance to its area.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U8, U32, U64
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import UNUSED_LFH, Mask
from windumps.layouts.rows import LayoutRow

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
        return Areas._make(column[keep] for column in self)


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
        names_distance: Block headers name the distance to their area and not its subsegment.
    """

    context: HeapContext
    layout: LayoutRow
    heap: int
    front_end: int
    ordinal: int
    key: int | None = None
    names_distance: bool = False

    @property
    def has_bitmap(self) -> bool:
        """Windows 8 and later keep a busy bitmap and each block's index."""
        return self.layout.has(HEADER, "SizeOfBitMap")

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

    def describe(
        self, user: U64, room: I64, subsegment: U64, *, damaged: bool = False
    ) -> tuple[Areas, Mask]:
        """Reads each area's subsegment, and tells which areas agree with theirs; of areas with a
        `damaged` header only by the subsegment.
        """
        memory, layout = self.context.memory, self.layout
        names = ["UserBlocks", "BlockSize", "BlockCount"]
        names += ["Depth"] if layout.has(SUBSEGMENT, "Depth") else []
        sub, present = memory.gather(subsegment, layout.dtype(SUBSEGMENT, *names))
        count = sub["BlockCount"].astype(np.int64)
        stride = sub["BlockSize"].astype(np.int64) * self.context.granularity
        ok = present & (sub["UserBlocks"].astype(np.uint64) == user) & (stride > 0)
        ok &= (count > 0) & (stride * count <= room)
        if self.has_bitmap and not damaged:
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

    def zone_places(self, user: U64, room: I64) -> U64:
        """Where subsegments can be.

        Args:
            user: uint64, where the contents of the heap's own blocks begin; zones are among them.
            room: int64, their sizes.
        """
        size, first = self.layout.size(SUBSEGMENT), self.layout.size("_LFH_BLOCK_ZONE")
        low, high = ZONE_BYTES
        zones = (room >= low) & (room < high)
        count = np.maximum((room[zones] - first) // size, 0)
        before = np.cumsum(count) - count
        number = np.arange(int(count.sum())) - np.repeat(before, count)
        places: U64 = np.repeat(user[zones], count) + (first + number * size).astype(np.uint64)
        return places

    def zone_subsegments(self, places: U64) -> dict[int, int]:
        """Areas that subsegments in use name, with those subsegments."""
        at = places + np.uint64(self.layout.offset(SUBSEGMENT, "UserBlocks"))
        areas, _ = self.context.memory.gather(at, f"<u{self.context.pointer_size}")
        named = dict(zip(areas.tolist(), places.tolist(), strict=True))
        named.pop(0, None)
        return named

    def has_blocks(self, user: U64, room: I64, places: U64) -> Mask:
        """True where headers of used blocks stand in what no subsegment and no header says is an area.

        Args:
            user: uint64, where the contents of the heap's own blocks begin.
            room: int64, their sizes.
            places: uint64, where subsegments can be.
        """
        shift = np.uint64(0 if self.context.pointer_size == 4 else 4)
        subsegments = (places >> shift).astype(np.uint32)
        found = np.zeros(len(user), bool)
        for row in range(len(user) if self.key is not None else 0):
            offset = np.arange(
                0, int(room[row]) - self.context.granularity, self.context.granularity
            )
            header = user[row] + offset.astype(np.uint64)
            low, unused, _, present = self._read_headers(header)
            one = np.zeros(1, np.int64)
            area = Areas(user[row : row + 1], one, one.astype(np.uint64), one, one, one, one)
            named = low ^ np.uint32(self.key or 0)
            named ^= self._expected_low(header, area, np.zeros(len(header), np.int64))
            known = named == 0 if self.names_distance else np.isin(named, subsegments)
            found[row] = bool((present & (unused > UNUSED_LFH) & known).any())
        return found

    # -- where its first block lies

    def _locate_first(self, areas: Areas) -> Areas:
        """Fills in where the first block of each area lies; drops areas where nothing fits."""
        if not len(areas.address):
            return areas
        if not self.has_bitmap:
            behind = self.layout.size(HEADER)
            return areas._replace(first=np.full(len(areas.address), behind, np.int64))
        if self.key is None:
            self._solve(areas)
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
        words = self._offset_words(areas)
        first = self._plain_first(areas, words)
        if self.names_distance:
            words = self._mixed(areas, words) ^ np.uint32(self.key or 0)
            first = np.maximum(first, self._plain_first(areas, words))
        return first

    def _plain_first(self, areas: Areas, words: U32) -> I64:
        first = (words & np.uint32(0xFFFF)).astype(np.int64)
        agrees = (words >> 16).astype(np.int64) == areas.stride
        agrees &= first >= self.layout.offset(HEADER, "BitmapData") + areas.blocks // 8
        agrees &= first + areas.stride * areas.blocks <= areas.room
        return np.where(agrees, first, -1)

    def _offset_words(self, areas: Areas) -> U32:
        """What stands behind the signature: the first offset, and the stride in the upper half.

        From Windows 8.1 on they are encoded, as `_HEAP_USERDATA_HEADER.EncodedOffsets`.
        """
        at = areas.address + np.uint64(self.layout.offset(HEADER, "Signature") + 4)
        return self.context.memory.gather(at, "<u4")[0].astype(np.uint32)

    def _mixed(self, areas: Areas, words: U32) -> U32:
        """Encoded offsets but for the key."""
        return np.asarray(
            words ^ areas.address.astype(np.uint32) ^ np.uint32(self.front_end & 0xFFFFFFFF)
        )

    # -- the key

    def _solve(self, areas: Areas) -> None:
        """Finds the key and what block headers name, by what fits most of some areas."""
        some = areas.take(np.arange(len(areas.address)) < KEY_AREAS)
        if not self.has_bitmap:
            self.key = self._vote(some)[0]
            return
        plain = self._plain_first(some, self._offset_words(some))
        if np.count_nonzero(plain >= 0) * 2 > len(plain):  # Windows 8.0
            some = some._replace(first=plain).take(plain >= 0)
            self._decide(lambda: self._vote(some))
            return
        self.names_distance = True
        self.key = self._proven_key(some)
        if self.key is None:
            self._decide(lambda: self._slot_vote(some))

    def _decide(self, vote: Callable[[], tuple[int | None, int]]) -> None:
        """Takes what block headers name by the larger vote on the key it gives."""
        votes = {}
        for names_distance in (False, True):
            self.names_distance = names_distance
            votes[names_distance] = vote()
        self.names_distance = votes[True][1] > votes[False][1]
        self.key = votes[self.names_distance][0]

    def _proven_key(self, areas: Areas) -> int | None:
        """The key that encoded offsets and the header of the first block imply alike."""
        offset = np.arange(0, FIRST_OFFSETS, self.context.granularity)
        wanted = self._mixed(areas, self._offset_words(areas))
        keys = (wanted ^ (areas.stride << 16).astype(np.uint32))[:, None] ^ offset.astype(np.uint32)
        headers = (areas.address[:, None] + offset.astype(np.uint64)).ravel()
        low, unused, _, present = self._read_headers(headers)
        owner = np.repeat(np.arange(len(areas.address)), len(offset))
        proven = (low ^ self._expected_low(headers, areas, owner)) == keys.ravel()
        hits = keys.ravel()[proven & present & (unused >= UNUSED_LFH)]
        return _most_frequent(hits)[0]

    def _vote(self, areas: Areas) -> tuple[int | None, int]:
        """The key that most block headers imply, first offsets being known; and how many do."""
        header, owner = self._headers(areas)
        low, unused, _, present = self._read_headers(header)
        keys = low ^ self._expected_low(header, areas, owner)
        return _most_frequent(keys[present & (unused >= UNUSED_LFH)])

    def _slot_vote(self, areas: Areas) -> tuple[int | None, int]:
        """The key that most slots of the areas agree on, wherever their blocks begin."""
        votes: dict[int, int] = {}
        for index in range(len(areas.address)):
            key, count = _most_frequent(self._slot_keys(areas, index)[1])
            if key is not None:
                # A block's worth of chance hits is common in user data (runs of one byte), so cap
                # an area's say.
                votes[key] = votes.get(key, 0) + min(count, int(areas.blocks[index]))
        best = max(votes, key=lambda key: votes[key], default=None)
        return best, votes.get(best, 0) if best is not None else 0

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
        if self.names_distance:
            what = (header - areas.address[owner]) << np.uint64(distance_shift)
            return np.asarray(place ^ what.astype(np.uint32) ^ np.uint32(self.heap & 0xFFFFFFFF))
        what = areas.subsegment[owner] >> np.uint64(0 if shift == 3 else 4)
        heap = self.heap >> (0 if shift == 3 else 4)
        return np.asarray(place ^ what.astype(np.uint32) ^ np.uint32(heap & 0xFFFFFFFF))

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)


def _most_frequent(values: U32) -> tuple[int | None, int]:
    """The value that comes most often, and how often; None when there is none."""
    if not len(values):
        return None, 0
    unique, counts = np.unique(values, return_counts=True)
    best = int(np.argmax(counts))
    return int(unique[best]), int(counts[best])
