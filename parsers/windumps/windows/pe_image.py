"""The headers of an image in memory: what it is, and which PDB belongs to it.

Layout: public, the PE format's specification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from windumps.memory import AddressSpace
from windumps.windows.modules import PdbIdentity, parse_codeview

HEADER_BYTES = 0x1000
MAX_IMAGE_BYTES = 1 << 30
MAX_DEBUG_ENTRIES = 32
MAX_CODEVIEW_BYTES = 0x400
_CODEVIEW = 2  # IMAGE_DEBUG_TYPE_CODEVIEW
_DEBUG_DIRECTORY = 6  # IMAGE_DIRECTORY_ENTRY_DEBUG
MACHINES = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64"}


@dataclass(frozen=True)
class ImageHeader:
    """Of one image.

    Attributes:
        architecture: "x86", "x64", "arm64", or "" for others.
        timestamp: TimeDateStamp.
        size_bytes: SizeOfImage.
        pdb: Identity of its PDB; None when the debug directory is absent.
    """

    architecture: str
    timestamp: int
    size_bytes: int
    pdb: PdbIdentity | None


def read_image_header(memory: AddressSpace, base: int) -> ImageHeader | None:
    """Reads the headers of the image at an address; None when there are none in the dump."""
    raw = memory.read_available(base, HEADER_BYTES)
    if raw[:2] != b"MZ" or len(raw) < 0x40:
        return None
    pe = int.from_bytes(raw[0x3C:0x40], "little")
    if raw[pe : pe + 4] != b"PE\0\0" or len(raw) < pe + 0xC0:
        return None
    machine, _, timestamp = struct.unpack_from("<HHI", raw, pe + 4)
    optional = pe + 24
    (magic,) = struct.unpack_from("<H", raw, optional)
    directories = {0x10B: optional + 96, 0x20B: optional + 112}.get(magic)
    (size,) = struct.unpack_from("<I", raw, optional + 56)
    if directories is None or not 0 < size <= MAX_IMAGE_BYTES:
        return None
    entry = directories + 8 * _DEBUG_DIRECTORY
    pdb = None
    if entry + 8 <= len(raw):
        rva, length = struct.unpack_from("<II", raw, entry)
        pdb = _pdb(memory, base, size, rva, length)
    return ImageHeader(MACHINES.get(machine, ""), timestamp, size, pdb)


def _pdb(memory: AddressSpace, base: int, size: int, rva: int, length: int) -> PdbIdentity | None:
    count = min(length // 28, MAX_DEBUG_ENTRIES)
    raw = memory.read_available(base + rva, count * 28) if 0 < rva < size else b""
    for number in range(len(raw) // 28):
        kind, bytes_, where = struct.unpack_from("<III", raw, number * 28 + 12)
        if kind == _CODEVIEW and 0 < where < size:
            record = memory.read_available(base + where, min(bytes_, MAX_CODEVIEW_BYTES))
            found = parse_codeview(record)
            if found is not None:
                return found
    return None
