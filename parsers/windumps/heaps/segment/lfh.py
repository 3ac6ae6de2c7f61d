"""Segment heap, the low fragmentation heap: subsegments of equal blocks and a bitmap.

Blocks have no header. A subsegment's block size and first block are XORed with a key and its address; two
bits a block say whether it is busy and whether its last two bytes count the bytes nobody asked for. How many
are free the subsegment counts too (FreeCount); from 17763 on the slot that allocates from it holds a part of
that count in the low 12 bits of its pointer to it. Where bitmap and count disagree, no block is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.heaps.segment.free_chain import ChainedBlocks, drop_chained, unlinked
from windumps.heaps.segment.padding import last_words, unused_bytes
from windumps.heaps.segment.pages import CommitMap, absent_bytes, pieces
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Subsegments:
    """Headers of LFH subsegments, as columns.

    Attributes:
        address: uint64.
        size: int64, bytes of the page range.
        count: int64, blocks, withheld ones included.
        encoded: uint32, BlockOffsets without the address, still with the key.
        present: bool, the header is in the dump.
        header: The raw columns.
    """

    address: U64
    size: I64
    count: I64
    encoded: U32
    present: Bools
    header: NDArray[np.void]

    def select(self, keep: Bools) -> Subsegments:
        """The rows where `keep` is true."""
        return Subsegments(*(getattr(self, f.name)[keep] for f in fields(self)))


def read_subsegments(memory: AddressSpace, row: LayoutRow, address: U64, size: I64) -> Subsegments:
    """Reads the headers of many LFH subsegments at once."""
    name = "_HEAP_LFH_SUBSEGMENT"
    members = [
        field
        for field in (
            "FreeCount",
            "BlockCount",
            "BlockOffsets",
            "CommitUnitShift",
            "CommitUnitCount",
            "CommitStateOffset",
            "FreeListHead",
            "FreeListCount",
            "WitheldBlockCount",
            "DelayFree",
        )
        if row.has(name, field)
    ]
    dtype = np.dtype(
        {
            "names": members,
            "formats": [f"<u{row.field_size(name, field)}" for field in members],
            "offsets": [row.offset(name, field) for field in members],
            "itemsize": row.size(name),
        }
    )
    header, present = memory.gather(address, dtype)
    low = np.uint64(0xFFFFFFFF)
    if row.offset("constants", "LfhWideShift"):
        mask = (address >> np.uint64(12)) & low
    else:
        mask = (address & low) >> np.uint64(12)
    count = header["BlockCount"].astype(np.int64)
    if "WitheldBlockCount" in members:
        # In the kernel, blocks that would lie in two pages are never given out, and not counted.
        count += header["WitheldBlockCount"]
    return Subsegments(
        address,
        size,
        count,
        np.bitwise_xor(header["BlockOffsets"], mask.astype(np.uint32)),
        present,
        header,
    )


def decode_offsets(encoded: U32, key: int) -> tuple[I64, I64]:
    """Block size and offset of the first block, both in bytes."""
    plain = (encoded ^ np.uint32(key)).astype(np.int64)
    return plain & 0xFFFF, plain >> 16


def bitmap_words(row: LayoutRow, count: I64) -> I64:
    """32-bit words of a bitmap for `count` blocks, in whole words of the heap (64 bits, x86 32)."""
    blocks_a_word = 32 if row.offset("constants", "LfhBitmapGroups") else 4 * row.pointer_size
    wide = row.pointer_size // 4
    if row.offset("constants", "LfhBitmapGroups"):
        wide = 2
    return (count + blocks_a_word - 1) // blocks_a_word * wide


def first_block_offset(row: LayoutRow, subsegments: Subsegments, block_size: I64) -> I64:
    """Where the first block must stand: behind the bitmap and the commit states, aligned."""
    header = subsegments.header
    granule = 2 * row.pointer_size
    states = header["CommitUnitCount"].astype(np.int64)
    if row.offset("constants", "LfhPageStates"):
        states <<= np.minimum(header["CommitUnitShift"], 16).astype(np.int64)
    end = header["CommitStateOffset"].astype(np.int64)
    end = end * row.offset("constants", "LfhCommitScale") + 2 * states
    alignment = np.full(len(end), granule, np.int64)
    natural = row.offset("constants", "LfhNaturalAlignment")
    if natural:
        plain = (block_size & (block_size - 1) != 0) | (
            (subsegments.size <= PAGE_SIZE) if natural == 2 else False
        )
        alignment = np.where(plain, granule, block_size)
    result: I64 = (end + alignment - 1) // alignment * alignment
    return result


def fits(row: LayoutRow, subsegments: Subsegments, block_size: I64, first: I64) -> Bools:
    """True where the decoded block size and first offset agree with the rest of the header.

    The blocks start right behind the commit states, and there are as many as have room (of many small ones
    a few less); larger ranges end with a page that is never used.
    """
    granule = 2 * row.pointer_size
    bitmap_end = row.offset("_HEAP_LFH_SUBSEGMENT", "BlockBitmap") + 4 * bitmap_words(
        row, subsegments.count
    )
    safe = np.maximum(block_size, granule)
    room = subsegments.size - first
    spare = [bytes_left // safe - subsegments.count for bytes_left in (room, room - PAGE_SIZE)]
    full = np.any([(left >= 0) & (left <= subsegments.count >> 7) for left in spare], axis=0)
    result: Bools = (
        subsegments.present
        & (subsegments.count > 0)
        & (block_size == safe)
        & (block_size % granule == 0)
        & (first >= bitmap_end)
        & (first == first_block_offset(row, subsegments, safe))
        & full
    )
    return result


def slot_references(memory: AddressSpace, row: LayoutRow, heap: int, header_bytes: int) -> U64:
    """uint64, ascending: words of the heap's header that may be a slot's pointer to the subsegment it uses.

    The low 12 bits of such a pointer count free blocks that FreeCount leaves out; without them it is none.
    """
    raw = memory.read_available(heap, header_bytes)
    whole = len(raw) // row.pointer_size * row.pointer_size
    words = np.frombuffer(raw[:whole], f"<u{row.pointer_size}").astype(np.uint64)
    return np.sort(words[(words & np.uint64(PAGE_SIZE - 1)) != 0])


@dataclass(frozen=True)
class LfhBlocks:
    """Blocks of some subsegments, as columns, and what was no block.

    Attributes:
        address: uint64.
        size: int64, bytes.
        used: bool.
        unused: int64, bytes at the end nobody asked for; `SIZE_UNKNOWN` where what would say so is absent
            or damaged.
        extra: bool, something of the heap's own lies behind the user's bytes.
        committed: int64, bytes.
        overhead_bytes: Headers, bitmaps and committed memory behind the last block.
        unwalked_bytes: Committed bytes of subsegments that could not be read.
        absent_bytes: Those of them that are not in the dump.
        uncertain: bool, blocks that may be in the other state: their subsegment's bitmap contradicts its
            counts, or its chain of free blocks breaks and they could be on it; None for none.
    """

    address: U64
    size: I64
    used: Bools
    unused: I64
    extra: Bools
    committed: I64
    overhead_bytes: int
    unwalked_bytes: int
    absent_bytes: int
    uncertain: Bools | None


class LfhReader:
    """Reads LFH subsegments of one heap.

    Args:
        memory: The process's memory.
        row: The heap's layout.
        key: Low 32 bits of LfhKey.
        log: For damage.
        references: See `slot_references`.
    """

    def __init__(
        self, memory: AddressSpace, row: LayoutRow, key: int, log: DiagnosticLog, references: U64
    ) -> None:
        self._references = references
        self._memory = memory
        self._row = row
        self._key = key
        self._log = log

    def read(self, address: U64, size: I64, commit: CommitMap) -> Iterator[LfhBlocks]:
        """Reads subsegments, about a MiB at a time; see `VsReader.read` for the arguments."""
        for piece in pieces(size):
            yield self._batch(address[piece], size[piece], commit)

    def _batch(self, address: U64, size: I64, commit: CommitMap) -> LfhBlocks:
        everything = read_subsegments(self._memory, self._row, address, size)
        block_size, first = decode_offsets(everything.encoded, self._key)
        good = fits(self._row, everything, block_size, first)
        good &= self._bitmap_present(everything)
        held = commit.committed_bytes(address, size)
        absent = 0
        for index in np.flatnonzero(~good).tolist():
            at = int(address[index])
            absent += absent_bytes(self._memory, at, at + int(size[index]), int(held[index]))
            here = bool(everything.present[index])
            trouble = "contradicts itself or is cut off" if here else "is not in the dump"
            self._log.add(
                "lfh-subsegment-damaged",
                Severity.WARNING,
                "_HEAP_LFH_SUBSEGMENT",
                at,
                f"the header of the subsegment at 0x{at:x} {trouble}",
                int(held[index]),
            )
        part = everything.select(good)
        block_size, first = block_size[good], first[good]
        owner = np.repeat(np.arange(len(part.count)), part.count)
        starts = np.cumsum(part.count) - part.count
        number = np.arange(len(owner), dtype=np.int64) - starts[owner]
        sizes = block_size[owner]
        where = (part.address + first.astype(np.uint64))[owner]
        where += (number * sizes).view(np.uint64)
        busy, has_unused = self._bits(part, owner, number)
        doubted = self._contradicted(part, owner, busy, has_unused)
        broken = self._drop_chained(part, block_size, first, starts, busy)
        whole = (held == size)[good]
        committed = commit.committed_blocks(where, sizes, owner, whole)
        used = busy & (committed == sizes)
        self._say_uncommitted(where, busy & ~used)
        has_unused &= used
        unused = np.zeros(len(owner), np.int64)
        extra = np.zeros(len(owner), bool)
        at_end = np.flatnonzero(has_unused)
        words, present = last_words(self._memory, where[at_end] + sizes[at_end].astype(np.uint64))
        unused[at_end], extra[at_end] = unused_bytes(words, sizes[at_end], present)
        behind = first + block_size * part.count
        overhead = commit.committed_bytes(part.address, first) + commit.committed_bytes(
            part.address + behind.astype(np.uint64), part.size - behind
        )
        return LfhBlocks(
            where,
            sizes,
            used,
            unused,
            extra,
            committed,
            int(overhead.sum()),
            int(held[~good].sum()),
            absent,
            doubted[owner] | (used & broken[owner]) if (doubted | broken).any() else None,
        )

    def _say_uncommitted(self, where: U64, contradicting: Bools) -> None:
        """Blocks that are busy and have no memory: withheld by the heap, or damage; free in either case."""
        if contradicting.any():
            first = int(where[contradicting][0])
            self._log.add(
                "lfh-block-uncommitted",
                Severity.WARNING,
                "_HEAP_LFH_SUBSEGMENT",
                first,
                f"{int(contradicting.sum())} blocks, the first at 0x{first:x}, are marked busy and not "
                "committed; they count as free",
            )

    def _bitmap_present(self, part: Subsegments) -> Bools:
        """True where the last word of the bitmap is in the dump, as the header is."""
        start = self._row.offset("_HEAP_LFH_SUBSEGMENT", "BlockBitmap")
        last = start + 4 * bitmap_words(self._row, part.count) - 4
        return self._memory.gather(part.address + last.astype(np.uint64), "<u4")[1]

    def _contradicted(self, part: Subsegments, owner: I64, busy: Bools, has_unused: Bools) -> Bools:
        """bool, a row for each subsegment: its bitmap cannot be right."""
        free = np.bincount(owner[~busy], minlength=len(part.count)).astype(np.int64)
        apart = free - part.header["FreeCount"]
        doubted: Bools = apart != 0
        for index in np.flatnonzero(doubted).tolist():
            address, more = int(part.address[index]), int(apart[index])
            doubted[index] = more not in self._held_apart(address, part.header[index])
        doubted[owner[~busy & has_unused]] = True
        for index in np.flatnonzero(doubted).tolist():
            at, lost = int(part.address[index]), int(part.size[index])
            self._log.add(
                "lfh-bitmap-contradicted",
                Severity.WARNING,
                "_HEAP_LFH_SUBSEGMENT.BlockBitmap",
                at,
                f"the bitmap of the subsegment at 0x{at:x} has {int(free[index])} of "
                f"{int(part.count[index])} blocks free and its counts say otherwise; none is believed",
                lost,
            )
        return doubted

    def _held_apart(self, address: int, header: NDArray[np.void]) -> list[int]:
        """How many free blocks of a subsegment may be counted elsewhere than in FreeCount."""
        edges = np.array([address, address + PAGE_SIZE], np.uint64)
        start, end = np.searchsorted(self._references, edges).tolist()
        found: list[int] = (self._references[start:end] & np.uint64(PAGE_SIZE - 1)).tolist()
        if "DelayFree" in (header.dtype.names or ()) and int(header["DelayFree"]) & 1:
            found.append(int(header["DelayFree"]) >> 1)
        return found

    def _drop_chained(
        self, part: Subsegments, block_size: I64, first: I64, starts: I64, busy: Bools
    ) -> Bools:
        """Clears the busy bit of blocks that are free but on their subsegment's chain (24H2).

        Returns:
            bool, a row for each subsegment: its chain is broken.
        """
        if not self._row.has("_HEAP_LFH_SUBSEGMENT", "FreeListHead"):
            return np.zeros(len(part.count), np.bool_)
        blocks = ChainedBlocks(
            part.address + first.astype(np.uint64), block_size, part.count, starts
        )
        head, length = (
            part.header[name].astype(np.int64) for name in ("FreeListHead", "FreeListCount")
        )
        missing = drop_chained(self._memory, blocks, head, length, busy)
        for bad in np.flatnonzero(missing).tolist():
            at, left = int(part.address[bad]), int(missing[bad])
            what = f"up to {left} more blocks are free" if left > 0 else "more blocks are free"
            self._log.add(
                "lfh-free-chain-broken",
                Severity.WARNING,
                "_HEAP_LFH_SUBSEGMENT_STATE",
                at,
                f"the chain of free blocks of the subsegment at 0x{at:x} is broken; {what}, and nothing "
                "tells which",
                int(part.size[bad]),
            )
        broken: Bools = (missing != 0) | self._say_unlinked(part)
        return broken

    def _say_unlinked(self, part: Subsegments) -> Bools:
        """Subsegments that their list does not lead back to: what stands beside its links is in doubt."""
        name = "_HEAP_LFH_SUBSEGMENT"
        links = part.address + np.uint64(self._row.offset(name, "ListEntry"))
        lost = unlinked(self._memory, links, self._row.pointer_size)
        for bad in np.flatnonzero(lost).tolist():
            at = int(part.address[bad])
            self._log.add(
                "lfh-subsegment-unlinked",
                Severity.WARNING,
                f"{name}.ListEntry",
                at,
                f"the list of the subsegment at 0x{at:x} is damaged, and so may be its chain of free blocks",
                int(part.size[bad]),
            )
        return lost

    def _bits(self, part: Subsegments, owner: I64, number: I64) -> tuple[Bools, Bools]:
        """Busy and unused-bytes bits of every block."""
        words = bitmap_words(self._row, part.count)
        word_start = np.cumsum(words) - words
        of = np.repeat(np.arange(len(words)), words)
        place = self._row.offset("_HEAP_LFH_SUBSEGMENT", "BlockBitmap") + 4 * (
            np.arange(len(of), dtype=np.int64) - word_start[of]
        )
        raw, _ = self._memory.gather(part.address[of] + place.astype(np.uint64), "<u4")
        bitmap = raw.astype(np.int64)
        if self._row.offset("constants", "LfhBitmapGroups"):
            group = word_start[owner] + 2 * (number >> 5)
            shift = number & 31
            return (bitmap[group] >> shift) & 1 != 0, (bitmap[group + 1] >> shift) & 1 != 0
        pair = bitmap[word_start[owner] + (number >> 4)] >> (2 * (number & 15))
        return pair & 1 != 0, pair & 2 != 0
