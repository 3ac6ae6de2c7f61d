"""Which words that point to objects are weak handles, by the segments of the runtime's handle table.

A segment takes 64 KiB at such an address: a page of what its blocks are, then blocks of 64 handles of one
type each (handletablepriv.h of dotnet/runtime, the same from 2.0 to 10). It is believed where no handle that
is free has a value, and blocks of bare handles have no second one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.heaps.clr.method_tables import MethodTables

SEGMENT, HEADER = 0x10000, 0x1000
HANDLES = 64  # of a block
_GENERATION, _ALLOCATION, _MASKS = 4, 1, 8  # bytes of a block in the parts before that of types
_WEAK = (
    0,
    1,
    6,
)  # weak, weak beyond the finalizer, dependent: the key is held by others or not at all
_BARE = (0, 1, 2, 3)  # types that have no second block with more of each handle
_LAST_TYPE, _NO_BLOCK = 15, 0xFF


def weak_handles(tables: MethodTables, places: U64) -> tuple[NDArray[np.bool_], int]:
    """Which places of words are weak handles, and in how many segments of handles any of the places is."""
    found = 0
    weak = np.zeros(len(places), np.bool_)
    bases = places & ~np.uint64(SEGMENT - 1)
    for base in np.unique(bases).tolist():
        types = _block_types(tables, base)
        if types is None:
            continue
        found += 1
        mine = np.flatnonzero(bases == np.uint64(base))
        offset = (places[mine] - np.uint64(base)).astype(np.int64) - HEADER
        block = np.maximum(offset, 0) // (HANDLES * tables.pointer_size)
        weak[mine] = (offset >= 0) & np.isin(types[np.minimum(block, len(types) - 1)], _WEAK)
    return weak, found


def _block_types(tables: MethodTables, base: int) -> NDArray[np.uint8] | None:
    """The type of each block of a segment; None where there is none at an address."""
    width = tables.pointer_size
    blocks = (SEGMENT - HEADER) // (HANDLES * width)
    at = blocks * (_GENERATION + _ALLOCATION)
    raw = tables.memory.read_available(base, HEADER)
    if len(raw) < HEADER:
        return None
    free = np.frombuffer(raw[at : at + blocks * _MASKS], "<u8")
    types = np.frombuffer(raw[at + blocks * _MASKS :][:blocks], np.uint8)
    more = np.frombuffer(raw[at + blocks * (_MASKS + 1) :][:blocks], np.uint8)
    taken = types != _NO_BLOCK
    if not taken.any() or (types[taken] > _LAST_TYPE).any():
        return None
    if (more[np.isin(types, _BARE)] != _NO_BLOCK).any():
        return None
    values = tables.memory.read_available(base + HEADER, SEGMENT - HEADER)
    words = np.frombuffer(values[: len(values) // width * width], f"<u{width}")
    count = len(words) // HANDLES
    if not count:
        return None
    set_ = words[: count * HANDLES].reshape(count, HANDLES) != 0
    # The first handle of a block is the lowest bit of its mask.
    bits = np.unpackbits(free[:count].view(np.uint8), bitorder="little").reshape(count, HANDLES)
    wrong = set_ & (bits != 0) & taken[:count, None]
    return None if wrong.any() or not (set_ & taken[:count, None]).any() else types
