"""mimalloc 2.0 and early 2.1: recognised, and not read.

Its pages do not say where their blocks begin; that follows from rules that changed from version to version,
so that no block's place is certain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64
from windumps.heaps.candidates import aligned_addresses, most_common
from windumps.heaps.mimalloc.layouts import OLDER_V2
from windumps.heaps.mimalloc.segments import (
    HEAD_BYTES,
    MOST_HEADER,
    SEGMENT_BYTES,
    SLICE_BYTES,
    SLICES,
    SMALLEST_BLOCK,
)
from windumps.memory import AddressSpace

_FREE = 0x10  # mi_page_t.free
_LOWEST_POINTER = 0x10000


def has_older_segments(memory: AddressSpace, at_least: int) -> bool:
    """True where so many pages of one heap look like those of an older version 2."""
    heads = [
        (address, head)
        for address in aligned_addresses(memory, SEGMENT_BYTES).tolist()
        if len(head := memory.read_available(address, HEAD_BYTES)) > MOST_HEADER
    ]
    votes = [_table_votes(address, head) for address, head in heads]
    table, _ = most_common(np.concatenate(votes or [np.empty(0, np.int64)]))
    if not table:
        return False
    owners = np.concatenate([_owners(address, head, table) for address, head in heads])
    return most_common(owners)[1] >= at_least


def _table_votes(segment: int, head: bytes) -> I64:
    """Where the table of slices would begin, by each word that may be a page's first free block."""
    words = np.frombuffer(head, "<u8", len(head) // 8)
    into = words - np.uint64(segment)
    rows = np.flatnonzero((into >= np.uint64(SLICE_BYTES)) & (into < np.uint64(SEGMENT_BYTES)))
    slices = into[rows].astype(np.int64) // SLICE_BYTES
    table = rows * 8 - _FREE - slices * OLDER_V2.itemsize
    return np.asarray(table[(table > 0) & (table < MOST_HEADER)])


def _owners(segment: int, head: bytes, table: int) -> I64:
    """The heap that each page of a segment belongs to, of pages whose list lies in their own memory."""
    count = min((len(head) - table) // OLDER_V2.itemsize, SLICES)
    pages = np.frombuffer(head, OLDER_V2, max(count, 0), table)
    owners: I64 = pages["owner"][_is_page(segment, pages)].view(np.int64)
    return owners


def _is_page(segment: int, pages: NDArray[np.void]) -> NDArray[np.bool_]:
    own = np.uint64(segment) + np.arange(len(pages), dtype=np.uint64) * np.uint64(SLICE_BYTES)
    room = pages["slice_count"].astype(np.uint64) * np.uint64(SLICE_BYTES)
    fits = (pages["slice_count"] > 0) & (pages["slice_count"] <= SLICES)
    fits &= (pages["slice_offset"] == 0) & (pages["block_size"] >= SMALLEST_BLOCK)
    fits &= (pages["reserved"] > 0) & (pages["capacity"] <= pages["reserved"])
    fits &= pages["used"] <= pages["capacity"]
    fits &= pages["block_size"].astype(np.uint64) * pages["reserved"].astype(np.uint64) <= room
    # A full page has no list; one with free blocks must have it, in its own memory.
    lists = np.stack((pages["free"], pages["local_free"]))
    fits &= ((lists == 0) | (lists - own < room)).all(axis=0)
    fits &= lists.any(axis=0) & (pages["used"] < pages["capacity"])
    return np.asarray(fits & (pages["owner"] >= _LOWEST_POINTER))
