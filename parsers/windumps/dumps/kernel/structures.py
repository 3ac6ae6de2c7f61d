"""Declarations of the kernel crash dump formats, and nothing else.

Sources: `_DUMP_HEADER`, `_DUMP_HEADER64`, `_SUMMARY_DUMP`, `_TRIAGE_DUMP` and their 64-bit twins as
volatility3 (`crash.json`, `crash64.json`), rizin (`dmp_specs.h`) and kdmp-parser declare them; the
triage parts checked on two public dumps of Windows 10 19041 (x64) and 11 22000 (ARM64).
"""

from __future__ import annotations

from enum import IntEnum

from windumps.file_structure import Layout

SIGNATURE32 = b"PAGEDUMP"
SIGNATURE64 = b"PAGEDU64"
HEADER_SIZE32 = 0x1000
HEADER_SIZE64 = 0x2000
# The kernel paints the header with this text before it fills fields in: what still reads so was
# never written.
FILLER = b"PAGE"

# Limits on what a hostile file can make us build; real dumps stay far below them.
MAX_DRIVERS = 0x4000
MAX_BLOCKS = 0x10000  # data blocks and secondary blocks: each
MAX_NAME_UNITS = 0x1000
MAX_RANGES = 1 << 22


class DumpType(IntEnum):
    """`_DUMP_HEADER.DumpType`."""

    FULL = 1
    KERNEL_SUMMARY = 2
    HEADER = 3
    TRIAGE = 4
    BITMAP_FULL = 5
    BITMAP_KERNEL = 6
    AUTOMATIC = 7
    KERNEL_RANGES = 8
    KERNEL_AND_USER_RANGES = 9
    FULL_RANGES = 10


# For people.
TYPE_NAMES: dict[int, str] = {
    DumpType.FULL: "complete memory dump",
    DumpType.KERNEL_SUMMARY: "kernel memory dump (Windows 7 and before)",
    DumpType.HEADER: "header-only dump",
    DumpType.TRIAGE: "small memory dump (triage)",
    DumpType.BITMAP_FULL: "complete memory dump (bitmap)",
    DumpType.BITMAP_KERNEL: "kernel memory dump (bitmap: kernel, automatic, active or live)",
    DumpType.AUTOMATIC: "automatic memory dump",
    DumpType.KERNEL_RANGES: "kernel memory dump of a debugger (.dump /k)",
    DumpType.KERNEL_AND_USER_RANGES: "kernel and user memory dump of a debugger (.dump /ka)",
    DumpType.FULL_RANGES: "complete memory dump of a debugger (.dump /f)",
}

# IMAGE_FILE_MACHINE_* of winnt.h.
ARCHITECTURES = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64", 0x200: "ia64", 0x1C4: "arm"}

HEADER64 = Layout(
    "_DUMP_HEADER64",
    HEADER_SIZE64,
    [
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("MajorVersion", "u4"),
        ("MinorVersion", "u4"),
        ("DirectoryTableBase", "u8"),
        ("PfnDataBase", "u8"),
        ("PsLoadedModuleList", "u8"),
        ("PsActiveProcessHead", "u8"),
        ("MachineImageType", "u4"),
        ("NumberProcessors", "u4"),
        ("BugCheckCode", "u4"),
        ("Padding0", "u4"),
        ("BugCheckParameter1", "u8"),
        ("BugCheckParameter2", "u8"),
        ("BugCheckParameter3", "u8"),
        ("BugCheckParameter4", "u8"),
        ("VersionUser", "S32"),
        ("KdDebuggerDataBlock", "u8"),
        ("PhysicalMemoryBlock", "S704"),
        ("ContextRecord", "S3000"),
        ("Exception", "S152"),
        ("DumpType", "u4"),
        ("Padding1", "u4"),
        ("RequiredDumpSpace", "u8"),
        ("SystemTime", "u8"),
        ("Comment", "S128"),
        ("SystemUpTime", "u8"),
        ("MiniDumpFields", "u4"),
        ("SecondaryDataState", "u4"),
        ("ProductType", "u4"),
        ("SuiteMask", "u4"),
        ("WriterStatus", "u4"),
        ("Unused1", "u1"),
        ("KdSecondaryVersion", "u1"),
        ("Unused2", "u2"),
        ("Attributes", "u4"),
        ("BootId", "u4"),
        ("Reserved", "S4008"),
    ],
)

