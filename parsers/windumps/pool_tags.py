"""Pool tags: four bytes, as a number in tables and as text for people."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U32

_PROTECTED = np.uint32(0x8000_0000)
_ONES, _HIGH = np.uint32(0x0101_0101), np.uint32(0x8080_8080)
OVERFLOW_TAG = 0x6C66764F  # "Ovfl": the tracker table's last entry, for tags that found no place

POOL_TAG = 0x6C6F6F50  # "Pool": the pool's own tables


def tag_text(tag: int) -> str:
    """The four characters of a tag as documented tools print them; "." for zeros that fill it up.

    A tag with other bytes that cannot be shown is its four bytes in hexadecimal, so that two of them can
    be told apart and asked for.
    """
    raw = int(tag).to_bytes(4, "little")
    shown = raw.rstrip(b"\0")
    if not shown or any(not 0x20 <= byte < 0x7F for byte in shown):
        return raw.hex()
    return shown.decode("ascii").ljust(4, ".")


def tag_number(text: str) -> int:
    """The number of a tag given as up to four characters; blanks fill it up.

    Raises:
        ValueError: more than four characters, or none in ASCII.
    """
    raw = text.encode("ascii")
    if len(raw) > 4:
        raise ValueError(f"a pool tag has at most four characters, {text!r} has {len(raw)}")
    return int.from_bytes(raw.ljust(4), "little")


def plain_tags(tags: U32) -> U32:
    """Tags without the bit that marks "to be freed with its tag only" (the highest)."""
    return plain_and_named(tags)[0]


def plain_and_named(tags: U32) -> tuple[U32, NDArray[np.bool_]]:
    """Plain tags, and which of them could be some driver's."""
    tags = tags.astype(np.uint32, copy=False)
    bare = tags & ~_PROTECTED
    named = is_printable(bare)
    return np.where(named, bare, tags), named


def is_printable(tags: U32) -> NDArray[np.bool_]:
    """Which tags could be some driver's: all bytes ASCII, control characters only at the end.

    Tags shorter than four characters are filled with blanks or, by some drivers, with zeros.
    """
    filled = tags.astype(np.uint32)
    for bits in (24, 16, 8):
        short = tags < np.uint32(1 << bits)
        if not short.any():
            break
        filled[short] |= np.uint32(0x20 << bits)
    # All four bytes at once: none above 0x7E, none below 0x20.
    high = (filled | (filled + _ONES)) & _HIGH
    low = ((filled & ~_HIGH) + np.uint32(0x60606060)) & _HIGH
    good: NDArray[np.bool_] = (high == 0) & (low == _HIGH)
    return good


class Pool(IntEnum):
    """A pool; `label` is the name in the interface. Blocks carry it in their `heap` column."""

    NONPAGED = 0  # executable, or whether it is so is not kept
    NONPAGED_NX = 1
    PAGED = 2
    PAGED_SESSION = 3
    NONPAGED_SESSION = 4
    UNKNOWN = 5

    @property
    def label(self) -> str:
        """The interface's word, "nonpaged-nx"."""
        return self.name.lower().replace("_", "-")

    @property
    def is_paged(self) -> bool:
        """Counted as paged pool."""
        return self in (Pool.PAGED, Pool.PAGED_SESSION)
