"""Layouts of the NT heap, Windows Vista to 11 24H2.

Sources: Microsoft's ntdll PDBs 6.1.7601 (x64, x86), 10.0.19041.1288 and 10.0.22621.4245 (x64) and
10.0.19041.2130 (x86, WoW64); the kernel's types of the same builds (vergiliusproject.com) for the
builds between. Within a build no offset was seen to change between revisions.
"""

from __future__ import annotations

from dataclasses import replace

from windumps.layouts.rows import LayoutRow, rows_from

_X64_VISTA = {
    "_HEAP": {
        "sizeof": (0x1F8, ""),
        "SegmentSignature": (0x10, "u4"),
        "Flags": (0x70, "u4"),
        "CompatibilityFlags": (0x78, "u4"),
        "EncodeFlagMask": (0x7C, "u4"),
        "Encoding": (0x80, "S16"),
        "Interceptor": (0x98, "u4"),
        "Signature": (0xA0, "u4"),
        "TotalFreeSize": (0xC8, "ptr"),
        "ProcessHeapsListIndex": (0xD8, "u2"),
        "VirtualAllocdBlocks": (0x118, "list"),
        "SegmentList": (0x128, "list"),
        "FrontEndHeap": (0x178, "ptr"),
        "FrontEndHeapType": (0x182, "u1"),
        "TotalMemoryReserved": (0x188, "ptr"),
        "TotalMemoryCommitted": (0x190, "ptr"),
        "TotalSizeInVirtualBlocks": (0x1A0, "ptr"),
        "TotalSegments": (0x1A8, "u4"),
    },
    "_HEAP_SEGMENT": {
        "sizeof": (0x70, ""),
        "SegmentSignature": (0x10, "u4"),
        "SegmentListEntry": (0x18, "list"),
        "Heap": (0x28, "ptr"),
        "BaseAddress": (0x30, "ptr"),
        "NumberOfPages": (0x38, "u4"),
        "FirstEntry": (0x40, "ptr"),
        "LastValidEntry": (0x48, "ptr"),
        "NumberOfUnCommittedPages": (0x50, "u4"),
        "NumberOfUnCommittedRanges": (0x54, "u4"),
        "UCRSegmentList": (0x60, "list"),
    },
    "_HEAP_UCR_DESCRIPTOR": {
        "sizeof": (0x30, ""),
        "ListEntry": (0x0, "list"),
        "SegmentEntry": (0x10, "list"),
        "Address": (0x20, "ptr"),
        "Size": (0x28, "ptr"),
    },
    "_HEAP_VIRTUAL_ALLOC_ENTRY": {
        "sizeof": (0x40, ""),
        "Entry": (0x0, "list"),
        "CommitSize": (0x20, "ptr"),
        "ReserveSize": (0x28, "ptr"),
        "BusyBlock": (0x30, "S16"),
    },
    "_LFH_HEAP": {
        "sizeof": (0x48, ""),
        "SubSegmentZones": (0x28, "list"),
        "Heap": (0x40, "ptr"),
    },
    "_LFH_BLOCK_ZONE": {
        "sizeof": (0x20, ""),
        "ListEntry": (0x0, "list"),
        "FreePointer": (0x10, "ptr"),
    },
    "_HEAP_SUBSEGMENT": {
        "sizeof": (0x30, ""),
        "UserBlocks": (0x8, "ptr"),
        "Depth": (0x10, "u2"),
        "BlockSize": (0x18, "u2"),
        "BlockCount": (0x1C, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x20, ""),
        "SubSegment": (0x0, "ptr"),
        "Signature": (0x18, "u4"),
    },
}

