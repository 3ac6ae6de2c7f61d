"""The segment heap of Windows 10 and 11: what packaged apps and many services use instead of the NT heap.

Memory comes from page segments, cut into page ranges: single blocks of whole pages, subsegments of variable
size chunks (VS), subsegments of equal blocks (LFH); what is larger than a range may be stands alone and is
kept in a tree. All of it is read without symbols: keys are found by `segment_keys`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN, Blocks, Kind
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.segment_keys import (
    ImageWords,
    Key,
    heap_key,
    lfh_key_fits,
    solve_lfh_key,
    solve_vs_key,
    vs_key_fits,
)
from windumps.heaps.segment_large import read_large
from windumps.heaps.segment_lfh import LfhReader, read_subsegments
from windumps.heaps.segment_pages import (
    CommitMap,
    PageRanges,
    SegContext,
    Use,
    list_segments,
    read_contexts,
    read_segments,
)
from windumps.heaps.segment_vs import VsReader
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow, candidates
from windumps.windows.segment_heap_layouts import SEGMENT_HEAP_ROWS

NAME = "segment"
SIGNATURE = 0xDDEEDDEE
PAGE_SHIFT = 12
SAMPLE_SEGMENTS = 4
SAMPLE_RANGES = 64
_COUNTERS = (
    "TotalReservedPages",
    "TotalCommittedPages",
    "FreeCommittedPages",
    "LfhFreeCommittedPages",
    "LargeReservedPages",
    "LargeCommittedPages",
)

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]


def detect(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """True when a heap handle bears the segment heap's signature."""
    try:
        return memory.read_uint(address + 2 * pointer_size, 4) == SIGNATURE
    except MemoryReadError:
        return False


@dataclass(frozen=True)
class _Fit:
    """How one layout fits a heap."""

    row: LayoutRow
    score: float
    contexts: list[SegContext]
    key: Key | None
    vs_key: Key | None
    lfh_key: Key | None


def open_segment_heap(context: HeapContext, address: int, ordinal: int) -> SegmentHeap:
    """Opens a segment heap, choosing the layout that fits best.

    Raises:
        HeapError: the heap's header is not in the dump, or no layout fits it.
    """
    rows = candidates(SEGMENT_HEAP_ROWS, context.architecture, context.build)
    image = ImageWords(context.memory, context.ntdll, context.pointer_size)
    best: _Fit | None = None
    for row in rows:
        try:
            fit = _fit(context.memory, row, address, image)
        except MemoryReadError:
            continue
        if best is None or fit.score > best.score:
            best = fit
        if fit.score == 1.0:
            break
    if best is None or best.score < 0.5:
        raise HeapError(
            f"the segment heap at 0x{address:x} fits no known layout; "
            "its header is damaged, not in the dump, or of a newer Windows",
            address,
        )
    return SegmentHeap(context, address, ordinal, best)


