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
        lost_bytes: Of slices that are in use and make no sense.
        secure: Links of free blocks are encoded, so that pages cannot be walked.
    """

    pages: NDArray[np.void]
    segments: U64
    lost_bytes: int
    secure: bool


def find_segments(memory: AddressSpace) -> SegmentPages | None:
    """All pages of segments; None where there are no segments."""
    heads = {
        address: head
        for address in aligned_addresses(memory, SEGMENT_BYTES).tolist()
        if len(head := memory.read_available(address, HEAD_BYTES)) > MOST_HEADER
    }
    best: SegmentPages | None = None
    for dtype in (V2.dtype, V2.secure):
        found = _by_layout(heads, dtype)
        if found is not None and (best is None or len(found.pages) > len(best.pages)):
            best = found
    return best


def _by_layout(heads: dict[int, bytes], dtype: np.dtype[np.void]) -> SegmentPages | None:
    votes = [_table_votes(address, head, dtype.itemsize) for address, head in heads.items()]
    table, _ = most_common(np.concatenate(votes or [np.empty(0, np.int64)]))
    if not table:
        return None
    pages, segments, lost = [], [], 0
    for address, head in heads.items():
        rows, bad = _pages_of(address, head, table, dtype)
        if len(rows):
            pages.append(rows)
            segments.append(address)
            lost += bad
    if not pages:
        return None
    return SegmentPages(
        np.concatenate(pages), np.array(segments, np.uint64), lost, dtype is V2.secure
    )


def _table_votes(segment: int, head: bytes, stride: int) -> I64:
    """Where the table would begin, by each word that may tell where the blocks of a page begin."""
    words = np.frombuffer(head, "<u8", len(head) // 8)
    into = words - np.uint64(segment)
    rows = np.flatnonzero((into >= np.uint64(SLICE_BYTES)) & (into < np.uint64(SEGMENT_BYTES)))
    slices = into[rows].astype(np.int64) // SLICE_BYTES
    table = rows * 8 - _START - slices * stride
    return np.asarray(table[(table > 0) & (table < MOST_HEADER)])


def _pages_of(
    segment: int, head: bytes, table: int, dtype: np.dtype[np.void]
) -> tuple[NDArray[np.void], int]:
    """The pages of a segment, and bytes of slices in use that make no sense."""
    count = min((len(head) - table) // dtype.itemsize, SLICES)
    slices = np.frombuffer(head, dtype, max(count, 0), table)
    fits = _is_page(segment, slices)
    rows, lost, at = [], 0, 0
    in_use = (slices["block_size"] > 1) & (
        slices["reserved"] > 0
    )  # what is before the first page has none
    starts = np.flatnonzero(fits).tolist()
    lengths, used = slices["slice_count"].tolist(), in_use.tolist()
    if not fits.any():
        return slices[:0], 0
    while at < len(lengths):
        length = lengths[at]
        if not length:
            lost += SLICE_BYTES  # damage; where the next page begins its own place tells
            at = next((row for row in starts if row > at), len(lengths))
            continue
        if used[at]:
            if fits[at]:
                rows.append(at)
            else:
                lost += min(length, SLICES - at) * SLICE_BYTES
        at += length
    return slices[rows], lost


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
