"""Lays out a segment heap with its own numbers (`segment_numbers`); of 19041 x64 unless told otherwise.

What goes in comes out again, and nothing of the reader's tables is used.

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

from builders.segment_numbers import X64_19041, Numbers
from windumps.memory import RunMemory

HEAP = 0x1_2340_0000
FIRST_SEGMENT = 0x1_5000_0000
METADATA = 0x1_4000_0000
FIRST_LARGE = 0x7_0000_0000
SEGMENT_SIZE = 0x100000
PAGE = 0x1000


class SegmentHeapBuilder:
    """See the module.

    Args:
        heap_key: HeapKey.
        lfh_key: Low 32 bits of LfhKey.
        encoded_tree: Links of the large tree are XORed with the address they are stored at.
        numbers: Of the build.
    """

    def __init__(
        self,
        heap_key: int = 0x310075555FD1CC4D,
        lfh_key: int = 0x6FFE1317,
        encoded_tree: bool = False,
        numbers: Numbers = X64_19041,
    ) -> None:
        self.numbers = numbers
        self.pointer = numbers.pointer
        self.granule = 2 * numbers.pointer
        # x86: the same places, as far as they fit in 32 bits.
        limit = (1 << 8 * numbers.pointer) - 1
        self.heap, self.metadata, self.first_segment, self.first_large = (
            place & limit for place in (HEAP, METADATA, FIRST_SEGMENT, FIRST_LARGE)
        )
        if numbers.pointer == 4:
            self.first_large = 0x7000_0000
        self.heap_key = heap_key & limit
        self.lfh_key = lfh_key
        self.vs_key = self.heap_key
        if numbers.vs_by_lfh_key:
            self.vs_key = (heap_key >> 32 << 32 | lfh_key) & limit
        self.context = self.heap + numbers.contexts
        self.first_unit = 2 if numbers.pointer == 8 else 1
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
        return self.first_segment + index * SEGMENT_SIZE

    def _words(self, *values: int) -> bytes:
        return struct.pack(f"<{len(values)}{'Q' if self.pointer == 8 else 'I'}", *values)

    def _describe(self, unit: int, flags: int, offset: int, size: int, committed: bool) -> None:
        """Writes the descriptor of a unit; `size` is 0 for all but the first of a range."""
        width, _, flags_at, offset_at, size_at = self.numbers.descriptor
        commit_at, shift = self.numbers.commit
        segment, at = self.segments[-1], unit * width
        segment[at + flags_at] |= flags
        segment[at + commit_at] |= committed << shift
        segment[at + offset_at] = offset
        if size:
            segment[at + size_at] = size

    def _place(self, kind: int, units: int, committed: int, unused: int = 0) -> int:
        """Takes units of the current segment for 0 pages, 1 LFH or 2 VS; the offset of the first in it."""
        numbers = self.numbers
        if self.free_unit + units > 256:
            self._close()
            self.segments.append(bytearray(SEGMENT_SIZE))
            self.ranges.append([])
            self.free_unit = self.first_unit
        segment, first = self.segments[-1], self.free_unit
        at = first * numbers.descriptor[0]
        struct.pack_into("<I", segment, at, 0xCCDDCCDD)
        form = "<I" if numbers.unused_bits == 32 else "<H"
        struct.pack_into(form, segment, at + numbers.descriptor[1], unused)
        for unit in range(units):
            flags = numbers.flags[3] if unit else numbers.flags[kind]
            self._describe(first + unit, flags, unit, 0 if unit else units, unit < committed)
        self.ranges[-1].append((first, units, committed))
        self.free_unit += units
        return first * PAGE

    def _close(self) -> None:
        """Makes the rest of the current segment a free range without memory."""
        if self.segments and self.free_unit < 256:
            self._describe(self.free_unit, self.numbers.flags[4], 0, 256 - self.free_unit, False)
            self.free_unit = 256

    def _pad(self, segment: bytearray, at: int) -> int:
        """Pads a block at an offset of a segment; returns by how much."""
        if self.numbers.marked:
            raw = self._words(self.numbers.padding)
            segment[at : at + len(raw)] = raw
        return self.numbers.padding

    def vs(self, requests: list[int | None], delay: bool = False) -> int:
        """A VS subsegment of 64 KiB and a guard page; returns its address.

        With `delay` the allocated chunks hang on the list of delayed frees.
        """
        size_at, signature_at, first, constant = self.numbers.vs
        start = self._place(2, 17, 16)
        segment = self.segments[-1]
        base = self.segment(len(self.segments) - 1) + start
        units = (0x10000 - first) // self.granule
        struct.pack_into("<H", segment, start + size_at, units)
        struct.pack_into("<H", segment, start + signature_at, (units ^ constant) & 0x7FFF)
        at, previous = first, 0
        for request in requests:
            size = 0x100
            if request is not None:
                size = self.granule + self.numbers.padding + request
                size += -size % self.granule
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
        granule, header, busy = self.granule, base + at, request is not None
        word = size // granule << 16 | previous << 32 | busy << 48
        if self.pointer == 4:
            word = size // granule << 1 | previous << 16 | busy << 31
        raw = self._words(word ^ self.vs_key ^ header)
        if request is not None:
            block = start + at + granule
            pad = self._pad(segment, block)
            unused = size - granule - pad - request
            pages = (at >> 12) ^ (header ^ self.vs_key) & 0xFF
            raw += struct.pack("<I", pages | (unused > 0) << 8)
            if unused:
                mark = 0x8000 if unused == 1 else unused
                struct.pack_into("<H", segment, start + at + size - 2, mark)
            if delay:
                self.delayed.append(header + granule)
            else:
                self.used[header + granule + pad] = request
        segment[start + at : start + at + len(raw)] = raw
        return at + size, size // granule

    def lfh(self, block_size: int, requests: list[int | None], pages: int = 1) -> int:
        """An LFH subsegment; blocks behind `requests` are free. Returns its address."""
        count_at, offsets_at, shift_at, bitmap = self.numbers.lfh
        blocks_a_word = 4 * self.pointer
        room = pages * PAGE
        count, first = 0, 0
        for guess in range(room // block_size, 0, -1):
            states = bitmap + (guess + blocks_a_word - 1) // blocks_a_word * self.pointer
            first = (states + 2 + self.granule - 1) // self.granule * self.granule
            if first + guess * block_size <= room:
                count = guess
                break
        assert len(requests) <= count
        start = self._place(1, pages, pages)
        segment = self.segments[-1]
        base = self.segment(len(self.segments) - 1) + start
        offsets = (first << 16 | block_size) ^ self.lfh_key ^ (base & 0xFFFFFFFF) >> 12
        states = bitmap + (count + blocks_a_word - 1) // blocks_a_word * self.pointer
        bits = 0
        for number in range((states - bitmap) * 4):
            request = requests[number] if number < len(requests) else None
            if number >= count:
                bits |= 3 << 2 * number
            elif request is not None:
                block = start + first + number * block_size
                pad = self._pad(segment, block)
                unused = block_size - pad - request
                bits |= (1 | (unused > 0) << 1) << 2 * number
                if unused:
                    mark = 0x8000 if unused == 1 else unused
                    struct.pack_into("<H", segment, block + block_size - 2, mark)
                self.used[base - start + block + pad] = request
        free = count - sum(request is not None for request in requests)
        struct.pack_into("<HH", segment, start + count_at, free, count)
        struct.pack_into("<I", segment, start + offsets_at, offsets)
        struct.pack_into("<BBH", segment, start + shift_at, 12, 1, states)
        segment[start + bitmap : start + states] = bits.to_bytes(states - bitmap, "little")
        return base

    def pages(self, request: int) -> int:
        """One block of whole pages; returns what the program got."""
        asked = request + self.numbers.padding
        units = -(-asked // PAGE)
        start = self._place(0, units, units, units * PAGE - asked)
        address = self.segment(len(self.segments) - 1) + start
        address += self._pad(self.segments[-1], start)
        self.used[address] = request
        return address

    def large(self, request: int) -> int:
        """One block of its own memory; returns what the program got."""
        spacing = 0x1000_0000 if self.pointer == 8 else 0x100_0000
        address = self.first_large + spacing * len(self.large_blocks)
        # The wide padding, where it is marked; where it is not, only the size has it.
        pad = 4 * self.granule if self.numbers.marked else 0
        self.large_blocks.append((address, request + (pad or self.numbers.padding)))
        self.used[address + pad] = request
        return address + pad

    def _tree(self, header: bytearray) -> bytearray:
        """Writes the root to the header; returns the page of nodes."""
        page = bytearray(PAGE)
        ordered = sorted(self.large_blocks)
        root_at = self.heap + self.numbers.tree
        self.nodes = {a: self.metadata + 0x40 * i for i, (a, _) in enumerate(ordered)}

        def link(target: int, stored_in: int) -> int:
            return target ^ stored_in if target and self.encoded_tree else target

        def write(low: int, high: int, parent: int) -> int:
            if low >= high:
                return 0
            middle = (low + high) // 2
            address, held = ordered[middle]
            node = self.nodes[address]
            size = -(-held // PAGE) * PAGE
            left, right = write(low, middle, node), write(middle + 1, high, node)
            raw = self._words(
                link(left, node), link(right, node), link(parent, node), address | size - held, size
            )
            page[node - self.metadata : node - self.metadata + len(raw)] = raw
            return node

        root = write(0, len(ordered), 0)
        least = self.nodes[ordered[0][0]] | self.encoded_tree if ordered else 0
        total = sum(-(-held // PAGE) for _, held in ordered)
        self._put(header, self.numbers.tree, link(root, root_at), least, total, total)
        return page

    def _put(self, header: bytearray, at: int, *values: int) -> None:
        raw = self._words(*values)
        header[at : at + len(raw)] = raw

    def build(self) -> RunMemory:
        """The memory of the heap; only what is committed is in it."""
        self._close()
        numbers = self.numbers
        header = bytearray(2 * PAGE)
        struct.pack_into("<I", header, 2 * self.pointer, 0xDDEEDDEE)
        pieces: list[tuple[int, bytes]] = []
        if self.large_blocks:
            pieces.append((self.metadata, bytes(self._tree(header))))
            for address, held in self.large_blocks:
                memory = bytearray(-(-held // PAGE) * PAGE)
                if numbers.marked:
                    self._put(memory, 0, 4 * self.granule)
                pieces.append((address, bytes(memory)))
        self._put(header, numbers.end, self.heap + 2 * PAGE, self.heap + 0x10000)
        committed = sum(pages for ranges in self.ranges for _, _, pages in ranges)
        committed += self.first_unit * len(self.segments) + 1
        self._put(header, numbers.stats, 16 + 256 * len(self.segments), committed)
        self._contexts(header)
        for previous, entry in zip([0, *self.delayed], self.delayed, strict=False):
            self._poke(entry, self._words(previous))
        if self.delayed:
            entry = (len(self.delayed), self.delayed[-1])
            self._put(header, numbers.delayed, *(entry if self.pointer == 8 else entry[::-1]))
        pieces.append((self.heap, bytes(header)))
        for index, (segment, ranges) in enumerate(zip(self.segments, self.ranges, strict=True)):
            base = self.segment(index)
            pieces.append((base, bytes(segment[: self.first_unit * PAGE])))
            for first, _, committed in ranges:
                low, high = first * PAGE, (first + committed) * PAGE
                pieces.append((base + low, bytes(segment[low:high])))
        return _memory(sorted(pieces))

    def _contexts(self, header: bytearray) -> None:
        """Writes the contexts, and links the segments to the first."""
        numbers = self.numbers
        size, vs, back, links = numbers.context
        counts = (len(self.segments), 0) if numbers.contexts else (len(self.segments),)
        for number, count in enumerate(counts):
            at = numbers.contexts + number * size
            shift = numbers.second_shift if number else 12
            if numbers.contexts:
                self._put(header, at, (1 << 8 * self.pointer) - (256 << shift))
                first = self.first_unit if shift == 12 else 1
                struct.pack_into("<BBB", header, at + self.pointer, shift, shift - 12, first)
                vs_context = self.heap + numbers.delayed - 0x40 if numbers.delayed else 0
                self._put(header, at + vs, vs_context)
                self._put(header, at + back, self.heap)
            head = self.heap + at + links
            self._put(header, at + links, head, head, count)
        head = self.context + links
        chain = [head, *map(self.segment, range(len(self.segments))), head]
        self._put(header, head - self.heap, chain[1], chain[-2])
        constant, by = numbers.constant
        for index, segment in enumerate(self.segments):
            signature = self.heap_key ^ self.segment(index) >> by ^ self.context ^ constant
            self._put(segment, 0, chain[index + 2], chain[index], signature)

    def _poke(self, address: int, data: bytes) -> None:
        index, at = divmod(address - self.first_segment, SEGMENT_SIZE)
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