def _fit(memory: AddressSpace, row: LayoutRow, heap: int, image: ImageWords) -> _Fit:
    """Tries a layout on a heap; the score is the share of its checks that hold."""
    scratch = DiagnosticLog()
    contexts = read_contexts(memory, row, heap)
    wanted = row.offset("constants", "Contexts")
    checks = [len(contexts) / wanted]
    listed = [
        (context, segment)
        for context in contexts
        for segment in list_segments(memory, row, context, None, scratch)
    ]
    checks.append(1.0 if contexts and not scratch.collect() else 0.0)
    key = heap_key(memory, row, listed)
    if key is None:
        return _Fit(row, sum(checks) / len(checks), contexts, None, None, None)
    checks.append(key.agreeing / key.samples)
    vs_ranges: list[tuple[int, int]] = []
    lfh_ranges: list[tuple[int, int]] = []
    for context in contexts:
        segments = [segment for owner, segment in listed if owner is context][:SAMPLE_SEGMENTS]
        for batch in read_segments(memory, row, context, segments, scratch):
            checks.append(1 - batch.damaged / max(batch.segments, 1))
            for use, found in ((Use.VS, vs_ranges), (Use.LFH, lfh_ranges)):
                keep = batch.ranges.use == use
                found += zip(
                    batch.ranges.address[keep].tolist(),
                    batch.ranges.size[keep].tolist(),
                    strict=True,
                )
    vs_key = lfh_key = None
    if vs_ranges:
        vs_ranges = vs_ranges[:SAMPLE_RANGES]
        agreeing = vs_key_fits(memory, row, vs_ranges, key.value)
        vs_key = Key(key.value, "HeapKey", agreeing, len(vs_ranges))
        if agreeing * 2 <= len(vs_ranges):
            vs_key = solve_vs_key(memory, row, vs_ranges, image)
        checks.append(vs_key.agreeing / vs_key.samples if vs_key else 0.0)
    if lfh_ranges:
        subsegments = read_subsegments(
            memory,
            row,
            np.array([address for address, _ in lfh_ranges], np.uint64),
            np.array([size for _, size in lfh_ranges], np.int64),
        )
        lfh_key = solve_lfh_key(row, subsegments, image, image.behind(key.value))
        checks.append(
            lfh_key_fits(row, subsegments, lfh_key.value) / len(lfh_ranges) if lfh_key else 0.0
        )
    return _Fit(row, sum(checks) / len(checks), contexts, key, vs_key, lfh_key)


