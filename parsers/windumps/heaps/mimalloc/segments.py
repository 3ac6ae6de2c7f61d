"""mimalloc 2: segments of 32 MiB, each beginning with a table of its slices of 64 KiB.

The table begins where every slice's own address and the first block that it names agree; that place differs
between versions, and is found by vote.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.heaps.candidates import aligned_addresses, most_common
from windumps.heaps.mimalloc.layouts import V2
from windumps.heaps.unclaimed import Claims
from windumps.memory import AddressSpace

SEGMENT_BYTES = 1 << 25
SLICE_BYTES = 1 << 16
SLICES = SEGMENT_BYTES // SLICE_BYTES
HEAD_BYTES = SLICE_BYTES  # of a segment; its table ends before
MOST_HEADER = 0x400  # bytes before the table
SMALLEST_BLOCK = 8
_START = 0x30  # mi_page_t.page_start


class SegmentPages(NamedTuple):
    """Pages of all segments.

    Attributes:
        pages: Their records, as `V2.dtype`.
        segments: uint64, where each segment begins.
        claims: Slices that tables tell of: pages, free ones, the tables' own, and those that are lost.
        lost: Of these, slices of which nobody knows what they hold.
        secure: Links of free blocks are encoded, so that pages cannot be walked.
    """

    pages: NDArray[np.void]
    segments: U64
    claims: Claims
    lost: Claims
    secure: bool


class _Table(NamedTuple):
    """The table of one segment, read.

    Attributes:
        pages: Records of pages.
        claims: (first, end) of slices that it tells of.
        lost: Of these, those that make no sense or are not in the dump.
    """

    pages: NDArray[np.void]
    claims: list[tuple[int, int]]
    lost: list[tuple[int, int]]


def find_segments(memory: AddressSpace) -> SegmentPages | None:
    """All pages of segments; None where there are no segments."""
    heads = {
        address: _head(memory, address)
        for address in aligned_addresses(memory, SEGMENT_BYTES).tolist()
    }
    best: SegmentPages | None = None
    for dtype in (V2.dtype, V2.secure):
        found = _by_layout(heads, dtype)
        if found is not None and (best is None or len(found.pages) > len(best.pages)):
            best = found
    return best


def _head(memory: AddressSpace, address: int) -> bytes:
    """The beginning of a segment; zeros, which no slice in use has, for what is not in the dump."""
    places = np.arange(address, address + HEAD_BYTES, 8, dtype=np.uint64)
    words, _ = memory.gather(places, "<u8")
    return words.tobytes()


def _by_layout(heads: dict[int, bytes], dtype: np.dtype[np.void]) -> SegmentPages | None:
    votes = [_table_votes(address, head, dtype.itemsize) for address, head in heads.items()]
    table, _ = most_common(np.concatenate(votes or [np.empty(0, np.int64)]))
    if not table:
        return None
    tables = {address: _table_of(address, head, table, dtype) for address, head in heads.items()}
    # What has no pages may be anything; whether it was a segment its memory tells.
    tables = {address: found for address, found in tables.items() if len(found.pages)}
    if not tables:
        return None
    return SegmentPages(
        np.concatenate([found.pages for found in tables.values()]),
        np.array(list(tables), np.uint64),
        _claims({address: found.claims for address, found in tables.items()}),
        _claims({address: found.lost for address, found in tables.items()}),
        dtype is V2.secure,
    )


def _claims(slices: dict[int, list[tuple[int, int]]]) -> Claims:
    spans = np.array(
        [
            (address + first * SLICE_BYTES, address + end * SLICE_BYTES)
            for address, each in slices.items()
            for first, end in each
        ],
        np.uint64,
    ).reshape(-1, 2)
    return Claims(spans[:, 0], spans[:, 1], spans[:, 0])


def _table_votes(segment: int, head: bytes, stride: int) -> I64:
    """Where the table would begin, by each word that may tell where the blocks of a page begin."""
    words = np.frombuffer(head, "<u8", len(head) // 8)
    into = words - np.uint64(segment)
    rows = np.flatnonzero((into >= np.uint64(SLICE_BYTES)) & (into < np.uint64(SEGMENT_BYTES)))
    slices = into[rows].astype(np.int64) // SLICE_BYTES
    table = rows * 8 - _START - slices * stride
    return np.asarray(table[(table > 0) & (table < MOST_HEADER)])


def _table_of(segment: int, head: bytes, table: int, dtype: np.dtype[np.void]) -> _Table:
    """What the table of a segment says of its slices."""
    count = min((len(head) - table) // dtype.itemsize, SLICES)
    slices = np.frombuffer(head, dtype, max(count, 0), table)
    fits = _is_page(segment, slices)
    free = _is_free(slices)
    rows: list[int] = []
    claims: list[tuple[int, int]] = []
    lost: list[tuple[int, int]] = []
    starts = np.flatnonzero(fits).tolist()
    lengths, at = slices["slice_count"].tolist(), 0
    while at < SLICES:
        if at < len(lengths) and lengths[at] and (fits[at] or free[at]):
            end = at + lengths[at]
            rows += [at] * bool(fits[at])
        else:  # damage; where the next page begins its own place tells
            end = next((row for row in starts if row > at), SLICES)
            lost.append((at, end))
        claims.append((at, end))
        at = end
    return _Table(slices[rows], claims, lost)


def _is_free(slices: NDArray[np.void]) -> NDArray[np.bool_]:
    """True for slices that a free span begins with, or the table itself: they have no numbers of a page."""
    free = (slices["slice_count"] <= SLICES) & (slices["slice_offset"] == 0)
    for name in ("capacity", "reserved", "used", "free", "local_free"):
        free &= slices[name] == 0
    return np.asarray(free)


def _is_page(segment: int, slices: NDArray[np.void]) -> NDArray[np.bool_]:
    """True for slices that a page begins with."""
    own = np.uint64(segment) + np.arange(len(slices), dtype=np.uint64) * np.uint64(SLICE_BYTES)
    fits = (slices["slice_count"] > 0) & (slices["slice_offset"] == 0)
    fits &= slices["start"] - own < np.uint64(SLICE_BYTES)
    fits &= (slices["block_size"] >= SMALLEST_BLOCK) & (slices["reserved"] > 0)
    fits &= (slices["capacity"] <= slices["reserved"]) & (slices["used"] <= slices["capacity"])
    room = slices["slice_count"].astype(np.float64) * SLICE_BYTES
    fits &= slices["block_size"].astype(np.float64) * slices["reserved"] <= room
    return np.asarray(fits)
