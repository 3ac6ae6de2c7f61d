"""Lays out a whole x64 process in a minidump: PEB, TEBs, heaps, images, stacks, and the list of its regions.

Every byte lies in a region, and `rows` keeps them, so that a test can add up what an answer must say.

    process = ProcessBuilder().image("app.exe").heap(3)
    process.thread(start=process.bases["app.exe"] + 0x1234)
    process.views(2, 0x10000)
    data = process.build()
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from builders.minidump_builder import MinidumpBuilder
from builders.nt_heap_builder import PAGE, NtHeapBuilder

COMMIT, RESERVE, FREE = 0x1000, 0x2000, 0x10000
PRIVATE, MAPPED, IMAGE = 0x20000, 0x40000, 0x1000000
READ_ONLY, READ_WRITE, EXECUTE_READ, GUARD = 0x02, 0x04, 0x20, 0x100
STACK_RESERVED, IMAGE_BYTES = 0x100000, 0x8000
IMAGE_DATA = 5 * PAGE  # where an image's data begin; they go on to its end
PDB = 32 * "A"


class Row(NamedTuple):
    """One region as the list has it."""

    base: int
    size: int
    state: int
    protect: int
    kind: int
    allocation: int


class ProcessBuilder:
    """See the module.

    Args:
        time: When the dump is taken, in seconds.
        shift: What all addresses are moved by, as between two boots; a multiple of 0x10000.
        wow64: Every thread also has a 32-bit TEB and stack, the process a 32-bit PEB.
    """

    def __init__(self, time: int = 0, shift: int = 0, *, wow64: bool = False) -> None:
        self.time, self.shift, self.wow64 = time, shift, wow64
        self.rows: list[Row] = []
        self.bases: dict[str, int] = {}
        self.stacks: list[int] = []  # committed bytes of each thread's
        self.with_regions = True
        self.lost_heaps = 0  # that the PEB counts, and whose addresses are not in the dump
        self.dump = MinidumpBuilder(timestamp=1_700_000_000 + time)
        self._next = 0x10_0000_0000 + shift
        self._low = 0x1000_0000 + shift
        self._heaps: list[int] = []
        self._starts: list[tuple[int, int]] = []
        self._info_form: tuple[int, int, int] | None = (12, 64, 0)
        self._claimed = 0
        self._peb = self._taken(PAGE)
        self._peb32 = self._taken(PAGE, low=True) if wow64 else 0
        self._array = self._taken(PAGE)

    # -- what goes in

    def image(
        self, name: str, pdb: str = PDB, timestamp: int = 0x5F000000, data: bytes | None = None
    ) -> ProcessBuilder:
        """A loaded image: headers, code and data that are committed; what the data are, if in the dump."""
        base = self._place(IMAGE_BYTES, low=self.wow64)
        self.bases[name] = base
        self.dump.module(f"C:\\app\\{name}", base, IMAGE_BYTES, timestamp, pdb=("x.pdb", pdb, 1))
        for at, size, protect in ((0, 1, READ_ONLY), (1, 4, EXECUTE_READ), (5, 3, READ_WRITE)):
            self._row(base + at * PAGE, size * PAGE, COMMIT, protect, IMAGE, base)
        if data is not None:
            self.dump.memory(base + IMAGE_DATA, data.ljust(IMAGE_BYTES - IMAGE_DATA, b"\0"))
        return self

    def heap(self, count: int = 1, blocks: int = 1, content: bytes = b"") -> ProcessBuilder:
        """NT heaps of one page and so many blocks, which begin with some bytes."""
        for _ in range(count):
            base = self._place(PAGE)
            heap = NtHeapBuilder("8", True, base, pages=1)
            for _ in range(blocks):
                heap.used_block(32, content)
            for address, memory in heap.build().items():
                self._put(address, memory)
            self._heaps.append(base)
        return self

    @property
    def heaps(self) -> list[int]:
        """Their handles."""
        return self._heaps

    def thread(self, start: int = 0, pages: int = 2) -> ProcessBuilder:
        """A thread with so many committed pages of stack; start 0: its entry of the list says none."""
        number = len(self.stacks) + 1
        teb = self._place(4 * PAGE, low=self.wow64)
        memory = bytearray(4 * PAGE if self.wow64 else 2 * PAGE)
        low, high = self._stack(pages)
        for at, value in ((0x8, high), (0x10, low), (0x30, teb), (0x40, 7), (0x48, number)):
            struct.pack_into("<Q", memory, at, value)
        struct.pack_into("<Q", memory, 0x60, self._peb)
        committed = high - low
        if self.wow64:
            low32, high32 = self._stack(pages + 3, low=True)
            committed += high32 - low32
            twin = teb + 2 * PAGE
            struct.pack_into("<Q", memory, 0, twin)
            words = {0x4: high32, 0x8: low32, 0x18: twin, 0x20: 7, 0x24: number, 0x30: self._peb32}
            for at, value in words.items():
                struct.pack_into("<I", memory, 2 * PAGE + at, value)
        self._put(teb, bytes(memory))
        self.dump.thread(number, teb, (low, high - low), {"rsp": low + 0x100})
        self._starts.append((number, start))
        self.stacks.append(committed)
        return self

    def private(
        self, count: int, size: int, reserved: int = 0, protect: int = READ_WRITE
    ) -> ProcessBuilder:
        """Private allocations, each of so many committed bytes and then so many reserved ones."""
        return self._allocations(PRIVATE, count, size, reserved, protect)

    def views(self, count: int, size: int, protect: int = READ_ONLY) -> ProcessBuilder:
        """Mapped views."""
        return self._allocations(MAPPED, count, size, 0, protect)

    def free(self, size: int) -> ProcessBuilder:
        """Free address space, which dumps list too."""
        self.rows.append(Row(self._place(size), size, FREE, 1, 0, 0))
        return self

    def thread_info(
        self, form: tuple[int, int] | None, cut: int = 0, claimed: int = 0
    ) -> ProcessBuilder:
        """How the list of start addresses is written.

        Args:
            form: Bytes of its header and of each entry; None for no such list.
            cut: Entries that are counted and not there.
            claimed: In place of the bytes of an entry, what the header says.
        """
        self._info_form = None if form is None else (*form, cut)
        self._claimed = claimed
        return self

    # -- the file

    def build(self) -> bytes:
        """The minidump."""
        peb = bytearray(PAGE)
        image = next(iter(self.bases.values()), 0)
        struct.pack_into("<Q", peb, 0x10, image)
        struct.pack_into("<Q", peb, 0x30, self._heaps[0] if self._heaps else 0)
        count = len(self._heaps) + self.lost_heaps
        struct.pack_into("<IIQ", peb, 0xE8, count, count, self._array)
        self.dump.memory(self._peb, bytes(peb))
        if self.wow64:
            narrow = bytearray(PAGE)
            struct.pack_into("<I", narrow, 0x8, image)
            self.dump.memory(self._peb32, bytes(narrow))
        listed = struct.pack(f"<{len(self._heaps)}Q", *self._heaps)
        self.dump.memory(self._array, listed if self.lost_heaps else listed.ljust(PAGE, b"\0"))
        if self._info_form is not None and self._starts:
            self.dump.stream(17, self._thread_info(*self._info_form))
        if self.with_regions:
            for row in sorted(self.rows):
                self.dump.region(*row[:5], allocation_base=row.allocation)
        return self.dump.build()

    def committed(self, *kinds: int) -> int:
        """Committed bytes of the regions of some types; of all without one."""
        rows = (row for row in self.rows if row.state == COMMIT)
        return sum(row.size for row in rows if not kinds or row.kind in kinds)

    # -- inside

    def _thread_info(self, header: int, entry: int, cut: int) -> bytes:
        rows = []
        for number, start in self._starts[: len(self._starts) - cut]:
            row = struct.pack("<4I6Q", number, 0, 0, 0x103, 0, 0, 0, 0, start, 3)
            rows.append(row.ljust(entry, b"\xee"))
        said = self._claimed or entry
        head = struct.pack("<III", header, said, len(self._starts)).ljust(header, b"\xee")
        return head + b"".join(rows)

    def _allocations(
        self, kind: int, count: int, size: int, reserved: int, protect: int
    ) -> ProcessBuilder:
        for _ in range(count):
            base = self._place(size + reserved)
            if size:
                self._row(base, size, COMMIT, protect, kind, base)
            if reserved:
                self._row(base + size, reserved, RESERVE, 0, kind, base)
        return self

    def _stack(self, pages: int, *, low: bool = False) -> tuple[int, int]:
        """Reserved, a guard page, and committed pages up to the end; where those begin and end."""
        base = self._place(STACK_RESERVED, low=low)
        end = base + STACK_RESERVED
        begin = end - pages * PAGE
        self._row(base, begin - PAGE - base, RESERVE, 0, PRIVATE, base)
        self._row(begin - PAGE, PAGE, COMMIT, READ_WRITE | GUARD, PRIVATE, base)
        self._row(begin, end - begin, COMMIT, READ_WRITE, PRIVATE, base)
        self.dump.memory(begin, bytes(end - begin))
        return begin - PAGE, end

    def _place(self, size: int, *, low: bool = False) -> int:
        """Address space of its own, of whole 64 KiB."""
        room = size + 0x1FFFF & ~0xFFFF
        if low:
            self._low += room
            return self._low - room
        self._next += room
        return self._next - room

    def _taken(self, size: int, *, low: bool = False) -> int:
        base = self._place(size, low=low)
        self._row(base, size, COMMIT, READ_WRITE, PRIVATE, base)
        return base

    def _put(self, base: int, memory: bytes) -> None:
        self._row(base, len(memory), COMMIT, READ_WRITE, PRIVATE, base)
        self.dump.memory(base, memory)

    def _row(
        self, base: int, size: int, state: int, protect: int, kind: int, allocation: int
    ) -> None:
        self.rows.append(Row(base, size, state, protect, kind, allocation))