@dataclass
class SegmentHeap:
    """One segment heap; see `Heap` for the attributes that every kind has."""

    context: HeapContext
    address: int
    ordinal: int
    fit: _Fit
    kind: str = NAME
    architecture: str = ""
    flags: int = 0
    front_end: str = "lfh"
    layout: str = ""
    account: HeapAccount = field(default_factory=HeapAccount)

    def __post_init__(self) -> None:
        row, memory = self.fit.row, self.context.memory
        self.architecture = self.context.architecture
        self.layout = f"{row.name}, fits {self.fit.score:.0%}"
        self.flags = row.read_field(memory, "_SEGMENT_HEAP", "GlobalFlags", self.address)
        self.front_end = "lfh" if self.fit.lfh_key is not None else ""

    def blocks(self) -> Iterator[Blocks]:
        """Walks the heap; see `Heap.blocks`."""
        self.account = HeapAccount()
        self._header()
        self._say_keys()
        for context in self.fit.contexts:
            yield from self._context_blocks(context)
        yield from self._large_blocks()

    def _header(self) -> None:
        """The heap's own pages, and the counters it keeps."""
        row, account = self.fit.row, self.account
        for name in _COUNTERS:
            if row.has("_SEGMENT_HEAP", name):
                account.counters[name] = self._field(name)
        committed = self._field("UncommittedBase") - self.address
        reserved = self._field("ReservedLimit") - self.address
        if 0 <= committed <= reserved <= 1 << 24:
            account.committed_bytes += committed
            account.overhead_bytes += committed
            account.reserved_bytes += reserved

    def _field(self, name: str) -> int:
        return self.fit.row.read_field(self.context.memory, "_SEGMENT_HEAP", name, self.address)

    def _say_keys(self) -> None:
        names = (
            ("HeapKey", self.fit.key),
            ("key of chunk headers", self.fit.vs_key),
            ("LfhKey", self.fit.lfh_key),
        )
        said = "; ".join(
            f"{name} from {key.source} ({key.agreeing} of {key.samples} agree)"
            for name, key in names
            if key is not None
        )
        self.context.log.add(
            "segment-heap-keys",
            Severity.INFO,
            "_SEGMENT_HEAP",
            self.address,
            said or "the heap has no page segment, so no key is needed",
        )

    def _context_blocks(self, context: SegContext) -> Iterator[Blocks]:
        row, memory, log, account = self.fit.row, self.context.memory, self.context.log, self.account
        key = self.fit.key.value if self.fit.key is not None else None
        segments = list_segments(memory, row, context, key, log)
        for batch in read_segments(memory, row, context, segments, log):
            account.reserved_bytes += batch.segments * context.segment_bytes
            account.committed_bytes += (
                batch.header_bytes + batch.lost_bytes + int(batch.ranges.committed.sum())
            )
            account.overhead_bytes += batch.header_bytes
            account.unwalked_bytes += batch.lost_bytes
            yield from self._range_blocks(batch.ranges, batch.commit)

    def _range_blocks(self, ranges: PageRanges, commit: CommitMap) -> Iterator[Blocks]:
        account = self.account
        account.overhead_bytes += int(ranges.committed[ranges.use == Use.INTERNAL].sum())
        alone = (ranges.use == Use.PAGES) | ((ranges.use == Use.FREE) & (ranges.committed > 0))
        used = ranges.use[alone] == Use.PAGES
        yield self._blocks(
            ranges.address[alone],
            ranges.size[alone] - ranges.unused[alone],
            ranges.committed[alone],
            used,
            Kind.SEGMENT_PAGES,
        )
        yield from self._vs_blocks(ranges, commit)
        yield from self._lfh_blocks(ranges, commit)

    def _vs_blocks(self, ranges: PageRanges, commit: CommitMap) -> Iterator[Blocks]:
        row, account, context = self.fit.row, self.account, self.context
        chosen = ranges.use == Use.VS
        if self.fit.vs_key is None:
            account.unwalked_bytes += self._without_key(ranges, chosen, "_HEAP_VS_SUBSEGMENT")
            return
        reader = VsReader(context.memory, row, self.fit.vs_key.value, context.log)
        header = 2 * row.pointer_size
        for chunks in reader.read(ranges.address[chosen], ranges.size[chosen], commit):
            account.overhead_bytes += chunks.overhead_bytes
            account.unwalked_bytes += chunks.unwalked_bytes
            account.overhead_bytes += int(chunks.committed[chunks.skip].sum())
            keep = ~chunks.skip
            size = chunks.size - header - chunks.unused
            size[chunks.unused == SIZE_UNKNOWN] = SIZE_UNKNOWN
            yield self._blocks(
                (chunks.address + np.uint64(header))[keep],
                size[keep],
                chunks.committed[keep],
                chunks.used[keep],
                Kind.SEGMENT_VS,
            )

    def _lfh_blocks(self, ranges: PageRanges, commit: CommitMap) -> Iterator[Blocks]:
        account, context = self.account, self.context
        chosen = ranges.use == Use.LFH
        if self.fit.lfh_key is None:
            account.unwalked_bytes += self._without_key(ranges, chosen, "_HEAP_LFH_SUBSEGMENT")
            return
        reader = LfhReader(context.memory, self.fit.row, self.fit.lfh_key.value, context.log)
        for part in reader.read(ranges.address[chosen], ranges.size[chosen], commit):
            account.overhead_bytes += part.overhead_bytes
            account.unwalked_bytes += part.unwalked_bytes
            size = np.where(part.unused == SIZE_UNKNOWN, SIZE_UNKNOWN, part.size - part.unused)
            yield self._blocks(part.address, size, part.committed, part.used, Kind.SEGMENT_LFH)

    def _without_key(self, ranges: PageRanges, chosen: NDArray[np.bool_], structure: str) -> int:
        """Says that ranges cannot be read for want of a key; returns their committed bytes."""
        lost = int(ranges.committed[chosen].sum())
        if lost:
            self.context.log.add(
                "no-key",
                Severity.WARNING,
                structure,
                int(ranges.address[chosen][0]),
                "the key of these subsegments could not be found; their blocks are missing",
                lost,
            )
        return lost

    def _large_blocks(self) -> Iterator[Blocks]:
        account = self.account
        large = read_large(self.context.memory, self.fit.row, self.address, self.context.log)
        account.committed_bytes += int(large.size.sum())
        account.reserved_bytes += int(large.size.sum())
        yield self._blocks(
            large.address,
            large.size - large.unused,
            large.size,
            np.ones(len(large.size), bool),
            Kind.SEGMENT_LARGE,
        )

    def _blocks(
        self, address: U64, size: I64, block_bytes: I64, used: NDArray[np.bool_], kind: Kind
    ) -> Blocks:
        return self.account.count(
            Blocks.build(address, size, block_bytes, used, kind, self.ordinal)
        )
