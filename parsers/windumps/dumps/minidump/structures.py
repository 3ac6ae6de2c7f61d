"""Declarations of the minidump format, and nothing else.

Source: Microsoft's `minidumpapiset.h` as documented (MINIDUMP_* pages of the Windows SDK
reference).
"""

from __future__ import annotations

from enum import IntEnum

from windumps.file_structure import Layout

SIGNATURE = b"MDMP"
VERSION = 0xA793  # low word of MINIDUMP_HEADER.Version; the high word is the writer's own

# Limits on what a hostile file can make us build; real dumps stay far below them.
MAX_STREAMS = 0x1000
MAX_OBJECTS = 0x10000  # modules, unloaded modules, threads: each
MAX_RANGES = 1 << 22  # memory ranges, regions: each
MAX_PATH_BYTES = 0x10000  # one string; the longest path of Windows has 0x7fff UTF-16 units
MAX_TEXT_BYTES = 32 << 20  # all strings of a file
MAX_COUNTER = 1 << 57  # bytes of one process: more than any address space of Windows
FULL_MEMORY_FLAG = 0x2  # MiniDumpWithFullMemory


class StreamType(IntEnum):
    """MINIDUMP_STREAM_TYPE; other numbers belong to other writers and are left alone."""

    THREAD_LIST = 3
    MODULE_LIST = 4
    MEMORY_LIST = 5
    EXCEPTION = 6
    SYSTEM_INFO = 7
    MEMORY64_LIST = 9
    COMMENT_A = 10
    COMMENT_W = 11
    HANDLE_DATA = 12
    UNLOADED_MODULE_LIST = 14
    MISC_INFO = 15
    MEMORY_INFO_LIST = 16
    THREAD_INFO_LIST = 17
    SYSTEM_MEMORY_INFO = 21
    PROCESS_VM_COUNTERS = 22


UNUSED_STREAM = 0

# The same under Microsoft's names, for people.
STREAM_NAMES: dict[int, str] = {
    StreamType.THREAD_LIST: "ThreadListStream",
    StreamType.MODULE_LIST: "ModuleListStream",
    StreamType.MEMORY_LIST: "MemoryListStream",
    StreamType.EXCEPTION: "ExceptionStream",
    StreamType.SYSTEM_INFO: "SystemInfoStream",
    StreamType.MEMORY64_LIST: "Memory64ListStream",
    StreamType.COMMENT_A: "CommentStreamA",
    StreamType.COMMENT_W: "CommentStreamW",
    StreamType.HANDLE_DATA: "HandleDataStream",
    StreamType.UNLOADED_MODULE_LIST: "UnloadedModuleListStream",
    StreamType.MISC_INFO: "MiscInfoStream",
    StreamType.MEMORY_INFO_LIST: "MemoryInfoListStream",
    StreamType.THREAD_INFO_LIST: "ThreadInfoListStream",
    StreamType.SYSTEM_MEMORY_INFO: "SystemMemoryInfoStream",
    StreamType.PROCESS_VM_COUNTERS: "ProcessVmCountersStream",
}

# PROCESSOR_ARCHITECTURE_* of winnt.h; 0x8003 is Breakpad's number for ARM64.
ARCHITECTURES = {0: "x86", 5: "arm", 6: "ia64", 9: "x64", 12: "arm64", 0x8003: "arm64"}

WINDOWS_PLATFORMS = (0, 1, 2, 3)  # VER_PLATFORM_WIN32s, _WINDOWS, _NT, _CE
# Numbers of Breakpad and Crashpad for other systems.
OTHER_PLATFORMS = {
    0x8101: "macOS",
    0x8102: "iOS",
    0x8201: "Linux",
    0x8202: "Solaris",
    0x8203: "Android",
    0x8204: "PS3",
    0x8205: "NaCl",
    0x8206: "Fuchsia",
}

HEADER = Layout(
    "MINIDUMP_HEADER",
    32,
    [
        ("Signature", "S4"),
        ("Version", "u4"),
        ("NumberOfStreams", "u4"),
        ("StreamDirectoryRva", "u4"),
        ("CheckSum", "u4"),
        ("TimeDateStamp", "u4"),
        ("Flags", "u8"),
    ],
)

