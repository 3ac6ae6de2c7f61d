"""Compressed symbol files (`name.pd_`): a cabinet, or a zip archive, that holds one file.

`symstore /compress` writes them.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from windumps.files import DiskRoom, open_file
from windumps.symbols.errors import CompressedSymbolsError
from windumps.unpack.cabinet import MAGIC, Cabinet, CabinetError, UnsupportedCabinetError
from windumps.unpack.zips import TooLongListError, open_zip

MAX_UNPACKED_BYTES = 8 << 30


def unpack(path: Path, target: IO[bytes], room: DiskRoom | None = None) -> None:
    """Writes the one file in a compressed symbol file to `target`.

    Args:
        path: The compressed file.
        target: Where to.
        room: Of the disk that holds `target`; None for one that is not on a disk.

    Raises:
        CompressedSymbolsError: damaged, of a kind that is not read, or too large.
        OSError: a file cannot be read or written.
    """
    with open_file(path) as source:
        magic = source.read(4)
        source.seek(0)
        if magic not in _READERS:
            raise CompressedSymbolsError(f"{path}: neither a cabinet nor a zip archive")
        written = 0
        for piece in _READERS[magic](path, source):
            written += len(piece)
            if written > MAX_UNPACKED_BYTES:
                raise CompressedSymbolsError(f"{path}: unpacks to more than the limit")
            if room is not None and not room.has(len(piece)):
                free = f"{room.free >> 20} MiB free in {room.folder}"
                raise CompressedSymbolsError(f"{path}: unpacked it needs more than the {free}")
            target.write(piece)


def _cab(path: Path, source: BinaryIO) -> Iterator[bytes]:
    try:
        cabinet = Cabinet(source)
        if len(cabinet.files) != 1:
            raise CompressedSymbolsError(f"{path}: it holds {len(cabinet.files)} files, not one")
        yield from cabinet.pieces(cabinet.files[0])
    except UnsupportedCabinetError as error:
        raise CompressedSymbolsError(f"{path}: {error}; unpack it first") from error
    except CabinetError as error:
        raise CompressedSymbolsError(f"{path}: {error}; fetch it again") from error


def _zip(path: Path, source: BinaryIO) -> Iterator[bytes]:
    """What `symstore /compress ZIP` writes."""
    try:
        with open_zip(source) as archive:
            members = archive.infolist()
            if len(members) != 1 or members[0].compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise CompressedSymbolsError(f"{path}: not one deflated file in a zip archive")
            with archive.open(members[0]) as member:
                while piece := member.read(1 << 20):
                    yield piece
    except TooLongListError as error:
        raise CompressedSymbolsError(f"{path}: {error}") from error
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


_READERS: dict[bytes, Callable[[Path, BinaryIO], Iterator[bytes]]] = {
    MAGIC: _cab,
    b"PK\x03\x04": _zip,
}
COMPRESSED_MAGICS = tuple(_READERS)
