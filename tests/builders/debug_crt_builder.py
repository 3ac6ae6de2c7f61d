"""Writes heap blocks as debug C runtimes lay them out, with its own numbers.

Field order and offsets are those of `_CrtMemBlockHeader` in crtdbg.h / dbgint.h, from Visual C++ 6 to the
UCRT.

    heap = DebugCrtBuilder("x86-old")
    name = heap.text(b"C:\\\\src\\\\a.cpp")
    block = heap.block(24, file=name, line=7)
    memory, blocks = heap.memory(), heap.blocks()
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from windumps.blocks import Blocks, Kind
from windumps.memory import RunMemory

PAGE = 0x1000
FORMS = ("x86-old", "x86-new", "x64")


@dataclass
class HeapBlock:
    """One block of the heap.

    `address`, `size` and `room` are what the heap knows; `data` and `data_size` what a debug runtime gave.
    """

    address: int
    size: int
    room: int
    used: bool = True
    data: int = 0
    data_size: int = 0
    file: int = 0
    line: int = 0


class DebugCrtBuilder:
    """A heap's memory from `base` on; blocks lie behind each other in the order of the calls."""

    def __init__(self, form: str, base: int | None = None) -> None:
        self.form = form
        self.pointer_size = 8 if form == "x64" else 4
        self.header_size = 48 if form == "x64" else 32
        self.base = base if base is not None else (0x1F0_0000_0000 if form == "x64" else 0x520000)
        self.made: list[HeapBlock] = []
        self._bytes = bytearray()
        self._chain: list[HeapBlock] = []
        self._absent: set[int] = set()
        self._patches: list[tuple[int, bytes]] = []
        self._requests = 0

    def text(self, raw: bytes, end: bytes = b"\0") -> int:
        """A string, outside all blocks; its address."""
        return self._place(raw + end)

    def plain(self, raw: bytes, used: bool = True) -> HeapBlock:
        """A block without a debug runtime's header."""
        return self._heap_block(raw, used)

    def block(
        self,
        size: int,
        use: int = 1,
        file: int = 0,
        line: int = 0,
        tracked: bool = True,
        data: bytes | None = None,
        rounded_to: int = 1,
        used: bool = True,
    ) -> HeapBlock:
        """A debug runtime's block; one that is not tracked has no links, request number or file."""
        self._requests += 1
        fill = data if data is not None else bytes([0xDD if use == 0 else 0xCD]) * size
        source = (file, line, self._requests) if tracked else (0, 0xFEDCBABC, 0)
        raw = self._header(size, use, source) + fill + b"\xfd" * 4
        raw += bytes([0xBA]) * (-len(raw) % rounded_to)
        made = self._heap_block(raw, used)
        made.data, made.data_size = made.address + self.header_size, size
        made.file, made.line = (file, line) if tracked and file else (0, 0)
        if tracked:
            self._chain.append(made)
        return made

    def aligned(self, size: int, alignment: int) -> tuple[HeapBlock, int]:
        """A block of `_aligned_malloc_dbg`, and the address the program got."""
        width = self.pointer_size
        made = self.block(size + 2 * width + alignment - 1)
        lowest = made.data + 2 * width
        pointer = lowest + -lowest % alignment
        head = made.data.to_bytes(width, "little") + b"\xed" * width
        self.patch(pointer - 2 * width, head)
        return made, pointer

    def patch(self, address: int, raw: bytes) -> None:
        """Overwrites memory, once all links are written."""
        self._patches.append((address - self.base, raw))

    def skip_to_page(self) -> None:
        """The next block begins a page."""
        self._bytes += bytes(-len(self._bytes) % PAGE + PAGE - 16)

    def drop_page_of(self, address: int) -> None:
        """The page of this address shall not be in the dump."""
        self._absent.add((address - self.base) // PAGE)

    def memory(self) -> RunMemory:
        """All pages that shall be there."""
        self._write_links()
        raw = bytes(self._bytes) + bytes(-len(self._bytes) % PAGE)
        pages = [n for n in range(len(raw) // PAGE) if n not in self._absent]
        offsets = np.array(pages, np.int64) * PAGE
        return RunMemory(
            np.frombuffer(raw, np.uint8),
            offsets.astype(np.uint64) + np.uint64(self.base),
            np.full(len(pages), PAGE, np.int64),
            offsets,
        )

    def blocks(self) -> Blocks:
        """What a heap walk gives: all blocks in order."""
        made = self.made
        return Blocks.build(
            address=np.array([b.address for b in made], np.uint64),
            size=np.array([b.size for b in made], np.int64),
            block_bytes=np.array([b.room for b in made], np.int64),
            used=np.array([b.used for b in made], np.bool_),
            kind=Kind.NT_BACKEND,
            heap=3,
            trace=np.full(len(made), 0x77, np.uint64),
        )

    def _place(self, raw: bytes) -> int:
        self._bytes += bytes(-len(self._bytes) % 16)
        address = self.base + len(self._bytes)
        self._bytes += raw
        return address

    def _heap_block(self, raw: bytes, used: bool) -> HeapBlock:
        self._place(b"\x11" * 16)  # the heap's own header
        made = HeapBlock(self._place(raw), len(raw), 16 + (len(raw) + 15) // 16 * 16, used)
        self.made.append(made)
        return made

    def _header(self, size: int, use: int, source: tuple[int, int, int]) -> bytes:
        file, line, request = source
        if self.form == "x64":
            return struct.pack("<QQQIIQI", 0, 0, file, line, use, size, request) + b"\xfd" * 4
        pair = (size, use) if self.form == "x86-old" else (use, size)
        return struct.pack("<IIIIIII", 0, 0, file, line, *pair, request) + b"\xfd" * 4

    def _write_links(self) -> None:
        """The newest block is first: `next` to the older one, `prev` to the newer one."""
        for index, made in enumerate(self._chain):
            older = self._chain[index - 1].address if index else 0
            newer = self._chain[index + 1].address if index + 1 < len(self._chain) else 0
            code = "<QQ" if self.form == "x64" else "<II"
            struct.pack_into(code, self._bytes, made.address - self.base, older, newer)
        for at, raw in self._patches:
            self._bytes[at : at + len(raw)] = raw
