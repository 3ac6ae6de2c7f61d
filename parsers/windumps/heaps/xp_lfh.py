"""The low-fragmentation front end of Windows XP and 2003.

Areas and subsegments are those of Vista; two things differ. Nothing marks the back-end blocks that are
areas, so they are known by their contents; zones and areas kept for reuse are ordinary used blocks to the
genuine walk, and so they are here. And a block's state is bit 0 of its Flags.
"""

from __future__ import annotations

import numpy as np

from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.heaps.nt_base import report_unclear_sizes
from windumps.heaps.nt_entries import FLAG_BUSY, FLAG_EXTRA, I64, U32, U64, Mask
from windumps.heaps.nt_lfh import LfhReader, equals_majority
from windumps.heaps.xp_entries import LEAST_UNUSED, traces, unused_bytes

SEGMENT_INDEX_LFH = 0xFF


class XpLfhReader(LfhReader):
    """Decodes areas of one heap; see `LfhReader`."""

    def areas(self, user: U64, block_bytes: I64) -> Mask:
        """Which back-end blocks are areas in use: signature, heap and size are right.

        Args:
            user: uint64, behind the header.
            block_bytes: int64, header included.
        """
        found = np.zeros(len(user), bool)
        if self.front_end:
            likely = np.flatnonzero((block_bytes & (block_bytes - 1)) == 0)
            at = user[likely]
            shift = np.minimum(self._word("SizeIndex", at), np.uint64(62)).astype(np.int64)
            found[likely] = (
                self.is_area(at)
                & (self._word("HeapHandle", at) == np.uint64(self.heap))
                & ((np.int64(1) << shift) == block_bytes[likely])
            )
        return found

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
        report_unclear_sizes(self.context, header[busy & ~clear])
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
