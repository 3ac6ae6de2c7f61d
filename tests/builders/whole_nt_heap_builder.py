"""Lays out an NT heap of any build of Vista to 11 with all that one has, from numbers of its own.

heap = WholeNtHeapBuilder(10240, x64=True)
heap.used_block(100)
heap.free_block(64)
heap.area(48, [40, None, 48])      # an LFH area of three blocks; None is free
heap.hole(2)                       # uncommitted pages
heap.new_segment()
heap.large_block(600_000)
memory = heap.memory()             # heap.used: address -> size that must be found
"""

from __future__ import annotations

import struct

import numpy as np

from builders.nt_heap_numbers import COMMON, FRONT_END_7, FRONT_END_8, HEAPS
from windumps.memory import RunMemory
from windumps.memory.regions import Regions

PAGE = 0x1000
ENCODED = 0x100000  # in the low word of a header
KEY = 0x0000_9C3D_2B1E_7744  # of headers; the last two bytes are stored plain
LFH_KEY = 0x6D2F_81C5
FRONT_END_BYTES = 2 * PAGE


class WholeNtHeapBuilder:
    """See the module.

    Args:
        build: One of `HEAPS`.
        x64: Else x86.
        address: The heap's handle.
    """

    def __init__(self, build: int, x64: bool, address: int = 0x10000000) -> None:
        self.numbers = HEAPS[build, x64]
        self.build, self.x64, self.address = build, x64, address
        self.pointer, self.unit = (8, 16) if x64 else (4, 8)
        self.front_end_numbers = FRONT_END_7 if build < 9200 else FRONT_END_8
        self.used: dict[int, int] = {}
        self.headers: dict[int, tuple[int, int]] = {}  # user address -> header, block bytes
        self.areas: dict[int, int] = {}  # area -> subsegment
        self.segments: list[int] = []
        self.large: list[int] = []
        self.reserved: dict[int, int] = {}  # segment -> pages
        self.holes: dict[int, list[tuple[int, int, int]]] = {}  # descriptor, address, bytes
        self.given_back: list[tuple[int, int]] = []  # address, bytes: inside free blocks
        self._memory: dict[int, bytearray] = {}
        self._allocation = address
        self._free_units = self._large_bytes = 0
        self._front_end = self._zone = 0
        self._subsegments = self._previous = self._at = 0
        self._open_segment(0x800 if x64 else 0x5C0)

    # -- what goes in

    def used_block(self, requested: int, content: bytes = b"") -> int:
        """A block of the program; returns its address."""
        units = -(-(requested + self.unit) // self.unit)
        user = self._entry(units, 1, units * self.unit - requested) + self.unit
        self.write(user, content)
        self.used[user] = requested
        return user

    def checked_block(self, requested: int) -> int:
        """A block of a heap with tail checking."""
        self.write(self.address + (0x70 if self.x64 else 0x40), struct.pack("<I", 0x22))
        units = -(-(requested + 2 * self.unit) // self.unit)
        user = self._entry(units, 5, units * self.unit - requested) + self.unit
        self.write(user + requested, b"\xab" * self.unit)
        self.used[user] = requested
        return user

    def free_block(self, room: int) -> int:
        """A free block with so many bytes behind its header; returns where they begin."""
        units = -(-room // self.unit) + 1
        self._free_units += units
        return self._entry(units, 0, 0) + self.unit

    def given_back_block(self, room: int) -> int:
        """A free block that gave its whole pages back; the heap still counts them as committed."""
        user = self._entry(-(-room // self.unit) + 1, 8, 0) + self.unit
        self._free_units += (self._at - user) // self.unit + 1
        first = -(-(user + 2 * self.pointer) // PAGE) * PAGE
        if self._at // PAGE * PAGE > first:
            self.given_back.append((first, self._at // PAGE * PAGE - first))
        return user

    def freed_together(self, requests: list[int]) -> int:
        """Used blocks that became one free block: their headers are left over in it. Returns where
        the free block begins, behind its header.
        """
        first, previous = self._at, self._previous
        for requested in requests:
            units = -(-(requested + self.unit) // self.unit)
            self._entry(units, 1, units * self.unit - requested)
        units = (self._at - first) // self.unit
        self._write_header(first, units, 0, previous, 0)
        self._free_units += units
        self._previous = units
        return first + self.unit

    def area(self, block_bytes: int, requests: list[int | None]) -> int:
        """An LFH area with blocks of so many bytes, header included; returns its address."""
        if not self._front_end:
            self._begin_front_end()
        size = self._f("area size") + (len(requests) + 7) // 8
        first = -(-size // self.unit) * self.unit
        if self.build < 9200:
            first = self._f("area size")
        room = first + block_bytes * len(requests)
        units = -(-(room + self.unit) // self.unit)
        area = self._entry(units, 9, units * self.unit - room) + self.unit
        sub = self._zone + self._f("zone first") + self._subsegments * self._f("sub size")
        self._subsegments += 1
        self.areas[area] = sub
        self._pointer(sub + self._f("sub area"), area)
        free = sum(request is None for request in requests)
        self.write(sub + self._f("sub depth"), struct.pack("<H", free))
        self.write(sub + self._f("sub stride"), struct.pack("<H", block_bytes // self.unit))
        self.write(sub + self._f("sub count"), struct.pack("<H", len(requests)))
        self._pointer(area, sub)
        self.write(area + self._f("area signature"), struct.pack("<I", 0xF0E0D0C0))
        bits = sum(1 << i for i, request in enumerate(requests) if request is not None)
        if self.build >= 9200:
            offsets = block_bytes << 16 | first
            if self.build >= 9600:
                offsets ^= (area ^ self._front_end ^ LFH_KEY) & 0xFFFFFFFF
            self.write(area + self._f("area offsets"), struct.pack("<I", offsets))
            self.write(area + self._f("area bits"), struct.pack("<I", len(requests)))
            self._pointer(area + self._f("area bitmap"), area + self._f("area size"))
            self.write(
                area + self._f("area size"), bits.to_bytes((len(requests) + 7) // 8, "little")
            )
        for index, request in enumerate(requests):
            header = area + first + index * block_bytes
            unused = 0x80 if request is None else 0x80 | block_bytes - request
            raw = struct.pack("<IBHB", self._lfh_word(header, area, sub), 0, index, unused)
            self.write(header + self.unit - 8, raw)
            if request is not None:
                self.used[header + self.unit] = request
                self.headers[header + self.unit] = (header, block_bytes)
        return area

    def hole(self, pages: int) -> None:
        """Uncommitted pages; what comes then lies behind them."""
        self._close_run()
        self._mark_hole(pages)
        self._at += pages * PAGE
        self._previous = 0

    def new_segment(self) -> int:
        """A segment of its own for what comes then; returns its address."""
        self._finish_segment()
        self._open_segment(0x70 if self.x64 else 0x40)
        return self.segments[-1]

    def large_block(self, requested: int, behind: int = 0) -> int:
        """A block with an allocation of its own, so many bytes behind its beginning; returns its address."""
        head = self._c("large header") + self.unit
        commit = -(-(requested + head) // PAGE) * PAGE
        entry = self._allocate(behind + commit) + behind
        self._memory[entry] = bytearray(commit)
        self._pointer(entry + self._c("large commit"), commit)
        self._pointer(entry + self._c("large reserve"), behind + commit)
        unused = commit - requested
        self._write_header(entry + self._c("large header"), unused, 3, 0, 4)
        self._large_bytes += commit
        self.large.append(entry)
        self.used[entry + head] = requested
        return entry + head

    # -- what comes out

    def memory(self, regions: bool = False) -> RunMemory:
        """The heap's memory, with the list of regions if asked for."""
        return made_memory(self.pieces(), regions)

    def pieces(self) -> dict[int, bytes]:
        """Memory by address, committed ranges apart."""
        self._finish_segment()
        n, p = self.numbers, self.address
        ring = [p + n.segments] + [s + self._c("segment link") for s in self.segments]
        self._ring(*ring)
        self._ring(p + n.large, *self.large)
        self.write(p + n.mask, struct.pack("<I", ENCODED))
        self.write(p + n.encoding + (8 if self.x64 else 0), struct.pack("<Q", KEY))
        self.write(p + n.signature, struct.pack("<I", 0xEEFFEEFF))
        self._pointer(p + n.free, self._free_units)
        self._pointer(p + n.front_end, self._front_end)
        self.write(p + n.front_end_type, bytes([2 if self._front_end else 0]))
        reserved = sum(pages * PAGE for pages in self.reserved.values())
        uncommitted = sum(size for holes in self.holes.values() for _, _, size in holes)
        beside = FRONT_END_BYTES if self._front_end and self.build >= 9200 else 0
        self._pointer(p + n.counters, reserved + beside)
        self._pointer(p + n.counters + self._c("count committed"), reserved - uncommitted + beside)
        self._pointer(p + n.counters + self._c("count large"), self._large_bytes)
        self.write(
            p + n.counters + self._c("count segments"), struct.pack("<I", len(self.segments))
        )
        pieces = {}
        for base, raw in self._memory.items():
            at = base
            absent = [(start, size) for _, start, size in self.holes.get(base, [])]
            absent += [(a, n) for a, n in self.given_back if base <= a < base + len(raw)]
            for start, size in sorted(absent):
                if start > at:
                    pieces[at] = bytes(raw[at - base : start - base])
                at = start + size
            if at < base + len(raw):
                pieces[at] = bytes(raw[at - base :])
        return pieces

    def write(self, address: int, raw: bytes) -> None:
        """Puts bytes at an address."""
        for base, memory in self._memory.items():
            if base <= address and address + len(raw) <= base + len(memory):
                memory[address - base : address - base + len(raw)] = raw
                return
        raise AssertionError(f"0x{address:x} is in no memory of the made heap")

    # -- inside

    def _c(self, name: str) -> int:
        return COMMON[name][self.x64]

    def _f(self, name: str) -> int:
        return self.front_end_numbers[name][self.x64]

    def _allocate(self, size: int) -> int:
        base, self._allocation = self._allocation, self._allocation + size + 0xFFFF & ~0xFFFF
        return base

    def _open_segment(self, first: int) -> None:
        base = self._allocate(0x40000)
        self.segments.append(base)
        self.reserved[base] = 0x40
        self.holes[base] = []
        self._memory[base] = bytearray(0x40000)
        self._at, self._previous, self._finished = base, 0, False
        self._entry(first // self.unit, 1, 1)
        self._pointer(base + self._c("segment first"), self._at)

    def _finish_segment(self) -> None:
        if self._finished:
            return
        self._finished = True
        base = self.segments[-1]
        self._close_run()
        end = base + self.reserved[base] * PAGE
        self._mark_hole((end - self._at) // PAGE)
        self.write(base + self._c("segment signature"), struct.pack("<I", 0xFFEEFFEE))
        self._pointer(base + self._c("segment heap"), self.address)
        self._pointer(base + self._c("segment base"), base)
        self.write(base + self._c("segment pages"), struct.pack("<I", self.reserved[base]))
        self._pointer(base + self._c("segment last"), end)
        holes = self.holes[base]
        pages = sum(size for _, _, size in holes) // PAGE
        self.write(base + self._c("segment uncommitted"), struct.pack("<I", pages))
        self.write(base + self._c("segment ranges"), struct.pack("<I", len(holes)))
        links = [descriptor + self._c("ucr link") for descriptor, _, _ in holes]
        self._ring(base + self._c("segment ucr"), *links)
        for descriptor, address, size in holes:
            self._pointer(descriptor + self._c("ucr address"), address)
            self._pointer(descriptor + self._c("ucr size"), size)

    def _close_run(self) -> None:
        """Ends a committed range at a page's end, with the sentinel that holds its descriptor."""
        sentinel = 4 * self.unit
        room = -(self._at + sentinel) % PAGE
        if room:
            room += PAGE if room < 2 * self.unit else 0
            self.free_block(room - self.unit)
        self._sentinel = self._entry(4, 1, 3) + self.unit

    def _mark_hole(self, pages: int) -> None:
        self.holes[self.segments[-1]].append((self._sentinel, self._at, pages * PAGE))

    def _begin_front_end(self) -> None:
        size = 0x7D0 if self.build >= 9200 else 0x400
        if self.build >= 9200:
            self._front_end = self._allocate(FRONT_END_BYTES)
            self._memory[self._front_end] = bytearray(FRONT_END_BYTES)
        else:
            units = -(-size // self.unit)
            self._front_end = self._entry(units, 9, self.unit) + self.unit
        self._zone = self._entry(1024 // self.unit, 9, self.unit) + self.unit
        self._pointer(self._front_end + self._f("lfh heap"), self.address)
        self._ring(self._front_end + self._f("lfh zones"), self._zone)

    def _lfh_word(self, header: int, area: int, sub: int) -> int:
        shift, distance_shift = (4, 12) if self.x64 else (3, 13)
        word = header >> shift ^ LFH_KEY
        if self.build >= 9600:
            word ^= self.address ^ header - area << distance_shift
        else:
            word ^= (self.address >> 4 ^ sub >> 4) if self.x64 else self.address ^ sub
        return word & 0xFFFFFFFF

    def _entry(self, units: int, flags: int, unused: int) -> int:
        header, self._at = self._at, self._at + units * self.unit
        self._write_header(header, units, flags, self._previous, unused)
        self.headers[header + self.unit] = (header, units * self.unit)
        self._previous = units
        return header

    def _write_header(self, header: int, size: int, flags: int, previous: int, unused: int) -> None:
        check = size & 0xFF ^ size >> 8 ^ flags
        raw = struct.pack("<HBBHBB", size, flags, check, previous, 0, unused)
        stored = int.from_bytes(raw, "little") ^ KEY
        self.write(header + self.unit - 8, stored.to_bytes(8, "little"))

    def _pointer(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(self.pointer, "little"))

    def _ring(self, *entries: int) -> None:
        for index, entry in enumerate(entries):
            self._pointer(entry, entries[(index + 1) % len(entries)])
            self._pointer(entry + self.pointer, entries[index - 1])


def made_memory(pieces: dict[int, bytes], regions: bool = False) -> RunMemory:
    """Memory made of pieces at addresses; each 64-KiB-aligned piece begins an allocation."""
    order = sorted(pieces)
    sizes = [len(pieces[address]) for address in order]
    address = np.array(order, np.uint64)
    rows = Regions.empty()
    if regions:
        aligned = np.where(address & np.uint64(0xFFFF) == 0, address, 0)
        rows = Regions(
            address,
            np.maximum.accumulate(aligned),
            np.array(sizes, np.uint64),
            np.full(len(order), 0x1000, np.uint32),
            np.full(len(order), 4, np.uint32),
            np.full(len(order), 0x20000, np.uint32),
        )
    return RunMemory(
        np.frombuffer(b"".join(pieces[at] for at in order), np.uint8),
        address,
        np.array(sizes, np.int64),
        np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        rows,
    )
