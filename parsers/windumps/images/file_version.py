"""The file version that an image in memory carries in its resources.

Layout: public, the PE format's specification (.rsrc) and VS_FIXEDFILEINFO of the Windows SDK.
"""

from __future__ import annotations

import struct

from windumps.memory import AddressSpace

MAX_ENTRIES = 256  # of one resource directory
_VERSION = 16  # RT_VERSION
_SUBDIRECTORY = 0x8000_0000
_FIXED_AT = 40  # VS_VERSIONINFO: lengths and its name stand before it
_SIGNATURE = 0xFEEF04BD


def read_file_version(memory: AddressSpace, base: int, rva: int, size: int) -> str:
    """The version, "10.0.19041.3324"; "" where the image has none, or it is not in the dump.

    Args:
        memory: Where the image lies.
        base: Its load address.
        rva: Of its resource directory.
        size: Of the image.
    """
    at = _child(memory, base + rva, 0, _VERSION) if 0 < rva < size else 0
    for _ in ("name", "language"):
        if not at & _SUBDIRECTORY:
            return ""
        at = _child(memory, base + rva, at & ~_SUBDIRECTORY, None)
    if not at or at & _SUBDIRECTORY:
        return ""
    (where,) = struct.unpack("<I", memory.read_available(base + rva + at, 4).ljust(4, b"\0"))
    raw = memory.read_available(base + where + _FIXED_AT, 16) if 0 < where < size else b""
    if len(raw) < 16:
        return ""
    signature, _, high, low = struct.unpack("<4I", raw)
    if signature != _SIGNATURE:
        return ""
    return f"{high >> 16}.{high & 0xFFFF}.{low >> 16}.{low & 0xFFFF}"


def _child(memory: AddressSpace, root: int, at: int, wanted: int | None) -> int:
    """What an entry of a resource directory leads to: the one with an id, or the first; 0 for none."""
    raw = memory.read_available(root + at, 16)
    if len(raw) < 16:
        return 0
    named, by_id = struct.unpack_from("<HH", raw, 12)
    count = min(named + by_id, MAX_ENTRIES)
    entries = memory.read_available(root + at + 16, 8 * count)
    for place in range(0, len(entries) - 7, 8):
        identity, leads_to = struct.unpack_from("<II", entries, place)
        if wanted is None or identity == wanted:
            return int(leads_to)
    return 0
