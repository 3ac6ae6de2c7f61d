"""Segment heap, variable size allocations: subsegments that are chains of chunks.

Every chunk header holds its own size and that of the chunk before, XORed with the heap's key and its own
address, so each link of the chain is checked twice. On x64 few granules can be headers at all: those of
about a MiB of subsegments are decoded at once, and where they make up a chain without a gap, that is it.
Else, and on x86, every granule is decoded, and the hop from chunk to chunk is over integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment_pages import PAGE, CommitMap, absent_bytes, pieces
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
        sound: bool, what must be zero is.
        bits: uint32, the second word.
    """

    size: I64
    previous: I64
    allocated: Bools
    sound: Bools
    bits: NDArray[np.uint32]


def decode_headers(
    memory: U8, address: U64, key: int, pointer_size: int, at: I64 | slice = slice(None)
) -> Headers:
    """Decodes granules of `memory`.

    Args:
        memory: Whole granules.
        address: uint64, where each decoded one lies.
        key: The key of chunk headers.
        pointer_size: 4 or 8; a granule is two pointers.
        at: Which granules; all of them when left out.
    """
    if pointer_size == 8:
        wide = memory.view("<u8")[0::2][at] ^ np.uint64(key) ^ address
        return Headers(
            ((wide >> np.uint64(16)) & np.uint64(0xFFFF)).astype(np.int64),
            ((wide >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.int64),
            (wide >> np.uint64(48)) != 0,
            (wide >> np.uint64(49)) == 0,  # Allocated is 0 or 1, and nothing is behind it
            memory.view("<u4")[2::4][at],
        )
    narrow = memory.view("<u4")[0::2][at] ^ np.uint32(key) ^ address.astype(np.uint32)
    return Headers(
        ((narrow >> np.uint32(1)) & np.uint32(0x7FFF)).astype(np.int64),
        ((narrow >> np.uint32(16)) & np.uint32(0x7FFF)).astype(np.int64),
        (narrow >> np.uint32(31)) != 0,
        np.ones(len(narrow), bool),
        memory.view("<u4")[1::2][at],
    )


def possible_headers(memory: U8, address: U64, key: int) -> I64:
    """Granules of x64 memory that can be headers: what must be zero in one is; see `decode_headers`."""
    wide = memory.view("<u8")[0::2] ^ np.uint64(key) ^ address
    return np.flatnonzero(wide < np.uint64(1 << 49))


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
        absent_bytes: The part of it that is not in the dump.
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
    absent_bytes: int


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
        delayed: uint64, ascending; chunks that hold one of these addresses right behind the header are free.
    """

    def __init__(
        self, memory: AddressSpace, row: LayoutRow, key: int, log: DiagnosticLog, delayed: U64
    ) -> None:
        self._memory = memory
        self._row = row
        self._key = key
        self._log = log
        self._delayed = delayed
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
        halves = raw.view("<u2").data
        bounds = [
            self._bounds(halves, base, at, length, commit)
            for base, length, at in zip(
                address.tolist(), size.tolist(), starts.tolist(), strict=False
            )
        ]
        first, end = np.array(bounds, np.int64).T
        chunks, open_ = self._unbroken(raw, where, first, end)
        unwalked = absent = 0
        if len(open_):
            headers = decode_headers(raw, where, self._key, self._row.pointer_size)
            parts = [chunks]
            for number in open_.tolist():
                base, at = int(address[number]), int(starts[number])
                chain = _walk(headers, *bounds[number])
                parts.append(np.array(chain.chunks, np.int64))
                for low, high in chain.gaps:
                    lost, missing = self._lose(
                        base, base - at + low * granule, base - at + high * granule, commit
                    )
                    unwalked += lost
                    absent += missing
            chunks = np.sort(np.concatenate(parts))
        first_byte, end_byte = first * granule - starts[:-1], end * granule - starts[:-1]
        overhead = commit.committed_bytes(address, first_byte) + commit.committed_bytes(
            address + end_byte.astype(np.uint64), size - end_byte
        )
        columns = self._columns(raw, where, chunks, commit, whole)
        return Chunks(*columns, int(overhead.sum()), unwalked, absent)

    def _unbroken(self, raw: U8, where: U64, first: I64, end: I64) -> tuple[I64, I64]:
        """Chunks of the subsegments whose possible headers make up one chain, and the other subsegments.

        Args:
            raw: Memory of all subsegments.
            where: Address of each granule.
            first: int64, granule index of each subsegment's first chunk, ascending.
            end: int64, granule index behind its last.
        """
        pointer = self._row.pointer_size
        if pointer == 4:  # any granule can be a header
            return np.empty(0, np.int64), np.arange(len(first))
        at = possible_headers(raw, where, self._key)
        owner = np.searchsorted(first, at, "right") - 1
        inside = (owner >= 0) & (at < end[owner])
        at, owner = at[inside], owner[inside]
        headers = decode_headers(raw, where[at], self._key, pointer, at)
        # What is left of earlier headers lies inside of chunks: behind the start of one, before its end.
        reach = np.maximum.accumulate(at + headers.size)
        keep = np.ones(len(at), bool)
        keep[1:] = at[1:] >= reach[:-1]
        at, owner = at[keep], owner[keep]
        size, previous = headers.size[keep], headers.previous[keep]
        follows = np.flatnonzero(owner[1:] == owner[:-1]) + 1
        broken = np.ones(len(first), bool)
        heads, tails = (
            np.unique(owner, return_index=True)[1],
            np.flatnonzero(np.diff(owner, append=-1)),
        )
        broken[owner[heads]] = (at[heads] != first[owner[heads]]) | (
            at[tails] + size[tails] != end[owner[tails]]
        )
        torn = (at[follows] != at[follows - 1] + size[follows - 1]) | (
            previous[follows] != size[follows - 1]
        )
        broken[owner[follows[torn]]] = True
        return at[~broken[owner]], np.flatnonzero(broken)

    def _lose(self, base: int, low: int, high: int, commit: CommitMap) -> tuple[int, int]:
        """Says that [low, high) of a subsegment could not be read; its committed and its absent bytes."""
        lost = int(commit.committed_bytes(np.array([low], np.uint64), np.array([high - low]))[0])
        self._log.add(
            "vs-chunk-damaged",
            Severity.WARNING,
            "_HEAP_VS_CHUNK_HEADER",
            low,
            f"chunk headers from 0x{low:x} to 0x{high:x} are damaged or absent "
            f"(subsegment at 0x{base:x})",
            lost,
        )
        return lost, absent_bytes(self._memory, low, high, lost)

    def _link_range(self) -> U64:
        """Where in a chunk its list link can be: from behind the sizes to behind the first user bytes."""
        return np.array([self._row.pointer_size, 2 * self._granule], np.uint64)

    def _bounds(
        self, halves: memoryview, base: int, at: int, length: int, commit: CommitMap
    ) -> tuple[int, int]:
        """Granule indices of the first chunk and of the end of the last."""
        row, name, granule = self._row, "_HEAP_VS_SUBSEGMENT", self._granule
        first = (at + row.offset(name, "FirstChunk")) // granule
        units = halves[(at + row.offset(name, "Size")) // 2]
        signature = halves[(at + row.offset(name, "Signature")) // 2]
        end = first + units
        wrong = (signature ^ units ^ row.offset("constants", "VsSignature")) & 0x7FFF
        if not wrong and end * granule <= at + length:
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
        if not held.any():
            return first, first
        return first, (at + int(np.flatnonzero(held)[-1] + 1) * PAGE) // granule

    def _columns(
        self, raw: U8, where: U64, chunks: I64, commit: CommitMap, whole: bool
    ) -> tuple[U64, I64, Bools, Bools, I64, Bools, I64]:
        """The columns of `Chunks`."""
        granule = self._granule
        address = where[chunks]
        headers = decode_headers(raw, address, self._key, self._row.pointer_size, chunks)
        size = headers.size * granule
        used = headers.allocated
        if len(self._delayed):
            edges = np.searchsorted(self._delayed, address[:, None] + self._link_range())
            used &= edges[:, 0] == edges[:, 1]
        bits = headers.bits
        has_unused = used & ((bits & HAS_UNUSED_BYTES) != 0)
        end = chunks * granule + size
        words = raw.view("<u2")[np.where(has_unused, end // 2 - 1, 0)].astype(np.int64)
        unused = np.where(has_unused, np.where(words & 0x8000, 1, words & 0x1FFF), 0)
        if not whole and has_unused.any():
            held = self._memory.locate(address + (size - 2).astype(np.uint64), 2) >= 0
            unused[has_unused & ~held] = SIZE_UNKNOWN
        return (
            address,
            size,
            used,
            used & ((bits & SKIP_DURING_WALK) != 0),
            unused,
            has_unused & ((words & 0x4000) != 0),
            commit.committed_bytes(address, size),
        )


def _walk(headers: Headers, first: int, end: int) -> _Chain:
    """Hops from chunk to chunk; the careful way only where the simple one fails."""
    size_of = headers.size.data
    chunks: list[int] = []
    take = chunks.append
    position = first
    while position < end and (size := size_of[position]):
        take(position)
        position += size
    if position == end and chunks:
        at = np.array(chunks, np.int64)
        if (headers.previous[at[1:]] == headers.size[at[:-1]]).all():
            return _only_sound(_Chain(chunks), headers)
    return _only_sound(_careful_walk(headers, size_of, first, end), headers)


def _only_sound(chain: _Chain, headers: Headers) -> _Chain:
    """Takes out chunks whose sizes are right and whose header is damaged all the same."""
    at = np.array(chain.chunks, np.int64)
    if headers.sound[at].all():
        return chain
    bad = at[~headers.sound[at]]
    ends = bad + headers.size[bad]
    return _Chain(
        at[headers.sound[at]].tolist(),
        chain.gaps + list(zip(bad.tolist(), ends.tolist(), strict=True)),
    )


def _careful_walk(headers: Headers, size_of: memoryview, first: int, end: int) -> _Chain:
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
