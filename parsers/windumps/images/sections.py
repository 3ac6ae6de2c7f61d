"""What each part of the loaded images may be used for, from the section tables in memory.

Layout: public, the PE format's specification (IMAGE_FILE_HEADER, IMAGE_SECTION_HEADER).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT
from windumps.images.modules import Module
from windumps.memory import AddressSpace

HEADER_BYTES = 0x1000
_PE_OFFSET = 0x3C  # IMAGE_DOS_HEADER.e_lfanew
_NUMBER_OF_SECTIONS = 6  # from the signature "PE\0\0"
_SIZE_OF_OPTIONAL_HEADER = 20
_OPTIONAL_HEADER = 24
_SECTION_BYTES = 40
_VIRTUAL_SIZE = 8  # in IMAGE_SECTION_HEADER; VirtualAddress follows
_CHARACTERISTICS = 36

MEM_EXECUTE = 0x20000000  # IMAGE_SCN_MEM_*
MEM_READ = 0x40000000
MEM_WRITE = 0x80000000
MEM_DISCARDABLE = 0x02000000
_ACCESS = MEM_EXECUTE | MEM_READ | MEM_WRITE


class Section(NamedTuple):
    """One section of a loaded image.

    Attributes:
        start: Address.
        size: Bytes.
        flags: Characteristics, `MEM_*` among them.
        name: ".text"; "" when it has none.
    """

    start: int
    size: int
    flags: int
    name: str


class SectionMap:
    """Looks up sections by address, a column at once.

    Images whose headers are not in the dump have no sections here.
    """

    def __init__(self, memory: AddressSpace, modules: Iterable[Module]) -> None:
        rows = sorted(row for module in modules for row in read_sections(memory, module))
        self._start = np.array([row[0] for row in rows], np.uint64)
        self._size = np.array([row[1] for row in rows], np.uint64)
        self._access = np.array([row[2] & _ACCESS for row in rows], np.uint32)

    def access(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint32]:
        """`MEM_*` flags of the section that holds each address; 0 where none does."""
        if not len(self._start):
            return np.zeros(addresses.shape, np.uint32)
        index = np.searchsorted(self._start, addresses, "right") - 1
        safe = np.maximum(index, 0)
        inside = (index >= 0) & (addresses - self._start[safe] < self._size[safe])
        return np.where(inside, self._access[safe], 0).astype(np.uint32)


def read_sections(memory: AddressSpace, module: Module) -> list[Section]:
    """The sections that lie inside an image, as listed; none when its headers are not in the dump."""
    header = memory.read_available(module.base_address, min(HEADER_BYTES, module.size_bytes))
    if header[:2] != b"MZ" or len(header) < _PE_OFFSET + 4:
        return []
    pe = int.from_bytes(header[_PE_OFFSET : _PE_OFFSET + 4], "little")
    if header[pe : pe + 4] != b"PE\0\0" or len(header) < pe + _OPTIONAL_HEADER:
        return []
    (count,) = struct.unpack_from("<H", header, pe + _NUMBER_OF_SECTIONS)
    (optional,) = struct.unpack_from("<H", header, pe + _SIZE_OF_OPTIONAL_HEADER)
    found = []
    first, last = pe + _OPTIONAL_HEADER + optional, len(header) - _SECTION_BYTES
    for at in range(first, last + 1, _SECTION_BYTES)[:count]:
        size, rva = struct.unpack_from("<II", header, at + _VIRTUAL_SIZE)
        (flags,) = struct.unpack_from("<I", header, at + _CHARACTERISTICS)
        start = module.base_address + rva
        if size and rva + size <= module.size_bytes and start + size <= ADDRESS_LIMIT:
            name = header[at : at + 8].split(b"\0", 1)[0].decode("latin-1")
            found.append(Section(start, size, flags, name))
    return found
