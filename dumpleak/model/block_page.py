"""A page of blocks as a report shows it, and its columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from windumps.blocks import Blocks

I32 = NDArray[np.int32]

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
class Names:
    """A text for each row, few of them different.

    Attributes:
        texts: The different ones.
        number: int32, an index into `texts` for each row; -1 for "".
    """

    texts: Sequence[str]
    number: I32

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        """Of texts, one a row."""
        numbers: dict[str, int] = {}
        rows = [numbers.setdefault(text, len(numbers)) for text in texts]
        return cls(list(numbers), np.array(rows, np.int32))

    @classmethod
    def none(cls, rows: int) -> Names:
        """No text in any row."""
        return cls((), np.full(rows, -1, np.int32))

    def __len__(self) -> int:
        return len(self.number)

    def rows(self) -> list[str]:
        """The texts, one a row."""
        texts = [*self.texts, ""]  # -1 is the last
        return [texts[number] for number in self.number.tolist()]

    def select(self, keep: NDArray[np.bool_]) -> Names:
        """The rows where `keep` is true."""
        return Names(self.texts, self.number[keep])


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
    sites: Names
    types: Names
    heap_name: str = ""
    heap_label: str = ""

    def select(self, keep: NDArray[np.bool_]) -> BlockPage:
        """The rows where `keep` is true."""
        return replace(
            self,
            blocks=self.blocks.select(keep),
            sites=self.sites.select(keep),
            types=self.types.select(keep),
        )
