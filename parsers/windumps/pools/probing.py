"""Proof of a hash table: with linear probing no empty slot lies between an entry and its home.

Tags and addresses of the pool's tables are hashed the same way: a product whose halves are XORed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from windumps.memory.address_space import I64, U64

_FACTOR = np.uint64(0x9E5F)
_LOW = np.uint64(0xFFFF_FFFF)


def home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """Where a table of mask + 1 slots puts each 32-bit key."""
    product = keys.astype(np.uint64) * _FACTOR
    slots: I64 = ((product ^ (product >> np.uint64(32))) & np.uint64(mask)).astype(np.int64)
    return slots


def shifted_home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """The same for page numbers on x86 before Windows 8 (seen on 7601)."""
    slots: I64 = ((keys ^ (keys >> np.uint32(8))) & np.uint32(mask)).astype(np.int64)
    return slots


def xored_home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """The same with all four bytes of a page number XORed, as ReactOS has it for Windows 2003."""
    mixed = keys ^ (keys >> np.uint32(8)) ^ (keys >> np.uint32(16)) ^ (keys >> np.uint32(24))
    slots: I64 = (mixed & np.uint32(mask)).astype(np.int64)
    return slots


def page_keys(addresses: U64) -> NDArray[np.uint32]:
    """What is hashed of an address: the low half of its page number."""
    return ((addresses >> np.uint64(12)) & _LOW).astype(np.uint32)


def share_in_place(used: I64, home: I64, empty: NDArray[np.bool_]) -> float:
    """Share of the entries with no empty slot between their home and where they are.

    Args:
        used: int64, slots of the entries.
        home: int64, home slot of each.
        empty: bool, one a slot: known to be empty. Absent slots are not.
    """
    if not len(used):
        return 0.0
    # Empty slots before each position, over the table twice, so that a probe may wrap.
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.tile(empty, 2))))
    end = np.where(used >= home, used, used + len(empty))
    return float((before[end] == before[home]).mean())
