"""A process of several made heaps whose blocks hold what a test says, as the bytes of a minidump."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from builders.minidump_builder import MinidumpBuilder
from builders.segment_heap_builder import HEAP, SegmentHeapBuilder
from builders.whole_nt_heap_builder import WholeNtHeapBuilder

TEB, PEB, APP, NTDLL = 0x70000000, 0x70001000, 0x73000000, 0x74000000
APP_BYTES = 0x10000
# Offsets in the TEB and the PEB by pointer size: self, PEB; image, process heap, heap count, heaps.
PLACES = {4: (0x18, 0x30, 0x8, 0x18, 0x88, 0x90), 8: (0x30, 0x60, 0x10, 0x30, 0xE8, 0xF0)}
LFH_ROOM = 64  # blocks of an LFH area
SEGMENT_ROOM = 0x3D000  # bytes of a segment for blocks

Heaps = list[tuple[int, dict[int, bytes]]]  # handle and memory of each


def nt_heap(
    number: int, contents: Iterable[bytes], *, x64: bool = True, build: int = 17763
) -> tuple[int, dict[int, bytes]]:
    """An NT heap with a block of each of these contents, of exactly their sizes."""
    made = WholeNtHeapBuilder(build, x64, 0x8000000 * (number + 1))
    room = SEGMENT_ROOM
    for content in contents:
        room -= len(content) + 32
        if room < 0:
            made.new_segment()
            room = SEGMENT_ROOM - len(content) - 32
        made.used_block(len(content), content)
    return made.address, made.pieces()


def lfh_heap(number: int, contents: Iterable[bytes]) -> tuple[int, dict[int, bytes]]:
    """An NT heap whose blocks are all in its front end, those of like sizes together."""
    made = WholeNtHeapBuilder(17763, True, 0x8000000 * (number + 1))
    rows: dict[int, list[bytes]] = {}
    for content in contents:
        rows.setdefault(-(-len(content) // 16) * 16 + 16, []).append(content)
    held: dict[int, bytes] = {}
    room = SEGMENT_ROOM
    for block_bytes, mine in sorted(rows.items()):
        for first in range(0, len(mine), LFH_ROOM):
            some = mine[first : first + LFH_ROOM]
            room -= block_bytes * len(some) + 0x100
            if room < 0:
                made.new_segment()
                room = SEGMENT_ROOM - block_bytes * len(some) - 0x100
            known = set(made.used)
            made.area(block_bytes, [len(content) for content in some])
            held.update(zip(sorted(set(made.used) - known), some, strict=True))
    return made.address, written(made.pieces(), held)


def segment_heap(contents: Iterable[bytes]) -> tuple[int, dict[int, bytes]]:
    """A segment heap with a block of each of these contents in its variable-size subsegments."""
    made = SegmentHeapBuilder()
    left, held = list(contents), {}
    while left:
        some, room = [], 0xD000
        while left and room > len(left[-1]) + 32:
            some.append(left.pop())
            room -= len(some[-1]) + 32
        known = set(made.used)
        made.vs([len(content) for content in some])
        held.update(zip(sorted(set(made.used) - known), some, strict=True))
    memory = made.build()
    rows = zip(*(column.tolist() for column in memory.runs), strict=True)
    pieces = {a: memory.data[offset : offset + size].tobytes() for a, size, offset in rows}
    return HEAP, written(pieces, held)


def written(pieces: Mapping[int, bytes], held: Mapping[int, bytes]) -> dict[int, bytes]:
    """Memory with what blocks hold."""
    made = {address: bytearray(piece) for address, piece in pieces.items()}
    for place, content in held.items():
        at = next(a for a, piece in made.items() if a <= place < a + len(piece))
        made[at][place - at : place - at + len(content)] = content
    return {address: bytes(piece) for address, piece in made.items()}


def process_of(
    heaps: Heaps, *, x64: bool = True, version: tuple[int, int, int] = (10, 0, 17763), time: int = 0
) -> bytes:
    """A process that has these heaps, an image and a thread."""
    width, word = (8, "<Q") if x64 else (4, "<I")
    own, to_peb, image, main_heap, count, array = PLACES[width]
    teb, peb = bytearray(0x1000), bytearray(0x1000)
    struct.pack_into(word, teb, own, TEB)
    struct.pack_into(word, teb, to_peb, PEB)
    struct.pack_into(word, peb, image, APP)
    struct.pack_into(word, peb, main_heap, heaps[0][0])
    struct.pack_into("<II", peb, count, len(heaps), 16)
    struct.pack_into(word, peb, array, PEB + 0x800)
    for number, (handle, _) in enumerate(heaps):
        struct.pack_into(word, peb, 0x800 + number * width, handle)
    dump = MinidumpBuilder("x64" if x64 else "x86", version[2], version[:2], timestamp=time)
    dump.module("C:\\app\\app.exe", APP, APP_BYTES).module("C:\\ntdll.dll", NTDLL, APP_BYTES)
    dump.thread(teb=TEB)
    pieces = {TEB: bytes(teb), PEB: bytes(peb)}
    pieces |= dict.fromkeys((APP, NTDLL), bytes(APP_BYTES))
    for _, memory in heaps:
        pieces |= memory
    for address in sorted(pieces):
        dump.memory(address, pieces[address])
        dump.region(address, len(pieces[address]))
    return dump.build()
