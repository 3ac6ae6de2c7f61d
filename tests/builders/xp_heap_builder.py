"""Lays out a heap of Windows XP (x86) or Server 2003 (x64), with its own numbers.

Offsets are those of the public kernel types of 5.1.2600.5512 and 5.2.3790.3959. What goes in comes out again:

    heap = XpHeapBuilder()
    heap.used_block(100)
    heap.free_block(64)
    heap.cached_block(40)        # on a look-aside list
    heap.hole(3)                 # uncommitted pages
    heap.new_segment()
    heap.large_block(600_000)
    memory = heap.build()        # heap.used: address -> size that must be found
"""

from __future__ import annotations

import struct

import numpy as np

from windumps.memory import RunMemory
from windumps.memory.regions import Regions

PAGE = 0x1000


def regions_of(rows: list[tuple[int, int, int]]) -> Regions:
    """Private committed memory as (address, bytes, base of the allocation)."""
    start, size, base = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    count = len(rows)
    state, protect, kind = (np.full(count, value, np.uint32) for value in (0x1000, 4, 0x20000))
    return Regions(start, base, size, state, protect, kind)


def memory_of(pieces: dict[int, bytes], regions: Regions | None = None) -> RunMemory:
    """Memory made of pieces at addresses."""
    order = sorted(pieces)
    sizes = [len(pieces[address]) for address in order]
    return RunMemory(
        np.frombuffer(b"".join(pieces[address] for address in order), np.uint8),
        np.array(order, np.uint64),
        np.array(sizes, np.int64),
        np.cumsum([0, *sizes[:-1]]).astype(np.int64),
        regions,
    )


