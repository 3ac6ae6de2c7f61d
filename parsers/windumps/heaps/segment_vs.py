"""Segment heap, variable size allocations: subsegments that are chains of chunks.

Every chunk header holds its own size and that of the chunk before, XORed with the heap's key and its own
address, so each link of the chain is checked twice. All granules of about a MiB of subsegments are decoded
at once as if each were a header; the hop from chunk to chunk is then over a list of integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment_pages import PAGE, CommitMap, pieces
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

HAS_UNUSED_BYTES = 0x100  # bits of the second word of an allocated chunk's header
SKIP_DURING_WALK = 0x200


@dataclass(frozen=True)
class Headers:
    """What every granule of memory says when it is read as a chunk header.

    Attributes:
        size: int64, granules to the next chunk.
        previous: int64, granules back to the chunk before.
        allocated: bool.
        bits: uint32, the second word.
    """

    size: I64
    previous: I64
    allocated: Bools
    bits: NDArray[np.uint32]


def decode_headers(memory: U8, address: U64, key: int, pointer_size: int) -> Headers:
    """Decodes every granule of `memory`.

    Args:
        memory: Whole granules.
        address: uint64 (granules,), where each lies.
        key: The key of chunk headers.
        pointer_size: 4 or 8; a granule is two pointers.
    """
    if pointer_size == 8:
        wide = memory.view("<u8")[0::2] ^ np.uint64(key) ^ address
        return Headers(
            ((wide >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.int64),
            ((wide >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.int64),
            (wide & np.uint64(0xFF << 48)) != 0,
            memory.view("<u4")[2::4],
        )
    narrow = memory.view("<u4")[0::2] ^ np.uint32(key) ^ address.astype(np.uint32)
    return Headers(
        ((narrow >> np.uint32(1)) & np.uint32(0x7FFF)).astype(np.int64),
        ((narrow >> np.uint32(16)) & np.uint32(0x7FFF)).astype(np.int64),
        (narrow >> np.uint32(31)) != 0,
        memory.view("<u4")[1::2],
    )


@dataclass
class Chunks:
    """The chunks of some subsegments, as columns, and what was no chunk.

    Attributes:
        address: uint64, of the header.
        size: int64, bytes with header.
        used: bool.
        skip: bool, marked to be left out of walks.
        unused: int64, bytes at the end nobody asked for; `SIZE_UNKNOWN` where that page is absent.
        extra: bool, something of the heap's own lies behind the user's bytes.
        committed: int64, bytes.
        overhead_bytes: Subsegment headers and committed memory behind the last chunk.
        unwalked_bytes: Committed memory behind damage.
    """

    address: U64
    size: I64
    used: Bools
    skip: Bools
    unused: I64
    extra: Bools
    committed: I64
    overhead_bytes: int
    unwalked_bytes: int


@dataclass
class _Chain:
    """Granule indices of chunks, and gaps between."""

    chunks: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)


class VsReader:
    """Reads VS subsegments of one heap.

    Args:
        memory: The process's memory.
        row: The heap's layout.
        key: The key of chunk headers.
        log: For damage.
    """

    def __init__(self, memory: AddressSpace, row: LayoutRow, key: int, log: DiagnosticLog) -> None:
        self._memory = memory
        self._row = row
        self._key = key
        self._log = log
        self._granule = 2 * row.pointer_size

    def read(self, address: U64, size: I64, commit: CommitMap) -> Iterator[Chunks]:
        """Walks subsegments, about a MiB at a time.

        Args:
            address: uint64, ascending range addresses.
            size: int64, bytes of each range.
            commit: Their pages.
        """
        for piece in pieces(size):
            yield self._batch(address[piece], size[piece], commit)

    def _batch(self, address: U64, size: I64, commit: CommitMap) -> Chunks:
        granule = self._granule
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(size)])
        raw = np.zeros(int(starts[-1]), np.uint8)
        committed = commit.committed_bytes(address, size)
        whole = True
        for base, length, at, held in zip(
            address.tolist(), size.tolist(), starts.tolist(), committed.tolist(), strict=False
        ):
            got = 0
            for piece, count, offset in zip(
                *self._memory.extents(base, base + length), strict=True
            ):
                place = at + int(piece) - base
                raw[place : place + int(count)] = self._memory.data[offset : offset + count]
                got += int(count)
            whole = whole and got >= held
        where = np.repeat(address, size // granule)
        where += np.arange(len(where), dtype=np.uint64) * np.uint64(granule)
        where -= np.repeat((starts[:-1]).astype(np.uint64), size // granule)
        headers = decode_headers(raw, where, self._key, self._row.pointer_size)
        size_of = headers.size.tolist()
        chunks: list[int] = []
        overhead = unwalked = 0
        for index, base in enumerate(address.tolist()):
            first, end = self._bounds(raw, base, int(starts[index]), int(size[index]), commit)
            chain = self._walk(headers, size_of, first, end)
            chunks += chain.chunks
            at = int(starts[index]) // granule
            overhead += self._committed(commit, base, base + (first - at) * granule)
            overhead += self._committed(
                commit, base + (end - at) * granule, base + int(size[index])
            )
            for gap, gap_end in chain.gaps:
                low, high = (base + (edge - at) * granule for edge in (gap, gap_end))
                lost = self._committed(commit, low, high)
                unwalked += lost
                self._log.add(
                    "vs-chunk-damaged",
                    Severity.WARNING,
                    "_HEAP_VS_CHUNK_HEADER",
                    low,
                    f"chunk headers from 0x{low:x} to 0x{high:x} are damaged or absent "
                    f"(subsegment at 0x{base:x})",
                    lost,
                )
        return self._columns(
            raw, where, headers, np.array(chunks, np.int64), commit, whole, overhead, unwalked
        )

    @staticmethod
    def _committed(commit: CommitMap, start: int, end: int) -> int:
        if end <= start:
            return 0
        return int(commit.committed_bytes(np.array([start], np.uint64), np.array([end - start]))[0])

    def _bounds(
        self, raw: U8, base: int, at: int, length: int, commit: CommitMap
    ) -> tuple[int, int]:
        """Granule indices of the first chunk and of the end of the last."""
        row, name, granule = self._row, "_HEAP_VS_SUBSEGMENT", self._granule

        def field_of(field_name: str) -> int:
            start = at + row.offset(name, field_name)
            return int.from_bytes(
                raw[start : start + row.field_size(name, field_name)].tobytes(), "little"
            )

        first = (at + row.offset(name, "FirstChunk")) // granule
        units = field_of("Size")
        constant = row.offset("constants", "VsSignature")
        end = first + units
        if (
            field_of("Signature") ^ units ^ constant
        ) & 0x7FFF == 0 and end * granule <= at + length:
            return first, end
        self._log.add(
            "vs-subsegment-damaged",
            Severity.WARNING,
            "_HEAP_VS_SUBSEGMENT",
            base,
            f"the header of the subsegment at 0x{base:x} is damaged or absent; its chunks are found without",
        )
        pages = np.arange(base, base + length, PAGE, dtype=np.uint64)
        held = commit.committed_bytes(pages, np.full(len(pages), PAGE, np.int64)) > 0
        return first, (
            at + int(np.flatnonzero(held)[-1] + 1) * PAGE
        ) // granule if held.any() else first

    def _walk(self, headers: Headers, size_of: list[int], first: int, end: int) -> _Chain:
        """Hops from chunk to chunk; the careful way only where the simple one fails."""
        chunks = []
        position = first
        while position < end:
            size = size_of[position]
            if not size:
                break
            chunks.append(position)
            position += size
        if position == end and chunks:
            at = np.array(chunks, np.int64)
            if (headers.previous[at[1:]] == headers.size[at[:-1]]).all():
                return _Chain(chunks)
        return _careful_walk(headers, size_of, first, end)

    def _columns(
        self,
        raw: U8,
        where: U64,
        headers: Headers,
        chunks: I64,
        commit: CommitMap,
        whole: bool,
        overhead: int,
        unwalked: int,
    ) -> Chunks:
        granule = self._granule
        address = where[chunks]
        size = headers.size[chunks] * granule
        used = headers.allocated[chunks]
        bits = headers.bits[chunks]
        has_unused = used & ((bits & HAS_UNUSED_BYTES) != 0)
        end = chunks * granule + size
        words = raw.view("<u2")[np.where(has_unused, end // 2 - 1, 0)].astype(np.int64)
        unused = np.where(has_unused, np.where(words & 0x8000, 1, words & 0x1FFF), 0)
        if not whole and has_unused.any():
            held = self._memory.locate(address + (size - 2).astype(np.uint64), 2) >= 0
            unused[has_unused & ~held] = SIZE_UNKNOWN
        return Chunks(
            address,
            size,
            used,
            used & ((bits & SKIP_DURING_WALK) != 0),
            unused,
            has_unused & ((words & 0x4000) != 0),
            commit.committed_bytes(address, size),
            overhead,
            unwalked,
        )


def _careful_walk(headers: Headers, size_of: list[int], first: int, end: int) -> _Chain:
    """Follows the chain from both ends and leaves out what lies between.

    A chunk is linked to the next when that one names its size as the one before. What is left of earlier
    chunks inside a free one is linked too, but never up to the subsegment's end: hence no islands.
    """
    chain = _Chain()
    position = first
    while True:
        size = size_of[position]
        target = position + size
        if not size or target >= end or headers.previous[target] != size:
            break
        chain.chunks.append(position)
        position = target
    tail: list[int] = []
    window = np.arange(position, end)
    for last in window[window + headers.size[position:end] == end].tolist():
        candidate = [last]
        while True:
            back = int(headers.previous[candidate[-1]])
            before = candidate[-1] - back
            if not back or before < position or size_of[before] != back:
                break
            candidate.append(before)
        if len(candidate) > len(tail):
            tail = candidate
    if len(tail) == 1 and tail[0] != position and tail[0] - headers.previous[tail[0]] != position:
        tail = []  # one coincidence is not enough
    resume = tail[-1] if tail else end
    if resume > position:
        if size_of[position] and position + size_of[position] == resume:
            chain.chunks.append(position)
        else:
            chain.gaps.append((position, resume))
    chain.chunks += reversed(tail)
    return chain
