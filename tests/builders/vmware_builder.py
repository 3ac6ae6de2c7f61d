"""Writes the state of a VMware machine (`.vmss`, `.vmsn`), after what volatility3 documents of it."""

from __future__ import annotations

import struct

PAGE = 0x1000
VERSION = {2: 0xBED2BED2, 0: 0xBED2BED0}


def tag(name: bytes, value: bytes, *indices: int) -> bytes:
    """A tag with a short value."""
    flags = len(indices) << 6 | len(value)
    return bytes((flags, len(name))) + name + struct.pack(f"<{len(indices)}I", *indices) + value


def long_tag(name: bytes, data: bytes, *indices: int, version: int = 2, padding: int = 6) -> bytes:
    """A tag with long data: its length on disk and in memory, then padding of so many bytes."""
    lengths = struct.pack("<QQ" if version else "<II", len(data), len(data))
    head = bytes((len(indices) << 6 | 62, len(name))) + name
    head += struct.pack(f"<{len(indices)}I", *indices)
    return head + lengths + struct.pack("<H", padding) + bytes(padding) + data


def state(regions: list[tuple[int, int, int]], version: int = 2) -> bytes:
    """A state whose group of memory has regions: (page in the machine, page in the file, pages)."""
    tags = long_tag(b"screen", b"\x5a" * 0x123, version=version)
    tags += tag(b"align_mask", struct.pack("<I", 0xFFFF))
    tags += tag(b"regionsCount", struct.pack("<I", len(regions)))
    for number, (page, place, pages) in enumerate(regions):
        for name, value in (
            (b"regionPPN", page),
            (b"regionPageNum", place),
            (b"regionSize", pages),
        ):
            tags += tag(name, struct.pack("<I", value), number)
    tags += tag(b"Memory", b"", 0, 0)
    other = tag(b"cpu", struct.pack("<Q", 4)) + b"\0\0"
    groups = [(b"Checkpoint", other), (b"memory", tags + b"\0\0")]
    raw = struct.pack("<III", VERSION[version], 8, len(groups))
    at = len(raw) + 80 * len(groups)
    for name, content in groups:
        raw += struct.pack("<64sQQ", name, at, 0)
        at += len(content)
    return raw + b"".join(content for _, content in groups)
