"""Segment heap, chains of variable size chunks: what headers say, and which of them to believe.

Every header holds its chunk's size and that of the chunk before, XORed with the heap's key and its own
address. The second word of an allocated chunk's header holds, XORed with the low byte of both, how many
pages it lies behind its subsegment's start. So each link of a chain is checked twice, and a chain goes on
behind a hole: what is left of earlier chunks is never linked to what is there now.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U8, U32, U64

Bools = NDArray[np.bool_]

PAGE_SHIFT = 12
_FLAG_BITS = 10  # of the second word of an allocated chunk's header; nothing is above
_MIN_VOTES = 4


@dataclass(frozen=True)
class Headers:
    """What granules of memory say when they are read as chunk headers.

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
    bits: U32

    def select(self, keep: Bools) -> Headers:
        """The rows where `keep` is true."""
        return Headers(*(getattr(self, f.name)[keep] for f in fields(self)))


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


@dataclass(frozen=True)
class ChunkMemory:
    """Memory of some subsegments, one behind the other, in granules.

    Attributes:
        raw: uint8.
        granule: Bytes of one.
        address: uint64, of each subsegment, ascending.
        count: int64, granules of each.
        start: int64, number of each one's first granule.
        first: int64, granule of each one's first chunk.
        end: int64, granule behind its last chunk.
    """

    raw: U8
    granule: int
    address: U64
    count: I64
    start: I64
    first: I64
    end: I64

    def owner(self, at: I64) -> I64:
        """The subsegment each granule is in."""
        return np.searchsorted(self.start, at, "right") - 1

    def where(self, at: I64, owner: I64) -> U64:
        """The address of each granule."""
        result: U64 = (self.address - (self.start * self.granule).view(np.uint64))[owner]
        result += (at * self.granule).view(np.uint64)
        return result


@dataclass(frozen=True)
class FoundChunks:
    """Chunks, as columns: granule, number of the subsegment, address and header."""

    at: I64
    owner: I64
    where: U64
    headers: Headers

    def select(self, keep: Bools) -> FoundChunks:
        """The rows where `keep` is true."""
        if keep.all():
            return self
        return FoundChunks(
            self.at[keep], self.owner[keep], self.where[keep], self.headers.select(keep)
        )


def possible_headers(memory: U8, subsegment: U64, granules: I64, key: int) -> I64:
    """Granules of x64 memory that can be headers: what must be zero in one is; see `decode_headers`.

    The upper 16 bits of each tell. Those of the address are the same all over a subsegment.

    Args:
        memory: Of all subsegments.
        subsegment: uint64, where each lies.
        granules: int64, of each.
        key: The key of chunk headers.
    """
    upper = ((subsegment ^ np.uint64(key)) >> np.uint64(48)).astype(np.uint16)
    plain = memory.view("<u2")[3::8] ^ np.repeat(upper, granules)
    return np.flatnonzero(plain < 2)


def _page_marks(headers: Headers, address: U64, subsegment: U64) -> U8:
    """The key's low byte, as each header's second word has it if its chunk is allocated."""
    pages = ((address - subsegment) >> np.uint64(PAGE_SHIFT)).astype(np.uint8)
    return headers.bits.astype(np.uint8) ^ address.astype(np.uint8) ^ pages


def vote_low_byte(headers: Headers, address: U64, subsegment: U64) -> int | None:
    """The key's low byte by the second words of allocated chunks; None when they do not agree.

    Args:
        headers: Of chunks.
        address: uint64, where each lies.
        subsegment: uint64, the subsegment each is in.
    """
    marks = _page_marks(headers, address, subsegment)[headers.allocated]
    counts = np.bincount(marks, minlength=1)
    best = int(counts.argmax())
    return best if counts[best] >= max(_MIN_VOTES, 0.9 * len(marks)) else None


def is_marked(headers: Headers, address: U64, subsegment: U64, low_byte: int | None) -> Bools:
    """True where the second word is that of an allocated chunk, or that cannot be told."""
    if low_byte is None:
        return np.ones(len(address), np.bool_)
    marked: Bools = (_page_marks(headers, address, subsegment) == low_byte) & (
        headers.bits < np.uint32(1 << _FLAG_BITS)
    )
    return marked


