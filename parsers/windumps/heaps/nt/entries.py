"""`_HEAP_ENTRY` headers as columns: decoding, checking, and what the program asked for.

Facts: Windows Vista and later store Size, Flags, SmallTagIndex and PreviousSize XORed with the
heap's
`Encoding` when `EncodeFlagMask` is set in the stored word; SmallTagIndex is then the XOR of the
three bytes before it (a checksum). Checked against headers that ntdll of 20 builds wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U8, U32, U64
from windumps.memory import AddressSpace

FLAG_BUSY = 0x01
FLAG_EXTRA = 0x02
FLAG_FILLED = 0x04  # the debug heap's patterns are around what the program uses
FLAG_INTERNAL = 0x08  # of a busy block: the heap's own; of a free one: interior pages decommitted

# Values of UnusedBytes.
UNUSED_FREE = 0x00
UNUSED_HEADER = 0x01  # heap or segment header, or a table of the heap
UNUSED_SENTINEL = 0x03  # last committed block before an uncommitted range
UNUSED_VIRTUAL = 0x04  # large block
UNUSED_EXTENDED_SIGNATURE = 0x05  # marks the secondary header of an extended block
LEAST_UNUSED = 0x08  # of what a program uses: its header, or on x64 as much of it as is its own
UNUSED_IN_TAIL = 0x3F  # the count stands in a word at the block's end
UNUSED_EXTENDED = 0x40  # low six bits: distance to the secondary header
UNUSED_LFH = 0x80

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Encoding:
    """How a heap encodes its headers.

    Attributes:
        mask: `_HEAP.EncodeFlagMask`; 0 when headers are plain.
        low: XOR key of Size, Flags, SmallTagIndex.
        high: XOR key of PreviousSize, SegmentOffset, UnusedBytes.
    """

    mask: int
    low: int
    high: int

    def decode_low(self, stored: U32) -> U32:
        """Size (bits 0-15), Flags (16-23) and SmallTagIndex (24-31) of each header."""
        if not self.mask:
            return stored
        encoded = (stored & np.uint32(self.mask)) != 0
        return np.where(encoded, stored ^ np.uint32(self.low), stored)

    def decode_high(self, stored_low: U32, stored_high: U32) -> U32:
        """PreviousSize (bits 0-15), SegmentOffset (16-23) and UnusedBytes (24-31) of each
        header.
        """
        if not self.mask:
            return stored_high
        encoded = (stored_low & np.uint32(self.mask)) != 0
        return np.where(encoded, stored_high ^ np.uint32(self.high), stored_high)

    def checks_out(self, low: U32) -> Mask:
        """True where a decoded low word can be a header: a size, and the checksum if there is one."""
        has_size: Mask = (low & np.uint32(0xFFFF)) != 0
        if self.mask:
            has_size &= (low >> 24) == ((low ^ (low >> 8) ^ (low >> 16)) & np.uint32(0xFF))
        return has_size


class Entries(NamedTuple):
    """Decoded headers as columns.

    Attributes:
        header: uint64, address of each `_HEAP_ENTRY`.
        units: uint32, Size in units of the granularity.
        flags: uint8.
        unused: uint8, UnusedBytes.
    """

    header: U64
    units: U32
    flags: U8
    unused: U8

    @classmethod
    def join(cls, pieces: list[Entries]) -> Entries:
        """All pieces behind each other."""
        return cls(
            np.concatenate([piece.header for piece in pieces]),
            np.concatenate([piece.units for piece in pieces]),
            np.concatenate([piece.flags for piece in pieces]),
            np.concatenate([piece.unused for piece in pieces]),
        )


class UserExtents(NamedTuple):
    """What the program sees of busy blocks.

    Attributes:
        address: uint64, what the program got.
        size: int64, bytes asked for; meaningless where not `valid`.
        trace: uint64, address of the recorded stack, or 0.
        valid: False where the record of unused bytes is absent or impossible.
        doubtful: True where UnusedBytes is none of a used block, or the secondary header that it
            points to is none: then the header is damaged, and what it says of the state with it.
    """

    address: U64
    size: I64
    trace: U64
    valid: Mask
    doubtful: Mask


def user_extents(
    memory: AddressSpace, pointer_size: int, header: U64, block_bytes: I64, unused: U8
) -> UserExtents:
    """Resolves UnusedBytes of busy blocks, of the back end or the LFH.

    Args:
        memory: Where the blocks lie.
        pointer_size: 4 or 8.
        header: uint64 addresses of the headers.
        block_bytes: int64 size of each block, header included.
        unused: uint8 UnusedBytes; the LFH bit is ignored.
    """
    granularity = 2 * pointer_size
    low = (unused & 0x7F).astype(np.int64)
    address = header + np.uint64(granularity)
    size = block_bytes - low
    trace = np.zeros(len(header), np.uint64)
    valid = np.ones(len(header), bool)
    doubtful = (low < LEAST_UNUSED) | ((low < UNUSED_IN_TAIL) & (size < 0))

    tail = np.flatnonzero(low == UNUSED_IN_TAIL)
    if len(tail):
        # x64: the word after the block (it belongs to this block's user area); x86: the block's
        # last word.
        word_at = header[tail] + block_bytes[tail].astype(np.uint64)
        if pointer_size == 4:
            word_at -= np.uint64(4)
        word, present = memory.gather(word_at, f"<u{pointer_size}")
        count = np.minimum(word.astype(np.uint64), np.uint64(1 << 40)).astype(np.int64)
        size[tail] = block_bytes[tail] - count
        valid[tail] = present & (count >= UNUSED_IN_TAIL)

    extended = np.flatnonzero(low & UNUSED_EXTENDED)
    if len(extended):
        distance = (low[extended] & 0x3F) * granularity
        second = header[extended] + distance.astype(np.uint64)
        record, present = memory.gather(second + np.uint64(granularity - 8), _EXTENDED)
        count = record["UnusedBytesLength"].astype(np.int64)
        behind = distance + granularity
        right = present & (record["ExtendedBlockSignature"] == UNUSED_EXTENDED_SIGNATURE)
        right &= record["EntryOffset"] * granularity == distance
        right &= (distance > 0) & (count <= block_bytes[extended])
        # On x64 the last 8 bytes lie in the next block's header.
        right &= behind - count <= (pointer_size & 8)
        address[extended] = np.where(right, second + np.uint64(granularity), address[extended])
        size[extended] = block_bytes[extended] - count
        doubtful[extended] = ~right
        # Whose interceptor it is differs (1 on 10 and 11, 2 on 7): readers of traces check what it
        # points to.
        trace[extended], _ = memory.gather(
            header[extended] + np.uint64(granularity), f"<u{pointer_size}"
        )
    behind = (address - header).astype(np.int64)
    # On x64 the last 8 bytes lie in the next block's header, so the sum may reach 8 past the block.
    valid &= ~doubtful & (size >= 0) & (behind + size <= block_bytes + (pointer_size & 8))
    return UserExtents(address, size, trace, valid, doubtful)


# The live half of a secondary `_HEAP_EXTENDED_ENTRY`: the last 8 bytes of a header, on x86 and x64.
_EXTENDED = np.dtype(
    [
        ("FunctionIndex", "<u2"),
        ("ContextValue", "<u2"),
        ("UnusedBytesLength", "<u2"),
        ("EntryOffset", "u1"),
        ("ExtendedBlockSignature", "u1"),
    ]
)
