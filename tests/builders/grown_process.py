"""A process of any size, written straight to a minidump: segment heaps that are alike, each 4 GiB behind the other.

One heap is laid out block by block; the others are it again, with what depends on addresses written anew. Half
of the blocks hold a pointer to another block of their heap.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from builders.heaps_process import APP, APP_BYTES, NTDLL, PEB, PLACES, TEB
from builders.minidump_builder import MinidumpBuilder, patched, stream_place
from builders.segment_heap_builder import SegmentHeapBuilder
from windumps.arrays import I64, U8, U64

STEP = 1 << 32  # from heap to heap: keys meet the low halves of addresses, which stay as they are
BLOCK_BYTES = 96
SUBSEGMENT_PAGES = 16
STARTED = 1_700_000_000


class _Alike(NamedTuple):
    """The heap that is copied.

    Attributes:
        made: Its builder.
        address: uint64, where each piece of it begins.
        size: int64, bytes of each.
        place: Where in its memory pointers stand, as words.
        target: uint64, the blocks they lead to.
    """

    made: SegmentHeapBuilder
    address: U64
    size: I64
    place: I64
    target: U64

    def memory(self, number: int) -> U8:
        """All of one of the heaps, in order of addresses."""
        made, shift = self.made, number * STEP
        places = made.heap, made.first_segment, made.context
        made.heap, made.first_segment, made.context = (place + shift for place in places)
        data = made.build().data.copy()
        made.heap, made.first_segment, made.context = places
        data.view("<u8")[self.place] = self.target + np.uint64(shift)
        return data


def _alike(blocks: int) -> _Alike:
    made, left = SegmentHeapBuilder(), blocks
    room = SUBSEGMENT_PAGES * 0x1000 // BLOCK_BYTES - 8
    while left > 0:
        made.lfh(BLOCK_BYTES, [BLOCK_BYTES - 6] * min(room, left), pages=SUBSEGMENT_PAGES)
        left -= room
    random = np.random.default_rng(blocks)
    used = np.sort(np.fromiter(made.used, np.uint64, len(made.used)))
    address, size, offset = made.build().runs
    holder = used[random.random(len(used)) < 0.5]
    piece = np.searchsorted(address, holder, "right") - 1
    place = offset[piece] + (holder - address[piece]).astype(np.int64) + 8
    return _Alike(made, address, size, place // 8, random.choice(used, len(holder)))


def _small_memory(heaps: list[int]) -> list[tuple[int, bytes]]:
    own, to_peb, image, main_heap, count, array = PLACES[8]
    teb, peb = bytearray(0x1000), bytearray(0x1000 + 8 * len(heaps))
    struct.pack_into("<Q", teb, own, TEB)
    struct.pack_into("<Q", teb, to_peb, PEB)
    struct.pack_into("<Q", peb, image, APP)
    struct.pack_into("<Q", peb, main_heap, heaps[0])
    struct.pack_into("<II", peb, count, len(heaps), len(heaps))
    struct.pack_into("<Q", peb, array, PEB + 0x1000)
    struct.pack_into(f"<{len(heaps)}Q", peb, 0x1000, *heaps)
    images = [(place, bytes(APP_BYTES)) for place in (APP, NTDLL)]
    return [(TEB, bytes(teb)), (PEB, bytes(peb)), *images]


def write_grown(path: Path, heaps: int, blocks: int, hours: int = 0) -> None:
    """Writes a dump.

    Args:
        path: The file.
        heaps: How many.
        blocks: Of each; a dump with more of them has those of one with less at the same addresses.
        hours: Since the process began.
    """
    alike = _alike(blocks)
    small = _small_memory([alike.made.heap + number * STEP for number in range(heaps)])
    shifts = np.arange(heaps, dtype=np.uint64) * np.uint64(STEP)
    starts = (shifts[:, None] + alike.address).ravel()
    table = np.empty((len(small) + len(starts), 2), "<u8")
    table[: len(small)] = [(address, len(raw)) for address, raw in small]
    table[len(small) :, 0] = starts
    table[len(small) :, 1] = np.tile(alike.size, heaps)
    dump = MinidumpBuilder(timestamp=STARTED + 3600 * hours).misc_info(4711, (STARTED, 1, 1))
    dump.module("C:\\app\\app.exe", APP, APP_BYTES).module("C:\\ntdll.dll", NTDLL, APP_BYTES)
    dump.thread(teb=TEB)
    for address, size in table.tolist():
        dump.region(address, size)
    head = dump.stream(9, struct.pack("<QQ", len(table), 0) + table.tobytes()).build()
    head = patched(head, stream_place(head, 9)[0] + 8, struct.pack("<Q", len(head)))
    with path.open("wb") as file:
        file.write(head)
        file.write(b"".join(raw for _, raw in small))
        for number in range(heaps):
            file.write(alike.memory(number).data)
