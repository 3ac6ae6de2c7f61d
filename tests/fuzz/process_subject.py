"""A dump of a process: what is damaged in it, and what is said of its heaps."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from builders.minidump_builder import stream_place, stream_row

from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from fuzz.criteria import Answer, Found, Part, Truth, overlaps
from fuzz.damages import Page
from fuzz.seeds import PAGE, Run, header_places, places_read, runs_of
from fuzz.subject import Subject
from windumps.arrays import U64
from windumps.blocks import Blocks, Kind
from windumps.dumps.minidump.reader import open_minidump

MEMORY64 = 9  # the stream that lists all memory


class Walked(NamedTuple):
    """What a walk found.

    Attributes:
        used: uint64, addresses of used blocks.
        ranges: (start, bytes) of the memory that was walked.
    """

    used: U64
    ranges: list[tuple[int, int]]


class ProcessSubject(Subject):
    """The heaps of a process."""

    def __init__(self, data: bytes, truth: Truth) -> None:
        self.data, self.truth = data, truth
        opened = self._open(self.data)
        self.memory = opened.dump.memory
        self.runs: list[Run] = runs_of(self.memory)
        small, gathered = places_read(lambda: self.answer(self.data))
        self.leave_out(self.answer(self.data))
        walked = self.walked(opened)
        self.pages: list[Page] = sorted(set(self._pages(walked.ranges)))
        width = 2 * opened.views[0].pointer_size if opened.views else 16
        inside = {page.offset // PAGE for page in self.pages}
        headers = header_places(self.memory, walked.used, width)
        structures = [[o for o in places if o // PAGE in inside] for places in (small, gathered)]
        self.structures: list[list[int]] = [p for p in (*structures, headers) if p]

    def walked(self, session: Session) -> Walked:
        """What is in an undamaged dump."""
        pieces = [blocks.used.address for _, blocks in session.blocks()]
        heaps = [source.entry.heap for source in session.readable_heaps]
        # Ranges are complete once all heaps were walked.
        ranges = [each for heap in heaps if heap is not None for each in heap.account.ranges]
        return Walked(np.concatenate([np.empty(0, np.uint64), *pieces]), ranges)

    def _pages(self, ranges: list[tuple[int, int]]) -> list[Page]:
        pages = []
        for start, size in ranges:
            for row in zip(*self.memory.extents(start, start + size), strict=True):
                address, length, offset = map(int, row)
                pages += [Page(address + at, offset + at) for at in range(0, length, PAGE)]
        return pages

    @staticmethod
    def _open(data: bytes) -> Session:
        return Session(open_minidump(Path("damaged.dmp"), np.frombuffer(data, np.uint8)))

    def answer(self, data: bytes) -> Answer:
        session = self._open(data)
        session.require_heaps()
        used: dict[int, Found] = {}
        twice: list[int] = []
        pieces = []
        for source, blocks in session.blocks():
            mine = blocks.used
            pieces.append(mine)
            columns = (mine.address.tolist(), mine.size.tolist(), mine.kind.tolist())
            for address, size, kind in zip(*columns, strict=True):
                if address in used:
                    twice.append(address)
                used[address] = Found(size, Kind(kind).label, source.entry.address)
        covered = coverage(session)
        blocks = Blocks.concatenate(pieces)
        parts = {}
        for source in session.heaps:
            heap = source.entry.heap
            unwalked = heap.account.unwalked_bytes if heap is not None else 0
            parts[source.entry.address] = Part("" if heap else source.entry.reason, unwalked)
        return Answer(
            used,
            twice,
            overlaps(blocks.address, np.clip(blocks.size, 0, blocks.block_bytes)),
            parts,
            covered.heaps_listed,
            covered.heaps_read,
            covered.share_text,
            [item.message for item in session.diagnostics if item.severity != "info"],
        )

    def without_pages(self, addresses: set[int]) -> bytes:
        """The file with a Memory64List that lacks these pages."""
        data = self.data
        row, (place, _) = stream_row(data, MEMORY64), stream_place(data, MEMORY64)
        count, base = struct.unpack_from("<QQ", data, place)
        ranges: list[tuple[int, int]] = []
        pieces: list[bytes] = []
        offset = base
        for index in range(count):
            start, size = struct.unpack_from("<QQ", data, place + 16 + 16 * index)
            for low, high in _without(start, start + size, addresses):
                ranges.append((low, high - low))
                pieces.append(data[offset + low - start : offset + high - start])
            offset += size
        head = bytearray(data[:base])
        length = 16 + 16 * len(ranges)
        struct.pack_into("<II", head, row + 4, length, base)
        head += struct.pack("<QQ", len(ranges), base + length)
        head += b"".join(struct.pack("<QQ", *piece) for piece in ranges)
        return bytes(head) + b"".join(pieces)


def _without(start: int, end: int, pages: set[int]) -> list[tuple[int, int]]:
    """What is left of [start, end) without some pages."""
    left = []
    at = low = start
    while at < end:
        behind = min(at // PAGE * PAGE + PAGE, end)
        if at // PAGE * PAGE in pages:
            if at > low:
                left.append((low, at))
            low = behind
        at = behind
    return [*left, (low, end)] if low < end else left
