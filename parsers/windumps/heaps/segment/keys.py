"""The keys of a segment heap, found without symbols.

HeapKey follows from any page segment's signature. Chunk headers use it too, or, before 15063, the key of
the low fragmentation heap, and that one is found from what headers say twice: a chain of chunks holds every
size two times, and an LFH subsegment's block size and first block follow from its plain fields. Where the
heap leaves a choice, ntdll's memory is searched for a value that fits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE, U64
from windumps.errors import MemoryReadError
from windumps.heaps.segment.chain import decode_headers
from windumps.heaps.segment.contexts import SegContext, possible_segments, signature_key
from windumps.heaps.segment.lfh import Subsegments, decode_offsets, first_block_offset, fits
from windumps.images.modules import Module
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

MAX_SAMPLES = 64
MAX_VS_SAMPLES = 8


@dataclass(frozen=True)
class Key:
    """A key and how it was found.

    Attributes:
        value: Of pointer size; for LFH offsets the low 32 bits.
        source: For people.
        agreeing: Samples that confirm it.
        samples: Samples asked.
        from_list: It is of segments the heap's own list leads to.
    """

    value: int
    source: str
    agreeing: int
    samples: int
    from_list: bool = False


def heap_key(
    memory: AddressSpace,
    row: LayoutRow,
    contexts: list[SegContext],
    segments: Iterable[tuple[SegContext, int]],
) -> Key | None:
    """The HeapKey most page segments agree on; None without a segment.

    When no list leads to a segment though there should be some, every place where one could start is asked.
    """
    keys = _signature_keys(memory, row, segments)
    if keys:
        value, agreeing = keys.most_common(1)[0]
        return Key(value, "page segment signatures", agreeing, keys.total(), from_list=True)
    places = (
        (context, place)
        for context in contexts
        if context.segment_count
        for place in possible_segments(memory, context)
    )
    for value, agreeing in _signature_keys(memory, row, places).most_common(1):
        if agreeing > 1:
            return Key(value, "signatures of segments no list leads to", agreeing, agreeing)
    return None


def _signature_keys(
    memory: AddressSpace, row: LayoutRow, segments: Iterable[tuple[SegContext, int]]
) -> Counter[int]:
    return Counter(
        key
        for context, segment in segments
        if (key := signature_key(memory, row, context, segment)) is not None
    )


class ImageWords:
    """Aligned pointer-sized words of an image's memory, as far as the dump has it."""

    def __init__(self, memory: AddressSpace, image: Module | None, pointer_size: int) -> None:
        parts = []
        if image is not None:
            pieces = memory.extents(image.base_address, image.end_address)
            columns = (pieces.address.tolist(), pieces.size.tolist(), pieces.offset.tolist())
            for address, size, offset in zip(*columns, strict=True):
                skip = -address % pointer_size
                count = max(size - skip, 0) // pointer_size
                raw = memory.data[offset + skip : offset + skip + count * pointer_size]
                parts.append(np.frombuffer(raw.tobytes(), f"<u{pointer_size}"))
        self.words: U64 = (
            np.concatenate(parts).astype(np.uint64) if parts else np.empty(0, np.uint64)
        )

    def behind(self, value: int) -> int | None:
        """The word that follows the first occurrence of a value; None when it does not occur."""
        at = np.flatnonzero(self.words[:-1] == np.uint64(value))
        return int(self.words[at[0] + 1]) if len(at) else None


def vs_key_fits(
    memory: AddressSpace, row: LayoutRow, ranges: list[tuple[int, int]], key: int
) -> int:
    """How many VS subsegments start with two chunks that agree under a key (or with one that fills it)."""
    return sum(_starts_well(memory, row, address, size, key) for address, size in ranges)


