"""Layouts of page heap: `_DPH_HEAP_ROOT`, `_DPH_HEAP_BLOCK`, `_DPH_BLOCK_INFORMATION`.

Three forms are known. XP keeps busy blocks on a list. The types in ntdll's PDBs (6.1.7601 to 10.0.22621)
keep them in an AVL tree; 2003 x64 has them, too, and they lead for 2003 x86 and Vista, of which no dump was
at hand. verifier.dll of Windows 7 and later has the tree too, but blocks of its own form: shorter, with a
state, without the sizes of what lies before the guard page and of what the header takes, and all blocks of a
region on a list in order of address.

Sources: ntdll PDBs for the second form; heaps that ntdll 5.1.2600.5512 (x86) and verifier.dll 6.2.9200,
10.0.14393 and 10.0.19041 (x86) laid out for the others, whose x64 rows follow by natural alignment. What
debuggers print of page heaps on the web bears out the third form where no dump was at hand: places of 25
blocks in their page are multiples of 34h on x86 (Windows 7 to 11 24H2, a dozen of Windows 7) and of 68h on
x64 (Windows 10 and 11), though ntdll's type has 40h and 80h; the fields `!heap -p` reads by ntdll's types
(tree, user area, pages, requested size) and StackTrace at 60h are right there on x64.
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow, rows_from

_INFORMATION_X86 = {
    "sizeof": (0x20, ""),
    "StartStamp": (0x0, "u4"),
    "Heap": (0x4, "ptr"),
    "RequestedSize": (0x8, "ptr"),
    "ActualSize": (0xC, "ptr"),
    "StackTrace": (0x18, "ptr"),
    "EndStamp": (0x1C, "u4"),
}
_INFORMATION_X64 = {
    "sizeof": (0x40, ""),
    "StartStamp": (0x0, "u4"),
    "Heap": (0x8, "ptr"),
    "RequestedSize": (0x10, "ptr"),
    "ActualSize": (0x18, "ptr"),
    "StackTrace": (0x30, "ptr"),
    "EndStamp": (0x3C, "u4"),
}
_LINKS_X86 = {
    "sizeof": (0x10, ""),
    "Parent": (0x0, "ptr"),
    "LeftChild": (0x4, "ptr"),
    "RightChild": (0x8, "ptr"),
}
_LINKS_X64 = {
    "sizeof": (0x20, ""),
    "Parent": (0x0, "ptr"),
    "LeftChild": (0x8, "ptr"),
    "RightChild": (0x10, "ptr"),
}

_X86_XP = {
    "_DPH_HEAP_ROOT": {
        "sizeof": (0x94, ""),
        "Signature": (0x0, "u4"),
        "HeapFlags": (0x4, "u4"),
        "HeapCritSect": (0x8, "ptr"),
        "pVirtualStorageListHead": (0x10, "ptr"),
        "nVirtualStorageRanges": (0x18, "u4"),
        "pBusyAllocationListHead": (0x20, "ptr"),
        "nBusyAllocations": (0x28, "u4"),
        "nBusyAllocationBytesCommitted": (0x2C, "ptr"),
        "pFreeAllocationListHead": (0x30, "ptr"),
        "nFreeAllocations": (0x38, "u4"),
        "pAvailableAllocationListHead": (0x40, "ptr"),
        "nAvailableAllocations": (0x48, "u4"),
        "nBusyAllocationBytesAccessible": (0x5C, "ptr"),
        "pNodePoolListHead": (0x60, "ptr"),
        "nNodePools": (0x68, "u4"),
        "pNextHeapRoot": (0x70, "ptr"),
        "pPrevHeapRoot": (0x74, "ptr"),
        "NormalHeap": (0x88, "ptr"),
    },
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x28, ""),
        "pNextAlloc": (0x0, "ptr"),
        "pVirtualBlock": (0x4, "ptr"),
        "nVirtualBlockSize": (0x8, "ptr"),
        "nVirtualAccessSize": (0xC, "ptr"),
        "pUserAllocation": (0x10, "ptr"),
        "nUserRequestedSize": (0x14, "ptr"),
        "StackTrace": (0x24, "ptr"),
    },
    "_DPH_BLOCK_INFORMATION": _INFORMATION_X86,
}
_X64_XP = {
    "_DPH_HEAP_ROOT": {
        "sizeof": (0x110, ""),
        "Signature": (0x0, "u4"),
        "HeapFlags": (0x4, "u4"),
        "HeapCritSect": (0x8, "ptr"),
        "pVirtualStorageListHead": (0x18, "ptr"),
        "nVirtualStorageRanges": (0x28, "u4"),
        "pBusyAllocationListHead": (0x38, "ptr"),
        "nBusyAllocations": (0x48, "u4"),
        "nBusyAllocationBytesCommitted": (0x50, "ptr"),
        "pFreeAllocationListHead": (0x58, "ptr"),
        "nFreeAllocations": (0x68, "u4"),
        "pAvailableAllocationListHead": (0x78, "ptr"),
        "nAvailableAllocations": (0x88, "u4"),
        "nBusyAllocationBytesAccessible": (0xB0, "ptr"),
        "pNodePoolListHead": (0xB8, "ptr"),
        "nNodePools": (0xC8, "u4"),
        "pNextHeapRoot": (0xD8, "ptr"),
        "pPrevHeapRoot": (0xE0, "ptr"),
        "NormalHeap": (0xF8, "ptr"),
    },
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x50, ""),
        "pNextAlloc": (0x0, "ptr"),
        "pVirtualBlock": (0x8, "ptr"),
        "nVirtualBlockSize": (0x10, "ptr"),
        "nVirtualAccessSize": (0x18, "ptr"),
        "pUserAllocation": (0x20, "ptr"),
        "nUserRequestedSize": (0x28, "ptr"),
        "StackTrace": (0x48, "ptr"),
    },
    "_DPH_BLOCK_INFORMATION": _INFORMATION_X64,
}

_X86_TREE = {
    "_DPH_HEAP_ROOT": {
        "sizeof": (0xC0, ""),
        "Signature": (0x0, "u4"),
        "HeapFlags": (0x4, "u4"),
        "pVirtualStorageListHead": (0x10, "ptr"),
        "nVirtualStorageRanges": (0x18, "u4"),
        "BusyNodesTable": (0x20, "S56"),
        "nBusyAllocations": (0x5C, "u4"),
        "nBusyAllocationBytesCommitted": (0x60, "ptr"),
        "pFreeAllocationListHead": (0x64, "ptr"),
        "nFreeAllocations": (0x6C, "u4"),
        "nBusyAllocationBytesAccessible": (0x90, "ptr"),
        "nNodePoolBytes": (0xA0, "ptr"),
        "NextHeap": (0xA4, "list"),
        "NormalHeap": (0xB4, "ptr"),
    },
    "_RTL_AVL_TABLE": {
        "sizeof": (0x38, ""),
        "BalancedRoot": (0x0, "S16"),
        "NumberGenericTableElements": (0x18, "u4"),
    },
    "_RTL_BALANCED_LINKS": _LINKS_X86,
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x40, ""),
        "pNextAlloc": (0x0, "ptr"),
        "pUserAllocation": (0x10, "ptr"),
        "pVirtualBlock": (0x14, "ptr"),
        "nVirtualBlockSize": (0x18, "ptr"),
        "nVirtualAccessSize": (0x1C, "ptr"),
        "nUserRequestedSize": (0x20, "ptr"),
        "StackTrace": (0x30, "ptr"),
    },
    "_DPH_BLOCK_INFORMATION": _INFORMATION_X86,
}
_X64_TREE = {
    "_DPH_HEAP_ROOT": {
        "sizeof": (0x168, ""),
        "Signature": (0x0, "u4"),
        "HeapFlags": (0x4, "u4"),
        "pVirtualStorageListHead": (0x18, "ptr"),
        "nVirtualStorageRanges": (0x28, "u4"),
        "BusyNodesTable": (0x38, "S104"),
        "nBusyAllocations": (0xA8, "u4"),
        "nBusyAllocationBytesCommitted": (0xB0, "ptr"),
        "pFreeAllocationListHead": (0xB8, "ptr"),
        "nFreeAllocations": (0xC8, "u4"),
        "nBusyAllocationBytesAccessible": (0x110, "ptr"),
        "nNodePoolBytes": (0x130, "ptr"),
        "NextHeap": (0x138, "list"),
        "NormalHeap": (0x150, "ptr"),
    },
    "_RTL_AVL_TABLE": {
        "sizeof": (0x68, ""),
        "BalancedRoot": (0x0, "S32"),
        "NumberGenericTableElements": (0x2C, "u4"),
    },
    "_RTL_BALANCED_LINKS": _LINKS_X64,
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x80, ""),
        "pNextAlloc": (0x0, "ptr"),
        "pUserAllocation": (0x20, "ptr"),
        "pVirtualBlock": (0x28, "ptr"),
        "nVirtualBlockSize": (0x30, "ptr"),
        "nVirtualAccessSize": (0x38, "ptr"),
        "nUserRequestedSize": (0x40, "ptr"),
        "StackTrace": (0x60, "ptr"),
    },
    "_DPH_BLOCK_INFORMATION": _INFORMATION_X64,
}

# Names that no PDB at hand has are ours: VirtualStorageList, nProtectedAllocations (freed, but their pages
# are still committed), NodePoolCommitEnd and NodePoolReserveEnd (of the newest node pool), State, FreeFlags
# (of a block on the free list; bit 2: still committed).
_X86_VERIFIER = {
    "_DPH_HEAP_ROOT": {
        "pVirtualStorageListHead": None,
        "VirtualStorageList": (0x10, "list"),
        "NodePoolReserveEnd": (0x1C, "ptr"),
        "pFreeAllocationListHead": None,
        "nFreeAllocations": (0x74, "u4"),
        "nProtectedAllocations": (0x80, "u4"),
        "nNodePoolBytes": None,
        "NodePoolCommitEnd": (0xA0, "ptr"),
    },
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x34, ""),
        "pNextAlloc": None,
        "FreeFlags": (0x4, "u4"),
        "nVirtualAccessSize": None,
        "State": (0x1C, "u4"),
        "AdjacencyEntry": (0x24, "list"),
    },
}
_X64_VERIFIER = {
    "_DPH_HEAP_ROOT": {
        "pVirtualStorageListHead": None,
        "VirtualStorageList": (0x18, "list"),
        "NodePoolReserveEnd": (0x30, "ptr"),
        "pFreeAllocationListHead": None,
        "nFreeAllocations": (0xD8, "u4"),
        "nProtectedAllocations": (0xF0, "u4"),
        "nNodePoolBytes": None,
        "NodePoolCommitEnd": (0x130, "ptr"),
    },
    "_DPH_HEAP_BLOCK": {
        "sizeof": (0x68, ""),
        "pNextAlloc": None,
        "FreeFlags": (0x8, "u4"),
        "nVirtualAccessSize": None,
        "State": (0x38, "u4"),
        "AdjacencyEntry": (0x48, "list"),
    },
}

_SEEN = "heaps that ntdll or verifier.dll laid out"
_ALIGNED = "the x86 row, naturally aligned; no dump has this form, and 2003 x64 has the next one"
_PDB = "ntdll PDBs 6.1.7601 and 10.0.19041; no dump of 2003 x86 or Vista was at hand"
_ROOT_SEEN = "ntdll PDBs, and roots that ntdll 5.2.3790.3959 laid out; its busy nodes were not seen"
_LISTED = "the x86 row, naturally aligned; borne out by public debugger listings, not by a dump"

PAGE_HEAP_ROWS: tuple[LayoutRow, ...] = (
    *rows_from("page heap", "x86", _X86_XP, [(2600, 2600, _SEEN, {})]),
    *rows_from(
        "page heap", "x86", _X86_TREE, [(3790, 6003, _PDB, {}), (7600, 26200, _SEEN, _X86_VERIFIER)]
    ),
    *rows_from("page heap", "x64", _X64_XP, [(2600, 2600, _ALIGNED, {})]),
    *rows_from(
        "page heap",
        "x64",
        _X64_TREE,
        [(3790, 6003, _ROOT_SEEN, {}), (7600, 26200, _LISTED, _X64_VERIFIER)],
    ),
)
