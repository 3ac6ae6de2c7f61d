"""The headers of an image in memory: what it is, and which PDB belongs to it.

Layout: public, the PE format's specification.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from windumps.images.modules import PdbIdentity, parse_codeview
from windumps.memory import AddressSpace

HEADER_BYTES = 0x1000
MAX_IMAGE_BYTES = 1 << 30
MAX_DEBUG_ENTRIES = 32
MAX_CODEVIEW_BYTES = 0x400
_CODEVIEW = 2  # IMAGE_DEBUG_TYPE_CODEVIEW
_EXPORT_DIRECTORY = 0  # IMAGE_DIRECTORY_ENTRY_EXPORT
_RESOURCE_DIRECTORY = 2  # IMAGE_DIRECTORY_ENTRY_RESOURCE
_DEBUG_DIRECTORY = 6  # IMAGE_DIRECTORY_ENTRY_DEBUG
_EXPORT_NAME = 12  # IMAGE_EXPORT_DIRECTORY.Name
MAX_NAME = 0x100
_OPTIONAL_HEADER = 24  # from the PE signature
_SIZE_OF_IMAGE = _OPTIONAL_HEADER + 56
_CHECKSUM = _OPTIONAL_HEADER + 64
_CHARACTERISTICS = 22  # from the PE signature
_IS_DLL = 0x2000  # IMAGE_FILE_DLL
# Where the data directories begin in the optional header, by its magic.
_DIRECTORIES = {b"\x0b\x01": 96, b"\x0b\x02": 112}
MACHINES = {0x14C: "x86", 0x8664: "x64", 0xAA64: "arm64"}


@dataclass(frozen=True)
class ImageHeader:
    """Of one image.

    Attributes:
        architecture: "x86", "x64", "arm64", or "" for others.
        timestamp: TimeDateStamp.
        size_bytes: SizeOfImage.
        pdb: Identity of its PDB; None when the debug directory is absent.
        checksum: CheckSum; 0 when the linker set none.
        is_dll: False for programs.
        resources: RVA of the resource directory; 0 without.
    """

    architecture: str
    timestamp: int
    size_bytes: int
    pdb: PdbIdentity | None
    checksum: int = 0
    is_dll: bool = False
    resources: int = 0


def read_image_header(memory: AddressSpace, base: int) -> ImageHeader | None:
    """Reads the headers of the image at an address; None when there are none in the dump."""
    raw = memory.read_available(base, HEADER_BYTES)
    pe = _pe_offset(raw)
    if pe is None:
        return None
    machine, _, timestamp = struct.unpack_from("<HHI", raw, pe + 4)
    (size,) = struct.unpack_from("<I", raw, pe + _SIZE_OF_IMAGE)
    (checksum,) = struct.unpack_from("<I", raw, pe + _CHECKSUM)
    (characteristics,) = struct.unpack_from("<H", raw, pe + _CHARACTERISTICS)
    if not 0 < size <= MAX_IMAGE_BYTES:
        return None
    rva, length = _directory(raw, pe, _DEBUG_DIRECTORY)
    return ImageHeader(
        MACHINES.get(machine, ""),
        timestamp,
        size,
        _pdb(memory, base, size, rva, length),
        checksum,
        bool(characteristics & _IS_DLL),
        _directory(raw, pe, _RESOURCE_DIRECTORY)[0],
    )


def read_export_name(memory: AddressSpace, base: int) -> str:
    """The file name that the image at an address was linked under; "" when it exports nothing."""
    raw = memory.read_available(base, HEADER_BYTES)
    pe = _pe_offset(raw)
    rva = _directory(raw, pe, _EXPORT_DIRECTORY)[0] if pe is not None else 0
    if not rva:
        return ""
    place = memory.read_available(base + rva + _EXPORT_NAME, 4)
    where = int.from_bytes(place, "little")
    name = memory.read_available(base + where, MAX_NAME).split(b"\0", 1)[0] if where else b""
    text = name.decode("latin-1")
    return text if len(name) < MAX_NAME and text.isascii() and text.isprintable() else ""


def _pe_offset(raw: bytes) -> int | None:
    """Where the PE signature is in the bytes of a header; None when they are no image's."""
    if raw[:2] != b"MZ" or len(raw) < 0x40:
        return None
    pe = int.from_bytes(raw[0x3C:0x40], "little")
    if raw[pe : pe + 4] != b"PE\0\0" or len(raw) < pe + 0xC0:
        return None
    return pe if raw[pe + _OPTIONAL_HEADER :][:2] in _DIRECTORIES else None


def _directory(raw: bytes, pe: int, number: int) -> tuple[int, int]:
    """(RVA, bytes) of a data directory; zeros when the header is cut."""
    optional = pe + _OPTIONAL_HEADER
    entry = optional + _DIRECTORIES[raw[optional : optional + 2]] + 8 * number
    return struct.unpack_from("<II", raw, entry) if entry + 8 <= len(raw) else (0, 0)


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
