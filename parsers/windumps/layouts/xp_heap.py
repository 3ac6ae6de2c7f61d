"""Layouts of the NT heap of Windows XP and Server 2003.

Sources: the kernel's types of 5.1.2600.5512 and 5.2.3790.3959 (vergiliusproject.com), which hold the heap's
too, and public headers made of the PDBs of 2003 x64. Look-aside lists, `_LFH_HEAP` and what belongs to it
were read off heaps that ntdll 5.1.2600.6055 (x86) and 5.2.3790.3959 (x64) laid out. No dump of 2003 x86 was
at hand; its kernel types are those of XP. (The spelling of `_HEAP_UNCOMMMTTED_RANGE` is Microsoft's.)
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow, rows_from

_X86 = {
    "_HEAP": {
        "sizeof": (0x588, ""),
        "Signature": (0x8, "u4"),
        "Flags": (0xC, "u4"),
        "ForceFlags": (0x10, "u4"),
        "TotalFreeSize": (0x28, "ptr"),
        "ProcessHeapsListIndex": (0x30, "u2"),
        "UCRSegments": (0x40, "ptr"),
        "VirtualAllocdBlocks": (0x50, "list"),
        "Segments": (0x58, "S256"),
        "FreeLists": (0x178, "S1024"),
        "FrontEndHeap": (0x580, "ptr"),
        "FrontEndHeapType": (0x586, "u1"),
        "LastSegmentIndex": (0x587, "u1"),
    },
    "_HEAP_SEGMENT": {
        "sizeof": (0x3C, ""),
        "Signature": (0x8, "u4"),
        "Heap": (0x10, "ptr"),
        "BaseAddress": (0x18, "ptr"),
        "NumberOfPages": (0x1C, "u4"),
        "FirstEntry": (0x20, "ptr"),
        "LastValidEntry": (0x24, "ptr"),
        "NumberOfUnCommittedPages": (0x28, "u4"),
        "NumberOfUnCommittedRanges": (0x2C, "u4"),
        "UnCommittedRanges": (0x30, "ptr"),
    },
    "_HEAP_UNCOMMMTTED_RANGE": {
        "sizeof": (0x10, ""),
        "Next": (0x0, "ptr"),
        "Address": (0x4, "ptr"),
        "Size": (0x8, "ptr"),
    },
    "_HEAP_UCR_SEGMENT": {
        "sizeof": (0x10, ""),
        "Next": (0x0, "ptr"),
        "ReservedSize": (0x4, "ptr"),
        "CommittedSize": (0x8, "ptr"),
    },
    "_HEAP_ENTRY_EXTRA": {
        "sizeof": (0x8, ""),
        "AllocatorBackTraceIndex": (0x0, "u2"),
    },
    "_HEAP_VIRTUAL_ALLOC_ENTRY": {
        "sizeof": (0x20, ""),
        "Entry": (0x0, "list"),
        "ExtraStuff": (0x8, "S8"),
        "CommitSize": (0x10, "ptr"),
        "ReserveSize": (0x14, "ptr"),
        "BusyBlock": (0x18, "S8"),
    },
    "_HEAP_LOOKASIDE": {
        "sizeof": (0x30, ""),
        "ListHead": (0x0, "S8"),
        "MaximumDepth": (0xA, "u2"),
        "TotalAllocates": (0xC, "u4"),
        "AllocateMisses": (0x10, "u4"),
        "TotalFrees": (0x14, "u4"),
        "FreeMisses": (0x18, "u4"),
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
        "LocalInfo": (0x0, "ptr"),
        "UserBlocks": (0x4, "ptr"),
        "Depth": (0x8, "u2"),
        "FreeEntryOffset": (0xA, "u2"),
        "BlockSize": (0x10, "u2"),
        "BlockCount": (0x14, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x10, ""),
        "SubSegment": (0x0, "ptr"),
        "HeapHandle": (0x4, "ptr"),
        "SizeIndex": (0x8, "ptr"),
        "Signature": (0xC, "ptr"),
    },
}

_X64 = {
    "_HEAP": {
        "sizeof": (0xAE8, ""),
        "Signature": (0x10, "u4"),
        "Flags": (0x14, "u4"),
        "ForceFlags": (0x18, "u4"),
        "TotalFreeSize": (0x40, "ptr"),
        "ProcessHeapsListIndex": (0x50, "u2"),
        "UCRSegments": (0x70, "ptr"),
        "VirtualAllocdBlocks": (0x90, "list"),
        "Segments": (0xA0, "S512"),
        "FreeLists": (0x2C8, "S2048"),
        "FrontEndHeap": (0xAD8, "ptr"),
        "FrontEndHeapType": (0xAE2, "u1"),
        "LastSegmentIndex": (0xAE3, "u1"),
    },
    "_HEAP_SEGMENT": {
        "sizeof": (0x68, ""),
        "Signature": (0x10, "u4"),
        "Heap": (0x18, "ptr"),
        "BaseAddress": (0x28, "ptr"),
        "NumberOfPages": (0x30, "u4"),
        "FirstEntry": (0x38, "ptr"),
        "LastValidEntry": (0x40, "ptr"),
        "NumberOfUnCommittedPages": (0x48, "u4"),
        "NumberOfUnCommittedRanges": (0x4C, "u4"),
        "UnCommittedRanges": (0x50, "ptr"),
    },
    "_HEAP_UNCOMMMTTED_RANGE": {
        "sizeof": (0x20, ""),
        "Next": (0x0, "ptr"),
        "Address": (0x8, "ptr"),
        "Size": (0x10, "ptr"),
    },
    "_HEAP_UCR_SEGMENT": {
        "sizeof": (0x20, ""),
        "Next": (0x0, "ptr"),
        "ReservedSize": (0x8, "ptr"),
        "CommittedSize": (0x10, "ptr"),
    },
    "_HEAP_ENTRY_EXTRA": {
        "sizeof": (0x10, ""),
        "AllocatorBackTraceIndex": (0x0, "u2"),
    },
    "_HEAP_VIRTUAL_ALLOC_ENTRY": {
        "sizeof": (0x40, ""),
        "Entry": (0x0, "list"),
        "ExtraStuff": (0x10, "S16"),
        "CommitSize": (0x20, "ptr"),
        "ReserveSize": (0x28, "ptr"),
        "BusyBlock": (0x30, "S16"),
    },
    "_HEAP_LOOKASIDE": {
        "sizeof": (0x40, ""),
        "ListHead": (0x0, "S16"),
        "MaximumDepth": (0x12, "u2"),
        "TotalAllocates": (0x14, "u4"),
        "AllocateMisses": (0x18, "u4"),
        "TotalFrees": (0x1C, "u4"),
        "FreeMisses": (0x20, "u4"),
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
        "LocalInfo": (0x0, "ptr"),
        "UserBlocks": (0x8, "ptr"),
        "Depth": (0x10, "u2"),
        "FreeEntryOffset": (0x12, "u2"),
        "BlockSize": (0x18, "u2"),
        "BlockCount": (0x1C, "u2"),
    },
    "_HEAP_USERDATA_HEADER": {
        "sizeof": (0x20, ""),
        "SubSegment": (0x0, "ptr"),
        "HeapHandle": (0x8, "ptr"),
        "SizeIndex": (0x10, "ptr"),
        "Signature": (0x18, "ptr"),
    },
}

_KERNEL = "kernel types of the build; see the module's text for the rest"

XP_HEAP_ROWS: tuple[LayoutRow, ...] = (
    *rows_from("XP heap", "x86", _X86, [(2600, 3790, _KERNEL, {})]),
    *rows_from("XP heap", "x64", _X64, [(3790, 3790, _KERNEL, {})]),
)