class XpHeapBuilder:
    """See the module.

    Args:
        x64: Server 2003 x64 instead of XP x86.
        address: The heap's handle.
        extra: Every block ends with a `_HEAP_ENTRY_EXTRA` that holds the index of its stack.
        lookaside: The heap has a table of look-aside lists.
    """

    def __init__(
        self,
        x64: bool = False,
        address: int = 0x150000,
        extra: bool = False,
        lookaside: bool = True,
    ) -> None:
        self.x64, self.address, self.extra = x64, address, extra
        self.pointer, self.unit = (8, 16) if x64 else (4, 8)
        self.used: dict[int, int] = {}
        self.traces: dict[int, int] = {}
        self.freed: list[int] = []
        self.headers: dict[int, tuple[int, int]] = {}  # user address -> header address, block bytes
        self.segments: list[tuple[int, bytearray]] = []
        self.holes: list[list[tuple[int, int]]] = []
        self.large: list[tuple[int, int, int]] = []  # entry address, requested, trace
        self.cached: dict[int, list[int]] = {}  # units -> user addresses
        self.free: list[tuple[int, int]] = []  # header address, units
        self.front_end = self.front_end_type = self.table = 0
        self.zones: list[int] = []
        self.areas: dict[int, int] = {}
        header = 0xC00 if x64 else 0x640
        self._open_segment(address, 0x40000, header)
        if lookaside:
            entry = 0x40 if x64 else 0x30
            self.table = self._block(128 * entry)
            self.used[self.table] = 128 * entry  # as all that the heap allocates from itself
            self.front_end, self.front_end_type = self.table, 1
            for index in range(128):
                at = self.table + index * entry + 2 * self.pointer
                self.write(at, struct.pack("<HHIIII", 4, 256, 7, 7, 2, 2))

    # -- what goes in

    def used_block(self, requested: int, content: bytes = b"", spare: int = 0) -> int:
        """A block of the program, with `spare` bytes that it did not ask for; returns its address."""
        user = self._block(requested + spare)
        if spare:
            header, size = self.headers[user]
            unused = size - requested
            self.write(header + (14 if self.x64 else 6), bytes([min(unused, 255)]))
            if unused >= 255:
                self._pointer(header + size - self.pointer, unused)
        self.used[user] = requested
        if self.extra:
            self.traces[user] = len(self.used)
            end = sum(self.headers[user])
            self.write(end - 2 * self.pointer, struct.pack("<H", len(self.used)))
        self.write(user, content)
        return user

    def free_block(self, room: int) -> int:
        """A block on a free list; returns the address of its header."""
        units = max(-(-room // self.unit) + 1, 2)
        header = self._header(units, 0, 0)
        self.free.append((header, units))
        self.freed.append(header + self.unit)
        return header

    def cached_block(self, requested: int) -> int:
        """A freed block on a look-aside list: its header stays busy."""
        user = self._block(requested)
        units = self.headers[user][1] // self.unit
        self.cached.setdefault(units, []).append(user)
        self.freed.append(user)
        return user

    def large_block(self, requested: int) -> int:
        """A block of its own; returns the user's address."""
        entry = 0x2000000 + 0x400000 * len(self.large)
        user = entry + (0x40 if self.x64 else 0x20)
        self.large.append((entry, requested, len(self.large) + 900 if self.extra else 0))
        self.used[user] = requested
        self.traces[user] = self.large[-1][2]
        return user

    def hole(self, pages: int) -> None:
        """Closes the committed range at a page's end, and leaves out pages."""
        base, _memory = self.segments[-1]
        end = -(-(self.at + 2 * self.unit - base) // PAGE) * PAGE
        self._fill_to(base + end)
        self.holes[-1].append((base + end, pages * PAGE))
        self.at, self.previous = base + end + pages * PAGE, 0

    def new_segment(self) -> None:
        """Closes the segment and begins another."""
        self._close_segment()
        self._open_segment(self.address + 0x100000 * len(self.segments), 0x40000, 0)

    def lfh_area(self, units: int, requests: list[int | None]) -> int:
        """An LFH area of blocks of one size; None is a free block, and more of them fill the area up.

        Returns its address; `areas` has that of its subsegment.
        """
        if self.front_end_type != 2:
            self.front_end = self._block(0x800)
            self.front_end_type = 2
            self.zones.append(self._block(0x3F8))
            self.used |= {self.front_end: 0x800, self.zones[0]: 0x3F8}
        stride = units * self.unit
        size = 0x30 if self.x64 else 0x20
        subsegment = self.zones[-1] + 4 * self.pointer + size * len(self.areas)
        self._pointer(self.zones[-1] + 2 * self.pointer, subsegment + size)
        header = 4 * self.pointer
        log2 = (header + len(requests) * stride + self.unit - 1).bit_length()
        area = self._block((1 << log2) - self.unit, unused=self.unit)
        requests = requests + [None] * (
            ((1 << log2) - self.unit - header) // stride - len(requests)
        )
        self.areas[area] = subsegment
        word = "<QQQQ" if self.x64 else "<IIII"
        self.write(area, struct.pack(word, subsegment, self.address, log2, 0xF0E0D0C0))
        self._pointer(subsegment, self.front_end + 0x100)
        self._pointer(subsegment + self.pointer, area)
        sizes = subsegment + (0x18 if self.x64 else 0x10)
        self.write(sizes, struct.pack("<HHH", units, 0, len(requests)))
        chain = subsegment + 2 * self.pointer + 2  # where the next free block's place is written
        free = 0
        for index, requested in enumerate(requests):
            at = area + header + index * stride
            code = self._lfh_code(at, subsegment)
            unused = stride - (requested or 0) if requested is not None else 8
            raw = code.to_bytes(5, "little") if self.x64 else code.to_bytes(4, "little") + b"\0"
            raw += bytes([requested is not None, min(unused, 255), 255])
            self.write(at + self.unit - 8, raw)
            user = at + self.unit
            self.headers[user] = (at, stride)
            if unused >= 255:
                self._pointer(at + stride - self.pointer, unused)
            if requested is None:
                self.freed.append(user)
                self.write(chain, struct.pack("<H", (at - area) // self.unit))
                chain, free = user, free + 1
            else:
                self.used[user] = requested
        self.write(chain, struct.pack("<H", 0xFFFF))
        self.write(subsegment + 2 * self.pointer, struct.pack("<H", free))
        return area

    def _lfh_code(self, at: int, subsegment: int) -> int:
        """What a block's header holds of its place: on x64 40 bits, in units of 16 bytes."""
        if self.x64:
            return (0xBAE7A5A1234 ^ (subsegment ^ self.address ^ at) >> 4) & 0xFFFFFFFFFF
        return (0x5A5A1234 ^ subsegment ^ self.address ^ at >> 3) & 0xFFFFFFFF

    def regions(self) -> Regions:
        """What a dump says was committed, once `pieces` has run."""
        rows = [
            (at, len(raw), next(b for b, m in self.segments if b <= at < b + len(m)))
            for at, raw in self.pieces().items()
            if at < 0x2000000
        ]
        rows += [(entry, len(raw), entry) for entry, raw in self.large_pieces().items()]
        return regions_of(rows)

    @property
    def free_blocks(self) -> list[tuple[int, int]]:
        """(header address, bytes) of blocks on free lists."""
        return [(header, units * self.unit) for header, units in self.free]

    # -- the back end

    def _open_segment(self, base: int, size: int, header: int) -> None:
        self.segments.append((base, bytearray(size)))
        self.holes.append([])
        self.structure = base + header
        self.at = self.structure + (0x70 if self.x64 else 0x40)
        self.first_entry = self.at
        # The heap's own structure and the segment's are busy entries themselves.
        self.previous, self.at = 0, base
        if header:
            self._header(header // self.unit, 1, 0)
        self._header((self.first_entry - self.structure) // self.unit, 1, 0)

    def _close_segment(self) -> None:
        base, memory = self.segments[-1]
        self._fill_to(base + len(memory))
        numbers = {
            "signature": 0xFFEEFFEE,
            "heap": self.address,
            "base": base,
            "pages": len(memory) // PAGE,
            "first": self.first_entry,
            "last": base + len(memory),
            "uncommitted": sum(size for _, size in self.holes[-1]) // PAGE,
            "ranges": len(self.holes[-1]),
            "list": 0,
        }
        places = (
            {
                "signature": 0x10,
                "heap": 0x18,
                "base": 0x28,
                "pages": 0x30,
                "first": 0x38,
                "last": 0x40,
                "uncommitted": 0x48,
            }
            | {"ranges": 0x4C, "list": 0x50}
            if self.x64
            else {
                "signature": 8,
                "heap": 0x10,
                "base": 0x18,
                "pages": 0x1C,
                "first": 0x20,
                "last": 0x24,
                "uncommitted": 0x28,
            }
            | {"ranges": 0x2C, "list": 0x30}
        )
        # Records of ranges stand behind the heap's own structure in its first segment.
        record = 0x10 if not self.x64 else 0x20
        for start, size in self.holes[-1]:
            at = self.address + (0xB00 if self.x64 else 0x588) + record * self._records()
            packed = struct.pack("<QQQ" if self.x64 else "<III", numbers["list"], start, size)
            self.write(at, packed)
            numbers["list"] = at
            self.records = self._records() + 1
        for name, place in places.items():
            wide = name in ("heap", "base", "first", "last", "list")
            self.write(
                self.structure + place,
                numbers[name].to_bytes(self.pointer if wide else 4, "little"),
            )
        slot = 0xA0 if self.x64 else 0x58
        number = len(self.segments) - 1
        self._pointer(self.address + slot + number * self.pointer, self.structure)

    def _records(self) -> int:
        return getattr(self, "records", 0)

    def _fill_to(self, end: int) -> None:
        while (units := (end - self.at) // self.unit) > 0:
            take = units if units <= 0xF000 else 0x8000
            header = self._header(take, 0x10 if take == units else 0, 0)
            self.free.append((header, take))

    def _block(self, requested: int, unused: int = 0) -> int:
        tail = 2 * self.pointer if self.extra else 0
        units = max(-(-(requested + self.unit + tail) // self.unit), 2)
        header = self._header(
            units, 3 if self.extra else 1, unused or units * self.unit - requested
        )
        self.headers[header + self.unit] = (header, units * self.unit)
        return header + self.unit

    def _header(self, units: int, flags: int, unused: int) -> int:
        header, self.at = self.at, self.at + units * self.unit
        index = len(self.segments) - 1
        raw = struct.pack("<HHBBBB", units, self.previous, 0x77, flags, min(unused, 255), index)
        self.write(header + self.unit - 8, raw)
        self.previous = units
        return header

    # -- what comes out

    def pieces(self) -> dict[int, bytes]:
        """Memory by address."""
        self._close_segment()
        p = self.pointer
        heap = self.address
        self.write(heap + 2 * p, struct.pack("<II", 0xEEFFEEFF, 2))
        self._pointer(heap + (0xAD8 if self.x64 else 0x580), self.front_end)
        kind = heap + (0xAE2 if self.x64 else 0x586)
        self.write(kind, bytes([self.front_end_type, len(self.segments) - 1]))
        self._pointer(heap + (0x40 if self.x64 else 0x28), sum(units for _, units in self.free))
        self._ring(heap + (0x90 if self.x64 else 0x50), [entry for entry, _, _ in self.large])
        for index in range(128):
            head = heap + (0x2C8 if self.x64 else 0x178) + index * 2 * p
            mine = [h + self.unit for h, u in self.free if (u if u < 128 else 0) == index]
            self._ring(head, mine)
        for units, users in self.cached.items():
            head = self.table + units * (0x40 if self.x64 else 0x30)
            first = users[0] if users else 0
            if self.x64:
                self.write(head, struct.pack("<QQ", first // 16 << 25 | len(users), 0))
            else:
                self.write(head, struct.pack("<IHH", first, len(users), 9))
            frees = head + (0x1C if self.x64 else 0x14)
            self.write(frees, struct.pack("<II", len(users) + 5, 5))
            for user, following in zip(users, [*users[1:], 0], strict=True):
                self._pointer(user, following)
        if self.front_end_type == 2:
            self._ring(self.front_end + (0x28 if self.x64 else 0x18), self.zones)
            self._pointer(self.front_end + (0x40 if self.x64 else 0x24), heap)
        found: dict[int, bytes] = {}
        for (base, memory), holes in zip(self.segments, self.holes, strict=True):
            at = base
            for start, size in [*holes, (base + len(memory), 0)]:
                found[at] = bytes(memory[at - base : start - base])
                at = start + size
        return found | {entry: bytes(raw) for entry, raw in self.large_pieces().items()}

    def build(self) -> RunMemory:
        """The heap's memory."""
        return memory_of(self.pieces())

    def large_pieces(self) -> dict[int, bytearray]:
        """Memory of large blocks by address; once `pieces` has run their links are in it."""
        pieces = {}
        for entry, requested, trace in self.large:
            head = 0x40 if self.x64 else 0x20
            size = -(-(requested + head) // PAGE) * PAGE
            raw = bytearray(size)
            raw[: 2 * self.pointer] = self.links.get(entry, b"\0" * 2 * self.pointer)
            struct.pack_into("<H", raw, 2 * self.pointer, trace)
            struct.pack_into("<QQ" if self.x64 else "<II", raw, 4 * self.pointer, size, size)
            struct.pack_into("<HHBBBB", raw, head - 8, size - requested, 0, 0, 0x0B, 0, 0)
            pieces[entry] = raw
        return pieces

    def _ring(self, head: int, nodes: list[int]) -> None:
        ring = [head, *nodes]
        self.links = getattr(self, "links", {})
        word = "<QQ" if self.x64 else "<II"
        for index, node in enumerate(ring):
            raw = struct.pack(word, ring[(index + 1) % len(ring)], ring[index - 1])
            self.links[node] = raw
            self.write(node, raw)

    def _pointer(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(self.pointer, "little"))

    def write(self, address: int, raw: bytes) -> None:
        """Puts bytes at an address of a segment."""
        for base, memory in self.segments:
            if base <= address < base + len(memory):
                memory[address - base : address - base + len(raw)] = raw