def _starts_well(memory: AddressSpace, row: LayoutRow, address: int, size: int, key: int) -> bool:
    granule = 2 * row.pointer_size
    first = row.offset("_HEAP_VS_SUBSEGMENT", "FirstChunk")
    end = _subsegment_end(memory, row, address, size)

    def header(at: int) -> tuple[int, int]:
        raw = np.frombuffer(memory.read_available(address + at, granule), np.uint8)
        if len(raw) < granule:
            return 0, -1
        where = np.array([address + at], np.uint64)
        decoded = decode_headers(raw, where, key, row.pointer_size)
        if not decoded.sound[0]:
            return 0, -1
        return int(decoded.size[0]), int(decoded.previous[0])

    length, previous = header(first)
    at = first + length * granule
    return previous == 0 and length > 0 and (at == end or (at < end and header(at)[1] == length))


def _subsegment_end(memory: AddressSpace, row: LayoutRow, address: int, size: int) -> int:
    """Bytes from a VS subsegment's start to the end of its chunks, as its header says, else its range's."""
    name = "_HEAP_VS_SUBSEGMENT"
    try:
        units, signature = (
            row.read_field(memory, name, field, address) for field in ("Size", "Signature")
        )
    except MemoryReadError:
        return size
    if (units ^ signature ^ row.offset("constants", "VsSignature")) & 0x7FFF:
        return size
    return min(row.offset(name, "FirstChunk") + units * 2 * row.pointer_size, size)


def solve_vs_key(
    memory: AddressSpace, row: LayoutRow, ranges: list[tuple[int, int]], image: ImageWords
) -> Key | None:
    """The key of chunk headers, from the chains themselves.

    The first chunk has none before it, which gives the key's upper part; the second one names the first
    one's size, which gives the rest as soon as its place is guessed right. What stays open is the bit that
    tells busy from free: free chunks never stand side by side, and busy ones hold no tree link.
    """
    votes: Counter[int] = Counter()
    for address, size in ranges[:MAX_VS_SAMPLES]:
        votes.update(_vs_candidates(memory, row, address, size))
    if not votes:
        return None
    (value, agreeing), *others = votes.most_common(2)
    known = np.uint64(_KNOWN_BITS[row.pointer_size])
    matching = np.unique(image.words[(image.words ^ np.uint64(value)) & known == 0])
    if len(matching) == 1:
        return Key(
            int(matching[0]), "chunk chains, last bits from ntdll's memory", agreeing, len(ranges)
        )
    if others and others[0][1] == agreeing:
        return None
    return Key(value, "chunk chains", agreeing, len(ranges))


# Bits of a chunk header's key that the chain determines: all but MemoryCost and those that tell busy.
_KNOWN_BITS = {8: 0xFF00_FFFF_FFFF_0000, 4: 0x7FFF_FFFE}
_SIZE_SHIFT = {8: 16, 4: 1}
_PREVIOUS_SHIFT = {8: 32, 4: 16}
_FIELD_MASK = {8: 0xFFFF, 4: 0x7FFF}
_SPARE_SHIFT = 10  # second word of a busy chunk: nothing from here on; of a free one: a tree link
_BUSY_BIT = {8: 1 << 48, 4: 1 << 31}


def same_vs_key(row: LayoutRow, one: int, other: int) -> bool:
    """True when two keys decode chunk headers alike, the field nobody needs aside."""
    return (one ^ other) >> _SIZE_SHIFT[row.pointer_size] == 0


