"""Writes the heap of a .NET process byte by byte, with its own numbers.

Those are of RuntimeTypeSystem.md and GC.md in docs/design/datacontracts of dotnet/runtime. The process has
coreclr.dll, whose data has `alloc_allocated`, an assembly app.dll, one segment that new objects come from
and, if asked for, a second one.
"""

from __future__ import annotations

import struct
from collections import Counter

from builders.image_builder import DATA, SIZE, ImageBuilder
from builders.metadata_builder import MetadataBuilder
from builders.minidump_builder import MinidumpBuilder

CORECLR, APP, CLRGC = 0x60000000, 0x61000000, 0x62000000
LOADER, NATIVE, HANDLES, HEAP = 0x02000000, 0x03000000, 0x05000000, 0x10000000
ROOM = 0x100000  # of a segment
FIRST = 0x1000  # behind the beginning of a segment is its first object
ARRAY, POINTERS = 0x800A0000, 0x01000000
IMAGE, PRIVATE = 0x1000000, 0x20000


class ClrHeapBuilder:
    """`width` is the pointer size. `counts` has the objects by the address of their MethodTable.

    Without `alloc_allocated` the word that tells where objects end is not written; `other_statics` stand
    beside it. With `debugger_table` the collector's own table is there, `collecting` counts what is at work;
    with `own_collector` its words are in clrgc.dll. `finalizers`: so many objects have one, so many wait.
    `damage` are (address, bytes) that are zero, or not in the dump with `drop`.
    """

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.app = MetadataBuilder("app")
        self.loader = bytearray(0x10000)
        self.native = bytearray(0x2000)
        self.heap = bytearray(ROOM)
        self.at = FIRST
        self.counts: Counter[int] = Counter()
        self.allocated: int | None = None
        self.alloc_allocated = True
        self.debugger_table = False
        self.own_collector = False
        self.table_of_handles = bytearray()
        self.finalizers: tuple[int, int] | None = None
        self.collecting = 0
        self.other_statics: list[int] = []
        self.damage: list[tuple[int, int]] = []
        self.drop = False
        self._loader_at = 0x800
        self._contexts, self._handles = 0x100, 0x1000
        self.module = LOADER
        self.words(self.loader, 0, CORECLR + 0x2000, 0, 0, APP)  # the image is its word 3
        self.object_row = self.app.type("System", "Object")
        self.free_table = self.table(0, 3 * width, 0x80000001, 0, bare=True)
        self.object_table = self.table(self.object_row, 3 * width)

    def words(self, memory: bytearray, at: int, *values: int) -> None:
        """Writes pointer-sized words."""
        raw = struct.pack(f"<{len(values)}{'Q' if self.width == 8 else 'I'}", *values)
        memory[at : at + len(raw)] = raw

    def table(
        self,
        row: int,
        base: int,
        flags: int = 0,
        parent: int = 0,
        element: int = 0,
        *,
        bare: bool = False,
        canonical: int = 0,
    ) -> int:
        """A MethodTable with its EEClass; gives its address. `bare`: without class and module."""
        width = self.width
        at = self._loader_at
        self._loader_at += 0x80
        class_at = at + 0x48
        address = LOADER + at
        self.loader[at : at + 16] = struct.pack("<IIHHHH", flags, base, 0, row, 4, 0)
        module, owner = (
            (0, 0) if bare else (self.module, canonical | 1 if canonical else LOADER + class_at)
        )
        self.words(self.loader, at + 16, parent, module, 0, owner, element)
        if not bare:
            self.words(self.loader, class_at + 2 * width, address)
        return address

    def type(
        self, space: str, name: str, base: int, outer: int = 0, *, pointers: bool = False
    ) -> int:
        """A class that extends System.Object; with `pointers` it has references."""
        row = self.app.type(space, name, self.app.base(self.object_row), outer)
        return self.table(row, base, POINTERS * pointers, parent=self.object_table)

    def generic(self, space: str, name: str, base: int, arguments: tuple[int, ...]) -> int:
        """A generic type with its arguments."""
        row = self.app.type(space, name, self.app.base(self.object_row))
        at = self._loader_at
        self._loader_at += 0x80
        self.loader[at + 4 : at + 8] = struct.pack("<HH", 1, len(arguments))
        self.words(self.loader, at + 8, LOADER + at + 0x20)
        self.words(self.loader, at + 0x20, *arguments)
        return self.table(row, base, 0x10, self.object_table, LOADER + at + 8)

    def array(self, element: int, component: int, dimensions: int = 1) -> int:
        """The array of a type."""
        flags = (ARRAY if dimensions == 1 else 0x80080000) | component
        base = 3 * self.width + (8 * dimensions if dimensions > 1 else 0)
        return self.table(0, base, flags, self.object_table, element)

    def pointers_in(self, table: int) -> None:
        """Objects of a MethodTable have references."""
        at = table - LOADER
        (flags,) = struct.unpack_from("<I", self.loader, at)
        struct.pack_into("<I", self.loader, at, flags | POINTERS)

    def put(self, table: int, count: int = 0, body: bytes = b"", mark: int = 0) -> int:
        """An object; gives its address."""
        at = table - LOADER
        flags, base = struct.unpack_from("<II", self.loader, at)
        size = base + (flags & 0xFFFF) * count if flags >> 31 else base
        size += -size % self.width
        self.words(self.heap, self.at, table | mark)
        if flags >> 31:
            struct.pack_into("<I", self.heap, self.at + self.width, count)
        first = self.at + 2 * self.width
        self.heap[first : first + len(body)] = body
        address = HEAP + self.at
        self.at += size
        if table != self.free_table:
            self.counts[table] += 1
        return address

    def free(self, size: int) -> None:
        """A free stretch."""
        self.put(self.free_table, size - 3 * self.width)

    def gap(self, size: int) -> None:
        """Memory that a thread has taken and not used: its allocation context names it."""
        start = HEAP + self.at
        self.words(self.native, self._contexts, start, start + size - 3 * self.width)
        struct.pack_into("<Q", self.native, self._contexts + 2 * self.width, 0x2000)
        self._contexts += 0x40
        self.at += size

    def hold(self, *addresses: int) -> None:
        """Handles of objects: words in native memory."""
        for address in addresses:
            self.words(self.native, self._handles, address)
            self._handles += 2 * self.width

    def handles(self, weak: tuple[int, ...], strong: tuple[int, ...], *, odd: bool = False) -> None:
        """A segment of the handle table with a block of weak handles and one of strong ones.

        With `odd` a handle that is free has a value.
        """
        width = self.width
        blocks = (0x10000 - 0x1000) // (64 * width)
        segment = bytearray(0x10000)
        masks = [(1 << 64) - 1] * blocks
        for block, addresses in enumerate((weak, strong)):
            masks[block] = ((1 << 64) - 1) ^ ((1 << len(addresses)) - 1)
            for number, address in enumerate(addresses):
                place = 0x1000 + (block * 64 + number) * width
                self.words(segment, place, address)
        if odd:
            masks[1] |= 1
        at = 5 * blocks
        struct.pack_into(f"<{blocks}Q", segment, at, *masks)
        segment[at + 8 * blocks : at + 10 * blocks] = b"\xff" * (2 * blocks)
        segment[at + 8 * blocks : at + 8 * blocks + 2] = bytes([1, 2])
        self.table_of_handles = segment

    def end(self) -> None:
        """Objects end here; what is put from now on is stale."""
        self.allocated = self.at
        self._live = self.counts.copy()

    @property
    def live(self) -> Counter[int]:
        """The objects before the end."""
        return self.counts if self.allocated is None else self._live

    def build(
        self, names: tuple[str, ...] = ("coreclr.dll",), dump: MinidumpBuilder | None = None
    ) -> MinidumpBuilder:
        """The dump, or a part of one that has other memory, too."""
        if self.allocated is None:
            self.end()
        assert self.allocated is not None
        committed = ROOM
        start = HEAP + FIRST
        entry = HEAP
        # allocated as the last collection left it: behind the first object.
        self.words(
            self.heap,
            0,
            *(start, HEAP + committed, HEAP + ROOM, start + 0x10, start, 0),
        )
        clr = ImageBuilder(CORECLR, self.width)
        collector = ImageBuilder(CLRGC, self.width) if self.own_collector else clr
        if self.alloc_allocated:
            collector.words(DATA + 0x100, HEAP + self.allocated, 0, entry)
        collector.words(DATA + 0x80, *self.other_statics)
        collector.words(DATA + 0x300, self.collecting, 1)
        if self.debugger_table:
            self._debugger_table(clr, collector.base)
        dump = dump or MinidumpBuilder("x64" if self.width == 8 else "x86")
        memory = {
            LOADER: bytes(self.loader),
            NATIVE: bytes(self.native),
            HEAP: bytes(self.heap),
            CORECLR: bytes(clr.bytes),
            APP: bytes(self.app.image(APP, self.width).bytes),
        }
        if self.table_of_handles:
            dump.memory(HANDLES, bytes(self.table_of_handles))
            dump.region(HANDLES, len(self.table_of_handles), kind=PRIVATE)
        if self.own_collector:
            memory[CLRGC] = bytes(collector.bytes)
            dump.module("C:\\clrgc.dll", CLRGC, SIZE)
        for base in (LOADER, NATIVE, HEAP):
            self._write(dump, base, memory[base])
            dump.region(base, len(memory[base]), kind=PRIVATE)
        for base in sorted(memory.keys() - {LOADER, NATIVE, HEAP}):
            dump.memory(base, memory[base]).region(base, SIZE, kind=IMAGE)
        for name in names:
            dump.module(f"C:\\{name}", CORECLR, SIZE, version=(8, 0, 424, 1))
        return dump.module("C:\\app.dll", APP, SIZE)

    def _debugger_table(self, clr: ImageBuilder, collector: int) -> None:
        """`GcDacVars` from its word of the ephemeral segment on, which the runtime keeps."""
        data, width = collector + DATA, self.width
        others = [data + 0x400 + 8 * number for number in range(15)]
        others[0], others[5] = data + 0x100 + 2 * width, data + 0x100
        others[12], others[14] = data + 0x300 + width, data + 0x300
        if self.finalizers is not None:
            registered, waiting = self.finalizers
            queue, array = NATIVE + 0x1800, NATIVE + 0x10000
            ends = [array + registered * width] * 5 + [array + (registered + waiting) * width] * 2
            self.words(self.native, 0x1800, *ends, array, array + 100 * width)
            clr.words(DATA + 0x380, queue)
            others[8] = data + 0x380
        clr.words(DATA + 0x200, *others)

    def _write(self, dump: MinidumpBuilder, base: int, data: bytes) -> None:
        """A piece of memory with its damage."""
        at = base
        for start, size in sorted(set(self.damage)):
            if not base <= start < base + len(data):
                continue
            dump.memory(at, data[at - base : start - base])
            if not self.drop:
                dump.memory(start, bytes(size))
            at = start + size
        dump.memory(at, data[at - base :])