DIRECTORY = Layout(
    "MINIDUMP_DIRECTORY", 12, [("StreamType", "u4"), ("DataSize", "u4"), ("Rva", "u4")]
)

SYSTEM_INFO = Layout(
    "MINIDUMP_SYSTEM_INFO",
    32,
    [
        ("ProcessorArchitecture", "u2"),
        ("ProcessorLevel", "u2"),
        ("ProcessorRevision", "u2"),
        ("NumberOfProcessors", "u1"),
        ("ProductType", "u1"),
        ("MajorVersion", "u4"),
        ("MinorVersion", "u4"),
        ("BuildNumber", "u4"),
        ("PlatformId", "u4"),
        ("CSDVersionRva", "u4"),
        ("SuiteMask", "u2"),
        ("Reserved2", "u2"),
    ],
)

# The beginning of MINIDUMP_SYSTEM_MEMORY_INFO_1 (minidumpapiset.h), packed to 4 bytes: BasicInfo,
# FileCacheInfo and BasicPerfInfo; what follows is not used.
SYSTEM_MEMORY_INFO = Layout(
    "MINIDUMP_SYSTEM_MEMORY_INFO_1",
    148,
    [
        ("Revision", "u2"),
        ("Flags", "u2"),
        ("TimerResolution", "u4"),
        ("PageSize", "u4"),
        ("NumberOfPhysicalPages", "u4"),
        ("LowestPhysicalPageNumber", "u4"),
        ("HighestPhysicalPageNumber", "u4"),
        ("AllocationGranularity", "u4"),
        ("MinimumUserModeAddress", "u8"),
        ("MaximumUserModeAddress", "u8"),
        ("ActiveProcessorsAffinityMask", "u8"),
        ("NumberOfProcessors", "u4"),
        ("CurrentSize", "u8"),
        ("PeakSize", "u8"),
        ("PageFaultCount", "u4"),
        ("MinimumWorkingSet", "u8"),
        ("MaximumWorkingSet", "u8"),
        ("CurrentSizeIncludingTransitionInPages", "u8"),
        ("PeakSizeIncludingTransitionInPages", "u8"),
        ("TransitionRePurposeCount", "u4"),
        ("FileCacheFlags", "u4"),
        ("AvailablePages", "u8"),
        ("CommittedPages", "u8"),
        ("CommitLimit", "u8"),
        ("PeakCommitment", "u8"),
    ],
)
BASIC_PERF_INFO_FLAG = 0x2  # MINIDUMP_SYSMEMINFO1_BASICPERF

MEMORY_DESCRIPTOR = Layout(
    "MINIDUMP_MEMORY_DESCRIPTOR",
    16,
    [("StartOfMemoryRange", "u8"), ("DataSize", "u4"), ("Rva", "u4")],
)

MEMORY64_LIST = Layout(
    "MINIDUMP_MEMORY64_LIST", 16, [("NumberOfMemoryRanges", "u8"), ("BaseRva", "u8")]
)

MEMORY_DESCRIPTOR64 = Layout(
    "MINIDUMP_MEMORY_DESCRIPTOR64", 16, [("StartOfMemoryRange", "u8"), ("DataSize", "u8")]
)

MEMORY_INFO_LIST = Layout(
    "MINIDUMP_MEMORY_INFO_LIST",
    16,
    [("SizeOfHeader", "u4"), ("SizeOfEntry", "u4"), ("NumberOfEntries", "u8")],
)

MEMORY_INFO = Layout(
    "MINIDUMP_MEMORY_INFO",
    48,
    [
        ("BaseAddress", "u8"),
        ("AllocationBase", "u8"),
        ("AllocationProtect", "u4"),
        ("alignment1", "u4"),
        ("RegionSize", "u8"),
        ("State", "u4"),
        ("Protect", "u4"),
        ("Type", "u4"),
        ("alignment2", "u4"),
    ],
)

UNLOADED_MODULE_LIST = Layout(
    "MINIDUMP_UNLOADED_MODULE_LIST",
    12,
    [("SizeOfHeader", "u4"), ("SizeOfEntry", "u4"), ("NumberOfEntries", "u4")],
)

