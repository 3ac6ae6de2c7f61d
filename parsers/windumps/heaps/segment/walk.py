"""Segment heap: all blocks as the allocator sees them, and the account of the memory between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.blocks import Kind
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.base import HeapAccount
from windumps.heaps.segment.contexts import SegContext, list_segments
from windumps.heaps.segment.keys import Key
from windumps.heaps.segment.large import most_pages, read_large
from windumps.heaps.segment.lfh import LfhReader
from windumps.heaps.segment.pages import CommitMap, PageRanges, header_bytes, read_segments
from windumps.heaps.segment.tiling import Use
from windumps.heaps.segment.vs import VsReader
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class RawBlocks:
    """Blocks of one kind, as columns.

    Attributes:
        kind: Of all of them.
        address: uint64, behind the allocator's header, in front of padding.
        room: int64, bytes from there to the block's end.
        unused: int64, bytes at the end nobody asked for; `SIZE_UNKNOWN` where that page is absent.
        extra: bool, something of the heap's own lies behind the user's bytes.
        committed: int64, bytes of the whole block that are committed.
        used: bool.
        uncertain: bool, those that may be in the other state; None when all is certain.
    """

    kind: Kind
    address: U64
    room: I64
    unused: I64
    extra: Bools
    committed: I64
    used: Bools
    uncertain: Bools | None = None

    def select(self, keep: Bools) -> RawBlocks:
        """The rows where `keep` is true."""
        return RawBlocks(
            self.kind,
            self.address[keep],
            self.room[keep],
            self.unused[keep],
            self.extra[keep],
            self.committed[keep],
            self.used[keep],
            None if self.uncertain is None else self.uncertain[keep],
        )


@dataclass(frozen=True)
class Walker:
    """Walks one heap under a layout and keys.

    Attributes:
        memory: The process's memory.
        row: The layout.
        heap: The heap's address.
        contexts: Its back-end contexts.
        key: HeapKey; None when the heap has no segment.
        vs_key: Key of chunk headers; None when it was not found.
        lfh_key: Key of LFH offsets; None when it was not found.
        log: For damage.
        account: All but the blocks themselves is added here.
        delayed: See `VsReader`.
        references: See `LfhReader`.
        is_probed: The layout is another build's.
    """

    memory: AddressSpace
    row: LayoutRow
    heap: int
    contexts: list[SegContext]
    key: Key | None
    vs_key: Key | None
    lfh_key: Key | None
    log: DiagnosticLog
    account: HeapAccount
    delayed: U64
    references: U64
    is_probed: bool

    def walk(self) -> Iterator[RawBlocks]:
        """Every block once, in pieces of about a MiB."""
        self._say_contexts()
        for context in self.contexts:
            key = self.key.value if self.key is not None else None
            segments = list_segments(self.memory, self.row, context, key, self.log)
            for batch in read_segments(self.memory, self.row, context, segments, self.log):
                account = self.account
                account.reserved_bytes += len(batch.segments) * context.segment_bytes
                account.ranges += [(start, context.segment_bytes) for start in batch.segments]
                account.committed_bytes += batch.header_bytes + batch.lost_bytes
                account.committed_bytes += int(batch.ranges.committed.sum())
                account.overhead_bytes += batch.header_bytes
                account.unwalked_bytes += batch.lost_bytes
                account.absent_bytes += batch.absent_bytes
                yield from self._ranges(batch.ranges, batch.commit)
        self._hold_against_counters()
        yield self._large()

    def _hold_against_counters(self) -> None:
        """Counts as unwalked what the heap has committed, by its own count, and no segment accounts for."""
        committed, _ = header_bytes(self.memory, self.row, self.heap)
        # Up to 19045 the heap does not count what its own header grew by.
        counted = (
            committed
            if self.row.offset("constants", "HeaderCounted")
            else min(committed, PAGE_SIZE)
        )
        if self.is_probed:  # of a build whose way nobody knows, and whose header may end elsewhere
            counted = max(committed, PAGE_SIZE)
        pages = self.row.read_field(self.memory, "_SEGMENT_HEAP", "TotalCommittedPages", self.heap)
        found = self.account.committed_bytes - committed + counted
        missing = pages * PAGE_SIZE - found
        if missing > 0 and pages < most_pages(self.memory, self.row):
            self.account.committed_bytes += missing
            self.account.unwalked_bytes += missing
            self.log.add(
                "segments-missing",
                Severity.WARNING,
                "_SEGMENT_HEAP.TotalCommittedPages",
                self.heap,
                f"the heap counts {pages * PAGE_SIZE} committed bytes; its segments lack {missing} of them",
                missing,
            )

    def _say_contexts(self) -> None:
        troubles = [
            (context.address, context.damage) for context in self.contexts if context.damage
        ]
        missing = self.row.offset("constants", "Contexts") - len(self.contexts)
        if missing:
            place = self.heap + self.row.offset("_SEGMENT_HEAP", "SegContexts")
            troubles.append(
                (
                    place,
                    f"{missing} of the heap's contexts make no sense; their segments are missing",
                )
            )
        for address, trouble in troubles:
            self.log.add("context-damaged", Severity.WARNING, "_HEAP_SEG_CONTEXT", address, trouble)

    def _ranges(self, ranges: PageRanges, commit: CommitMap) -> Iterator[RawBlocks]:
        self._say_unknown(ranges)
        alone = (ranges.use == Use.PAGES) | ((ranges.use == Use.FREE) & (ranges.committed > 0))
        used = ranges.use[alone] == Use.PAGES
        yield RawBlocks(
            Kind.SEGMENT_PAGES,
            ranges.address[alone],
            ranges.size[alone],
            np.where(used, ranges.unused[alone], 0),
            ranges.extra[alone],
            ranges.committed[alone],
            used,
        )
        yield from self._vs(ranges, commit)
        yield from self._lfh(ranges, commit)

    def _say_unknown(self, ranges: PageRanges) -> None:
        """Ranges of a use that no layout knows may hold blocks or not."""
        unknown = ranges.use == Use.UNKNOWN
        if unknown.any():
            lost = int(ranges.committed[unknown].sum())
            self.account.unwalked_bytes += lost
            first = int(ranges.address[unknown][0])
            self.log.add(
                "page-range-unknown",
                Severity.WARNING,
                "_HEAP_PAGE_RANGE_DESCRIPTOR",
                first,
                f"{int(unknown.sum())} page ranges, the first at 0x{first:x}, are of an unknown use",
                lost,
            )

    def _vs(self, ranges: PageRanges, commit: CommitMap) -> Iterator[RawBlocks]:
        chosen = ranges.use == Use.VS
        if self.vs_key is None:
            self._without_key(ranges, chosen, "_HEAP_VS_SUBSEGMENT")
            return
        reader = VsReader(self.memory, self.row, self.vs_key.value, self.log, self.delayed)
        header = 2 * self.row.pointer_size
        for chunks in reader.read(ranges.address[chosen], ranges.size[chosen], commit):
            self.account.overhead_bytes += chunks.overhead_bytes
            self.account.overhead_bytes += int(chunks.committed[chunks.skip].sum())
            self.account.unwalked_bytes += chunks.unwalked_bytes
            self.account.absent_bytes += chunks.absent_bytes
            raw = RawBlocks(
                Kind.SEGMENT_VS,
                chunks.address + np.uint64(header),
                chunks.size - header,
                chunks.unused,
                chunks.extra,
                chunks.committed,
                chunks.used,
            )
            yield raw.select(~chunks.skip) if chunks.skip.any() else raw

    def _lfh(self, ranges: PageRanges, commit: CommitMap) -> Iterator[RawBlocks]:
        chosen = ranges.use == Use.LFH
        if self.lfh_key is None:
            self._without_key(ranges, chosen, "_HEAP_LFH_SUBSEGMENT")
            return
        reader = LfhReader(self.memory, self.row, self.lfh_key.value, self.log, self.references)
        for part in reader.read(ranges.address[chosen], ranges.size[chosen], commit):
            self.account.overhead_bytes += part.overhead_bytes
            self.account.unwalked_bytes += part.unwalked_bytes
            self.account.absent_bytes += part.absent_bytes
            yield RawBlocks(
                Kind.SEGMENT_LFH,
                part.address,
                part.size,
                part.unused,
                part.extra,
                part.committed,
                part.used,
                part.uncertain,
            )

    def _large(self) -> RawBlocks:
        large = read_large(self.memory, self.row, self.heap, self.log)
        total = int(large.size.sum())
        self.account.committed_bytes += total + large.missing_bytes
        self.account.unwalked_bytes += large.missing_bytes
        self.account.reserved_bytes += total
        self.account.ranges += zip(large.address.tolist(), large.size.tolist(), strict=True)
        return RawBlocks(
            Kind.SEGMENT_LARGE,
            large.address,
            large.size,
            large.unused,
            large.extra,
            large.size,
            np.ones(len(large.size), bool),
        )

    def _without_key(self, ranges: PageRanges, chosen: Bools, structure: str) -> None:
        """Says that ranges cannot be read for want of a key."""
        lost = int(ranges.committed[chosen].sum())
        if lost:
            self.account.unwalked_bytes += lost
            self.log.add(
                "no-key",
                Severity.WARNING,
                structure,
                int(ranges.address[chosen][0]),
                "the key of these subsegments could not be found; their blocks are missing",
                lost,
            )
