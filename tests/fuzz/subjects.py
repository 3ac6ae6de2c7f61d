"""Dumps whose truth is known, and how answers about them are taken; one row a scenario in `SUBJECTS`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from builders.minidump_builder import stream_place, stream_row
from truth import TESTDATA, TruthDump, load_json, truth_dumps

from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from fuzz.criteria import Answer, Found, Part, Truth, overlaps
from fuzz.damages import Page
from fuzz.dump_kinds import unpacked
from fuzz.kernel_subjects import pools_with_truth
from fuzz.made_dumps import MADE_ROWS, MadeRow
from fuzz.seeds import PAGE, Run, header_places, places_read, runs_of
from fuzz.subject import Subject
from windumps.blocks import Blocks, Kind
from windumps.dumps.minidump.reader import open_minidump

MEMORY64 = 9  # the stream that lists all memory


class ProcessSubject(Subject):
    """The heaps of a process."""

    def __init__(self, data: bytes, truth: Truth) -> None:
        self.data, self.truth = data, truth
        opened = self._open(self.data)
        self.memory = opened.dump.memory
        self.runs: list[Run] = runs_of(self.memory)
        small, gathered = places_read(lambda: self.answer(self.data))
        self.leave_out(self.answer(self.data))
        # Ranges are complete once all heaps were walked.
        pieces = [blocks for _, blocks in opened.blocks()]
        self.pages: list[Page] = sorted(set(self._heap_pages(opened)))
        blocks, width = Blocks.concatenate(pieces), 2 * opened.views[0].pointer_size
        inside = {page.offset // PAGE for page in self.pages}
        headers = header_places(self.memory, blocks.used.address, width)
        structures = [[o for o in places if o // PAGE in inside] for places in (small, gathered)]
        self.structures: list[list[int]] = [p for p in (*structures, headers) if p]

    def _heap_pages(self, session: Session) -> list[Page]:
        pages = []
        for source in session.readable_heaps:
            heap = source.entry.heap
            for start, size in heap.account.ranges if heap is not None else ():
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


def read_truth(raw: dict[str, Any]) -> Truth:
    """Used blocks: what the program allocated, and the busy entries of the genuine walk.

    The walk's own sizes are coarse on some systems, so -1 stands for them.
    """
    columns = raw["alloc_columns"]
    address, size = columns.index("address"), columns.index("requested_size")
    used: dict[int, int] = {row[address]: row[size] for row in raw["allocations"]}
    for walk in raw["walks"].values():
        for row in walk or ():
            if row[2] & 1:
                used.setdefault(row[0], -1)
    truth = Truth(used, {})
    runtime = raw.get("crt")
    if runtime is not None:
        # The rows to show are what the debug runtime gave out; the heap's own blocks hold them.
        for outer, _, inner, inner_size, *_ in [*runtime["blocks"], *runtime["internal"]]:
            if outer != inner:
                truth.stands_for[outer] = inner
                used.pop(outer, None)
            used[inner] = inner_size
        for outer, inner, *_ in runtime["kept_after_free"]:
            truth.optional |= {outer, inner}
            used.pop(outer, None)
    return truth


def process_of(dump: TruthDump) -> Subject:
    """A dump with a truth file."""
    return ProcessSubject(unpacked(dump.dump), read_truth(load_json(dump.truth)))


def made_process(row: MadeRow) -> Subject:
    """A dump that builders make."""
    data, used = row.dump()
    return ProcessSubject(data, Truth(dict(used), {}))


Makers = dict[str, Callable[[], Subject]]


def _with_truth(*scenarios: str) -> Makers:
    return {
        ("testdata/" if dump.dump.is_relative_to(TESTDATA) else "") + dump.name: partial(
            process_of, dump
        )
        for dump in truth_dumps(*scenarios)
        if not dump.dump.name.startswith("before")
    }


def _made() -> Makers:
    return {row.name: partial(made_process, row) for row in MADE_ROWS}


# One row a kind of subject: what it is, and its dumps by name.
SUBJECTS: dict[str, Callable[[], Makers]] = {
    "pools": pools_with_truth,
    "heaps": partial(_with_truth, "tiny", "mixed", "nt-*", "segment-*"),
    "page heaps": partial(_with_truth, "page-heap-full", "page-heap-light", "page-heap-range"),
    "debug runtimes": partial(_with_truth, "debug-crt*"),
    "pairs": partial(_with_truth, "leak-pair-ust", "leak-pair-aslr"),
    "made heaps": _made,
}


def subjects() -> Makers:
    """Every dump by name; those of testdata begin with "testdata/", made ones with "made/"."""
    return {name: make for makers in SUBJECTS.values() for name, make in makers().items()}
