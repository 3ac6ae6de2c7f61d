"""Layouts of the segment heap, Windows 10.0.10240 to 11 24H2.

Sources: Microsoft's ntdll PDBs 10.0.19041 (x64, x86) and 10.0.22621 (x64), the kernel's types of 17763 to
22631 (the same heap code), published types of ntdll 10240 to 17134 (ntdiff) and of 26100 (ntoskrnl-lib);
all values of the pseudo-structure "constants" were read off dumps of processes whose heaps ntdll itself laid
out. Rows no dump of their own build ever tried: x64 10240, 15063, 17134, 17763, 20348 and 22000, x86 10240,
10586, 15063, 17763 and all after 19045 (there is none: 26100 x86 made no segment heap). Tests walk a heap
made with the numbers of an independent source for each of them.

Pseudo-structure "constants": values, not offsets, that go with the offsets of a row.

- Contexts: how many `_HEAP_SEG_CONTEXT` the heap has. Where there is but one it has no structure of its
  own; its fields are then offsets into the heap, and UnitShift and FirstDescriptorIndex are here.
- SegmentSignature, SegmentSignatureShift: `_HEAP_PAGE_SEGMENT.Signature` = HeapKey ^ (segment >> shift) ^
  context ^ constant.
- FlagMask, FlagPages, FlagLfh, FlagVs: which bits of RangeFlags tell the use of a range, in its first
  descriptor; FlagAllocated: the bit set in every unit of an allocated range; FlagFirst: in its first unit.
- PagesAbove: blocks with pages of their own are larger than this. While ntdll kept a segment heap for its
  own records (up to 15063), the first blocks in that were small.
- CommitShift, CommitMask: the bits of CommittedPageCount that count a unit's committed pages.
- VsSignature: `_HEAP_VS_SUBSEGMENT.Signature` ^ Size ^ constant = 0 in the low 15 bits.
- LfhWideShift: 1 when BlockOffsets are encoded with the low half of (subsegment >> 12), 0 when with (low
  half of subsegment) >> 12.
- LfhBitmapGroups: 1 when the bitmap is groups of 32 busy bits and 32 unused-bytes bits, 0 when the two bits
  of a block stand side by side.
- LfhCommitScale: bytes CommitStateOffset counts in. The commit states, two bytes each, stand between bitmap
  and first block: CommitUnitCount of them, or, LfhPageStates, that << CommitUnitShift.
- LfhNaturalAlignment: 1: blocks of a power of two are aligned to it; 2: only in subsegments of more than a
  page (the kernel before 26100).
- HeaderCounted: 1 when TotalCommittedPages has all of the heap's own pages, 0 when only the first.
- FrontPadding: `_RTLP_HP_PADDING_HEADER` in front of the user's bytes; 0: not expected, 1: expected, two
  pointers, not written to; 2: expected, its first word holds its size. LargePadding: 1 when large allocations
  have it in front too, 0 when the space is only added to their size.
"""

from __future__ import annotations

from typing import Any

from windumps.layouts.rows import LayoutRow, rows_from

_SIGNATURE_X64 = 0xA2E64EADA2E64EAD
_SIGNATURE_X86 = 0xA2E64EAD


_Fields = dict[str, tuple[int, str]]


def _heap_end(offset: int, pointer: int) -> _Fields:
    """Two fields of `_SEGMENT_HEAP`."""
    return {"UncommittedBase": (offset, "ptr"), "ReservedLimit": (offset + pointer, "ptr")}


def _heap(
    size: int, flags: int, stats: int, large: int, contexts: int, end: int, pointer: int
) -> _Fields:
    """`_SEGMENT_HEAP` from 16299 on; `stats` is where MemStats is, `end` where UncommittedBase."""
    counters = ("TotalReservedPages", "TotalCommittedPages")
    more = ("FreeCommittedPages", "LfhFreeCommittedPages")
    return {
        "sizeof": (size, ""),
        "GlobalFlags": (flags, "u4"),
        **{name: (stats + i * pointer, "ptr") for i, name in enumerate(counters + more)},
        "LargeAllocMetadata": (large, "list"),
        "LargeReservedPages": (large + 2 * pointer, "ptr"),
        "LargeCommittedPages": (large + 3 * pointer, "ptr"),
        **_heap_end(end, pointer),
        "SegContexts": (contexts, ""),
    }


