"""What a process had mapped: the rows of `VirtualQuery`, as columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT

# winnt.h: MEMORY_BASIC_INFORMATION.State and .Type.
MEM_COMMIT = 0x1000
MEM_RESERVE = 0x2000
MEM_FREE = 0x10000
MEM_PRIVATE = 0x20000
MEM_MAPPED = 0x40000
MEM_IMAGE = 0x1000000
# winnt.h: PAGE_* of memory that nobody reads, dump writers included.
PAGE_NOACCESS = 0x01
PAGE_GUARD = 0x100


@dataclass(frozen=True)
class Regions:
    """Memory regions, ascending by address, none overlapping another or running past 2**64 - 1.

    Attributes:
        base_address: uint64.
        allocation_base: uint64.
        region_size: uint64, bytes.
        state: uint32, `MEM_COMMIT`, `MEM_RESERVE` or `MEM_FREE`.
        protect: uint32, PAGE_* flags.
        type: uint32, `MEM_PRIVATE`, `MEM_MAPPED`, `MEM_IMAGE`, or 0.
        whole: False when the list is cut: what it does not show may be mapped all the same.
    """

    base_address: NDArray[np.uint64]
    allocation_base: NDArray[np.uint64]
    region_size: NDArray[np.uint64]
    state: NDArray[np.uint32]
    protect: NDArray[np.uint32]
    type: NDArray[np.uint32]
    whole: bool = True

    @classmethod
    def empty(cls) -> Regions:
        """No information: a dump without a memory-info stream."""
        wide, narrow = np.empty(0, np.uint64), np.empty(0, np.uint32)
        return cls(wide, wide, wide, narrow, narrow, narrow)

    def __len__(self) -> int:
        return len(self.base_address)

    def row_of(self, address: int) -> int:
        """Index of the region that holds `address`, or -1."""
        if not 0 <= address < ADDRESS_LIMIT:
            return -1
        index = int(np.searchsorted(self.base_address, np.uint64(address), "right")) - 1
        if index < 0 or address - int(self.base_address[index]) >= int(self.region_size[index]):
            return -1
        return index

    def is_unmapped(self, address: int) -> bool:
        """True where the dump says that nothing was committed at `address`.

        Uncovered addresses count as unmapped where the list is whole: it has everything.
        """
        row = self.row_of(address)
        if row < 0:
            return bool(len(self)) and self.whole
        return int(self.state[row]) != MEM_COMMIT

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Rows whose memory can be read: neither guard pages nor such without access."""
        hidden: NDArray[np.bool_] = (self.protect & np.uint32(PAGE_GUARD | PAGE_NOACCESS)) == 0
        return hidden

    def committed_bytes(self, memory_type: int | None = None) -> int:
        """Bytes committed, of one `type` or of all."""
        keep = self.state == MEM_COMMIT
        if memory_type is not None:
            keep &= self.type == memory_type
        return int(self.region_size[keep].sum())