HANDLE_DATA = Layout(
    "MINIDUMP_HANDLE_DATA_STREAM",
    16,
    [
        ("SizeOfHeader", "u4"),
        ("SizeOfDescriptor", "u4"),
        ("NumberOfDescriptors", "u4"),
        ("Reserved", "u4"),
    ],
)

# MINIDUMP_HANDLE_DESCRIPTOR_2 (40 bytes) begins the same and adds ObjectInfoRva, which is not used.
HANDLE_DESCRIPTOR = Layout(
    "MINIDUMP_HANDLE_DESCRIPTOR",
    32,
    [
        ("Handle", "u8"),
        ("TypeNameRva", "u4"),
        ("ObjectNameRva", "u4"),
        ("Attributes", "u4"),
        ("GrantedAccess", "u4"),
        ("HandleCount", "u4"),
        ("PointerCount", "u4"),
    ],
)

THREAD_INFO_LIST = Layout(
    "MINIDUMP_THREAD_INFO_LIST",
    12,
    [("SizeOfHeader", "u4"), ("SizeOfEntry", "u4"), ("NumberOfEntries", "u4")],
)

THREAD_INFO = Layout(
    "MINIDUMP_THREAD_INFO",
    64,
    [
        ("ThreadId", "u4"),
        ("DumpFlags", "u4"),
        ("DumpError", "u4"),
        ("ExitStatus", "u4"),
        ("CreateTime", "u8"),
        ("ExitTime", "u8"),
        ("KernelTime", "u8"),
        ("UserTime", "u8"),
        ("StartAddress", "u8"),
        ("Affinity", "u8"),
    ],
)
MAX_THREAD_INFO_BYTES = 0x1000  # header or entry: later versions may be larger than these

# Packed to 4 bytes (minidumpapiset.h): both begin so. In the first revision Flags are padding.
_VM_COUNTERS = [
    ("Revision", "u2"),
    ("Flags", "u2"),
    ("PageFaultCount", "u4"),
    ("PeakWorkingSetSize", "u8"),
    ("WorkingSetSize", "u8"),
    ("QuotaPeakPagedPoolUsage", "u8"),
    ("QuotaPagedPoolUsage", "u8"),
    ("QuotaPeakNonPagedPoolUsage", "u8"),
    ("QuotaNonPagedPoolUsage", "u8"),
    ("PagefileUsage", "u8"),
    ("PeakPagefileUsage", "u8"),
]
PROCESS_VM_COUNTERS_1 = Layout(
    "MINIDUMP_PROCESS_VM_COUNTERS_1", 80, [*_VM_COUNTERS, ("PrivateUsage", "u8")]
)
# The beginning; what follows is not used.
PROCESS_VM_COUNTERS_2 = Layout(
    "MINIDUMP_PROCESS_VM_COUNTERS_2",
    96,
    [*_VM_COUNTERS, ("PeakVirtualSize", "u8"), ("VirtualSize", "u8"), ("PrivateUsage", "u8")],
)
# By their Revision.
PROCESS_VM_COUNTERS = {1: PROCESS_VM_COUNTERS_1, 2: PROCESS_VM_COUNTERS_2}
# Which bit of MINIDUMP_PROCESS_VM_COUNTERS_2.Flags says that a field was filled in:
# MINIDUMP_PROCESS_VM_COUNTERS, _VIRTUALSIZE and _EX.
VM_COUNTER_FLAGS = {"WorkingSetSize": 0x1, "VirtualSize": 0x2, "PrivateUsage": 0x4}

# General registers inside CONTEXT: offset of the first in it, bytes each, names in order of
# winnt.h.
CONTEXT_REGISTERS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "x86": (
        0x9C,
        4,
        ("edi", "esi", "ebx", "edx", "ecx", "eax", "ebp", "eip", "cs", "eflags", "esp"),
    ),
    "x64": (
        0x78,
        8,
        (
            *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
            *(f"r{n}" for n in range(8, 16)),
            "rip",
        ),
    ),
    "arm64": (0x8, 8, (*(f"x{n}" for n in range(29)), "fp", "lr", "sp", "pc")),
}


def detect(head: bytes) -> bool:
    """True when the first bytes of a file are a minidump's."""
    return head[:4] == SIGNATURE
