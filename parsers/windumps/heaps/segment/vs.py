"""Segment heap, variable size allocations: subsegments that are chains of chunks.

On x64 few granules can be chunk headers at all: those of about a MiB of subsegments are decoded at once, and
where they make up a chain without a gap, that is it. Else, and on x86, every granule is decoded, and the hop
from chunk to chunk is over integers (`segment_chain`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U8, U64
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment.chain import (
    Headers,
    careful_chain,
    decode_headers,
    hop_chain,
    is_marked,
    possible_headers,
    vote_low_byte,
)
from windumps.heaps.segment.padding import unused_bytes
from windumps.heaps.segment.pages import CommitMap, absent_bytes, pieces
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

Bools = NDArray[np.bool_]

HAS_UNUSED_BYTES = 0x100  # bits of the second word of an allocated chunk's header
SKIP_DURING_WALK = 0x200


@dataclass
class Chunks:
    """The chunks of some subsegments, as columns, and what was no chunk.

    Attributes:
        address: uint64, of the header.
        size: int64, bytes with header.
        used: bool.
        skip: bool, marked to be left out of walks.
        unused: int64, bytes at the end nobody asked for; `SIZE_UNKNOWN` where what would say so is absent
            or damaged.
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
        self._low_byte: int | None = None  # of the key, as allocated chunks have it

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
        broken: list[int] = []
        if len(open_):
            headers = decode_headers(raw, where, self._key, self._row.pointer_size)
            parts = [chunks]
            for number in open_.tolist():
                hopped = hop_chain(headers, *bounds[number])
                if hopped is None:
                    broken.append(number)
                else:
                    parts.append(hopped)
            chunks = np.sort(np.concatenate(parts))
        gaps: list[tuple[int, int]] = []
        if broken:
            self._learn_low_byte(raw, where, chunks, address)
            proven = self._proven(headers, where, np.repeat(address, size // granule))
            is_zero = ~raw.reshape(-1, PAGE_SIZE).any(axis=1)
            blank = np.repeat(is_zero, PAGE_SIZE // granule)
            for number in broken:
                chain = careful_chain(headers, proven, blank, *bounds[number])
                parts.append(np.array(chain.chunks, np.int64))
                gaps += chain.gaps
            chunks = np.sort(np.concatenate(parts))
        chunks, own, marked, more = self._believed(raw, where, chunks, address)
        unwalked = absent = 0
        for low, high in gaps + more:
            lost, missing = self._lose(address, int(where[low]), (high - low) * granule, commit)
            unwalked += lost
            absent += missing
        first_byte, end_byte = first * granule - starts[:-1], end * granule - starts[:-1]
        overhead = commit.committed_bytes(address, first_byte) + commit.committed_bytes(
            address + end_byte.astype(np.uint64), size - end_byte
        )
        columns = self._columns(raw, where[chunks], chunks, own, marked, commit, whole)
        return Chunks(*columns, int(overhead.sum()), unwalked, absent)

    def _learn_low_byte(self, raw: U8, where: U64, chunks: I64, address: U64) -> None:
        """Learns the low byte of the key from chunks that are in order."""
        if self._low_byte is None and len(chunks):
            at = where[chunks]
            headers = decode_headers(raw, at, self._key, self._row.pointer_size, chunks)
            self._low_byte = vote_low_byte(headers, at, _owner(address, at))

    def _proven(self, headers: Headers, where: U64, subsegment: U64) -> Bools:
        """Granules that are headers of allocated chunks by all they say; see `careful_chain`."""
        if self._low_byte is None and self._row.pointer_size == 4:
            return np.zeros(len(where), np.bool_)
        marked = is_marked(headers, where, subsegment, self._low_byte)
        return headers.sound & headers.allocated & marked & (headers.size > 1)

    def _believed(
        self, raw: U8, where: U64, chunks: I64, address: U64
    ) -> tuple[I64, Headers, Bools, list[tuple[int, int]]]:
        """Takes out chunks whose links are right and whose header is damaged all the same.

        Returns:
            The others, their headers, whether each one's second word is sound, the granules of those taken
            out.
        """
        pointer = self._row.pointer_size
        self._learn_low_byte(raw, where, chunks, address)
        at = where[chunks]
        headers = decode_headers(raw, at, self._key, pointer, chunks)
        marked = is_marked(headers, at, _owner(address, at), self._low_byte)
        good = headers.sound
        if pointer == 4:
            # One bit says that a chunk is allocated; only the second word confirms it.
            good = marked | ~headers.allocated
        if good.all():
            return chunks, headers, marked, []
        bad = chunks[~good]
        gaps = list(zip(bad.tolist(), (bad + headers.size[~good]).tolist(), strict=True))
        return chunks[good], headers.select(good), marked[good], gaps

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

    def _lose(self, address: U64, low: int, length: int, commit: CommitMap) -> tuple[int, int]:
        """Says that bytes of a subsegment could not be read; its committed and its absent bytes."""
        lost = int(commit.committed_bytes(np.array([low], np.uint64), np.array([length]))[0])
        base = int(_owner(address, np.array([low], np.uint64))[0])
        self._log.add(
            "vs-chunk-damaged",
            Severity.WARNING,
            "_HEAP_VS_CHUNK_HEADER",
            low,
            f"chunk headers from 0x{low:x} to 0x{low + length:x} are damaged or absent "
            f"(subsegment at 0x{base:x})",
            lost,
        )
        return lost, absent_bytes(self._memory, low, low + length, lost)

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
        pages = np.arange(base, base + length, PAGE_SIZE, dtype=np.uint64)
        held = commit.committed_bytes(pages, np.full(len(pages), PAGE_SIZE, np.int64)) > 0
        if not held.any():
            return first, first
        return first, (at + int(np.flatnonzero(held)[-1] + 1) * PAGE_SIZE) // granule

    def _columns(
        self,
        raw: U8,
        address: U64,
        chunks: I64,
        headers: Headers,
        marked: Bools,
        commit: CommitMap,
        whole: bool,
    ) -> tuple[U64, I64, Bools, Bools, I64, Bools, I64]:
        """The columns of `Chunks`."""
        granule = self._granule
        size = headers.size * granule
        used = headers.allocated
        if len(self._delayed):
            edges = np.searchsorted(self._delayed, address[:, None] + self._link_range())
            used &= edges[:, 0] == edges[:, 1]
        bits = headers.bits
        has_unused = used & marked & ((bits & HAS_UNUSED_BYTES) != 0)
        end = chunks * granule + size
        words = raw.view("<u2")[np.where(has_unused, end // 2 - 1, 0)]
        known = np.ones(len(address), np.bool_)
        if not whole and has_unused.any():
            known = self._memory.locate(address + (size - 2).astype(np.uint64), 2) >= 0
        unused, extra = unused_bytes(words, size - granule, known)
        unused[~has_unused] = 0
        unused[used & ~marked] = SIZE_UNKNOWN
        return (
            address,
            size,
            used,
            used & marked & ((bits & SKIP_DURING_WALK) != 0),
            unused,
            extra & has_unused,
            commit.committed_bytes(address, size),
        )


def _owner(address: U64, at: U64) -> U64:
    """The subsegment of each address; `address` holds the starts of all, ascending."""
    return address[np.searchsorted(address, at, "right") - 1]
