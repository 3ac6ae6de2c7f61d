"""Cabinets (`.cab`, `.pd_`): the files they hold, unpacked one at a time in bounded memory.

Layout: Microsoft's "Cabinet File Format" and [MS-MCI] for MSZIP. Own code, because the one kept
Python library reads a whole cabinet into memory and lacks LZX, which `symstore /compress` writes.
Cabinets over several files and Quantum are not read.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np

from windumps.errors import WindumpsError
from windumps.unpack.lzx import LzxDecoder

MAGIC = b"MSCF"
BLOCK_BYTES = 0x8000  # what one data block gives at most

_HEADER = struct.Struct("<4sIIIIIBBHHHHH")
_RESERVE = struct.Struct("<HBB")
_FOLDER = struct.Struct("<IHH")
_FILE = struct.Struct("<IIHHHH")
_DATA = struct.Struct("<IHH")
_HAS_PREVIOUS, _HAS_NEXT, _HAS_RESERVE = 1, 2, 4
_NAME_IS_UTF8 = 0x80
_NAME_BYTES = 256
_NO_COMPRESSION, _MSZIP, _QUANTUM, _LZX = range(4)


class CabinetError(WindumpsError):
    """The cabinet is damaged or cut; `str()` says where, without the file's name."""


class UnsupportedCabinetError(CabinetError):
    """A cabinet of a kind that is not read."""


class CabinetFile(NamedTuple):
    """One file in a cabinet.

    Attributes:
        name: As stored, with backslashes between folders.
        size: Bytes unpacked.
        start: Where it begins in what its folder gives, in bytes.
        folder: Index of the folder whose blocks hold it.
    """

    name: str
    size: int
    start: int
    folder: int


class _Folder(NamedTuple):
    """Data blocks that are unpacked one after the other."""

    data_at: int
    blocks: int
    method: int


class Cabinet:
    """The files of a cabinet.

    Args:
        source: The cabinet, seekable.

    Attributes:
        files: In the order of the cabinet.

    Raises:
        CabinetError: damaged, or of a kind that is not read.
        OSError: it cannot be read.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        head = _HEADER.unpack(self._read(_HEADER.size, "its header"))
        files_at, folders, files, flags = head[4], head[8], head[9], head[10]
        if head[0] != MAGIC:
            raise CabinetError("no cabinet")
        if flags & (_HAS_PREVIOUS | _HAS_NEXT):
            raise UnsupportedCabinetError("it is one part of several cabinets, which are not read")
        reserve, self._data_reserve = 0, 0
        if flags & _HAS_RESERVE:
            size, reserve, self._data_reserve = _RESERVE.unpack(
                self._read(_RESERVE.size, "its header")
            )
            self._read(size, "its header")
        self._folders = [self._folder(reserve) for _ in range(folders)]
        source.seek(files_at)
        self.files = [self._file() for _ in range(files)]

    def _read(self, size: int, structure: str) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise CabinetError(f"the file ends inside {structure}")
        return data

    def _folder(self, reserve: int) -> _Folder:
        folder = _Folder(*_FOLDER.unpack(self._read(_FOLDER.size, "its folder")))
        self._read(reserve, "its folder")
        return folder

    def _file(self) -> CabinetFile:
        at = self._source.tell()
        size, start, folder, _, _, attributes = _FILE.unpack(
            self._read(_FILE.size, "its file entry")
        )
        name, end, _ = self._source.read(_NAME_BYTES + 1).partition(b"\0")
        if not end:
            raise CabinetError("the file ends inside its file entry, or a name is too long")
        self._source.seek(at + _FILE.size + len(name) + 1)
        encoding = "utf-8" if attributes & _NAME_IS_UTF8 else "cp1252"
        return CabinetFile(name.decode(encoding, "replace"), size, start, folder)

    def pieces(self, file: CabinetFile) -> Iterator[bytes]:
        """The bytes of one of `files`, a block at a time.

        Raises:
            CabinetError: damaged, or packed in a way that is not read.
            OSError: the cabinet cannot be read.
        """
        if file.folder >= len(self._folders):
            raise CabinetError(f"its file lies in folder {file.folder}, which is not there")
        folder = self._folders[file.folder]
        if file.start + file.size > folder.blocks * BLOCK_BYTES:
            raise CabinetError(f"{file.size} bytes do not fit in {folder.blocks} blocks")
        decode = _decoder(folder.method)
        return self._pieces(file, folder, decode)

    def _pieces(
        self, file: CabinetFile, folder: _Folder, decode: Callable[[bytes, int], bytes]
    ) -> Iterator[bytes]:
        skip, left = file.start, file.size
        self._source.seek(folder.data_at)
        for number in range(folder.blocks):
            if not left:
                return
            # Each block is unpacked with the ones before, so those of other files are as well.
            piece = self._block(number, decode)
            wanted = piece[skip : skip + left]
            skip -= min(skip, len(piece))
            left -= len(wanted)
            yield wanted
        if left:
            raise CabinetError(f"its file is {left} bytes short")

    def _block(self, number: int, decode: Callable[[bytes, int], bytes]) -> bytes:
        checksum, packed, unpacked = _DATA.unpack(self._read(_DATA.size, "a data block"))
        self._read(self._data_reserve, "a data block")
        data = self._read(packed, "a data block")
        if not 0 < unpacked <= BLOCK_BYTES:
            raise CabinetError(f"block {number} claims {unpacked} bytes")
        if checksum:
            head = struct.pack("<HH", packed, unpacked)
            if checksum != _checksum(head, _checksum(data, 0)):
                raise CabinetError(f"block {number} is damaged")
        try:
            piece = decode(data, unpacked)
        except (ValueError, zlib.error) as error:
            raise CabinetError(f"block {number} is damaged ({error})") from error
        if len(piece) != unpacked:
            raise CabinetError(f"block {number} gives {len(piece)} bytes, not {unpacked}")
        return piece


def _decoder(compression: int) -> Callable[[bytes, int], bytes]:
    """What unpacks the blocks of a folder in turn."""
    method = compression & 0xF
    if method == _NO_COMPRESSION:
        return lambda data, unpacked: data
    if method == _MSZIP:
        return _MszipDecoder().decode
    if method == _LZX:
        try:
            return LzxDecoder(compression >> 8 & 0x1F).decode
        except ValueError as error:
            raise CabinetError(str(error)) from error
    name = "Quantum" if method == _QUANTUM else f"method {method}"
    raise UnsupportedCabinetError(f"compressed with {name}, which is not read")


class _MszipDecoder:
    """MSZIP: each block is deflated on its own, with the block before as dictionary."""

    def __init__(self) -> None:
        self._before = b""

    def decode(self, data: bytes, unpacked: int) -> bytes:
        if data[:2] != b"CK":
            raise ValueError("no MSZIP signature")
        inflate = zlib.decompressobj(-zlib.MAX_WBITS, zdict=self._before)
        self._before = inflate.decompress(data[2:], unpacked + 1)
        return self._before


def _checksum(data: bytes, seed: int) -> int:
    """CSUMCompute of the cabinet documentation: exclusive or of 32-bit words."""
    whole = len(data) // 4 * 4
    result = seed ^ int(np.bitwise_xor.reduce(np.frombuffer(data[:whole], "<u4"), initial=0))
    # The last one to three bytes count from the top.
    return result ^ int.from_bytes(data[whole:], "big")
