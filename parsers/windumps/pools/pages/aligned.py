"""Small blocks asked for with cache alignment: the caller's pointer lies deeper in the block.

The block is larger than asked for, and a second header stands inside it, in front of what the caller
got: its PreviousSize is the distance from the block's own header, its BlockSize the rest of the
block, its tag the same, its type has one bit more (seen on the genuine kernels of 6002, where the
second header is aligned, and 7601, where what lies behind it is). All four must fit.
"""

from __future__ import annotations

import numpy as np

from windumps.arrays import I64, U8, U64
from windumps.pools.pages.chain import HeaderForm, PageBlocks, read_headers

CACHE_ALIGNED = 0x4  # POOL_TYPE
TAG_AT = 4  # in a header
_LINES = (64, 128)  # bytes of a cache line


def caller_offsets(
    data: U8, offset: I64, header: U64, found: PageBlocks, rows: I64, form: HeaderForm
) -> I64:
    """Distance from each block's header to what its caller got.

    Args:
        data: The file's bytes.
        offset: int64, file offset of each block's header.
        header: uint64, its address.
        found: The blocks.
        rows: int64, which of them to look at: those in use.
        form: How headers look.

    Returns:
        int64, one a block: the header's size where there is no second one.
    """
    unit = form.unit
    result = np.full(len(found.size), unit, np.int64)
    rows = rows[(found.type[rows] & CACHE_ALIGNED) == 0]
    words = np.ndarray((max(len(data) - 3, 0),), "<u4", buffer=data, strides=(1,))
    at, start = offset[rows], header[rows].astype(np.int64)
    shift = unit.bit_length() - 1  # shifts and masks: division takes most of the time else
    size, kind, tag = found.size[rows] >> shift, found.type[rows], found.tag[rows]
    for line in _LINES:
        for lead in (0, unit):  # the second header is aligned, or what lies behind it
            step = (-(start + unit + lead) & line - 1) + unit >> shift
            near = np.flatnonzero(step + 1 < size)
            # Few have the tag there, and only those are looked at in full.
            near = near[words[(at + (step << shift))[near] + TAG_AT] == tag[near]]
            inner = read_headers(data, at[near] + step[near] * unit, form)
            good = (inner.previous == step[near]) & (inner.size == size[near] - step[near])
            good &= inner.type == kind[near] | CACHE_ALIGNED
            result[rows[near[good]]] = (step[near[good]] + 1) * unit
    return result
