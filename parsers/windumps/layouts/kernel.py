"""Layouts of the kernel's processes, threads and drivers, XP to 11 24H2.

Sources: the kernel's public symbols 6.1.7601 to 10.0.22000 (volatility3's tables) and the published
headers of every build from 5.1.2600 to 10.0.22631 (vergiliusproject.com), which agree; 26100 from
generated offsets (ntoskrnlib), so its row is the least sure. Within a build no offset here was seen
to change, except where a build has two rows.
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow

_PROCESS_FIELDS = (
    ("UniqueProcessId", "ptr"),
    ("ActiveProcessLinks", "list"),
    ("CreateTime", "u8"),
    ("InheritedFromUniqueProcessId", "ptr"),
    ("Peb", "ptr"),
    ("ImageFileName", "S15"),
    ("CommitCharge", "ptr"),
    ("ThreadListHead", "list"),
    ("WoW64Process", "ptr"),
)
_THREAD_FIELDS = (("ThreadListEntry", "list"), ("Cid", "ptr"), ("Teb", "ptr"))
_SYMBOLS = "public kernel symbols and published headers"
_GENERATED = "generated offsets (ntoskrnlib), build inferred"

# (first build, last build, offsets in the order of the fields).
_PROCESS_X64 = (
    (3790, 3790, (0xD8, 0xE0, 0xC0, 0x218, 0x2C0, 0x268, 0x120, 0x290, 0x2A8)),
    (6000, 6003, (0xE0, 0xE8, 0xC8, 0x1F0, 0x290, 0x238, 0x128, 0x260, 0x278)),
    (7600, 7601, (0x180, 0x188, 0x168, 0x290, 0x338, 0x2E0, 0x1B8, 0x308, 0x320)),
    # 9600 before and since the update of November 2014 (17415).
    (9200, 9600, (0x2E0, 0x2E8, 0x2D0, 0x3D0, 0x3E8, 0x438, 0x4D8, 0x470, 0x418)),
    (9600, 9600, (0x2E0, 0x2E8, 0x2D0, 0x3D0, 0x3E8, 0x438, 0x4D0, 0x470, 0x418)),
    (10240, 10240, (0x2E8, 0x2F0, 0x308, 0x3E0, 0x3F8, 0x448, 0x4E8, 0x480, 0x428)),
    (10586, 14393, (0x2E8, 0x2F0, 0x308, 0x3E0, 0x3F8, 0x450, 0x4F0, 0x488, 0x428)),
    (15063, 17763, (0x2E0, 0x2E8, 0x308, 0x3E0, 0x3F8, 0x450, 0x4F0, 0x488, 0x428)),
    (18326, 18363, (0x2E8, 0x2F0, 0x310, 0x3E8, 0x3F8, 0x450, 0x4F0, 0x488, 0x428)),
    (19041, 22631, (0x440, 0x448, 0x468, 0x540, 0x550, 0x5A8, 0x648, 0x5E0, 0x580)),
    (26100, 26200, (0x1D0, 0x1D8, 0x1F8, 0x2D0, 0x2E0, 0x338, 0x3D8, 0x370, 0x310)),
)
_PROCESS_X86 = (
    (2600, 2600, (0x84, 0x88, 0x70, 0x14C, 0x1B0, 0x174, 0xA8, 0x190)),
    (3790, 3790, (0x94, 0x98, 0x80, 0x138, 0x1A0, 0x164, 0xB8, 0x180)),
    (6000, 6003, (0x9C, 0xA0, 0x88, 0x124, 0x188, 0x14C, 0xC0, 0x168)),
    (7600, 7601, (0xB4, 0xB8, 0xA0, 0x140, 0x1A8, 0x16C, 0xD0, 0x188)),
    (9200, 9600, (0xB4, 0xB8, 0xA8, 0x134, 0x140, 0x170, 0x1EC, 0x194)),
    (9600, 9600, (0xB4, 0xB8, 0xA8, 0x134, 0x140, 0x170, 0x1E8, 0x194)),
    (10240, 10240, (0xB4, 0xB8, 0xC8, 0x138, 0x144, 0x170, 0x1EC, 0x194)),
    (10586, 14393, (0xB4, 0xB8, 0xC8, 0x138, 0x144, 0x174, 0x1EC, 0x198)),
    (15063, 18363, (0xB4, 0xB8, 0xD0, 0x140, 0x14C, 0x17C, 0x1F4, 0x1A0)),
    (19041, 19045, (0xE4, 0xE8, 0x100, 0x170, 0x17C, 0x1AC, 0x224, 0x1D0)),
)
_THREAD_X64 = (
    (3790, 3790, (0x3D0, 0x358, 0xB0)),
    (6000, 6003, (0x3F0, 0x380, 0xB0)),
    (7600, 7601, (0x420, 0x3B0, 0xB8)),
    (7601, 7601, (0x428, 0x3B8, 0xB8)),
    (9200, 9200, (0x400, 0x398, 0xF0)),
    (9600, 9600, (0x688, 0x620, 0xF0)),
    (10240, 14393, (0x690, 0x628, 0xF0)),
    (14393, 14393, (0x698, 0x630, 0xF0)),
    (15063, 15063, (0x6A0, 0x638, 0xF0)),
    (16299, 17763, (0x6A8, 0x638, 0xF0)),
    (18326, 18363, (0x6B8, 0x648, 0xF0)),
    (19041, 19045, (0x4E8, 0x478, 0xF0)),
    (20348, 22631, (0x538, 0x4C8, 0xF0)),
    (26100, 26200, (0x578, 0x508, 0xF0)),
)
_THREAD_X86 = (
    (2600, 2600, (0x22C, 0x1EC, 0x20)),
    (3790, 3790, (0x224, 0x1E4, 0x74)),
    (6000, 6003, (0x248, 0x20C, 0x84)),
    (7600, 7601, (0x268, 0x22C, 0x88)),
    (9200, 9200, (0x24C, 0x214, 0xA8)),
    (9600, 9600, (0x39C, 0x364, 0xA8)),
    (10240, 14393, (0x3AC, 0x374, 0xA8)),
    (15063, 17763, (0x3B4, 0x37C, 0xA8)),
    (18362, 18363, (0x3BC, 0x384, 0xA8)),
    (19041, 19045, (0x2E4, 0x2AC, 0xA8)),
)
_Table = tuple[tuple[int, int, tuple[int, ...]], ...]


def _rows(
    component: str,
    structure: str,
    fields: tuple[tuple[str, str], ...],
    tables: tuple[tuple[str, _Table], ...],
) -> tuple[LayoutRow, ...]:
    return tuple(
        LayoutRow(
            component,
            architecture,
            first,
            last,
            {
                structure: {
                    # A 32-bit system has no WoW64: the last field is missing there.
                    name: (offset, kind)
                    for (name, kind), offset in zip(fields, offsets, strict=False)
                }
            },
            _GENERATED if first == 26100 else _SYMBOLS,
        )
        for architecture, table in tables
        for first, last, offsets in table
    )


# `_EPROCESS` begins with its `_KPROCESS`, `_ETHREAD` with its `_KTHREAD` (which has Teb).
PROCESS_LAYOUTS = _rows(
    "process", "_EPROCESS", _PROCESS_FIELDS, (("x64", _PROCESS_X64), ("x86", _PROCESS_X86))
)
THREAD_LAYOUTS = _rows(
    "thread", "_ETHREAD", _THREAD_FIELDS, (("x64", _THREAD_X64), ("x86", _THREAD_X86))
)
# The same in all builds.
DIRECTORY_TABLE_BASE = {"x86": 0x18, "x64": 0x28}

_DRIVER_X64 = {
    "DllBase": (0x30, "ptr"),
    "SizeOfImage": (0x40, "u4"),
    "FullDllName": (0x48, "S16"),
    "BaseDllName": (0x58, "S16"),
    "sizeof": (0x68, ""),
}
_DRIVER_X86 = {
    "DllBase": (0x18, "ptr"),
    "SizeOfImage": (0x20, "u4"),
    "FullDllName": (0x24, "S8"),
    "BaseDllName": (0x2C, "S8"),
    "sizeof": (0x34, ""),
}
# `_KLDR_DATA_TABLE_ENTRY` up to BaseDllName: the same in all builds.
DRIVER_LAYOUTS = {
    architecture: LayoutRow(
        "driver", architecture, 2600, 26200, {"_KLDR_DATA_TABLE_ENTRY": fields}, _SYMBOLS
    )
    for architecture, fields in (("x64", _DRIVER_X64), ("x86", _DRIVER_X86))
}
# `_UNLOADED_DRIVERS`: (size, Name, StartAddress, EndAddress, CurrentTime).
UNLOADED_DRIVER = {"x64": (0x28, 0x0, 0x10, 0x18, 0x20), "x86": (0x18, 0x0, 0x8, 0xC, 0x10)}
UNLOADED_DRIVER_COUNT = 50  # MI_UNLOADED_DRIVERS