def _context(size: int, heap: int, vs: int, segments: int, pointer: int) -> _Fields:
    """`_HEAP_SEG_CONTEXT` from 16299 on; `segments` is where SegmentListHead is."""
    return {
        "sizeof": (size, ""),
        "SegmentMask": (0x0, "ptr"),
        "UnitShift": (pointer, "u1"),
        "FirstDescriptorIndex": (pointer + 2, "u1"),
        "VsContext": (vs, "ptr"),
        "Heap": (heap, "ptr"),
        "SegmentListHead": (segments, "list"),
        "SegmentCount": (segments + 2 * pointer, "ptr"),
    }


_X64_EARLY = {
    "_SEGMENT_HEAP": {
        "sizeof": (0x5F0, ""),
        "TotalReservedPages": (0x0, "ptr"),
        "TotalCommittedPages": (0x8, "ptr"),
        "Signature": (0x10, "u4"),
        "GlobalFlags": (0x24, "u4"),
        "LargeAllocMetadata": (0x38, "list"),
        "LargeReservedPages": (0x48, "ptr"),
        "LargeCommittedPages": (0x50, "ptr"),
        "SegContexts": (0x0, ""),
        **_heap_end(0xA0, 8),
    },
    "_HEAP_SEG_CONTEXT": {
        "sizeof": (0x80, ""),
        "SegmentListHead": (0x60, "list"),
        "SegmentCount": (0x70, "ptr"),
    },
    "_HEAP_PAGE_SEGMENT": {
        "sizeof": (0x2000, ""),
        "Signature": (0x10, "ptr"),
    },
    "_HEAP_PAGE_RANGE_DESCRIPTOR": {
        "sizeof": (0x20, ""),
        "ExtraPresent": (0x4, "u2"),
        "UnusedBytes": (0x6, "u2"),
        "RangeFlags": (0x18, "u1"),
        "CommittedPageCount": (0x18, "u1"),
        "UnitOffset": (0x1B, "u1"),
        "UnitSize": (0x1B, "u1"),
    },
    "_HEAP_VS_SUBSEGMENT": {
        "Size": (0x20, "u2"),
        "Signature": (0x22, "u2"),
        "FirstChunk": (0x30, ""),
    },
    "_HEAP_LFH_SUBSEGMENT": {
        "sizeof": (0x30, ""),
        "FreeCount": (0x20, "u2"),
        "DelayFree": (0x10, "ptr"),
        "BlockCount": (0x22, "u2"),
        "BlockOffsets": (0x28, "u4"),
        "CommitUnitShift": (0x2C, "u1"),
        "CommitUnitCount": (0x2D, "u1"),
        "CommitStateOffset": (0x2E, "u2"),
        "BlockBitmap": (0x30, ""),
    },
    "_HEAP_LARGE_ALLOC_DATA": {
        "sizeof": (0x28, ""),
        "VirtualAddress": (0x18, "ptr"),
        "AllocatedPages": (0x20, "ptr"),
    },
    "constants": {
        "Contexts": (1, ""),
        "UnitShift": (12, ""),
        "FirstDescriptorIndex": (2, ""),
        "SegmentSignature": (_SIGNATURE_X64, ""),
        "SegmentSignatureShift": (20, ""),
        "FlagMask": (0x2D, ""),
        "FlagAllocated": (0x4, ""),
        "FlagFirst": (0x8, ""),
        "FlagPages": (0xC, ""),
        "PagesAbove": (0, ""),
        "FlagLfh": (0xD, ""),
        "FlagVs": (0x2C, ""),
        "CommitShift": (1, ""),
        "CommitMask": (1, ""),
        "VsSignature": (0x2BED, ""),
        "LfhWideShift": (0, ""),
        "LfhBitmapGroups": (0, ""),
        "LfhCommitScale": (1, ""),
        "LfhPageStates": (0, ""),
        "LfhNaturalAlignment": (0, ""),
        "HeaderCounted": (0, ""),
        "FrontPadding": (1, ""),
        "LargePadding": (0, ""),
    },
}

