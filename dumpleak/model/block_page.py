"""A page of blocks as a report shows it, and its columns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import Blocks

# Columns of block rows, in the order of the interface.
BLOCK_COLUMNS = (
    "address",
    "size",
    "block_bytes",
    "state",
    "heap",
    "kind",
    "type",
    "tag",
    "site",
    "stack_id",
    "heap_label",
)


@dataclass(frozen=True)
class BlockPage:
    """Some blocks of one heap with their sites, as they come from the walk.

    Attributes:
        heap_address: The heap's handle.
        pointer_size: 4 or 8, for the width of addresses.
        blocks: The blocks.
        sites: Name of each block's site; "" for free blocks.
        types: Class name of each block, or "".
        heap_name: Name of the pool, for blocks of the kernel's pools, which have no handle.
        heap_label: What the heap, or the pool, is called in other answers: "heap 1".
    """

    heap_address: int
    pointer_size: int
    blocks: Blocks
    sites: list[str]
    types: list[str]
    heap_name: str = ""
    heap_label: str = ""

    def select(self, keep: NDArray[np.bool_]) -> BlockPage:
        """The rows where `keep` is true."""
        rows = np.flatnonzero(keep).tolist()
        return replace(
            self,
            blocks=self.blocks.select(keep),
            sites=[self.sites[row] for row in rows],
            types=[self.types[row] for row in rows],
        )
