"""Who holds whom, read out of a minidump's bytes by other means than those of the project.

Only which blocks are in use, and which memory is of heaps, is taken from the project. Everything else is done
again, word by word, with numbers of minidumpapiset.h and winnt.h.
"""

from __future__ import annotations

import gzip
import lzma
import struct
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from pathlib import Path

_THREADS, _MODULES, _MEMORY64, _REGIONS = 3, 4, 9, 16
_COMMIT, _IMAGE, _WRITABLE, _READABLE = 0x1000, 0x1000000, 0xCC, 0xEE
_NO_ACCESS_OR_GUARD = 0x101
_SHARED_USER_DATA = 0x7FFE0000


class Dump:
    """The parts of a minidump that tell what may hold pointers."""

    def __init__(self, path: Path) -> None:
        opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
        with opener(path, "rb") as file:
            self.data: bytes = file.read()
        _, _, count, rva = struct.unpack_from("<4sIII", self.data)
        entries = [struct.unpack_from("<III", self.data, rva + 12 * n) for n in range(count)]
        self.streams = {kind: at for kind, _, at in entries}
        self.memory = list(self._memory())
        self._starts = [start for start, _, _ in self.memory]

    def _memory(self) -> Iterator[tuple[int, int, int]]:
        """Start, end and place in the file of each piece."""
        at = self.streams[_MEMORY64]
        count, offset = struct.unpack_from("<QQ", self.data, at)
        pieces = []
        for n in range(count):
            start, size = struct.unpack_from("<QQ", self.data, at + 16 + 16 * n)
            pieces.append((start, start + size, offset))
            offset += size
        yield from sorted(pieces)

    def bytes_at(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """What is there of a stretch, in pieces that are next to each other in memory joined."""
        joined_at, joined = 0, b""
        number = max(bisect_right(self._starts, start) - 1, 0)
        for low, high, offset in self.memory[number:]:
            if low >= end:
                break
            first, last = max(low, start), min(high, end)
            if first >= last:
                continue
            raw = self.data[offset + first - low : offset + last - low]
            if joined and joined_at + len(joined) == first:
                joined += raw
                continue
            if joined:
                yield joined_at, joined
            joined_at, joined = first, raw
        if joined:
            yield joined_at, joined

    def words(self, start: int, end: int, width: int) -> Iterator[tuple[int, int]]:
        """Place and value of each aligned word."""
        for at, raw in self.bytes_at(start, end):
            lead = -at % width
            count = (len(raw) - lead) // width
            if count <= 0:
                continue
            values = struct.unpack_from(f"<{count}{'Q' if width == 8 else 'I'}", raw, lead)
            yield from zip(range(at + lead, at + lead + count * width, width), values, strict=True)

    def word(self, place: int, width: int) -> int:
        ((_, raw),) = self.bytes_at(place, place + width)
        return int.from_bytes(raw, "little")

    def modules(self) -> list[tuple[int, int]]:
        at = self.streams[_MODULES]
        (count,) = struct.unpack_from("<I", self.data, at)
        return [struct.unpack_from("<QI", self.data, at + 4 + 108 * n) for n in range(count)]

    def writable_sections(self) -> Iterator[tuple[int, int]]:
        for base, _ in self.modules():
            head = next(self.bytes_at(base, base + 0x1000))[1]
            (pe,) = struct.unpack_from("<I", head, 0x3C)
            count, optional = struct.unpack_from("<6xH12xH", head, pe)
            first = pe + 24 + optional
            for n in range(count):
                size, rva = struct.unpack_from("<8xII", head, first + 40 * n)
                (flags,) = struct.unpack_from("<36xI", head, first + 40 * n)
                if flags & 0x80000000:
                    yield base + rva, base + rva + size

    def regions(self) -> list[tuple[int, int, int, int, int]]:
        """Start, end, state, protection and kind of each region."""
        at = self.streams[_REGIONS]
        head, each, count = struct.unpack_from("<IIQ", self.data, at)
        found = []
        for n in range(count):
            base, _, _, _, size, state, protect, kind = struct.unpack_from(
                "<QQIIQIII", self.data, at + head + each * n
            )
            found.append((base, base + size, state, protect, kind))
        return found

    def threads(self, width: int) -> Iterator[tuple[int, int, int, list[int]]]:
        """TEB, stack pointer, start of the stack that was written, and registers of each thread."""
        at = self.streams[_THREADS]
        (count,) = struct.unpack_from("<I", self.data, at)
        for n in range(count):
            entry = struct.unpack_from("<IIIIQQIIII", self.data, at + 4 + 48 * n)
            teb, stack, context = entry[4], entry[5], entry[9]
            if width == 8:  # CONTEXT of x64: Rax at 0x78 up to Rip; Rsp the fifth of them
                registers = list(struct.unpack_from("<17Q", self.data, context + 0x78))
                yield teb, registers[4], stack, registers
            else:  # CONTEXT of x86: Edi at 0x9c, ..., Eip 0xb8, Esp 0xc4
                registers = list(struct.unpack_from("<7I", self.data, context + 0x9C))
                (pointer,) = struct.unpack_from("<I", self.data, context + 0xC4)
                yield teb, pointer, stack, [*registers, pointer]


class Held:
    """The graph of pointers, and who is held by a root.

    Args:
        dump: The dump.
        blocks: Address and bytes of each used block.
        heaps: Start and size of the memory that is of heaps.
        width: Bytes of a pointer.
        headers: Start and size of what in heaps counts as root.
    """

    def __init__(
        self,
        dump: Dump,
        blocks: list[tuple[int, int]],
        heaps: list[tuple[int, int]],
        width: int,
        headers: list[tuple[int, int]],
    ) -> None:
        self.dump, self.width = dump, width
        # Two lengths in the TEB of 32-bit code, 0 and 0x20a bytes: StaticUnicodeString of the PDBs.
        self._no_pointers: set[int] = set()
        # Of some it is known only how much the heap took for them, in front of them too: they end where the
        # next one begins.
        ordered = sorted(blocks)
        ends = [start for start, _ in ordered[1:]] + [1 << 64]
        self.blocks = [
            (start, min(size, end - start))
            for (start, size), end in zip(ordered, ends, strict=True)
        ]
        self._starts = [start for start, _ in self.blocks]
        self.leads: list[set[int]] = [set() for _ in self.blocks]
        self.held: set[int] = set()
        low, high = self.blocks[0][0], max(start + max(size, 1) for start, size in self.blocks)
        self._span = range(low, high)
        for number, (start, size) in enumerate(self.blocks):
            for _, value in dump.words(start, start + size, width):
                found = self.block_of(value)
                if found not in (-1, number):
                    self.leads[number].add(found)
        self._scan_roots(sorted(heaps), headers)
        self.back: list[set[int]] = [set() for _ in self.blocks]
        for number, leads in enumerate(self.leads):
            for lead in leads:
                self.back[lead].add(number)

    def block_of(self, value: int) -> int:
        if value not in self._span:
            return -1
        number = bisect_right(self._starts, value) - 1
        start, size = self.blocks[number]
        return number if value < start + max(size, 1) else -1

    def _scan_roots(self, heaps: list[tuple[int, int]], headers: list[tuple[int, int]]) -> None:
        dump, width = self.dump, self.width
        images = [(base, base + size) for base, size in dump.modules()]
        exact = list(dump.writable_sections())
        exact += [(start, start + size) for start, size in headers]
        regions = dump.regions()
        stacks, tebs = [], []
        for teb, pointer, start, registers in dump.threads(width):
            self.held |= {found for value in registers if (found := self.block_of(value)) >= 0}
            region = next(r for r in regions if r[0] <= start < r[1])
            if width == 4:
                self._no_pointers.add(teb + 0xBF8)
            stacks.append((region[0], region[1]))
            tebs += [teb, dump.word(teb + (0x60 if width == 8 else 0x30), width)]  # and the PEB
            exact.append((pointer if region[0] <= pointer < region[1] else start, region[1]))
        for start, end in exact:
            self._take(start, end, only_starts=False)
        for start, end, state, protect, kind in regions:
            known = kind == _IMAGE or any(low <= start < high for low, high in images + stacks)
            if (
                state != _COMMIT
                or known
                or protect & _NO_ACCESS_OR_GUARD
                or start == _SHARED_USER_DATA
            ):
                continue
            if kind == 0x40000 and not protect & _WRITABLE:
                continue
            for low, high in _without(start, end, heaps):
                told = any(start <= teb < end for teb in tebs)
                self._take(low, high, only_starts=width == 4 and not told)

    def _take(self, start: int, end: int, *, only_starts: bool) -> None:
        for place, value in self.dump.words(start, end, self.width):
            found = -1 if place in self._no_pointers else self.block_of(value)
            if found >= 0 and (not only_starts or self.blocks[found][0] == value):
                self.held.add(found)

    def reached(self, start: set[int], gone: set[int]) -> bytearray:
        """1 for each block that is reached without those that are gone."""
        seen = bytearray(len(self.blocks))
        for block in gone:
            seen[block] = 2
        left = [block for block in start if not seen[block]]
        for block in left:
            seen[block] = 1
        leads = self.leads
        while left:
            for there in leads[left.pop()]:
                if not seen[there]:
                    seen[there] = 1
                    left.append(there)
        return seen

    def distances(self) -> list[int]:
        """Blocks on the shortest way from a root to each, itself included; 0 without any."""
        found = [0] * len(self.blocks)
        left = deque(self.held)
        for block in left:
            found[block] = 1
        while left:
            block = left.popleft()
            for there in self.leads[block]:
                if not found[there]:
                    found[there] = found[block] + 1
                    left.append(there)
        return found


def _without(start: int, end: int, others: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for low, size in others:
        if low + size <= start or low >= end:
            continue
        if start < low:
            yield start, low
        start = max(start, low + size)
        if start >= end:
            return
    if start < end:
        yield start, end
