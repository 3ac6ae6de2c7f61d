"""What rpmalloc's structures look like: its public source, rpmalloc/rpmalloc.c of 2.0.0 to 2.0.1, x64.

Builds that keep statistics (ENABLE_STATISTICS) have more behind what is read here.
"""

from __future__ import annotations

from windumps.layouts.records import record

VERSIONS = "2.0"
SPAN_BYTES = 1 << 28
HEADER_BYTES = 0x80  # of a page, and of a span, which its first page begins with
PAGE_BYTES = (1 << 16, 1 << 20, 1 << 22, 1 << 24)  # by page_type_t
HUGE = 4
SIZE_CLASSES = 109
LOCAL_FREE = 8  # heap_t.local_free, by size class
THREAD_FREE = 1800  # heap_t.thread_free, by page type
IS_FREE = 2  # page_t.is_free among its flags
IS_FULL = 1


PAGE = record(
    HEADER_BYTES,
    {
        "size_class": (0x00, "<u4"),
        "block_size": (0x04, "<u4"),
        "block_count": (0x08, "<u4"),
        "initialized": (0x0C, "<u4"),
        "used": (0x10, "<u4"),
        "page_type": (0x14, "<u4"),
        "flags": (0x18, "<u4"),
        "local_free_count": (0x1C, "<u4"),
        "local_free": (0x20, "<u8"),
        "heap": (0x28, "<u8"),
        "thread_free_index": (0x40, "<u4"),
        "thread_free_count": (0x44, "<u4"),
    },
)
SPAN = record(
    HEADER_BYTES,
    {
        "heap": (0x48, "<u8"),
        "page_address_mask": (0x50, "<u8"),
        "page_initialized": (0x58, "<u4"),
        "page_count": (0x5C, "<u4"),
        "page_size": (0x60, "<u4"),
        "page_type": (0x64, "<u4"),
    },
)
