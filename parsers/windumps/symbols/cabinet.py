"""Compressed symbol files (`name.pd_`): a cabinet, or a zip archive, that holds one file.

Layout: Microsoft's "Cabinet File Format" and [MS-MCI] for MSZIP. Own code, because the one kept
Python library reads a whole cabinet into memory and lacks LZX, which `symstore /compress` writes.
Cabinets over several files and Quantum are not read.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from windumps.symbols.errors import CompressedSymbolsError
from windumps.symbols.lzx import LzxDecoder

_HEADER = struct.Struct("<4sIIIIIBBHHHHH")
_RESERVE = struct.Struct("<HBB")
_FOLDER = struct.Struct("<IHH")
_FILE = struct.Struct("<IIHHHH")
_DATA = struct.Struct("<IHH")
_HAS_PREVIOUS, _HAS_NEXT, _HAS_RESERVE = 1, 2, 4
_NO_COMPRESSION, _MSZIP, _QUANTUM, _LZX = range(4)
COMPRESSED_MAGICS = (b"MSCF", b"PK\x03\x04")
BLOCK_BYTES = 0x8000  # what one data block gives at most
MAX_UNPACKED_BYTES = 8 << 30


def unpack(path: Path, target: IO[bytes]) -> None:
    """Writes the one file in a compressed symbol file to `target`.

    Raises:
        CompressedSymbolsError: damaged, of a kind that is not read, or too large.
        OSError: a file cannot be read or written.
    """
    with path.open("rb") as source:
        magic = source.read(4)
        source.seek(0)
        if magic == COMPRESSED_MAGICS[0]:
            for piece in _Cabinet(path, source).pieces():
                target.write(piece)
        elif magic == COMPRESSED_MAGICS[1]:
            _unzip(path, source, target)
        else:
            raise CompressedSymbolsError(f"{path}: neither a cabinet nor a zip archive")


def _unzip(path: Path, source: IO[bytes], target: IO[bytes]) -> None:
    """What `symstore /compress ZIP` writes."""
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            if len(members) != 1 or members[0].compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise CompressedSymbolsError(f"{path}: not one deflated file in a zip archive")
            written = 0
            with archive.open(members[0]) as member:
                while piece := member.read(1 << 20):
                    written += len(piece)
                    if written > MAX_UNPACKED_BYTES:
                        raise CompressedSymbolsError(f"{path}: unpacks to more than the limit")
                    target.write(piece)
    # zipfile's own words for fields that make no sense to it.
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise CompressedSymbolsError(f"{path}: damaged ({error}); fetch it again") from error


class _Cabinet:
    """A cabinet of one file."""

    def __init__(self, path: Path, source: IO[bytes]) -> None:
        self._path = path
        self._source = source
        head = _HEADER.unpack(self._read(_HEADER.size, "its header"))
        files_at, folders, files, flags = head[4], head[8], head[9], head[10]
        if flags & (_HAS_PREVIOUS | _HAS_NEXT):
            raise self._error("it is one part of several cabinets, which are not read")
        self._data_reserve = 0
        if flags & _HAS_RESERVE:
            skipped, _, self._data_reserve = _RESERVE.unpack(
                self._read(_RESERVE.size, "its header")
            )
            self._read(skipped, "its header")
        if folders != 1 or files != 1:
            raise self._error(f"it holds {files} files in {folders} folders, not one file")
        self._data_at, self._blocks, self._method = _FOLDER.unpack(
            self._read(_FOLDER.size, "its folder")
        )
        source.seek(files_at)
        size, start, *_ = _FILE.unpack(self._read(_FILE.size, "its file entry"))
        if size > self._blocks * BLOCK_BYTES or start:
            raise self._error(f"{size} bytes do not fit in {self._blocks} blocks")
        self._size = size

    def _error(self, reason: str) -> CompressedSymbolsError:
        return CompressedSymbolsError(f"{self._path}: {reason}")

    def _read(self, size: int, structure: str) -> bytes:
        data = self._source.read(size)
        if len(data) < size:
            raise self._error(f"the file ends inside {structure}; fetch it again")
        return data

    def pieces(self) -> Iterator[bytes]:
        """The file's bytes, a block at a time."""
        decode = self._decoder()
        left = self._size
        self._source.seek(self._data_at)
        for number in range(self._blocks):
            checksum, packed, unpacked = _DATA.unpack(self._read(_DATA.size, "a data block"))
            self._read(self._data_reserve, "a data block")
            data = self._read(packed, "a data block")
            if not 0 < unpacked <= BLOCK_BYTES:
                raise self._error(f"block {number} claims {unpacked} bytes")
            if checksum:
                head = struct.pack("<HH", packed, unpacked)
                if checksum != _checksum(head, _checksum(data, 0)):
                    raise self._error(f"block {number} is damaged; fetch it again")
            try:
                piece = decode(data, unpacked)
            except (ValueError, zlib.error) as error:
                raise self._error(f"block {number} is damaged ({error}); fetch it again") from error
            if len(piece) != unpacked:
                raise self._error(f"block {number} gives {len(piece)} bytes, not {unpacked}")
            yield piece[:left]
            left -= min(left, unpacked)
        if left:
            raise self._error(f"its file is {left} bytes short; fetch it again")

    def _decoder(self) -> Callable[[bytes, int], bytes]:
        method = self._method & 0xF
        if method == _NO_COMPRESSION:
            return lambda data, unpacked: data
        if method == _MSZIP:
            return _MszipDecoder().decode
        if method == _LZX:
            try:
                return LzxDecoder(self._method >> 8 & 0x1F).decode
            except ValueError as error:
                raise self._error(str(error)) from error
        name = "Quantum" if method == _QUANTUM else f"method {method}"
        raise self._error(f"compressed with {name}, which is not read; unpack it first")


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