@dataclass
class Chain:
    """Granule indices of chunks, ascending, and the gaps between."""

    chunks: list[int] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)


def hop_chain(headers: Headers, first: int, end: int) -> I64 | None:
    """Hops from chunk to chunk; None when that does not end where it must, or sizes contradict.

    Args:
        headers: Of all granules.
        first: The first chunk.
        end: Behind the last chunk.
    """
    size_of = headers.size.data
    chunks: list[int] = []
    take = chunks.append
    position = first
    while position < end and (size := size_of[position]):
        take(position)
        position += size
    if position != end or not chunks:
        return None
    at = np.array(chunks, np.int64)
    agree = (headers.previous[at[1:]] == headers.size[at[:-1]]).all()
    return at if agree else None


def careful_chain(headers: Headers, proven: Bools, blank: Bools, first: int, end: int) -> Chain:
    """Follows a chain from both ends, and then what lies between the holes.

    Args:
        headers: Of all granules.
        proven: bool, granules that are headers of allocated chunks by more than their links.
        blank: bool, granules where nothing is: absent, or nothing but zeros in the page.
        first: The first chunk.
        end: Behind the last chunk.
    """
    size_of, previous_of = headers.size.data, headers.previous.data
    front: list[int] = []
    position = first
    while True:
        size = size_of[position]
        target = position + size
        if not size or target >= end or previous_of[target] != size:
            break
        front.append(position)
        position = target
    tail = _tail(headers, position, end)
    resume = tail[0] if tail else end
    limit = resume
    if tail and position <= resume - previous_of[resume]:
        limit = resume - previous_of[resume]
    islands: list[list[int]] = []
    size = size_of[position]
    if size and position + size == resume:
        front.append(position)
    elif limit > position:
        if proven[position] and position + size <= limit and _reads_nothing(blank, position + size):
            front.append(position)
            position += size
        islands = _islands(headers, proven, blank, position, limit)
    chain = Chain([chunk for part in (front, *islands, tail) for chunk in part])
    done = first
    for chunk in [*chain.chunks, end]:
        if chunk > done:
            chain.gaps.append((done, chunk))
        if chunk < end:
            done = chunk + size_of[chunk]
    return chain


def _reads_nothing(blank: Bools, at: int) -> bool:
    return at < len(blank) and bool(blank[at])


def _tail(headers: Headers, position: int, end: int) -> list[int]:
    """The longest chain that ends where the chunks end."""
    size_of, previous_of = headers.size.data, headers.previous.data
    tail: list[int] = []
    window = np.arange(position, end)
    for last in window[window + headers.size[position:end] == end].tolist():
        candidate = [last]
        while True:
            back = int(previous_of[candidate[-1]])
            before = candidate[-1] - back
            if not back or before < position or size_of[before] != back:
                break
            candidate.append(before)
        if len(candidate) > len(tail):
            tail = candidate
    if len(tail) == 1 and tail[0] != position and tail[0] - previous_of[tail[0]] != position:
        tail = []  # one coincidence is not enough
    return tail[::-1]


def _islands(
    headers: Headers, proven: Bools, blank: Bools, position: int, limit: int
) -> list[list[int]]:
    """Chains between holes. Each, and the tail, says where the chunk in front of it starts.

    What lies behind that start is no chunk. A chain is believed from its first proven header to its last,
    whose size the header behind it repeats; or nothing at all is there, and then the chain before it vouches
    for it.
    """
    size_of, previous_of = headers.size.data, headers.previous.data
    found: list[list[int]] = []
    for last in (np.flatnonzero(proven[position:limit])[::-1] + position).tolist():
        size = size_of[last]
        follows = last + size
        if not size or follows > limit or follows >= len(blank):
            continue
        confirmed = previous_of[follows] == size and headers.sound[follows]
        if not confirmed and not blank[follows]:
            continue
        chain = [last]
        while True:
            back = previous_of[chain[-1]]
            before = chain[-1] - back
            if (
                not back
                or before < position
                or size_of[before] != back
                or not headers.sound[before]
            ):
                break
            chain.append(before)
        while not proven[chain[-1]]:
            chain.pop()
        if confirmed or len(chain) > 1:
            found.append(chain[::-1])
            limit = max(chain[-1] - previous_of[chain[-1]], position)
    return found[::-1]
