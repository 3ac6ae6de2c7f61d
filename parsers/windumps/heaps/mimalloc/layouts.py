"""What mimalloc's pages look like: its public source, include/mimalloc/types.h, of release builds for x64.

Secure and debug builds have the same fields up to the start of the blocks, then two keys, by which links of
free blocks are encoded; everything behind moves by as much.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.layouts.records import Fields, moved, record

POINTER = 8
KEYS_BYTES = 2 * POINTER  # mi_page_t.keys of secure and debug builds
_BEHIND_KEYS = ("xthread_free", "owner", "next", "prev")


class PageLayout(NamedTuple):
    """One layout of `mi_page_t`.

    Attributes:
        versions: Those whose source has it.
        dtype: Its fields; `start` tells where blocks begin.
        secure: The same of secure and debug builds.
        start_unit: Bytes that `start` counts, from the page on; 0 where it is an address.
        flag_bits: Low bits of `xthread_free` that are none of an address.
        proven: Tried on dumps with known blocks.
    """

    versions: str
    dtype: np.dtype[np.void]
    secure: np.dtype[np.void]
    start_unit: int
    flag_bits: int
    proven: bool


# Slices of a segment: pages and, with a block size of 0 or 1, what is none.
_V2 = {
    "slice_count": (0x00, "<u4"),
    "slice_offset": (0x04, "<u4"),
    "capacity": (0x0A, "<u2"),
    "reserved": (0x0C, "<u2"),
    "free": (0x10, "<u8"),
    "local_free": (0x18, "<u8"),
    "used": (0x20, "<u2"),
    "block_size": (0x28, "<u8"),
    "start": (0x30, "<u8"),
    "xthread_free": (0x38, "<u8"),
    "owner": (0x40, "<u8"),  # xheap
    "next": (0x48, "<u8"),
    "prev": (0x50, "<u8"),
}
V2 = PageLayout(
    "2.1.7 to 2.4",
    record(0x60, _V2),
    record(0x60 + KEYS_BYTES, moved(_V2, _BEHIND_KEYS, KEYS_BYTES)),
    0,
    3,
    proven=True,
)
# Before: sizes in 32 bits, and no address of the first block.
OLDER_V2 = record(
    0x50,
    {
        "slice_count": (0x00, "<u4"),
        "slice_offset": (0x04, "<u4"),
        "capacity": (0x0A, "<u2"),
        "reserved": (0x0C, "<u2"),
        "free": (0x10, "<u8"),
        "used": (0x18, "<u4"),
        "block_size": (0x1C, "<u4"),  # xblock_size
        "local_free": (0x20, "<u8"),
        "owner": (0x30, "<u8"),  # xheap
    },
)
# mi_delayed_t in the flags of xthread_free: a block is on its way to the heap's list, or is there.
WAITS = (1, 2)
DELAYED_FREE = 8  # mi_heap_t.thread_delayed_free of version 2

_V3 = {
    "free": (0x08, "<u8"),
    "used": (0x10, "<u2"),
    "capacity": (0x12, "<u2"),
    "reserved": (0x14, "<u2"),
    "local_free": (0x18, "<u8"),
    "xthread_free": (0x20, "<u8"),
    "block_size": (0x28, "<u8"),
}
COMMON_V3 = record(0x30, _V3)


def _v3(versions: str, size: int, more: Fields, start_unit: int, *, proven: bool) -> PageLayout:
    fields = _V3 | dict(more) | {"next": (0x48, "<u8"), "prev": (0x50, "<u8")}
    behind = [name for name in _BEHIND_KEYS if name != "xthread_free"]
    secure = record(size + KEYS_BYTES, moved(fields, behind, KEYS_BYTES))
    return PageLayout(versions, record(size, fields), secure, start_unit, 1, proven)


# The owner of a page is a theap since 3.2, and a heap before.
V3 = (
    _v3("3.4", 0x70, {"start": (0x30, "<u4"), "owner": (0x38, "<u8")}, POINTER, proven=True),
    _v3("3.2 and 3.3", 0x78, {"start": (0x30, "<u8"), "owner": (0x38, "<u8")}, 0, proven=False),
    _v3("3.0 and 3.1", 0x78, {"start": (0x30, "<u8"), "owner": (0x40, "<u8")}, 0, proven=False),
)
