"""Proof of a hash table: with linear probing no empty slot lies between an entry and its home.

Which function gives the home differs between kernels, so a table is held against each of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64

_FACTOR = np.uint64(0x9E5F)
_LOW = np.uint64(0xFFFF_FFFF)
Hash = Callable[[NDArray[np.uint32], int], I64]


def home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """Where a table of mask + 1 slots puts each 32-bit key: a product whose halves are XORed.

    Tags and pages of 64-bit kernels, and of x86 from Windows 8 on.
    """
    product = keys.astype(np.uint64) * _FACTOR
    slots: I64 = ((product ^ (product >> np.uint64(32))) & np.uint64(mask)).astype(np.int64)
    return slots


def mixed_home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """The bytes of a key mixed, the lowest first, times the factor, as a signed number shifted by two.

    Tags of x86 kernels before Windows 8, pages of Vista and 7 x86 (seen on 2600, 6002 and 7601).
    """
    octets = [(keys >> np.uint32(8 * index)) & np.uint32(0xFF) for index in range(4)]
    mixed = np.zeros_like(keys)
    for octet in octets:
        mixed = (mixed << np.uint32(2)) ^ octet
    product = (mixed * np.uint32(_FACTOR)).view(np.int32) >> np.int32(2)
    slots: I64 = (product & np.int32(mask)).astype(np.int64)
    return slots


def xored_home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """The four bytes of a page number XORed (seen on 3790 x64)."""
    mixed = keys ^ (keys >> np.uint32(8)) ^ (keys >> np.uint32(16)) ^ (keys >> np.uint32(24))
    slots: I64 = (mixed & np.uint32(mask)).astype(np.int64)
    return slots


def plain_home_slots(keys: NDArray[np.uint32], mask: int) -> I64:
    """A page number as it is (seen on 2600)."""
    slots: I64 = (keys & np.uint32(mask)).astype(np.int64)
    return slots


TAG_HASHES: tuple[Hash, ...] = (home_slots, mixed_home_slots)
PAGE_HASHES: tuple[Hash, ...] = (
    home_slots,
    mixed_home_slots,
    xored_home_slots,
    plain_home_slots,
)


def page_keys(addresses: U64) -> NDArray[np.uint32]:
    """What is hashed of an address: the low half of its page number."""
    return ((addresses >> np.uint64(12)) & _LOW).astype(np.uint32)


def best_share(
    used: I64, keys: NDArray[np.uint32], empty: NDArray[np.bool_], hashes: tuple[Hash, ...]
) -> float:
    """The largest share of entries in place under any of some hashes; see `share_in_place`.

    Args:
        used: int64, slots of the entries.
        keys: uint32, what is hashed of each.
        empty: bool, one a slot: known to be empty.
        hashes: To be tried.
    """
    mask = len(empty) - 1
    return max(share_in_place(used, hashed(keys, mask), empty) for hashed in hashes)


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