HEADER32 = Layout(
    "_DUMP_HEADER",
    HEADER_SIZE32,
    [
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("MajorVersion", "u4"),
        ("MinorVersion", "u4"),
        ("DirectoryTableBase", "u4"),
        ("PfnDataBase", "u4"),
        ("PsLoadedModuleList", "u4"),
        ("PsActiveProcessHead", "u4"),
        ("MachineImageType", "u4"),
        ("NumberProcessors", "u4"),
        ("BugCheckCode", "u4"),
        ("BugCheckParameter1", "u4"),
        ("BugCheckParameter2", "u4"),
        ("BugCheckParameter3", "u4"),
        ("BugCheckParameter4", "u4"),
        ("VersionUser", "S32"),
        ("PaeEnabled", "u1"),
        ("KdSecondaryVersion", "u1"),
        ("Spare3", "u2"),
        ("KdDebuggerDataBlock", "u4"),
        ("PhysicalMemoryBlock", "S700"),
        ("ContextRecord", "S1200"),
        ("Exception", "S80"),
        ("Comment", "S128"),
        ("Reserved0", "S1768"),
        ("DumpType", "u4"),
        ("MiniDumpFields", "u4"),
        ("SecondaryDataState", "u4"),
        ("ProductType", "u4"),
        ("SuiteMask", "u4"),
        ("WriterStatus", "u4"),
        ("RequiredDumpSpace", "u8"),
        ("Reserved2", "S16"),
        ("SystemUpTime", "u8"),
        ("SystemTime", "u8"),
        ("Reserved3", "S56"),
    ],
)

# Head of PhysicalMemoryBlock; runs follow.
MEMORY_DESCRIPTOR64 = Layout(
    "_PHYSICAL_MEMORY_DESCRIPTOR64",
    16,
    [("NumberOfRuns", "u4"), ("Padding", "u4"), ("NumberOfPages", "u8")],
)
MEMORY_DESCRIPTOR32 = Layout(
    "_PHYSICAL_MEMORY_DESCRIPTOR", 8, [("NumberOfRuns", "u4"), ("NumberOfPages", "u4")]
)
MEMORY_RUN64 = Layout("_PHYSICAL_MEMORY_RUN64", 16, [("BasePage", "u8"), ("PageCount", "u8")])
MEMORY_RUN32 = Layout("_PHYSICAL_MEMORY_RUN", 8, [("BasePage", "u4"), ("PageCount", "u4")])

BITMAP_MAGICS = (b"SDMPDUMP", b"FDMPDUMP")
# Types 5 and 6, in 32-bit dumps as well; the bitmap follows.
BITMAP_DUMP = Layout(
    "_BITMAP_DUMP",
    56,
    [
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("DumpOptions", "u4"),
        ("Reserved", "S20"),
        ("FirstPage", "u8"),
        ("TotalPresentPages", "u8"),
        ("Pages", "u8"),
    ],
)
# Type 2; the bitmap follows.
SUMMARY_DUMP64 = Layout(
    "_SUMMARY_DUMP64",
    40,
    [
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("DumpOptions", "u4"),
        ("HeaderSize", "u4"),
        ("BitmapSize", "u4"),
        ("Pages", "u4"),
        ("SizeOfBitMap", "u8"),
        ("Buffer", "u8"),
    ],
)
SUMMARY_DUMP32 = Layout(
    "_SUMMARY_DUMP",
    32,
    [
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("DumpOptions", "u4"),
        ("HeaderSize", "u4"),
        ("BitmapSize", "u4"),
        ("Pages", "u4"),
        ("SizeOfBitMap", "u4"),
        ("Buffer", "u4"),
    ],
)

RANGES_MARKER = 0x40
# Types 8 to 10, after the header; ranges follow.
RANGES_DUMP = Layout(
    "RDMP header",
    32,
    [
        ("Marker", "u4"),
        ("Signature", "S4"),
        ("ValidDump", "S4"),
        ("Reserved", "u4"),
        ("MetadataSize", "u8"),
        ("FirstPageOffset", "u8"),
    ],
)
RANGES_FULL = Layout(
    "RDMP full header",
    16,
    [("NumberOfRanges", "u4"), ("Reserved", "u4"), ("TotalNumberOfPages", "u8")],
)
PAGE_RANGE = Layout("RDMP range", 16, [("Pfn", "u8"), ("PageCount", "u8")])

