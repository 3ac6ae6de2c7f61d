"""Which pool a block is of, from the numbers the kernel keeps: a POOL_TYPE, or POOL_FLAGS since 11 24H2."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.pool_tags import Pool

# POOL_TYPE: base type and bits.
PAGED_BIT = 0x1
QUOTA_BIT = 0x8
SESSION_BIT = 0x20
NX_BIT = 0x200
# POOL_FLAGS (wdm.h), the low 12 bits.
FLAG_QUOTA = 0x1
FLAG_NONPAGED_NX = 0x40
FLAG_NONPAGED_EXECUTE = 0x80
FLAG_PAGED = 0x100


def pools_of_types(types: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """`Pool` of each POOL_TYPE."""
    paged = (types & PAGED_BIT) != 0
    session = (types & SESSION_BIT) != 0
    pools = np.where(paged, Pool.PAGED, np.where(types & NX_BIT, Pool.NONPAGED_NX, Pool.NONPAGED))
    pools = np.where(session, np.where(paged, Pool.PAGED_SESSION, Pool.NONPAGED_SESSION), pools)
    return pools.astype(np.uint8)


def pools_of_flags(flags: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """`Pool` of each POOL_FLAGS."""
    pools = np.full(flags.shape, Pool.UNKNOWN, np.uint8)
    pools[(flags & FLAG_NONPAGED_EXECUTE) != 0] = Pool.NONPAGED
    pools[(flags & FLAG_NONPAGED_NX) != 0] = Pool.NONPAGED_NX
    pools[(flags & FLAG_PAGED) != 0] = Pool.PAGED
    return pools


def share_of_flags(values: NDArray[np.uint32]) -> float:
    """Share of the values with exactly one of the three flags one of which POOL_FLAGS must have."""
    if not len(values):
        return 0.0
    one = sum(
        ((values & flag) != 0).astype(np.int64)
        for flag in (FLAG_NONPAGED_NX, FLAG_NONPAGED_EXECUTE, FLAG_PAGED)
    )
    return float((np.asarray(one) == 1).mean())
