"""Fields of `_EPROCESS` and `_ETHREAD` that only figures are read from, XP to 11 24H2.

They stand apart from `layouts.kernel`, whose fields decide which layout a kernel has: these decide nothing.
Sources: as there. ExitTime moved within 14393, so that build has two rows.
"""

from __future__ import annotations

from windumps.layouts.rows import LayoutRow

_PROCESS_FIELDS = ("ExitTime", "ActiveThreads", "QuotaUsage")
# (first build, last build, offsets in the order of the fields). QuotaUsage counts nonpaged pool, then paged.
_PROCESS_X64 = (
    (3790, 3790, (0xC8, 0x2B0, 0xF0)),
    (6000, 6003, (0xD0, 0x280, 0xF8)),
    (7600, 7601, (0x170, 0x328, 0x198)),
    (9200, 9200, (0x610, 0x480, 0x300)),
    (9600, 9600, (0x640, 0x480, 0x300)),
    (10240, 10240, (0x670, 0x490, 0x310)),
    (10586, 10586, (0x678, 0x498, 0x310)),
    (14393, 14393, (0x690, 0x498, 0x310)),
    (14393, 14393, (0x688, 0x498, 0x310)),
    (15063, 17763, (0x690, 0x498, 0x310)),
    (18326, 18363, (0x6C0, 0x498, 0x318)),
    (19041, 22631, (0x840, 0x5F0, 0x470)),
    (26100, 26200, (0x5C0, 0x380, 0x200)),
)
_PROCESS_X86 = (
    (2600, 2600, (0x78, 0x1A0, 0x90)),
    (3790, 3790, (0x88, 0x190, 0xA0)),
    (6000, 6003, (0x90, 0x178, 0xA8)),
    (7600, 7601, (0xA8, 0x198, 0xC0)),
    (9200, 9200, (0x2B8, 0x19C, 0xC8)),
    (9600, 9600, (0x2B0, 0x19C, 0xC8)),
    (10240, 10240, (0x2C0, 0x19C, 0xD0)),
    (10586, 10586, (0x2C0, 0x1A0, 0xD0)),
    (14393, 14393, (0x2C8, 0x1A0, 0xD0)),
    (15063, 16299, (0x2D0, 0x1A8, 0xD8)),
    (17134, 17763, (0x2D8, 0x1A8, 0xD8)),
    (18362, 18363, (0x348, 0x1A8, 0xD8)),
    (19041, 19045, (0x388, 0x1D8, 0x108)),
)
PROCESS_FIGURES = tuple(
    LayoutRow(
        "process figures",
        architecture,
        first,
        last,
        {
            "_EPROCESS": {
                name: (offset, kind)
                for name, offset, kind in zip(
                    (*_PROCESS_FIELDS, "PagedQuota"),
                    (*offsets, offsets[2] + (8 if architecture == "x64" else 4)),
                    ("u8", "u4", "ptr", "ptr"),
                    strict=True,
                )
            }
        },
        "public kernel symbols and published headers",
    )
    for architecture, table in (("x64", _PROCESS_X64), ("x86", _PROCESS_X86))
    for first, last, offsets in table
)
# (first build, last build): (StartAddress, Win32StartAddress, ThreadListEntry) of `_ETHREAD`.
_THREADS = {
    ("x64", 3790, 3790): (0x3C0, 0x3C8, 0x3D0),
    ("x64", 6000, 6003): (0x358, 0x3E0, 0x3F0),
    ("x64", 7600, 7601): (0x388, 0x410, 0x420),
    ("x64", 7601, 7601): (0x390, 0x418, 0x428),
    ("x64", 9200, 9200): (0x370, 0x3F0, 0x400),
    ("x64", 9600, 9600): (0x5F8, 0x678, 0x688),
    ("x64", 10240, 14393): (0x600, 0x680, 0x690),
    ("x64", 14393, 14393): (0x608, 0x688, 0x698),
    ("x64", 15063, 15063): (0x610, 0x690, 0x6A0),
    ("x64", 16299, 17763): (0x610, 0x690, 0x6A8),
    ("x64", 18326, 18363): (0x620, 0x6A0, 0x6B8),
    ("x64", 19041, 19045): (0x450, 0x4D0, 0x4E8),
    ("x64", 20348, 22631): (0x4A0, 0x520, 0x538),
    ("x64", 26100, 26200): (0x4E0, 0x560, 0x578),
    ("x86", 2600, 2600): (0x224, 0x228, 0x22C),
    ("x86", 3790, 3790): (0x21C, 0x220, 0x224),
    ("x86", 6000, 6003): (0x1F8, 0x240, 0x248),
    ("x86", 7600, 7601): (0x218, 0x260, 0x268),
    ("x86", 9200, 9200): (0x200, 0x244, 0x24C),
    ("x86", 9600, 9600): (0x350, 0x394, 0x39C),
    ("x86", 10240, 14393): (0x360, 0x3A4, 0x3AC),
    ("x86", 15063, 17763): (0x368, 0x3AC, 0x3B4),
    ("x86", 18362, 18363): (0x370, 0x3B4, 0x3BC),
    ("x86", 19041, 19045): (0x298, 0x2DC, 0x2E4),
}


def thread_starts(architecture: str, build: int, entry: int) -> tuple[int, int] | None:
    """Where `_ETHREAD` keeps what a thread began with: (StartAddress, Win32StartAddress).

    Args:
        architecture: "x86", "x64" or "arm64".
        build: Windows build number.
        entry: Offset of ThreadListEntry in the layout that fits; it tells revisions of one build apart.

    Returns:
        None when that is not known.
    """
    found = (
        offsets
        for (arch, first, last), offsets in _THREADS.items()
        if (arch == "x86") == (architecture == "x86") and first <= build <= last
    )
    return next((offsets[:2] for offsets in found if offsets[2] == entry), None)


# (architecture, first build, last build): how far before Cid `_ETHREAD` keeps ExitTime.
_EXIT_BEFORE_ID = {
    ("x64", 3790, 15063): 0x48,
    ("x64", 16299, 26200): 0x40,
    ("x86", 2600, 19045): 0x24,
}


def exit_before_id(architecture: str, build: int) -> int | None:
    """How far before Cid `_ETHREAD` keeps ExitTime; None where that is not known."""
    for (arch, first, last), distance in _EXIT_BEFORE_ID.items():
        if arch == architecture and first <= build <= last:
            return distance
    return None