def _vs_candidates(memory: AddressSpace, row: LayoutRow, address: int, size: int) -> set[int]:
    """Keys under which the chain of one subsegment holds; bits below the size, which nobody needs, are 0."""
    pointer = row.pointer_size
    granule = 2 * pointer
    start = row.offset("_HEAP_VS_SUBSEGMENT", "FirstChunk")
    end = _subsegment_end(memory, row, address, size)
    raw = np.frombuffer(memory.read_available(address + start, max(end - start, 0)), np.uint8)
    raw = raw[: len(raw) // granule * granule]
    if not len(raw):
        return set()
    where = np.arange(len(raw) // granule, dtype=np.uint64) * np.uint64(granule)
    where += np.uint64(address + start)
    plain = raw.view(f"<u{pointer}")[0::2].astype(np.uint64) ^ where
    mask = np.uint64(_FIELD_MASK[pointer])
    before = (plain ^ plain[0]) >> np.uint64(_PREVIOUS_SHIFT[pointer]) & mask
    guesses = np.flatnonzero(before == np.arange(len(plain), dtype=np.uint64))[1:]
    found = set()
    for length in guesses.tolist():
        base = (int(plain[0]) ^ length << _SIZE_SHIFT[pointer]) & -1 << _SIZE_SHIFT[pointer]
        busy_bit = _BUSY_BIT[pointer]
        headers = decode_headers(raw, where, base, pointer)
        chain = [0]
        while chain[-1] < len(plain):
            step = int(headers.size[chain[-1]])
            after = chain[-1] + step
            if not step or (after < len(plain) and int(headers.previous[after]) != step):
                break
            chain.append(after)
        if len(chain) < 3:
            continue
        at = np.array([c for c in chain if c < len(plain)])
        other = headers.allocated[at]  # not as the first chunk, whose busy bits became 0
        linked = headers.bits[at] >> np.uint32(_SPARE_SHIFT) != 0
        if not (_side_by_side(~other) or (linked & other).any()):
            found.add(base)
        if not (_side_by_side(other) or (linked & ~other).any()):
            found.add(base ^ busy_bit)
    return found


def _side_by_side(chunks: NDArray[np.bool_]) -> bool:
    return bool((chunks[1:] & chunks[:-1]).any())


def solve_lfh_key(
    row: LayoutRow, subsegments: Subsegments, image: ImageWords, neighbour: int | None
) -> Key | None:
    """The low 32 bits of LfhKey.

    Args:
        row: The heap's layout.
        subsegments: Any of the heap's; the first `MAX_SAMPLES` are used.
        image: Words of ntdll, for when the subsegments leave a choice.
        neighbour: A value to prefer then; None for none.
    """
    keep = subsegments.present & (subsegments.count > 0)
    keep[np.flatnonzero(keep)[MAX_SAMPLES:]] = False
    samples = subsegments.select(keep)
    if not len(samples.count):
        return None
    keys = np.concatenate([_lfh_candidates(row, samples, i) for i in range(len(samples.count))])
    if not len(keys):
        return None
    values, votes = np.unique(keys, return_counts=True)
    best = int(votes.max())
    tied = values[votes == best]
    count = len(samples.count)
    if len(tied) == 1:
        return Key(int(tied[0]), "geometry of the LFH subsegments", best, count)
    if neighbour is not None and neighbour in tied:
        return Key(neighbour, "the word behind HeapKey in ntdll's memory", best, count)
    listed = np.intersect1d(tied, (image.words & np.uint64(0xFFFFFFFF)))
    if len(listed) == 1:
        return Key(int(listed[0]), "ntdll's memory, checked against LFH subsegments", best, count)
    return None


def _lfh_candidates(row: LayoutRow, samples: Subsegments, index: int) -> U64:
    """All keys under which one subsegment's block size and first block make sense."""
    one = samples.select(np.arange(len(samples.count)) == index)
    granule = 2 * row.pointer_size
    count, size = int(one.count[0]), int(one.size[0])
    low = max((size - 3 * PAGE_SIZE) // (count + 1) // granule * granule, granule)
    sizes = np.arange(low, size // count + 1, granule, dtype=np.int64)
    many = Subsegments(*(np.repeat(getattr(one, f), len(sizes)) for f in _COLUMNS))
    first = first_block_offset(row, many, sizes)
    possible = fits(row, many, sizes, first) & (sizes <= 0xFFFF) & (first <= 0xFFFF)
    plain = (first[possible] << 16 | sizes[possible]).astype(np.uint64)
    return plain ^ np.uint64(int(one.encoded[0]))


_COLUMNS = ("address", "size", "count", "encoded", "present", "header")


def lfh_key_fits(row: LayoutRow, subsegments: Subsegments, key: int) -> int:
    """How many subsegments agree with a key."""
    return int(fits(row, subsegments, *decode_offsets(subsegments.encoded, key)).sum())
