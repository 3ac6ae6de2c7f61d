"""Memory whose present pages lie one after another in a file, with a bitmap that says which they are.

Why not runs: a kernel dump takes pages from all over the machine, so that nearly every page would be a
run of its own. Where a page lies is how many bits are set before its own: counted once for each word of
the bitmap (an eighth of a byte for each page of the machine), and for the rest where it is asked.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_BITS, PAGE_SIZE, U8, U64
from windumps.memory.address_space import AddressSpace, Extents, Presence
from windumps.memory.regions import Regions

CHUNK_BITS = 1 << 20  # unpacked at a time
_OF_BYTE = np.array([number.bit_count() for number in range(256)], np.uint8)


def popcount(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits of each word (shape (n,)) are set."""
    if hasattr(np, "bitwise_count"):  # numpy 2
        counts: NDArray[np.int64] = np.bitwise_count(words).astype(np.int64)
        return counts
    raw = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
    summed: NDArray[np.int64] = _OF_BYTE[raw].sum(axis=1, dtype=np.int64)
    return summed


class BitmapMemory(AddressSpace):
    """Physical memory of a bitmap dump.

    Args:
        data: The file's bytes.
        bitmap: File offset of the bitmap; bit n, from the lowest of the first byte on, is page n. What
            of it lies behind the end of the file counts as zeros.
        bits: Pages it covers.
        first_page: File offset of the first present page.

    Attributes:
        present_pages: Bits that are set, in the file or not.
    """

    def __init__(self, data: U8, bitmap: int, bits: int, first_page: int) -> None:
        self.data = data
        self.regions = Regions.empty()
        self._first_page = min(first_page, len(data))  # a damaged one does not fit into 64 bits
        self._in_file = max(len(data) - first_page, 0) >> PAGE_BITS
        raw = data[bitmap : bitmap + (bits + 7) // 8]
        self._bits = min(bits, len(raw) * 8)
        whole = len(raw) // 8 * 8
        words = raw[:whole].view("<u8")
        if whole < len(raw) or self._bits % 64:
            # The last word is copied, to clear what lies behind the last bit.
            tail = np.zeros(8, np.uint8)
            last = raw[(self._bits // 64) * 8 :][:8]
            tail[: len(last)] = last
            value = int.from_bytes(tail.tobytes(), "little") & ((1 << self._bits % 64) - 1)
            words = np.append(words[: self._bits // 64], np.array([value], np.uint64))
        self._words: U64 = words
        counts = popcount(words)
        self._before = np.cumsum(counts) - counts
        self.present_pages = int(counts.sum())

    @property
    def total_bytes(self) -> int:
        """Bytes of memory in the file."""
        return min(self.present_pages, self._in_file) << PAGE_BITS

    @property
    def end(self) -> int:
        """File offset behind the last page, in the file or not."""
        return self._first_page + (self.present_pages << PAGE_BITS)

    @property
    def runs(self) -> Extents:
        """All memory; worked out anew with each call."""
        return self.extents(0, self._bits << PAGE_BITS)

    def locate(self, addresses: U64, size: int) -> I64:
        """See `AddressSpace.locate`."""
        flat = np.ascontiguousarray(addresses, np.uint64).ravel()
        page = flat >> np.uint64(PAGE_BITS)
        within = (flat & np.uint64(PAGE_SIZE - 1)).astype(np.int64)
        rank = self._ranks(page)
        found = np.where(rank >= 0, (rank << PAGE_BITS) + within + self._first_page, -1)
        # Pages that follow one another in memory do so in the file, when both are there.
        reach = within + max(size, 1) - 1
        for number in range(1, int(reach.max(initial=0) >> PAGE_BITS) + 1):
            over = np.flatnonzero((found >= 0) & (reach >> PAGE_BITS >= number))
            found[over[self._ranks(page[over] + np.uint64(number)) < 0]] = -1
        return found.reshape(np.shape(addresses))

    def _ranks(self, page: U64) -> I64:
        """Which of the pages in the file each page is; -1 for those that are not there."""
        if not len(self._words):
            return np.full(page.shape, -1, np.int64)
        inside = page < np.uint64(self._bits)
        safe = np.where(inside, page, np.uint64(0))
        index = (safe >> np.uint64(6)).astype(np.int64)
        bit = np.uint64(1) << (safe & np.uint64(63))
        word = self._words[index]
        rank = self._before[index] + popcount(word & (bit - np.uint64(1)))
        there = inside & (word & bit != 0) & (rank < self._in_file)
        return np.where(there, rank, -1)

    def presence(self, address: int) -> Presence:
        """See `AddressSpace.presence`; there is no telling whether a page was there at all."""
        if not 0 <= address < 1 << 64:
            return Presence.NOT_MAPPED
        located = self.locate(np.array([address], np.uint64), 1)
        return Presence.PRESENT if located[0] >= 0 else Presence.ABSENT

    def extents(self, start: int, end: int) -> Extents:
        """See `AddressSpace.extents`."""
        first = max(start, 0) >> PAGE_BITS
        last = min((end + PAGE_SIZE - 1) >> PAGE_BITS, self._bits)
        found: list[tuple[I64, I64]] = []
        for low in range(first & ~63, last, CHUNK_BITS):
            high = min(low + CHUNK_BITS, last)
            words = self._words[low >> 6 : (high + 63) >> 6]
            bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
            bits = bits[: high - low]
            bits[: max(first - low, 0)] = 0
            edges = np.flatnonzero(np.diff(bits.view(np.int8), prepend=0, append=0))
            if len(edges):
                found.append((edges[::2] + low, edges[1::2] - edges[::2]))
        if not found:
            return Extents(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        page, count = (np.concatenate(column) for column in zip(*found, strict=True))
        # Runs over the end of a chunk are one.
        new = np.ones(len(page), np.bool_)
        new[1:] = page[1:] != page[:-1] + count[:-1]
        begin = np.flatnonzero(new)
        page, count = page[begin], np.add.reduceat(count, begin)
        index = page >> 6
        below = (np.uint64(1) << (page & 63).astype(np.uint64)) - np.uint64(1)
        rank = self._before[index] + popcount(self._words[index] & below)
        count = np.minimum(count, np.maximum(self._in_file - rank, 0))
        address = page.astype(np.uint64) << np.uint64(PAGE_BITS)
        size, offset = count << PAGE_BITS, (rank << PAGE_BITS) + self._first_page
        keep = size > 0
        address, size, offset = address[keep], size[keep], offset[keep]
        if len(address) and int(address[0]) < start:
            cut = start - int(address[0])
            address[0] += np.uint64(cut)
            size[0] -= cut
            offset[0] += cut
        if len(address):
            size[-1] = min(int(size[-1]), end - int(address[-1]))
        return Extents(address, size, offset)
