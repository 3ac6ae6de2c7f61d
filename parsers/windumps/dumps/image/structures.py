"""Declarations of ELF core files as hypervisors write them, and nothing else.

Sources: the System V ABI (ELF header, program header, section header); QEMU's
`contrib/elf2dmp/qemu_elf.h` for the note with a processor's registers; VirtualBox's
`DBGFCoreWrite` writes the same headers.
"""

from __future__ import annotations

from struct import Struct

from windumps.file_structure import Layout

MAGIC = b"\x7fELF"
CLASS32, CLASS64 = 1, 2
LITTLE_ENDIAN = 1
ET_CORE = 4
PT_LOAD, PT_NOTE = 1, 4
PN_XNUM = 0xFFFF  # the true count is in the first section header
ARCHITECTURES = {3: "x86", 62: "x64", 183: "arm64"}  # EM_386, EM_X86_64, EM_AARCH64

MAX_SEGMENTS = 1 << 20
MAX_NOTE_BYTES = 16 << 20
QEMU_NOTE = b"QEMU\0"
_CR = 392  # QEMUCPUState.cr, in 64-bit guests
QEMU_CR3 = _CR + 3 * 8

_IDENT = [("Ident", "S16"), ("Type", "u2"), ("Machine", "u2"), ("Version", "u4")]
_COUNTS = [
    ("Flags", "u4"),
    ("HeaderSize", "u2"),
    ("SegmentEntrySize", "u2"),
    ("SegmentCount", "u2"),
    ("SectionEntrySize", "u2"),
    ("SectionCount", "u2"),
    ("SectionNames", "u2"),
]
HEADER32 = Layout(
    "Elf32_Ehdr",
    52,
    [*_IDENT, ("Entry", "u4"), ("SegmentTable", "u4"), ("SectionTable", "u4"), *_COUNTS],
)
HEADER64 = Layout(
    "Elf64_Ehdr",
    64,
    [*_IDENT, ("Entry", "u8"), ("SegmentTable", "u8"), ("SectionTable", "u8"), *_COUNTS],
)
SEGMENT32 = Layout(
    "Elf32_Phdr",
    32,
    [
        (name, "u4")
        for name in (
            *("Type", "Offset", "VirtualAddress", "PhysicalAddress"),
            *("FileSize", "MemorySize", "Flags", "Align"),
        )
    ],
)
SEGMENT64 = Layout(
    "Elf64_Phdr",
    56,
    [
        ("Type", "u4"),
        ("Flags", "u4"),
        ("Offset", "u8"),
        ("VirtualAddress", "u8"),
        ("PhysicalAddress", "u8"),
        ("FileSize", "u8"),
        ("MemorySize", "u8"),
        ("Align", "u8"),
    ],
)
SECTION64 = Layout(
    "Elf64_Shdr",
    64,
    [
        ("Name", "u4"),
        ("Type", "u4"),
        ("Flags", "u8"),
        ("Address", "u8"),
        ("Offset", "u8"),
        ("Size", "u8"),
        ("Link", "u4"),
        ("Info", "u4"),
        ("Align", "u8"),
        ("EntrySize", "u8"),
    ],
)
# sh_info of the first section header: how many segments there are when the header cannot say.
SECTION_INFO = {CLASS32: 28, CLASS64: 44}
NOTE = Layout("Elf_Nhdr", 12, [("NameSize", "u4"), ("DataSize", "u4"), ("Type", "u4")])

# The state of a VMware machine: magic, version, number of groups; of each group its name and place of tags.
VMWARE_HEADER = Struct("<III")
VMWARE_GROUP = Struct("<64sQQ")
VMWARE_MAGICS = frozenset({0xBED2BED0, 0xBAD1BAD1, 0xBED2BED2, 0xBED3BED3})


def detect_elf(head: bytes) -> bool:
    """True when the first bytes of a file are those of a little-endian ELF core."""
    return (
        head[:4] == MAGIC
        and head[4:5] in (bytes([CLASS32]), bytes([CLASS64]))
        and head[5] == LITTLE_ENDIAN
        and int.from_bytes(head[16:18], "little") == ET_CORE
    )