_X86_VISTA = {
    "_HEAP": {
        "sizeof": (0x130, ""),
        "SegmentSignature": (0x8, "u4"),
        "Flags": (0x40, "u4"),
        "CompatibilityFlags": (0x48, "u4"),
        "EncodeFlagMask": (0x4C, "u4"),
        "Encoding": (0x50, "S8"),
        "Interceptor": (0x5C, "u4"),
        "Signature": (0x64, "u4"),
        "TotalFreeSize": (0x78, "ptr"),
        "ProcessHeapsListIndex": (0x80, "u2"),
        "VirtualAllocdBlocks": (0xA0, "list"),
        "SegmentList": (0xA8, "list"),
        "FrontEndHeap": (0xD4, "ptr"),
        "FrontEndHeapType": (0xDA, "u1"),
        "TotalMemoryReserved": (0xDC, "ptr"),
        "TotalMemoryCommitted": (0xE0, "ptr"),
        "TotalSizeInVirtualBlocks": (0xE8, "ptr"),
        "TotalSegments": (0xEC, "u4"),
    },
    "_HEAP_SEGMENT": {
        "sizeof": (0x40, ""),
        "SegmentSignature": (0x8, "u4"),
        "SegmentListEntry": (0x10, "list"),
        "Heap": (0x18, "ptr"),
        "BaseAddress": (0x1C, "ptr"),
        "NumberOfPages": (0x20, "u4"),
        "FirstEntry": (0x24, "ptr"),
        "LastValidEntry": (0x28, "ptr"),
        "NumberOfUnCommittedPages": (0x2C, "u4"),
        "NumberOfUnCommittedRanges": (0x30, "u4"),
        "UCRSegmentList": (0x38, "list"),
    },
    "_HEAP_UCR_DESCRIPTOR": {
        "sizeof": (0x18, ""),
        "ListEntry": (0x0, "list"),
        "SegmentEntry": (0x8, "list"),
        "Address": (0x10, "ptr"),
        "Size": (0x14, "ptr"),
    },
    "_HEAP_VIRTUAL_ALLOC_ENTRY": {
        "sizeof": (0x20, ""),
        "Entry": (0x0, "list"),
        "CommitSize": (0x10, "ptr"),
        "ReserveSize": (0x14, "ptr"),
        "BusyBlock": (0x18, "S8"),
    },
    "_LFH_HEAP": {
        "sizeof": (0x28, ""),
        "SubSegmentZones": (0x18, "list"),
        "Heap": (0x24, "ptr"),
    },
    "_LFH_BLOCK_ZONE": {
        "sizeof": (0x10, ""),
        "ListEntry": (0x0, "list"),
        "FreePointer": (0x8, "ptr"),
    },
    "_HEAP_SUBSEGMENT": {
        "sizeof": (0x20, ""),
        "UserBlocks": (0x4, "ptr"),
        "Depth": (0x8, "u2"),
        "BlockSize": (0x10, "u2"),
        "BlockCount": (0x14, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x10, ""),
        "SubSegment": (0x0, "ptr"),
        "Signature": (0xC, "u4"),
    },
}

_X64_8 = {
    "_HEAP": {
        "sizeof": (0x298, ""),
        "Interceptor": (0x90, "u4"),
        "Signature": (0x98, "u4"),
        "TotalFreeSize": (0xC0, "ptr"),
        "ProcessHeapsListIndex": (0xD0, "u2"),
        "VirtualAllocdBlocks": (0x110, "list"),
        "SegmentList": (0x120, "list"),
        "FrontEndHeap": (0x170, "ptr"),
        "FrontEndHeapType": (0x17A, "u1"),
        "TotalMemoryReserved": (0x210, "ptr"),
        "TotalMemoryCommitted": (0x218, "ptr"),
        "TotalSizeInVirtualBlocks": (0x228, "ptr"),
        "TotalSegments": (0x230, "u4"),
    },
    "_LFH_HEAP": {
        "sizeof": (0x20, ""),
        "SubSegmentZones": (0x8, "list"),
        "Heap": (0x18, "ptr"),
    },
    "_HEAP_SUBSEGMENT": {
        "sizeof": (0x40, ""),
        "UserBlocks": (0x8, "ptr"),
        "Depth": (0x20, "u2"),
        "BlockSize": (0x24, "u2"),
        "BlockCount": (0x28, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x38, ""),
        "Signature": (0x14, "u4"),
        "EncodedOffsets": (0x18, "u4"),
        "SizeOfBitMap": (0x20, "u4"),
        "BitmapData": (0x30, "ptr"),
    },
}

_X86_8 = {
    "_HEAP": {
        "sizeof": (0x248, ""),
        "Interceptor": (0x58, "u4"),
        "Signature": (0x60, "u4"),
        "TotalFreeSize": (0x74, "ptr"),
        "ProcessHeapsListIndex": (0x7C, "u2"),
        "VirtualAllocdBlocks": (0x9C, "list"),
        "SegmentList": (0xA4, "list"),
        "FrontEndHeap": (0xD0, "ptr"),
        "FrontEndHeapType": (0xD6, "u1"),
        "TotalMemoryReserved": (0x1E0, "ptr"),
        "TotalMemoryCommitted": (0x1E4, "ptr"),
        "TotalSizeInVirtualBlocks": (0x1EC, "ptr"),
        "TotalSegments": (0x1F0, "u4"),
    },
    "_LFH_HEAP": {
        "sizeof": (0x10, ""),
        "SubSegmentZones": (0x4, "list"),
        "Heap": (0xC, "ptr"),
    },
    "_HEAP_SUBSEGMENT": {
        "sizeof": (0x28, ""),
        "UserBlocks": (0x4, "ptr"),
        "Depth": (0x10, "u2"),
        "BlockSize": (0x14, "u2"),
        "BlockCount": (0x18, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x20, ""),
        "Signature": (0xC, "u4"),
        "EncodedOffsets": (0x10, "u4"),
        "SizeOfBitMap": (0x14, "u4"),
        "BitmapData": (0x1C, "ptr"),
    },
}