_X86_EARLY = {
    "_SEGMENT_HEAP": {
        "sizeof": (0x300, ""),
        "TotalReservedPages": (0x0, "ptr"),
        "TotalCommittedPages": (0x4, "ptr"),
        "Signature": (0x8, "u4"),
        "GlobalFlags": (0x18, "u4"),
        "LargeAllocMetadata": (0x24, "list"),
        "LargeReservedPages": (0x2C, "ptr"),
        "LargeCommittedPages": (0x30, "ptr"),
        "SegContexts": (0x0, ""),
        **_heap_end(0x58, 4),
    },
    "_HEAP_SEG_CONTEXT": {
        "sizeof": (0x48, ""),
        "SegmentListHead": (0x38, "list"),
        "SegmentCount": (0x40, "ptr"),
    },
    "_HEAP_PAGE_SEGMENT": {
        "sizeof": (0x1000, ""),
        "Signature": (0x8, "ptr"),
    },
    "_HEAP_PAGE_RANGE_DESCRIPTOR": {
        "sizeof": (0x10, ""),
        "ExtraPresent": (0x4, "u2"),
        "UnusedBytes": (0x6, "u2"),
        "RangeFlags": (0xC, "u1"),
        "CommittedPageCount": (0xC, "u1"),
        "UnitOffset": (0xF, "u1"),
        "UnitSize": (0xF, "u1"),
    },
    "_HEAP_VS_SUBSEGMENT": {
        "Size": (0x14, "u2"),
        "Signature": (0x16, "u2"),
        "FirstChunk": (0x18, ""),
    },
    "_HEAP_LFH_SUBSEGMENT": {
        "sizeof": (0x20, ""),
        "FreeCount": (0x10, "u2"),
        "DelayFree": (0x8, "ptr"),
        "BlockCount": (0x12, "u2"),
        "BlockOffsets": (0x18, "u4"),
        "CommitUnitShift": (0x1C, "u1"),
        "CommitUnitCount": (0x1D, "u1"),
        "CommitStateOffset": (0x1E, "u2"),
        "BlockBitmap": (0x20, ""),
    },
    "_HEAP_LARGE_ALLOC_DATA": {
        "sizeof": (0x14, ""),
        "VirtualAddress": (0xC, "ptr"),
        "AllocatedPages": (0x10, "ptr"),
    },
    "constants": {
        **_X64_EARLY["constants"],
        "FirstDescriptorIndex": (1, ""),
        "SegmentSignature": (_SIGNATURE_X86, ""),
    },
}

# From 16299 on: two contexts with a structure of their own, a commit count in each descriptor.
_TWO_CONTEXTS = {
    "Contexts": (2, ""),
    "UnitShift": None,
    "FirstDescriptorIndex": None,
    "SegmentSignatureShift": (0, ""),
    "FlagMask": (0xF, ""),
    "FlagAllocated": (0x1, ""),
    "FlagFirst": (0x2, ""),
    "FlagPages": (0x3, ""),
    "PagesAbove": (0x20000, ""),
}

_X64_16299: dict[str, dict[str, Any]] = {
    "_SEGMENT_HEAP": _heap(0x6C0, 0x14, 0x18, 0x50, 0x70, 0x158, 8),
    "_HEAP_SEG_CONTEXT": _context(0x68, 0x60, 0x58, 0x20, 8),
    "_HEAP_PAGE_RANGE_DESCRIPTOR": {
        "UnusedBytes": (0x4, "u4"),
        "ExtraPresent": (0x8, "u2"),
        "CommittedPageCount": (0x19, "u1"),
        "UnitOffset": (0x1F, "u1"),
        "UnitSize": (0x1F, "u1"),
    },
    "constants": {
        **_TWO_CONTEXTS,
        "FlagLfh": (0x7, ""),
        "FlagVs": (0xB, ""),
        "CommitShift": (0, ""),
        "CommitMask": (0xFF, ""),
    },
}

_X86_16299: dict[str, dict[str, Any]] = {
    "_SEGMENT_HEAP": _heap(0x370, 0xC, 0x10, 0x30, 0x40, 0xBC, 4),
    "_HEAP_SEG_CONTEXT": _context(0x38, 0x34, 0x30, 0x14, 4),
    "_HEAP_PAGE_RANGE_DESCRIPTOR": {
        "UnusedBytes": (0x4, "u4"),
        "ExtraPresent": (0x8, "u2"),
    },
    "constants": {
        **_TWO_CONTEXTS,
        "FlagLfh": (0x7, ""),
        "FlagVs": (0xB, ""),
        "CommitShift": (5, ""),
        "CommitMask": (7, ""),
    },
}

_17134: dict[str, tuple[int, str]] = {
    "FlagLfh": (0xB, ""),
    "FlagVs": (0xF, ""),
    "FrontPadding": (2, ""),
    "LargePadding": (1, ""),
}

_X64_17134 = {
    "_SEGMENT_HEAP": _heap(0x6F0, 0x14, 0x18, 0x50, 0x70, 0x178, 8),
    "_HEAP_SEG_CONTEXT": _context(0x78, 0x70, 0x58, 0x20, 8),
    "constants": _17134,
}

_X86_17134 = {
    "_SEGMENT_HEAP": _heap(0x398, 0xC, 0x10, 0x34, 0x44, 0xD0, 4),
    "_HEAP_SEG_CONTEXT": _context(0x40, 0x3C, 0x30, 0x14, 4),
    "constants": _17134,
}

