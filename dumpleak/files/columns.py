"""The columns of a snapshot file, and the library that reads and writes them."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.optional_libraries import missing_extra

MAGIC = b"PAR1"  # first and last bytes of every Parquet file
METADATA_KEY = "dumpleak"
MAX_METADATA_BYTES = 1 << 28
ROWS_AT_ONCE = 1 << 20

# Column → its type, as pyarrow names it. Rows ascend by address.
COLUMNS = {
    "address": "uint64",  # what the program got
    "size": "int64",  # bytes the program asked for; null where the allocator does not keep it
    "block_bytes": "int64",  # bytes taken from the heap
    "kind": "string",  # "nt-lfh"
    "heap": "string",  # "heap 1"
    "site": "int32",  # index into the metadata's groups.site
    "site_name": "string",
    "detail": "int32",  # which of the site's classes, see `Metadata.classes`
    "shape": "uint16",  # see `content_shapes`
}

# Packed as differences of neighbours, so that no number stands in the file as it stands in memory.
DELTA_COLUMNS = ("address", "size", "block_bytes", "site", "detail")


def pack(text: str) -> str:
    """Metadata as it stands in the file: a tenth of its size."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def unpack(packed: bytes) -> bytes:
    """The metadata that `pack` made.

    Raises:
        ValueError: it is damaged, or larger than any dump's.
    """
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(base64.b64decode(packed, validate=True), MAX_METADATA_BYTES)
    except zlib.error as error:
        raise ValueError(f"its metadata is damaged: {error}") from error
    if not reader.eof:
        raise ValueError("its metadata is cut, or too large")
    return text


def pack_flags(flags: NDArray[np.bool_]) -> str:
    """One bit a block, as it stands in the metadata."""
    return base64.b64encode(zlib.compress(np.packbits(flags).tobytes(), 9)).decode()


def unpack_flags(packed: str, count: int) -> NDArray[np.bool_]:
    """The flags that `pack_flags` made.

    Args:
        packed: The text.
        count: How many flags there are.

    Raises:
        ValueError: it is damaged, or of another number of flags.
    """
    size = (count + 7) // 8
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.b64decode(packed, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(f"its flags are damaged: {error}") from error
    if len(data) != size:
        raise ValueError("its flags are of another number of blocks")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(np.bool_)


def arrow() -> Any:
    """The pyarrow module.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise missing_extra("snapshot files", "pyarrow", "snapshots") from error
    return pyarrow


def is_snapshot(head: bytes) -> bool:
    """True when the first bytes of a file are a snapshot's, or another Parquet file's."""
    return head.startswith(MAGIC)
