"""Segment heap, variable size allocations: subsegments that are chains of chunks.

On x64 few granules can be chunk headers at all: those of about a MiB of subsegments are decoded at once, and
where they make up a chain without a gap, that is it. Else, and on x86, every granule is decoded, and the hop
from chunk to chunk is over integers (`chain.py`).
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
    ChunkMemory,
    FoundChunks,
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
        committed = commit.committed_bytes(address, size)
        raw, is_complete = self._copy(address, size, committed)
        memory = self._bounded(raw, address, size, commit)
        found, open_ = self._unbroken(memory)
        gaps: list[tuple[int, int]] = []
        if len(open_):
            at, gaps = self._broken(memory, found, open_.tolist())
            found = self._decoded(memory, at, memory.owner(at))
        found, marked, more = self._believed(memory, found)
        unwalked = absent = 0
        for low, high in gaps + more:
            edge = np.array([low])
            at_byte = int(memory.where(edge, memory.owner(edge))[0])
            lost, missing = self._lose(address, at_byte, (high - low) * self._granule, commit)
            unwalked += lost
            absent += missing
        first = (memory.first - memory.start) * self._granule
        end = (memory.end - memory.start) * self._granule
        overhead = commit.committed_bytes(address, first) + commit.committed_bytes(
            address + end.astype(np.uint64), size - end
        )
        blocks = found.headers.size * self._granule
        held = commit.committed_blocks(found.where, blocks, found.owner, committed == size)
        used, skip, unused, extra = self._uses(memory, found, marked, is_complete=is_complete)
        return Chunks(
            found.where,
            blocks,
            used,
            skip,
            unused,
            extra,
            held,
            int(overhead.sum()),
            unwalked,
            absent,
        )

    def _copy(self, address: U64, size: I64, committed: I64) -> tuple[U8, bool]:
        """The memory of ranges, zeros where it is absent; and whether all that is committed is there."""
        raw = np.zeros(int(size.sum()), np.uint8)
        is_complete = True
        at = 0
        for base, length, held in zip(
            address.tolist(), size.tolist(), committed.tolist(), strict=True
        ):
            got = 0
            for start, count, offset in zip(
                *(column.tolist() for column in self._memory.extents(base, base + length)),
                strict=True,
            ):
                place = at + start - base
                raw[place : place + count] = self._memory.data[offset : offset + count]
                got += count
            is_complete = is_complete and got >= held
            at += length
        return raw, is_complete

    def _bounded(self, raw: U8, address: U64, size: I64, commit: CommitMap) -> ChunkMemory:
        """Memory with the bounds of its chunks."""
        starts = np.cumsum(size) - size
        halves = raw.view("<u2").data
        first, end = np.array(
            [
                self._bounds(halves, base, at, length, commit)
                for base, at, length in zip(
                    address.tolist(), starts.tolist(), size.tolist(), strict=True
                )
            ],
            np.int64,
        ).T
        granule = self._granule
        return ChunkMemory(raw, granule, address, size // granule, starts // granule, first, end)

    def _decoded(self, memory: ChunkMemory, at: I64, owner: I64) -> FoundChunks:
        """Chunks with their headers."""
        where = memory.where(at, owner)
        headers = decode_headers(memory.raw, where, self._key, self._row.pointer_size, at)
        return FoundChunks(at, owner, where, headers)

    def _broken(
        self, memory: ChunkMemory, found: FoundChunks, open_: list[int]
    ) -> tuple[I64, list[tuple[int, int]]]:
        """Walks subsegments whose possible headers are no chain.

        Returns:
            Granules of their chunks and of those found before, ascending; the gaps between.
        """
        owner = np.repeat(np.arange(len(memory.count)), memory.count)
        where = memory.where(np.arange(len(owner)), owner)
        headers = decode_headers(memory.raw, where, self._key, self._row.pointer_size)
        parts, gaps = [found.at], []
        broken: list[int] = []
        for number in open_:
            hopped = hop_chain(headers, int(memory.first[number]), int(memory.end[number]))
            if hopped is None:
                broken.append(number)
            else:
                parts.append(hopped)
        if broken:
            at = np.sort(np.concatenate(parts))
            self._learn_low_byte(memory, self._decoded(memory, at, owner[at]))
            proven = self._proven(headers, where, memory.address[owner])
            is_zero = ~memory.raw.reshape(-1, PAGE_SIZE).any(axis=1)
            blank = np.repeat(is_zero, PAGE_SIZE // self._granule)
            for number in broken:
                first, end = int(memory.first[number]), int(memory.end[number])
                chain = careful_chain(headers, proven, blank, first, end)
                parts.append(np.array(chain.chunks, np.int64))
                gaps += chain.gaps
        return np.sort(np.concatenate(parts)), gaps

    def _learn_low_byte(self, memory: ChunkMemory, found: FoundChunks) -> None:
        """Learns the low byte of the key from chunks that are in order."""
        if self._low_byte is None and len(found.at):
            self._low_byte = vote_low_byte(found.headers, found.where, memory.address[found.owner])

    def _proven(self, headers: Headers, where: U64, subsegment: U64) -> Bools:
        """Granules that are headers of allocated chunks by all they say; see `careful_chain`."""
        if self._low_byte is None and self._row.pointer_size == 4:
            return np.zeros(len(where), np.bool_)
        marked = is_marked(headers, where, subsegment, self._low_byte)
        return headers.sound & headers.allocated & marked & (headers.size > 1)

    def _believed(
        self, memory: ChunkMemory, found: FoundChunks
    ) -> tuple[FoundChunks, Bools, list[tuple[int, int]]]:
        """Takes out chunks whose links are right and whose header is damaged all the same.

        Returns:
            The others, whether each one's second word is sound, the granules of those taken out.
        """
        self._learn_low_byte(memory, found)
        headers = found.headers
        marked = is_marked(headers, found.where, memory.address[found.owner], self._low_byte)
        good = headers.sound
        if self._row.pointer_size == 4:
            # One bit says that a chunk is allocated; only the second word confirms it.
            good = marked | ~headers.allocated
        if good.all():
            return found, marked, []
        bad = found.at[~good]
        gaps = list(zip(bad.tolist(), (bad + headers.size[~good]).tolist(), strict=True))
        return found.select(good), marked[good], gaps

    def _unbroken(self, memory: ChunkMemory) -> tuple[FoundChunks, I64]:
        """Chunks of the subsegments whose possible headers make up one chain, and the other subsegments."""
        first, end = memory.first, memory.end
        if memory.granule == 8:  # x86, where any granule can be a header
            nothing = np.empty(0, np.int64)
            return self._decoded(memory, nothing, nothing), np.arange(len(first))
        at = possible_headers(memory.raw, memory.address, memory.count, self._key)
        low, high = np.searchsorted(at, first), np.searchsorted(at, end)
        owner = np.repeat(np.arange(len(first)), high - low)
        if len(owner) != len(at):  # some are in front of the first chunk, or behind the last
            slices = zip(low.tolist(), high.tolist(), strict=True)
            at = np.concatenate([at[start:stop] for start, stop in slices])
        found = self._decoded(memory, at, owner)
        # What is left of earlier headers lies inside of chunks: behind the start of one, before its end.
        keep = np.ones(len(at), bool)
        keep[1:] = at[1:] >= np.maximum.accumulate(at + found.headers.size)[:-1]
        found = found.select(keep)
        at, owner, headers = found.at, found.owner, found.headers
        reach = at + headers.size
        heads = np.ones(len(at), bool)
        heads[1:] = owner[1:] != owner[:-1]
        torn = np.flatnonzero(
            ((at[1:] != reach[:-1]) | (headers.previous[1:] != headers.size[:-1])) & ~heads[1:]
        )
        begin = np.flatnonzero(heads)
        last = np.append(begin[1:], len(at))[: len(begin)] - 1
        broken = np.ones(len(first), bool)
        of = owner[begin]
        broken[of] = (at[begin] != first[of]) | (reach[last] != end[of])
        broken[owner[torn]] = True
        return found.select(~broken[owner]), np.flatnonzero(broken)

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

    def _uses(
        self, memory: ChunkMemory, found: FoundChunks, marked: Bools, *, is_complete: bool
    ) -> tuple[Bools, Bools, I64, Bools]:
        """The columns `used`, `skip`, `unused` and `extra` of `Chunks`."""
        headers = found.headers
        used = headers.allocated
        if len(self._delayed):
            edges = np.searchsorted(self._delayed, found.where[:, None] + self._link_range())
            used &= edges[:, 0] == edges[:, 1]
        sound = used & marked
        has_unused = sound & ((headers.bits & HAS_UNUSED_BYTES) != 0)
        end = (found.at + headers.size) * (self._granule // 2)
        words = memory.raw.view("<u2")[end - 1]
        room = (headers.size - 1) * self._granule
        known = np.ones(len(found.at), np.bool_)
        if not is_complete and has_unused.any():
            tail = (room + (self._granule - 2)).astype(np.uint64)
            known = self._memory.locate(found.where + tail, 2) >= 0
        unused, extra = unused_bytes(words, room, known)
        unused[~has_unused] = 0
        unused[used & ~marked] = SIZE_UNKNOWN
        skip = sound & ((headers.bits & SKIP_DURING_WALK) != 0)
        return used, skip, unused, extra & has_unused


def _owner(address: U64, at: U64) -> U64:
    """The subsegment of each address; `address` holds the starts of all, ascending."""
    return address[np.searchsorted(address, at, "right") - 1]
