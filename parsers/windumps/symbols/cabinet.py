"""Compressed symbol files (`name.pd_`): a cabinet, or a zip archive, that holds one file.

`symstore /compress` writes them.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

from windumps.cabinet import MAGIC, Cabinet, CabinetError, UnsupportedCabinetError
from windumps.symbols.errors import CompressedSymbolsError

COMPRESSED_MAGICS = (MAGIC, b"PK\x03\x04")
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
            _uncab(path, source, target)
        elif magic == COMPRESSED_MAGICS[1]:
            _unzip(path, source, target)
        else:
            raise CompressedSymbolsError(f"{path}: neither a cabinet nor a zip archive")


def _uncab(path: Path, source: IO[bytes], target: IO[bytes]) -> None:
    try:
        cabinet = Cabinet(source)
        if len(cabinet.files) != 1:
            raise CompressedSymbolsError(f"{path}: it holds {len(cabinet.files)} files, not one")
        for piece in cabinet.pieces(cabinet.files[0]):
            target.write(piece)
    except UnsupportedCabinetError as error:
        raise CompressedSymbolsError(f"{path}: {error}; unpack it first") from error
    except CabinetError as error:
        raise CompressedSymbolsError(f"{path}: {error}; fetch it again") from error


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
