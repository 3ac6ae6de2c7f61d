"""Lays out a segment heap of Windows 10 19041 x64, with its own numbers.

Offsets are those of Microsoft's public types of that build. What goes in comes out again, and nothing of
the reader's tables is used.

    heap = SegmentHeapBuilder()
    heap.vs([100, 24, None, 3000])       # requested sizes; None is a free chunk of 0x100 bytes
    heap.lfh(64, [50, None, 64])         # block size; requested sizes, None is free
    heap.pages(300_000)
    heap.large(20_000_000)
    memory = heap.build()                # heap.used is what must be found
"""

from __future__ import annotations

import struct

import numpy as np

from windumps.memory import RunMemory

HEAP = 0x1_2340_0000
FIRST_SEGMENT = 0x1_5000_0000
METADATA = 0x1_4000_0000
FIRST_LARGE = 0x7_0000_0000
SEGMENT_SIZE = 0x100000
PAGE = 0x1000
CONTEXT = (HEAP + 0x100, HEAP + 0x1C0)
SIGNATURE = 0xA2E64EADA2E64EAD


class SegmentHeapBuilder:
    """See the module.

    Args:
        heap_key: HeapKey.
        lfh_key: Low 32 bits of LfhKey.
        encoded_tree: Links of the large tree are XORed with the address they are stored at.
    """

    def __init__(
        self,
        heap_key: int = 0x310075555FD1CC4D,
        lfh_key: int = 0x6FFE1317,
        encoded_tree: bool = False,
    ) -> None:
        self.heap_key = heap_key
        self.lfh_key = lfh_key
        self.encoded_tree = encoded_tree
        self.used: dict[int, int] = {}
        self.delayed: list[int] = []
        self.segments: list[bytearray] = []
        self.ranges: list[list[tuple[int, int, int]]] = []  # first unit, units, committed units
        self.free_unit = 256
        self.large_blocks: list[tuple[int, int]] = []  # address, requested size
        self.nodes: dict[int, int] = {}  # large address -> node address

    def segment(self, index: int) -> int:
        """Address of a segment."""
        return FIRST_SEGMENT + index * SEGMENT_SIZE

    def _place(self, flags: int, units: int, committed: int, unused: int = 0) -> int:
        """Takes units of the current segment; returns the offset of the first in it."""
        if self.free_unit + units > 256:
            self._close()
            self.segments.append(bytearray(SEGMENT_SIZE))
            self.ranges.append([])
            self.free_unit = 2
        segment, first = self.segments[-1], self.free_unit
        for unit in range(units):
            at = (first + unit) * 0x20
            if not unit:
                struct.pack_into("<II", segment, at, 0xCCDDCCDD, unused)
            segment[at + 0x18] = flags if not unit else 1
            segment[at + 0x19] = unit < committed
            segment[at + 0x1F] = unit or units
        self.ranges[-1].append((first, units, committed))
        self.free_unit += units
        return first * PAGE

    def _close(self) -> None:
        """Makes the rest of the current segment a free range without memory."""
        if self.segments and self.free_unit < 256:
            at = self.free_unit * 0x20
            self.segments[-1][at + 0x18] = 2
            self.segments[-1][at + 0x1F] = 256 - self.free_unit
            self.free_unit = 256

    def vs(self, requests: list[int | None], delay: bool = False) -> int:
        """A VS subsegment of 64 KiB and a guard page; returns its address.

        With `delay` the allocated chunks hang on the list of delayed frees.
        """
        start = self._place(0xF, 17, 16)
        segment = self.segments[-1]
        base = self.segment(len(self.segments) - 1) + start
        units = (0x10000 - 0x30) // 16
        struct.pack_into("<HH", segment, start + 0x20, units, units ^ 0x2BED)
        at, previous = 0x30, 0
        for request in requests:
            size = 0x100 if request is None else (request + 31) // 16 * 16
            at, previous = self._chunk(segment, base, start, at, previous, size, request, delay)
        assert at < 0x10000
        self._chunk(segment, base, start, at, previous, 0x10000 - at, None, delay)
        return base

    def _chunk(
        self,
        segment: bytearray,
        base: int,
        start: int,
        at: int,
        previous: int,
        size: int,
        request: int | None,
        delay: bool,
    ) -> tuple[int, int]:
        header = base + at
        word = size // 16 << 16 | previous << 32 | (request is not None) << 48
        struct.pack_into("<Q", segment, start + at, word ^ self.heap_key ^ header)
        if request is not None:
            unused = size - 16 - request
            pages = (at >> 12) ^ (header ^ self.heap_key) & 0xFF
            struct.pack_into("<I", segment, start + at + 8, pages | (unused > 0) << 8)
            if unused:
                mark = 0x8000 if unused == 1 else unused
                struct.pack_into("<H", segment, start + at + size - 2, mark)
            if delay:
                self.delayed.append(header + 16)
            else:
                self.used[header + 16] = request
        return at + size, size // 16

    def lfh(self, block_size: int, requests: list[int | None], pages: int = 1) -> int:
        """An LFH subsegment; blocks behind `requests` are free. Returns its address."""
        room = pages * PAGE
        count, first = 0, 0
        for guess in range(room // block_size, 0, -1):
            states = 0x30 + (guess + 31) // 32 * 8
            first = (states + 2 + 15) // 16 * 16
            if first + guess * block_size <= room:
                count = guess
                break
        assert len(requests) <= count
        start = self._place(0xB, pages, pages)
        segment = self.segments[-1]
        base = self.segment(len(self.segments) - 1) + start
        offsets = (first << 16 | block_size) ^ self.lfh_key ^ (base & 0xFFFFFFFF) >> 12
        bits = 0
        for number in range((count + 31) // 32 * 32):
            request = requests[number] if number < len(requests) else None
            if number >= count:
                bits |= 3 << 2 * number
            elif request is not None:
                unused = block_size - request
                bits |= (1 | (unused > 0) << 1) << 2 * number
                block = start + first + number * block_size
                if unused:
                    mark = 0x8000 if unused == 1 else unused
                    struct.pack_into("<H", segment, block + block_size - 2, mark)
                self.used[base - start + block] = request
        free = count - sum(request is not None for request in requests)
        struct.pack_into("<HH", segment, start + 0x20, free, count)
        struct.pack_into("<I", segment, start + 0x28, offsets)
        states = 0x30 + (count + 31) // 32 * 8
        struct.pack_into("<BBH", segment, start + 0x2C, 12, 1, states)
        segment[start + 0x30 : start + states] = bits.to_bytes(states - 0x30, "little")
        return base

    def pages(self, request: int) -> int:
        """One block of whole pages."""
        units = -(-request // PAGE)
        start = self._place(3, units, units, units * PAGE - request)
        address = self.segment(len(self.segments) - 1) + start
        self.used[address] = request
        return address

    def large(self, request: int) -> int:
        """One block of its own memory."""
        address = FIRST_LARGE + 0x1000_0000 * len(self.large_blocks)
        self.large_blocks.append((address, request))
        self.used[address] = request
        return address

    def _tree(self, header: bytearray) -> bytearray:
        """Writes the root to the header; returns the page of nodes."""
        page = bytearray(PAGE)
        ordered = sorted(self.large_blocks)
        self.nodes = {a: METADATA + 0x40 * i for i, (a, _) in enumerate(ordered)}

        def link(target: int, stored_in: int) -> int:
            return target ^ stored_in if target and self.encoded_tree else target

        def write(low: int, high: int, parent: int) -> int:
            if low >= high:
                return 0
            middle = (low + high) // 2
            address, request = ordered[middle]
            node = self.nodes[address]
            size = -(-request // PAGE) * PAGE
            left, right = write(low, middle, node), write(middle + 1, high, node)
            struct.pack_into(
                "<QQQQQ",
                page,
                node - METADATA,
                link(left, node),
                link(right, node),
                link(parent, node),
                address | size - request,
                size,
            )
            return node

        root = write(0, len(ordered), 0)
        least = self.nodes[ordered[0][0]] | self.encoded_tree if ordered else 0
        struct.pack_into("<QQ", header, 0x48, link(root, HEAP + 0x48), least)
        return page

    def build(self) -> RunMemory:
        """The memory of the heap; only what is committed is in it."""
        self._close()
        header = bytearray(2 * PAGE)
        struct.pack_into("<I", header, 0x10, 0xDDEEDDEE)
        pieces: list[tuple[int, bytes]] = []
        if self.large_blocks:
            pieces.append((METADATA, bytes(self._tree(header))))
            pieces += [(a, bytes(-(-r // PAGE) * PAGE)) for a, r in self.large_blocks]
        struct.pack_into("<QQQ", header, 0xE8, HEAP + 0x1800, HEAP + 0x2000, HEAP + 0x10000)
        counts = (len(self.segments), 0)
        for context, mask, shift, first, count in (
            (CONTEXT[0], 0xFFFFFFFFFFF00000, 12, 2, counts[0]),
            (CONTEXT[1], 0xFFFFFFFFFF000000, 16, 1, counts[1]),
        ):
            at = context - HEAP
            struct.pack_into("<QBBB", header, at, mask, shift, shift - 12, first)
            struct.pack_into("<Q", header, at + 0x20, HEAP + 0x280)
            struct.pack_into("<Q", header, at + 0x38, HEAP)
            struct.pack_into("<QQQ", header, at + 0x48, context + 0x48, context + 0x48, count)
        self._link_segments(header)
        for previous, entry in zip([0, *self.delayed], self.delayed, strict=False):
            self._poke(entry, struct.pack("<Q", previous))
        if self.delayed:
            struct.pack_into("<QQ", header, 0x2C0, len(self.delayed), self.delayed[-1])
        pieces.append((HEAP, bytes(header)))
        for index, (segment, ranges) in enumerate(zip(self.segments, self.ranges, strict=True)):
            base = self.segment(index)
            pieces.append((base, bytes(segment[: 2 * PAGE])))
            for first, _, committed in ranges:
                low, high = first * PAGE, (first + committed) * PAGE
                pieces.append((base + low, bytes(segment[low:high])))
        return _memory(pieces)

    def _link_segments(self, header: bytearray) -> None:
        head = CONTEXT[0] + 0x48
        chain = [head, *map(self.segment, range(len(self.segments))), head]
        struct.pack_into("<QQ", header, head - HEAP, chain[1], chain[-2])
        for index, segment in enumerate(self.segments):
            address = self.segment(index)
            signature = self.heap_key ^ address ^ CONTEXT[0] ^ SIGNATURE
            struct.pack_into("<QQQ", segment, 0, chain[index + 2], chain[index], signature)

    def _poke(self, address: int, data: bytes) -> None:
        index, at = divmod(address - FIRST_SEGMENT, SEGMENT_SIZE)
        self.segments[index][at : at + len(data)] = data


def _memory(pieces: list[tuple[int, bytes]]) -> RunMemory:
    data = np.frombuffer(b"".join(raw for _, raw in pieces), np.uint8)
    sizes = np.array([len(raw) for _, raw in pieces], np.int64)
    return RunMemory(
        data,
        np.array([address for address, _ in pieces], np.uint64),
        sizes,
        np.cumsum(sizes) - sizes,
    )
