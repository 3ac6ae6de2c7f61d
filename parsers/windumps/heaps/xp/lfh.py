"""The low-fragmentation front end of Windows XP and 2003.

Areas and subsegments are those of Vista; two things differ. Nothing marks the back-end blocks that are
areas, so they are known by their contents and by the subsegments, which name them; zones and areas kept for
reuse are ordinary used blocks to the genuine walk, and so they are here. And a block's state is bit 0 of its
Flags. What is free is kept twice: free blocks of an area are chained by their offsets, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U8, U64
from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.base import report_unclear_sizes
from windumps.heaps.nt.entries import FLAG_BUSY, FLAG_EXTRA, Mask
from windumps.heaps.xp.entries import LEAST_UNUSED, traces, unused_bytes
from windumps.heaps.xp.lfh_zones import Subsegments, read_subsegments
from windumps.layouts.rows import LayoutRow

SIGNATURE = 0xF0E0D0C0
SEGMENT_INDEX_LFH = 0xFF
NO_ENTRY = 0xFFFF  # ends the chain of an area's free blocks
CODE = {4: np.uint64(0xFFFFFFFF), 8: np.uint64(0xFFFFFFFFFF)}  # bits of a header that hold its code


class _Areas(NamedTuple):
    """Areas as columns: address, subsegment, bytes from block to block, blocks, free ones and the first."""

    address: U64
    subsegment: U64
    stride: I64
    blocks: I64
    depth: I64
    first_free: I64

    def take(self, keep: Mask) -> _Areas:
        return _Areas._make(column[keep] for column in self)


@dataclass
class XpLfhReader:
    """Decodes areas of one heap.

    Attributes:
        context: The process.
        layout: The heap's layout row.
        heap: Address of the `_HEAP`.
        front_end: Address of the `_LFH_HEAP`; 0 where the heap has none or it is not known.
        ordinal: Of the heap.
        certain: False where the heap does not say rightly which front end it has.
        key: What all headers hold besides their place and subsegment, once solved.
    """

    context: HeapContext
    layout: LayoutRow
    heap: int
    front_end: int
    ordinal: int
    certain: bool = True
    key: int | None = None
    _subsegments: Subsegments = field(init=False)

    def open(self) -> None:
        """Reads the list of subsegments; to be called before each walk."""
        self.key = None
        found = read_subsegments(self.context, self.layout, self.front_end)
        self._subsegments = found._replace(whole=found.whole and self.certain)

    def areas(self, user: U64, block_bytes: I64, unused: U8) -> tuple[Mask, Mask]:
        """Which busy back-end blocks are areas in use, and which may be some that nothing names.

        Args:
            user: uint64, behind the header.
            block_bytes: int64, header included.
            unused: uint8, UnusedBytes.
        """
        named = np.isin(user, self._subsegments.area)
        found = named.copy()
        whole_units = (block_bytes & (block_bytes - 1)) == 0
        likely = np.flatnonzero(whole_units & ~named)
        at = user[likely]
        shift = np.minimum(self._word("SizeIndex", at), np.uint64(62)).astype(np.int64)
        sound = (
            (self._word("Signature", at) & np.uint64(0xFFFFFFFF) == SIGNATURE)
            & (self._word("HeapHandle", at) == np.uint64(self.heap))
            & ((np.int64(1) << shift) == block_bytes[likely])
        )
        if not self.front_end and sound.any():
            sound &= self._subsegment_agrees(at, self._word("SubSegment", at))
        found[likely] = sound
        doubtful = np.zeros(len(user), bool)
        if not self._subsegments.whole:
            # What a header of the first block would say; absent or erased, it says nothing.
            granularity = self.context.granularity
            left = np.flatnonzero(whole_units & ~found & (unused == granularity))
            behind = self.layout.size("_HEAP_USERDATA_HEADER") + granularity - 8
            word, present = self.context.memory.gather(user[left] + np.uint64(behind), "<u8")
            index = word.astype(np.uint64) >> np.uint64(56)
            doubtful[left] = ~present | (word == 0) | (index == SEGMENT_INDEX_LFH)
        return found, doubtful

    def blocks(self, user: U64, room: I64) -> tuple[Blocks, int]:
        """All blocks of the areas at `user`, whose back-end blocks have `room` bytes behind the header.

        Returns:
            The blocks, and the bytes of areas and blocks that could not be read (diagnostics say why).
        """
        areas, lost = self._describe(user, room)
        granularity = self.context.granularity
        owner = np.repeat(np.arange(len(areas.address)), areas.blocks)
        before = np.cumsum(areas.blocks) - areas.blocks
        place = (np.arange(len(owner)) - before[owner]) * areas.stride[owner]
        first = areas.address + np.uint64(self.layout.size("_HEAP_USERDATA_HEADER"))
        header, stride = first[owner] + place.astype(np.uint64), areas.stride[owner]
        raw, present = self.context.memory.gather(header + np.uint64(granularity - 8), "<u8")
        words = raw.astype(np.uint64)
        flags, unused, index = (
            (words >> np.uint64(shift)).astype(np.uint8) for shift in (40, 48, 56)
        )
        sound = present & (index == SEGMENT_INDEX_LFH)
        sound &= self._names_subsegment(words, header, areas.subsegment[owner], sound)
        self._report(header[~sound], stride[~sound], present[~sound], "contradicts its area")
        busy = (flags & FLAG_BUSY) != 0
        doubtful = self._doubtful(areas, owner, header, sound, busy)
        self._report(
            header[doubtful],
            stride[doubtful],
            doubtful[doubtful],
            "and its area's list of free blocks do not agree",
        )
        known = sound & ~doubtful
        lost += int(stride[~known].sum())
        header, stride, unused = header[known], stride[known], unused[known]
        busy, flags = busy[known], flags[known]
        size = stride - unused_bytes(self.context, header, stride, unused)
        clear = (size >= 0) & (size <= stride - LEAST_UNUSED)
        report_unclear_sizes(self.context, header[busy & ~clear])
        extra = busy & ((flags & FLAG_EXTRA) != 0)
        blocks = Blocks.build(
            header + np.uint64(granularity),
            np.where(clear, size, SIZE_UNKNOWN),
            stride,
            busy,
            Kind.NT_LFH,
            self.ordinal,
            traces(self.context, self.layout, header + stride.astype(np.uint64), extra),
        )
        return blocks, lost

    def _describe(self, user: U64, room: I64) -> tuple[_Areas, int]:
        """Areas with what their subsegments say, and the bytes of those that contradict it.

        Which subsegment it is both the area and the list of subsegments tell; where they differ the list
        goes, since it was reached through memory that points to the area.
        """
        named = self._word("SubSegment", user)
        listed = self._subsegments
        if len(listed.area):
            at = np.minimum(np.searchsorted(listed.area, user), len(listed.area) - 1)
            is_listed = listed.area[at] == user
            for address in user[is_listed & (named != listed.address[at])].tolist():
                self._say(
                    "lfh-area-damaged",
                    "_HEAP_USERDATA_HEADER",
                    address,
                    "this area does not name its subsegment; found by the subsegments, which name it",
                )
            named = np.where(is_listed, listed.address[at], named)
        names = ("UserBlocks", "BlockSize", "BlockCount", "Depth", "FreeEntryOffset")
        sub, ok = self.context.memory.gather(named, self.layout.dtype("_HEAP_SUBSEGMENT", *names))
        stride = sub["BlockSize"].astype(np.int64) * self.context.granularity
        count = sub["BlockCount"].astype(np.int64)
        left = room - self.layout.size("_HEAP_USERDATA_HEADER") - stride * count
        # An area is as full of blocks as it can be.
        ok &= (sub["UserBlocks"] == user) & (stride > 0) & (left >= 0) & (left < stride)
        for index in np.flatnonzero(~ok).tolist()[: self.context.log.limit + 1]:
            self._say(
                "lfh-area-unreadable",
                "_HEAP_USERDATA_HEADER",
                int(user[index]),
                "this LFH area and its _HEAP_SUBSEGMENT do not agree or are not in the dump; "
                "its blocks are left out",
                int(room[index]),
            )
        areas = _Areas(
            user,
            named,
            stride,
            count,
            sub["Depth"].astype(np.int64),
            sub["FreeEntryOffset"].astype(np.int64),
        )
        return areas.take(ok), int(room[~ok].sum())

    def _names_subsegment(self, words: U64, header: U64, subsegment: U64, likely: Mask) -> Mask:
        """True where a header's code is the one of its place in its subsegment's area.

        It is the XOR of the two addresses and a key of the process and heap, on x64 in units of 16 bytes;
        so what is left without the addresses is the same in all headers of a heap.
        """
        width = self.context.pointer_size
        shift = np.uint64(3 if width == 4 else 4)
        owner = subsegment >> np.uint64(0 if width == 4 else 4)
        left = (words ^ (header >> shift) ^ owner) & CODE[width]
        if self.key is None and likely.any():
            values, counts = np.unique(left[likely], return_counts=True)
            self.key = int(values[counts.argmax()])
        return np.asarray(left == np.uint64(self.key or 0))

    def _doubtful(self, areas: _Areas, owner: I64, header: U64, sound: Mask, busy: Mask) -> Mask:
        """Sound headers whose state the chain of free blocks and their count contradict."""
        doubtful = np.zeros(len(header), bool)
        free = np.bincount(owner[sound & ~busy], minlength=len(areas.address))
        for index in np.flatnonzero(free != areas.depth).tolist():
            mine = np.flatnonzero(owner == index)
            chained, whole = self._free_chain(areas, index)
            is_chained = np.isin(header[mine], chained)
            if whole:
                doubtful[mine] = is_chained == busy[mine]
                continue
            depth = int(areas.depth[index])
            unknown = int((~sound[mine]).sum())
            if not free[index] <= depth <= free[index] + unknown:
                doubtful[mine] = busy[mine] if depth > free[index] else ~busy[mine]
        return doubtful & sound

    def _free_chain(self, areas: _Areas, index: int) -> tuple[U64, bool]:
        """Headers of an area's free blocks by their chain, and whether it is whole."""
        granularity, pointer = self.context.granularity, self.context.pointer_size
        start, stride = int(areas.address[index]), int(areas.stride[index])
        first = self.layout.size("_HEAP_USERDATA_HEADER")
        size = first + stride * int(areas.blocks[index])
        raw = self.context.memory.read_available(start, size)
        offset, depth = int(areas.first_free[index]), int(areas.depth[index])
        found: list[int] = []
        seen: set[int] = set()
        while offset != NO_ENTRY and len(found) < depth:
            at = offset * granularity
            link = at + granularity
            if at in seen or at < first or (at - first) % stride or link + pointer > len(raw):
                break
            seen.add(at)
            found.append(start + at)
            offset = int.from_bytes(raw[link : link + 2], "little")
        whole = offset == NO_ENTRY and len(found) == depth
        return np.array(found, np.uint64), whole

    def _subsegment_agrees(self, user: U64, subsegment: U64) -> Mask:
        at = subsegment + np.uint64(self.layout.offset("_HEAP_SUBSEGMENT", "UserBlocks"))
        back, present = self.context.memory.gather(at, f"<u{self.context.pointer_size}")
        return np.asarray(present & (back == user))

    def _word(self, name: str, user: U64) -> U64:
        at = user + np.uint64(self.layout.offset("_HEAP_USERDATA_HEADER", name))
        return self.context.memory.gather(at, f"<u{self.context.pointer_size}")[0].astype(np.uint64)

    def _report(self, header: U64, stride: I64, present: Mask, why: str) -> None:
        for index in range(min(len(header), self.context.log.limit + 1)):
            self._say(
                "lfh-header-damaged" if present[index] else "lfh-block-absent",
                "_HEAP_ENTRY",
                int(header[index]),
                "the header of this LFH block "
                + (why if present[index] else "is not in the dump")
                + "; its state is unknown",
                int(stride[index]),
            )

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)
