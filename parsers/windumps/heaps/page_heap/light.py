"""The light form of page heap: a block of the normal heap with a stamped header inside, and a filled tail."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U32, U64
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.layouts.rows import LayoutRow

STRUCTURE = "_DPH_BLOCK_INFORMATION"
FULL_START, FULL_END = 0xABCDBBBB, 0xDCBABBBB
LIGHT_START, LIGHT_END = 0xABCDAAAA, 0xDCBAAAAA
LIGHT_FREE_START, LIGHT_FREE_END = 0xABCDAAA9, 0xDCBAAAA9
SUFFIX_FILL = 0xA0A0A0A0
MOST_SUFFIX = 64  # filled bytes behind the program's; 8 were seen on x86


class Headers(NamedTuple):
    """`_DPH_BLOCK_INFORMATION` in front of user areas, as columns.

    Attributes:
        present: True where it is in the dump as a whole; the other columns are 0 elsewhere.
        start: uint32, StartStamp.
        end: uint32, EndStamp.
        owned: True where Heap names the root; light blocks carry it with the highest bit flipped.
        requested: uint64, RequestedSize.
        actual: uint64, ActualSize.
        trace: uint64, StackTrace.
    """

    present: Mask
    start: U32
    end: U32
    owned: Mask
    requested: U64
    actual: U64
    trace: U64

    def take(self, keep: Mask) -> Headers:
        """Those where `keep` is true."""
        return Headers._make(column[keep] for column in self)


def read_headers(context: HeapContext, row: LayoutRow, at: U64, root: int) -> Headers:
    """Reads the header at each address."""
    pointer = f"<u{context.pointer_size}"
    present = np.ones(len(at), bool)

    def column(name: str) -> U64:
        dtype = "<u4" if row.field_size(STRUCTURE, name) == 4 else pointer
        values, there = context.memory.gather(at + np.uint64(row.offset(STRUCTURE, name)), dtype)
        np.logical_and(present, there, out=present)
        return values.astype(np.uint64)

    start, end = column("StartStamp").astype(np.uint32), column("EndStamp").astype(np.uint32)
    heap = column("Heap")
    biased = root ^ (1 << (8 * context.pointer_size - 1))
    owned = (heap == np.uint64(root)) | (heap == np.uint64(biased))
    columns = column("RequestedSize"), column("ActualSize"), column("StackTrace")
    return Headers(present, start, end, owned, *columns)


class Stamps(NamedTuple):
    """What headers say of themselves, as columns.

    Attributes:
        start: uint32, StartStamp.
        heap: uint64, Heap as it is stored.
        sound: True where the end stamp is that of a live block, as the start stamp, and sizes fit.
    """

    start: U32
    heap: U64
    sound: Mask


def read_stamps(context: HeapContext, row: LayoutRow, at: U64) -> Stamps:
    """Reads headers of which the root is not known."""
    headers = read_headers(context, row, at, 0)
    offset = np.uint64(row.offset(STRUCTURE, "Heap"))
    heap, _ = context.memory.gather(at + offset, f"<u{context.pointer_size}")
    light = (headers.start == LIGHT_START) & (headers.end == LIGHT_END)
    full = (headers.start == FULL_START) & (headers.end == FULL_END)
    sizes = headers.requested <= headers.actual
    light &= sizes & (headers.actual - headers.requested <= row.size(STRUCTURE) + MOST_SUFFIX)
    return Stamps(headers.start, heap.astype(np.uint64), headers.present & (light | full & sizes))


class LightBlocks(NamedTuple):
    """What the used blocks of a normal heap are to page heap, as columns.

    Attributes:
        used: The program has it.
        free: Freed, but kept from reuse for a while.
        damaged: Its header contradicts itself; `used` and `free` tell what the sound part says, and
            neither is true where none is.
        requested: int64, bytes the program asked for; -1 where that is not readable.
        trace: uint64, address of the recorded stack, or 0.
    """

    used: Mask
    free: Mask
    damaged: Mask
    requested: I64
    trace: U64


def classify(headers: Headers, room: I64, header_size: int, ends: Mask) -> LightBlocks:
    """Tells what blocks are from their headers.

    A header says its state twice, names its root, and its sizes fit each other and the block: with one of
    them wrong the others still tell.

    Args:
        headers: Read from the blocks' user areas.
        room: int64, bytes page heap asked the normal heap for.
        header_size: Bytes of the header.
        ends: Where the filling behind the block begins at RequestedSize.
    """
    live = (headers.start == LIGHT_START).astype(np.int8) + (headers.end == LIGHT_END)
    dead = (headers.start == LIGHT_FREE_START).astype(np.int8) + (headers.end == LIGHT_FREE_END)
    suffix = headers.actual.astype(np.int64) - header_size - headers.requested.astype(np.int64)
    possible = (suffix >= 0) & (suffix <= MOST_SUFFIX) & (headers.requested <= headers.actual)
    sized = possible & (headers.actual == room.astype(np.uint64))
    witnesses = headers.owned.astype(np.int8) + sized
    used = headers.present & (live > 0) & (dead == 0) & (live + witnesses >= 2)
    free = headers.present & (dead > 0) & (live == 0) & (dead + witnesses >= 2)
    sound = (live + dead == 2) & (used | free) & (witnesses == 2)
    # With all else right, the filling too, it is the normal heap's own header that is wrong about the size.
    told = sized | (possible & headers.owned & (live + dead == 2) & ends)
    requested = np.where(told, headers.requested, 0).astype(np.int64) - (~told)
    return LightBlocks(used, free, ~sound, requested, headers.trace)