_TRIAGE_HEAD = [
    (name, "u4")
    for name in (
        *("ServicePackBuild", "SizeOfDump", "ValidOffset", "ContextOffset", "ExceptionOffset"),
        *("MmOffset", "UnloadedDriversOffset", "PrcbOffset", "ProcessOffset", "ThreadOffset"),
        *("CallStackOffset", "SizeOfCallStack", "DriverListOffset", "DriverCount"),
        *("StringPoolOffset", "StringPoolSize", "BrokenDriverOffset", "TriageOptions"),
    )
]
_TRIAGE_TAIL = [
    (name, "u4")
    for name in (
        *("DataPageOffset", "DataPageSize", "DebuggerDataOffset", "DebuggerDataSize"),
        *("DataBlocksOffset", "DataBlocksCount"),
    )
]
TRIAGE_DUMP64 = Layout(
    "_TRIAGE_DUMP64",
    128,
    [
        *_TRIAGE_HEAD,
        ("TopOfStack", "u8"),
        ("ArchitectureSpecific", "S16"),
        ("DataPageAddress", "u8"),
        *_TRIAGE_TAIL,
    ],
)
TRIAGE_DUMP32 = Layout(
    "_TRIAGE_DUMP",
    104,
    [*_TRIAGE_HEAD, ("TopOfStack", "u4"), ("DataPageAddress", "u4"), *_TRIAGE_TAIL],
)
TRIAGE_VALID = b"TRGD"

# A driver: where its name is, then a copy of its `_KLDR_DATA_TABLE_ENTRY`.
DRIVER_ENTRY64 = Layout(
    "_DUMP_DRIVER_ENTRY64",
    0x90,
    [
        ("DriverNameOffset", "u4"),
        ("Padding0", "u4"),
        ("Links", "S48"),
        ("DllBase", "u8"),
        ("EntryPoint", "u8"),
        ("SizeOfImage", "u4"),
        ("Padding1", "u4"),
        ("Names", "S32"),
        ("Flags", "u4"),
        ("LoadCount", "u2"),
        ("Padding2", "u2"),
        ("Reserved0", "S8"),
        ("CheckSum", "u4"),
        ("Padding3", "u4"),
        ("TimeDateStamp", "u4"),
        ("Padding4", "u4"),
    ],
)
DRIVER_ENTRY32 = Layout(
    "_DUMP_DRIVER_ENTRY",
    0x4C,
    [
        ("DriverNameOffset", "u4"),
        ("Links", "S24"),
        ("DllBase", "u4"),
        ("EntryPoint", "u4"),
        ("SizeOfImage", "u4"),
        ("Names", "S16"),
        ("Flags", "u4"),
        ("LoadCount", "u2"),
        ("Padding", "u2"),
        ("Reserved0", "S4"),
        ("CheckSum", "u4"),
        ("TimeDateStamp", "u4"),
    ],
)
UNLOADED_DRIVER64 = Layout(
    "_DUMP_UNLOADED_DRIVERS64",
    56,
    [("Name", "S16"), ("DriverName", "S24"), ("StartAddress", "u8"), ("EndAddress", "u8")],
)
UNLOADED_DRIVER32 = Layout(
    "_DUMP_UNLOADED_DRIVERS",
    40,
    [("Name", "S8"), ("DriverName", "S24"), ("StartAddress", "u4"), ("EndAddress", "u4")],
)
DATA_BLOCK64 = Layout(
    "_TRIAGE_DATA_BLOCK64", 16, [("Address", "u8"), ("Offset", "u4"), ("Size", "u4")]
)
DATA_BLOCK32 = Layout(
    "_TRIAGE_DATA_BLOCK", 12, [("Address", "u4"), ("Offset", "u4"), ("Size", "u4")]
)
BLOB_FILE_MAGIC = b"DumpBlob"
BLOB_FILE_HEADER = Layout(
    "DUMP_BLOB_FILE_HEADER",
    16,
    [("Signature", "S8"), ("HeaderSize", "u4"), ("BuildNumber", "u4")],
)
BLOB_HEADER = Layout(
    "DUMP_BLOB_HEADER",
    32,
    [
        ("HeaderSize", "u4"),
        ("Tag", "S16"),
        ("DataSize", "u4"),
        ("PrePad", "u4"),
        ("PostPad", "u4"),
    ],
)


def detect(head: bytes) -> bool:
    """True when the first bytes of a file are a kernel crash dump's."""
    return head[:8] in (SIGNATURE32, SIGNATURE64)