# From 8.1 on a zone counts its subsegments instead of pointing behind the last.
_X64_ZONE_81 = {"sizeof": (0x20, ""), "FreePointer": None, "NextIndex": (0x10, "u4")}
_X86_ZONE_81 = {"sizeof": (0x10, ""), "FreePointer": None, "NextIndex": (0x8, "u4")}


def _heap_front_end(
    front_end: int, type_: int, counters: int, size: int, pointer: int
) -> dict[str, tuple[int, str]]:
    return {
        "sizeof": (size, ""),
        "FrontEndHeap": (front_end, "ptr"),
        "FrontEndHeapType": (type_, "u1"),
        "TotalMemoryReserved": (counters, "ptr"),
        "TotalMemoryCommitted": (counters + pointer, "ptr"),
        "TotalSizeInVirtualBlocks": (counters + 3 * pointer, "ptr"),
        "TotalSegments": (counters + 4 * pointer, "u4"),
    }


_PDB = "ntdll PDB"
_KERNEL = "kernel types of the build"
_8 = "kernel types of the build; the front end as ntdll 6.2.9200 x86 laid it out, by natural alignment"

# Builds of each row, by its first, whose own dumps were walked against their truth. A row without
# any was walked on heaps made from numbers of other sources alone (tests/builders/nt_heap_numbers.py).
_PROVEN = {
    "x64": {
        7600: (7601,),
        9600: (9600, 10586),
        11082: (14393, 16299),
        17763: (18362, 19041, 22621, 26100),
    },
    "x86": {
        7600: (7601,),
        9200: (9200,),
        9600: (9600,),
        11082: (14393, 16299, 17134),
        17763: (18362, 19041),
    },
}

NT_HEAP_ROWS: tuple[LayoutRow, ...] = (
    *rows_from(
        "NT heap",
        "x64",
        _X64_VISTA,
        [
            (6000, 6003, _KERNEL, {}),
            (7600, 7602, _PDB, {"_HEAP": {"sizeof": (0x208, "")}}),
            (9200, 9200, _8, _X64_8),
            (9600, 10586, _KERNEL, {"_LFH_BLOCK_ZONE": _X64_ZONE_81}),
            (
                11082,
                17134,
                _KERNEL,
                {"_HEAP": _heap_front_end(0x178, 0x182, 0x218, 0x2A0, 8)},
            ),
            (
                17763,
                26200,
                _PDB,
                {"_HEAP": _heap_front_end(0x198, 0x1A2, 0x238, 0x2C0, 8)},
            ),
        ],
        _PROVEN["x64"],
    ),
    *rows_from(
        "NT heap",
        "x86",
        _X86_VISTA,
        [
            (6000, 6003, _KERNEL, {}),
            (7600, 7602, _PDB, {"_HEAP": {"sizeof": (0x138, "")}}),
            (9200, 9200, _8, _X86_8),
            (9600, 10586, _KERNEL, {"_LFH_BLOCK_ZONE": _X86_ZONE_81}),
            (
                11082,
                17134,
                _KERNEL,
                {"_HEAP": _heap_front_end(0xD4, 0xDA, 0x1E4, 0x248, 4)},
            ),
            (
                17763,
                26200,
                _PDB,
                {"_HEAP": _heap_front_end(0xE4, 0xEA, 0x1F4, 0x258, 4)},
            ),
        ],
        _PROVEN["x86"],
    ),
)


def _moved(row: LayoutRow, distance: int) -> LayoutRow:
    """A row whose front end and counters lie elsewhere: new fields before them are what changed the
    heap since Windows 8.
    """
    heap = dict(row.structures["_HEAP"])
    front_end = heap["FrontEndHeap"][0]
    for name, (offset, kind) in heap.items():
        if offset >= front_end:  # its size, too
            heap[name] = offset + distance, kind
    return replace(
        row,
        first_build=0,
        last_build=0,
        structures=row.structures | {"_HEAP": heap},
        source=f"the row of {row.first_build}-{row.last_build}, moved by {distance:#x}",
        proven_on=(),
    )


# Guesses for builds that the table does not have, to be believed only when everything fits.
MOVED_ROWS: tuple[LayoutRow, ...] = tuple(
    _moved(row, step * 2 * row.pointer_size)
    for row in NT_HEAP_ROWS
    if row.last_build == NT_HEAP_ROWS[-1].last_build
    for step in (1, 2, 3, 4, 5, 6, 7, 8, -1, -2)
)
