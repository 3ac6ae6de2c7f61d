"""The low-fragmentation front end of Windows XP and 2003.

Areas and subsegments are those of Vista; two things differ. Nothing marks the back-end blocks that are
areas, zones or cached areas, so they are known by their contents and by the lists of `_LFH_HEAP`. And a
block's state is bit 0 of its Flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.heaps.lists import list_nodes
from windumps.heaps.nt_entries import FLAG_BUSY, FLAG_EXTRA, I64, U32, U64, Mask
from windumps.heaps.nt_lfh import LfhReader, equals_majority
from windumps.heaps.xp_entries import LEAST_UNUSED, traces, unused_bytes
from windumps.heaps.xp_lookaside import slist_nodes

SEGMENT_INDEX_LFH = 0xFF


@dataclass
class XpLfhReader(LfhReader):
    """Decodes areas of one heap; see `LfhReader`.

    Attributes:
        zones: Addresses of the blocks that hold subsegments, once `read_lists` has run.
        cached: Addresses of areas kept for reuse.
    """

    zones: set[int] = field(default_factory=set)
    cached: set[int] = field(default_factory=set)

    def read_lists(self) -> None:
        """Reads the lists of `_LFH_HEAP`; a cut one costs what lies behind the cut, and is said."""
        if not self.front_end:
            return
        memory, row, pointer = self.context.memory, self.layout, self.context.pointer_size
        nodes, trouble = list_nodes(
            memory, self.front_end + row.offset("_LFH_HEAP", "SubSegmentZones"), pointer
        )
        self.zones = set(nodes)
        if trouble is not None:
            self._say(
                "lfh-zone-list-cut",
                "_LFH_HEAP.SubSegmentZones",
                self.front_end,
                f"{trouble}; blocks of the heap's own may be taken for used ones",
            )
        if not row.has("_LFH_HEAP", "UserBlockCache"):
            return
        start = self.front_end + row.offset("_LFH_HEAP", "UserBlockCache")
        size = row.field_size("_LFH_HEAP", "UserBlockCache")
        for head in range(start, start + size, 2 * pointer):
            nodes, trouble = slist_nodes(memory, head, pointer)
            self.cached |= set(nodes)
            if trouble is not None:
                self._say("lfh-cache-list-cut", "_LFH_HEAP.UserBlockCache", head, trouble)

    def owned(self, user: U64, block_bytes: I64) -> tuple[Mask, Mask]:
        """Which back-end blocks are the front end's own, and which of them are areas.

        Args:
            user: uint64, behind the header.
            block_bytes: int64, header included.
        """
        own = np.isin(user, np.array([self.front_end, *self.zones, *self.cached], np.uint64))
        areas = np.zeros(len(user), bool)
        if not self.front_end:
            return own, areas
        likely = np.flatnonzero((block_bytes & (block_bytes - 1)) == 0)
        signature = self._word("Signature", user[likely])
        shift = np.minimum(self._word("SizeIndex", user[likely]), np.uint64(62)).astype(np.int64)
        fits = (self._word("HeapHandle", user[likely]) == np.uint64(self.heap)) & (
            (np.int64(1) << shift) == block_bytes[likely]
        )
        areas[likely] = fits & self.is_area(user[likely])
        if not self.layout.has("_LFH_HEAP", "UserBlockCache"):
            own[likely] |= fits & (signature == 0)
        return own | areas, areas

    def _word(self, name: str, user: U64) -> U64:
        at = user + np.uint64(self.layout.offset("_HEAP_USERDATA_HEADER", name))
        return self.context.memory.gather(at, f"<u{self.context.pointer_size}")[0].astype(np.uint64)

    def blocks(self, user: U64, room: I64) -> tuple[Blocks, int]:
        """See `LfhReader.blocks`."""
        granularity = self.context.granularity
        areas = self._locate_first(self._describe(user, room))
        lost = int(room.sum()) - int(areas.room.sum())
        header, owner = self._headers(areas)
        stride = areas.stride[owner]
        raw, present = self.context.memory.gather(header + np.uint64(granularity - 8), "<u8")
        words = raw.astype(np.uint64)
        flags, unused, index = (
            (words >> np.uint64(shift)).astype(np.uint8) for shift in (40, 48, 56)
        )
        sound = present & (index == SEGMENT_INDEX_LFH)
        sound &= self._names_its_area(words.astype(np.uint32), header, owner)
        for bad in np.flatnonzero(~sound).tolist()[: self.context.log.limit + 1]:
            self._say(
                "lfh-header-damaged" if present[bad] else "lfh-block-absent",
                "_HEAP_ENTRY",
                int(header[bad]),
                "the header of this LFH block "
                + ("contradicts its area" if present[bad] else "is not in the dump")
                + "; its state is unknown",
                int(stride[bad]),
            )
        lost += int(stride[~sound].sum())
        header, stride, flags, unused = header[sound], stride[sound], flags[sound], unused[sound]
        busy = (flags & FLAG_BUSY) != 0
        size = stride - unused_bytes(self.context, header, stride, unused)
        clear = (size >= 0) & (size <= stride - LEAST_UNUSED)
        self._report_unclear(header[busy & ~clear])
        blocks = Blocks.build(
            header + np.uint64(granularity),
            np.where(clear, size, SIZE_UNKNOWN),
            stride,
            busy,
            Kind.NT_LFH,
            self.ordinal,
            traces(
                self.context,
                self.layout,
                header + stride.astype(np.uint64),
                busy & ((flags & FLAG_EXTRA) != 0),
            ),
        )
        return blocks, lost

    def _names_its_area(self, code: U32, header: U64, owner: I64) -> Mask:
        """True where a header's word agrees with the others of its area.

        The word is an XOR of the header's place, its subsegment and a key of the process. Where no value is
        common to an area (the form on x64 is not known), it says nothing.
        """
        if not len(header):
            return np.empty(0, bool)
        shift = 3 if self.context.pointer_size == 4 else 4
        spread = code ^ (header >> np.uint64(shift)).astype(np.uint32)
        starts = np.concatenate(([0], np.flatnonzero(np.diff(owner)) + 1))
        agrees = equals_majority(spread, starts)
        share = np.add.reduceat(agrees.astype(np.int64), starts) * 2
        counts = np.diff(np.append(starts, len(owner)))
        return np.asarray(agrees | np.repeat(share <= counts, counts))

    def _report_unclear(self, header: U64) -> None:
        for address in header[: self.context.log.limit + 1].tolist():
            self._say(
                "unused-bytes-unclear",
                "_HEAP_ENTRY.UnusedBytes",
                address,
                "the size the program asked for is not readable; the block's own size is used",
            )
