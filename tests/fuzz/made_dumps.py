"""Dumps of processes whose heaps the tests' builders made, with their truth: kinds that `testdata/` lacks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from builders.minidump_builder import MinidumpBuilder
from builders.nt_heap_builder import NtHeapBuilder
from builders.page_heap_builder import PageHeapBuilder, linked
from builders.segment_heap_builder import HEAP, SegmentHeapBuilder
from builders.xp_heap_builder import XpHeapBuilder

from fuzz.dice import Dice
from windumps.memory import RunMemory

TEB, PEB, LIST_HEAD = 0x70000000, 0x70001000, 0x71000040
APP, NTDLL = 0x73000000, 0x74000000
PAGE_HEAP_FLAG = 0x02000000
# Offsets in the TEB and the PEB by pointer size: self, PEB; image, process heap, flag, heap count, heaps.
PLACES = {
    4: (0x18, 0x30, 0x8, 0x18, 0x68, 0x88, 0x90),
    8: (0x30, 0x60, 0x10, 0x30, 0xBC, 0xE8, 0xF0),
}

Pieces = dict[int, bytes]


class Made(NamedTuple):
    """A made heap.

    Attributes:
        pieces: Its memory.
        handle: What the process's list has.
        used: Address → size of its used blocks.
    """

    pieces: Pieces
    handle: int
    used: dict[int, int]


def pieces_of(memory: RunMemory) -> Pieces:
    rows = zip(*(column.tolist() for column in memory.runs), strict=True)
    return {a: memory.data[offset : offset + size].tobytes() for a, size, offset in rows}


def nt_heap(form: str, x64: bool, dice: Dice) -> Made:
    made = NtHeapBuilder(form, x64, 0x10000000, 24)
    used = {}
    for _ in range(300):
        size = dice.between(1, 400)
        used[made.used_block(size)] = size
        if dice.chance(0.2):
            made.free_block(dice.between(16, 300))
    return Made(made.build(), made.address, used)


def xp_heap(front_end: str, x64: bool, dice: Dice) -> Made:
    made = XpHeapBuilder(x64, extra=front_end == "extra", lookaside=front_end != "lfh")
    for number in range(240):
        made.used_block(dice.between(1, 700))
        if dice.chance(0.2):
            made.free_block(dice.between(16, 300))
        if number == 160:
            made.hole(3)
            made.new_segment()
    if front_end == "lfh":
        for units in (4, 8):
            requests = [
                dice.between(1, 8 * units - 8) if dice.chance(0.7) else None for _ in range(60)
            ]
            made.lfh_area(units, requests)
    made.large_block(600_000)
    return Made(made.pieces(), made.address, made.used)


def page_heap(form: str, x64: bool, dice: Dice) -> Made:
    made = PageHeapBuilder(form, x64)
    for number in range(40):
        made.full_block(dice.between(1, 9000))
        made.light_block(dice.between(1, 400))
        if number % 4 == 0:
            made.freed_block(dice.between(1, 5000))
            made.freed_light_block(dice.between(1, 400))
    return Made(linked([made], LIST_HEAD), made.normal_address, made.used)


def segment_heap(encoded: bool, dice: Dice) -> Made:
    made = SegmentHeapBuilder(encoded_tree=encoded)

    def some(count: int, limit: int) -> list[int | None]:
        return [dice.between(1, limit) if dice.chance(0.7) else None for _ in range(count)]

    for _ in range(4):
        made.vs(some(40, 2000))
    for size in (32, 64, 256, 1024):
        made.lfh(size, some(3000 // max(size, 80), size))
    made.pages(300_000)
    made.large(2_500_000)
    made.large(3_000_000)
    return Made(pieces_of(made.build()), HEAP, made.used)


def process(made: Made, x64: bool, version: tuple[int, int, int], flag: int) -> bytes:
    """A minidump of a process that has this heap and nothing else."""
    width, word = (8, "<Q") if x64 else (4, "<I")
    own, to_peb, image, main_heap, flags, count, heaps = PLACES[width]
    teb, peb = bytearray(0x1000), bytearray(0x1000)
    struct.pack_into(word, teb, own, TEB)
    struct.pack_into(word, teb, to_peb, PEB)
    struct.pack_into(word, peb, image, APP)
    struct.pack_into(word, peb, main_heap, made.handle)
    struct.pack_into("<I", peb, flags, flag)
    struct.pack_into("<II", peb, count, 1, 16)
    struct.pack_into(word, peb, heaps, PEB + 0x800)
    struct.pack_into(word, peb, 0x800, made.handle)
    dump = MinidumpBuilder("x64" if x64 else "x86", version[2], version[:2])
    dump.module("C:\\app.exe", APP, 0x10000).module("C:\\ntdll.dll", NTDLL, 0x10000)
    dump.thread(teb=TEB)
    pieces = {**made.pieces, TEB: bytes(teb), PEB: bytes(peb)}
    for address in sorted(pieces):
        dump.memory(address, bytes(pieces[address]))
        dump.region(address, len(pieces[address]))
    return dump.build()


class MadeRow(NamedTuple):
    """One kind of made process.

    Attributes:
        scenario: What is in it.
        version: The system's version.
        x64: Else x86.
        make: Makes its heap.
        flag: NtGlobalFlag.
    """

    scenario: str
    version: tuple[int, int, int]
    x64: bool
    make: Callable[[Dice], Made]
    flag: int = 0

    @property
    def name(self) -> str:
        """As names of dumps with truth are: system, scenario, file."""
        system = ".".join(map(str, self.version))
        return f"made/{system}-{'x64' if self.x64 else 'x86'}/{self.scenario}/dump"

    def dump(self) -> tuple[bytes, dict[int, int]]:
        """The dump, and address → size of its used blocks."""
        made = self.make(Dice(self.name))
        return process(made, self.x64, self.version, self.flag), made.used


XP, VISTA, EIGHT, EIGHT_ONE, TEN = (
    (5, 2, 3790),
    (6, 0, 6002),
    (6, 2, 9200),
    (6, 3, 9600),
    (10, 0, 19041),
)
MADE_ROWS: tuple[MadeRow, ...] = (
    *(
        MadeRow(f"nt-{form}", version, x64, partial(nt_heap, form, x64))
        for form, version in (("vista", VISTA), ("8", EIGHT_ONE))
        for x64 in (False, True)
    ),
    *(
        MadeRow(f"xp-{front_end}", XP, x64, partial(xp_heap, front_end, x64))
        for front_end in ("lookaside", "extra", "lfh")
        for x64 in (False, True)
    ),
    *(
        MadeRow(f"page-heap-{form}", version, x64, partial(page_heap, form, x64), PAGE_HEAP_FLAG)
        for form, version in (("xp", XP), ("vista", VISTA), ("verifier", EIGHT))
        for x64 in (False, True)
    ),
    MadeRow("segment", TEN, True, partial(segment_heap, False)),
    MadeRow("segment-encoded", TEN, True, partial(segment_heap, True)),
)