_X64_17763 = {
    "_SEGMENT_HEAP": _heap(0x800, 0x14, 0x80, 0x48, 0x100, 0xF0, 8),
    "_HEAP_SEG_CONTEXT": _context(0xC0, 0x38, 0x20, 0x48, 8),
    "_HEAP_VS_CONTEXT": {"DelayFreeContext": (0x40, "")},
}

_X86_17763 = {
    "_SEGMENT_HEAP": _heap(0x580, 0xC, 0x80, 0x44, 0x100, 0xBC, 4),
    "_HEAP_SEG_CONTEXT": _context(0x80, 0x24, 0x18, 0x44, 4),
    "_HEAP_VS_CONTEXT": {"DelayFreeContext": (0x40, "")},
}

# Previews of 17763.
_X64_PREVIEW = {
    "_SEGMENT_HEAP": _heap(0x710, 0x14, 0x18, 0x88, 0xA8, 0x210, 8),
    "_HEAP_SEG_CONTEXT": _context(0x98, 0x90, 0x78, 0x20, 8),
}

_X86_PREVIEW = {
    "_SEGMENT_HEAP": _heap(0x3A4, 0xC, 0x10, 0x50, 0x60, 0x11C, 4),
    "_HEAP_SEG_CONTEXT": _context(0x50, 0x4C, 0x40, 0x14, 4),
}

_X64_20348 = {
    "_SEGMENT_HEAP": {"sizeof": (0x840, ""), "SegContexts": (0x140, "")},
    "constants": {"FrontPadding": (0, ""), "HeaderCounted": (1, "")},
}

_X64_26100: dict[str, dict[str, Any]] = {
    "_SEGMENT_HEAP": {
        "sizeof": (0xA00, ""),
        **_heap_end(0xF8, 8),
    },
    "_HEAP_PAGE_RANGE_DESCRIPTOR": {"UnitOffset": (0x1A, "u1")},
    "_HEAP_VS_CONTEXT": {"DelayFreeContext": None},
    "_HEAP_VS_SUBSEGMENT": {"Signature": (0x24, "u2")},
    "_HEAP_LFH_SUBSEGMENT": {
        "sizeof": (0x40, ""),
        "DelayFree": None,
        "ListEntry": (0x0, ""),
        "FreeListHead": (0x10, "u2"),
        "FreeListCount": (0x12, "u2"),
        "CommitUnitShift": (0x26, "u1"),
        "CommitUnitCount": (0x27, "u1"),
        "CommitStateOffset": (0x18, "u1"),
        "BlockBitmap": (0x40, ""),
    },
    "constants": {
        "SegmentSignature": (0, ""),
        "LfhWideShift": (1, ""),
        "LfhBitmapGroups": (1, ""),
        "LfhCommitScale": (8, ""),
        "LfhPageStates": (1, ""),
        "LfhNaturalAlignment": (1, ""),
    },
}


def _early_heap(size: int, end: int, pointer: int) -> dict[str, _Fields]:
    """What differs from 10240 in the two builds after it."""
    return {"_SEGMENT_HEAP": {"sizeof": (size, ""), **_heap_end(end, pointer)}}


_PDB = "ntdll PDB"
_TYPES = "published types of ntdll"
_DUMPS = "dumps of the build"

SEGMENT_HEAP_ROWS: tuple[LayoutRow, ...] = (
    *rows_from(
        "segment heap",
        "x64",
        _X64_EARLY,
        [
            (10240, 10240, _TYPES, {}),
            (10586, 10586, _DUMPS, _early_heap(0x5E0, 0x98, 8)),
            (14393, 15063, _DUMPS, _early_heap(0x5F0, 0xA0, 8)),
            (16299, 16299, _DUMPS, _X64_16299),
            (17134, 17134, _TYPES, _X64_17134),
            (17650, 17762, _TYPES, _X64_PREVIEW),
            (17763, 19045, _PDB, _X64_17763),
            (20348, 22631, _PDB, _X64_20348),
            (26100, 26200, "published types, dumps", _X64_26100),
        ],
    ),
    *rows_from(
        "segment heap",
        "x86",
        _X86_EARLY,
        [
            (10240, 10240, _TYPES, {}),
            (10586, 10586, _TYPES, _early_heap(0x2F8, 0x54, 4)),
            (14393, 15063, _DUMPS, _early_heap(0x300, 0x58, 4)),
            (16299, 16299, _DUMPS, _X86_16299),
            (17134, 17134, _DUMPS, _X86_17134),
            (17650, 17762, _TYPES, _X86_PREVIEW),
            (17763, 19045, _PDB, _X86_17763),
        ],
    ),
)
