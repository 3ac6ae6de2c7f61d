"""Layouts of recorded allocation stacks: three kinds of record, and the database behind one of them.

`_RTL_STACK_TRACE_ENTRY` and `_STACK_TRACE_DATABASE` stand in the public symbols of ntdll 7601 to 26100
(x86 and x64), `_RTL_TRACE_BLOCK` in published type dumps of Windows 10. `HEAP_STACK_TRACE_LOG_ENTRY` has no
public name: it is the record of ntdll's `RtlpHeapStackTraceLog`, which blocks of heaps with `+ust` point to
from Vista on. All were read back from dumps in which the recorded stacks are known, except the x64 row of
XP and 2003, which follows from the x86 one by the size of pointers.
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow, rows_from

_X86 = {
    "HEAP_STACK_TRACE_LOG_ENTRY": {
        "sizeof": (0xC, ""),  # frames follow
        "Next": (0x0, "ptr"),
        "Hash": (0x4, "u4"),
        "Count": (0x8, "u4"),
        "Frames": (0xC, ""),
    },
    "_RTL_STACK_TRACE_ENTRY": {
        "sizeof": (0xC, ""),
        "HashChain": (0x0, "ptr"),
        "Index": (0x8, "u2"),
        "Depth": (0xA, "u2"),
        "BackTrace": (0xC, ""),
    },
    "_RTL_TRACE_BLOCK": {
        "sizeof": (0x20, ""),
        "Magic": (0x0, "u4"),
        "Size": (0x8, "u4"),
        "Trace": (0x1C, "ptr"),
    },
    "_STACK_TRACE_DATABASE": {
        "sizeof": (0x6C, ""),
        "CommitBase": (0x48, "ptr"),
        "CurrentLowerCommitLimit": (0x4C, "ptr"),
        "CurrentUpperCommitLimit": (0x50, "ptr"),
        "NextFreeLowerMemory": (0x54, "ptr"),
        "NextFreeUpperMemory": (0x58, "ptr"),
        "NumberOfEntriesLookedUp": (0x5C, "u4"),
        "NumberOfEntriesAdded": (0x60, "u4"),
        "EntryIndexArray": (0x64, "ptr"),
        "NumberOfBuckets": (0x68, "u4"),
        "Buckets": (0x6C, ""),
    },
    "_RTL_STD_LIST_HEAD": {"sizeof": (0x4, ""), "Next": (0x0, "ptr")},
}

_X64 = {
    "HEAP_STACK_TRACE_LOG_ENTRY": {
        "sizeof": (0x10, ""),
        "Next": (0x0, "ptr"),
        "Hash": (0x8, "u4"),
        "Count": (0xC, "u4"),
        "Frames": (0x10, ""),
    },
    "_RTL_STACK_TRACE_ENTRY": {
        "sizeof": (0x10, ""),
        "HashChain": (0x0, "ptr"),
        "Index": (0xC, "u2"),
        "Depth": (0xE, "u2"),
        "BackTrace": (0x10, ""),
    },
    "_RTL_TRACE_BLOCK": {
        "sizeof": (0x38, ""),
        "Magic": (0x0, "u4"),
        "Size": (0x8, "u4"),
        "Trace": (0x30, "ptr"),
    },
    "_STACK_TRACE_DATABASE": {
        "sizeof": (0xC8, ""),
        "CommitBase": (0x88, "ptr"),
        "CurrentLowerCommitLimit": (0x90, "ptr"),
        "CurrentUpperCommitLimit": (0x98, "ptr"),
        "NextFreeLowerMemory": (0xA0, "ptr"),
        "NextFreeUpperMemory": (0xA8, "ptr"),
        "NumberOfEntriesLookedUp": (0xB0, "u4"),
        "NumberOfEntriesAdded": (0xB4, "u4"),
        "EntryIndexArray": (0xB8, "ptr"),
        "NumberOfBuckets": (0xC0, "u4"),
        "Buckets": (0xC8, ""),
    },
    "_RTL_STD_LIST_HEAD": {"sizeof": (0x8, ""), "Next": (0x0, "ptr")},
}

_SEEN = "PDBs of ntdll 7601 to 26100"

# From Vista on the buckets stand behind 32 free lists, and each has a lock beside its chain.
STACK_TRACE_LAYOUTS: tuple[LayoutRow, ...] = (
    *rows_from(
        "stack traces",
        "x86",
        _X86,
        [
            (2600, 3790, "read off dumps of 5.1.2600", {}),
            (
                6000,
                26100,
                _SEEN,
                {
                    "_STACK_TRACE_DATABASE": {
                        "sizeof": (0x17C, ""),
                        "NumberOfBuckets": (0x178, "u4"),
                        "Buckets": (0x17C, ""),
                    },
                    "_RTL_STD_LIST_HEAD": {"sizeof": (0x8, "")},
                },
            ),
        ],
    ),
    *rows_from(
        "stack traces",
        "x64",
        _X64,
        [
            (3790, 3790, "from the x86 row by the size of pointers", {}),
            (
                6000,
                26100,
                _SEEN,
                {
                    "_STACK_TRACE_DATABASE": {
                        "sizeof": (0x2D8, ""),
                        "NumberOfBuckets": (0x2D0, "u4"),
                        "Buckets": (0x2D8, ""),
                    },
                    "_RTL_STD_LIST_HEAD": {"sizeof": (0x10, "")},
                },
            ),
        ],
    ),
)
