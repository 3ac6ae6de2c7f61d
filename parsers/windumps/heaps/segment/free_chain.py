"""Segment heap of Windows 11 24H2: free blocks of an LFH subsegment that are chained, and busy in its bitmap.

The chain counts blocks from 1; each free block's first two bytes name the next, the last one's are 0. The
subsegment says how long the chain is, so a chain that breaks is known to miss blocks, and not which.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.memory import AddressSpace

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class ChainedBlocks:
    """Where the blocks of some subsegments are, as columns, one row a subsegment.

    Attributes:
        first: uint64, address of the first block.
        size: int64, bytes of a block.
        count: int64, blocks.
        start: int64, row of the first block among the blocks of all.
    """

    first: U64
    size: I64
    count: I64
    start: I64

    def address(self, subsegment: I64, block: I64) -> U64:
        """Addresses of blocks, numbered from 0."""
        into = (block * self.size[subsegment]).astype(np.uint64)
        result: U64 = self.first[subsegment] + into
        return result


def drop_chained(
    memory: AddressSpace, blocks: ChainedBlocks, head: I64, length: I64, busy: Bools
) -> I64:
    """Clears the busy bit of blocks on their subsegment's chain.

    All subsegments are followed at once, a step at a time.

    Args:
        memory: The process's memory.
        blocks: The subsegments' blocks.
        head: int64, number of each chain's first block, from 1.
        length: int64, blocks on it.
        busy: Of all blocks.

    Returns:
        int64, for each subsegment how many blocks of its chain were not found; -1 where the chain is longer
        than it should be.
    """
    missing = length.copy()
    following = head - 1
    active = np.flatnonzero(length > 0)
    while len(active):
        here = following[active]
        index = blocks.start[active] + here
        sound = (here >= 0) & (here < blocks.count[active])
        sound[sound] &= busy[index[sound]]  # a chain that comes back to a block is broken too
        active, here = active[sound], here[sound]
        busy[blocks.start[active] + here] = False
        link, _ = memory.gather(blocks.address(active, here), "<u2")
        following[active] = link.astype(np.int64) - 1
        missing[active] -= 1
        ended = missing[active] == 0
        missing[active[ended & (link != 0)]] = -1
        active = active[~ended]
    return missing


def unlinked(memory: AddressSpace, entry: U64, pointer_size: int) -> Bools:
    """True where a LIST_ENTRY is not what its neighbours point back to.

    A neighbour that is not in the dump tells nothing; nobody's is at address 0.

    Args:
        memory: The process's memory.
        entry: uint64, addresses of the entries.
        pointer_size: 4 or 8.
    """
    found = np.zeros(len(entry), np.bool_)
    for way, back in ((0, pointer_size), (pointer_size, 0)):
        other = memory.gather(entry + np.uint64(way), f"<u{pointer_size}")[0].astype(np.uint64)
        answer, present = memory.gather(other + np.uint64(back), f"<u{pointer_size}")
        found |= (present & (answer != entry)) | (other == 0)
    return found
