"""Small blocks asked for with cache alignment: the caller's pointer lies deeper in the block.

The block is larger than asked for, and a second header stands inside it, in front of what the caller
got: its PreviousSize is the distance from the block's own header, its BlockSize the rest of the
block, its tag the same, its type has one bit more (seen on the genuine kernels of 6002, where the
second header is aligned, and 7601, where what lies behind it is). All four must fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U8, U64
from windumps.memory.address_space import values_at
from windumps.pools.pages.chain import TAG_AT, HeaderForm, PageBlocks, read_headers

CACHE_ALIGNED = 0x4  # POOL_TYPE
_LINES = (64, 128)  # bytes of a cache line


def caller_offsets(
    data: U8, offset: I64, header: U64, found: PageBlocks, used: NDArray[np.bool_], form: HeaderForm
) -> I64:
    """Distance from each block's header to what its caller got.

    Args:
        data: The file's bytes.
        offset: int64, file offset of each block's header.
        header: uint64, its address.
        found: The blocks.
        used: bool, which of them are in use.
        form: How headers look.

    Returns:
        int64, one a block: the header's size where there is no second one.
    """
    unit = form.unit
    result = np.full(len(found.size), unit, np.int64)
    shift = unit.bit_length() - 1
    # Places count in units, and small integers hold them: all blocks are gone through, and that costs.
    size = (found.size >> shift).astype(np.int16)
    place = (header >> np.uint64(shift)).astype(np.uint8)
    tag_at = offset + TAG_AT
    for line in _LINES:
        for lead in (0, 1):  # the second header is aligned, or what lies behind it
            ahead = -(place + np.uint8(1 + lead))
            step = (ahead & np.uint8(line // unit - 1)) + np.uint8(1)
            asked = step + np.uint8(1) < size
            if line != _LINES[-1]:  # half of them are asked for with the longest line, too
                asked &= ahead & np.uint8(_LINES[-1] // unit - 1) >= step
            near = np.flatnonzero(asked)
            deep = step[near].astype(np.int64)
            # Few have the tag there, and only those are looked at in full.
            alike = values_at(data, tag_at[near] + (deep << shift), "<u4") == found.tag[near]
            near, deep = near[alike], deep[alike]
            inner = read_headers(data, offset[near] + deep * unit, form)
            good = used[near] & ((found.type[near] & CACHE_ALIGNED) == 0)
            good &= (inner.previous == deep) & (inner.size == size[near] - deep)
            good &= inner.type == found.type[near] | CACHE_ALIGNED
            result[near[good]] = (deep[good] + 1) * unit
    return result
