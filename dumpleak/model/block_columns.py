"""Columns of many blocks in order of key and address, put together in little memory.

A leak may be of more than a hundred million blocks: 13 bytes a block are kept, and 25 are taken while they
are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64

Columns = tuple[U64, U64, I64, NDArray[np.uint8]]  # key, address, size, kind

CHUNK = 1 << 16  # rows whose keys are numbered at once
_ADDRESS, _SIZE, _KIND, _NUMBER = range(4)


@dataclass(frozen=True)
class SortedColumns:
    """Blocks ascending by key and address.

    Attributes:
        keys: uint64: all keys, ascending.
        starts: int64: the first row of each key, and the number of rows.
        address: uint64.
        size: uint32, or int64 where that is too narrow.
        kind: uint8.
    """

    keys: U64
    starts: I64
    address: U64
    size: NDArray[Any]
    kind: NDArray[np.uint8]


class _Chunk:
    """Some rows; the columns are taken out of it one by one, so that they need not be there twice."""

    def __init__(self, pieces: list[Columns]) -> None:
        key, address, size, kind = (np.concatenate(column) for column in zip(*pieces, strict=True))
        self.keys, number = np.unique(key, return_inverse=True)
        self.rows = len(address)
        self.lowest, self.highest = int(address.min()), int(address.max())
        self.all_bits = int(np.bitwise_or.reduce(address))
        narrow = int(size.min()) >= 0 and int(size.max()) <= np.iinfo(np.uint32).max
        self.size_type: type = np.uint32 if narrow else np.int64
        self.columns: list[NDArray[Any] | None] = [
            address,
            size.astype(self.size_type),
            kind,
            number.reshape(-1).astype(np.uint32),
        ]

    def take(self, column: int) -> NDArray[Any]:
        """One column, which is gone then."""
        taken = self.columns[column]
        self.columns[column] = None
        return taken if taken is not None else np.empty(0, np.uint8)


def sorted_columns(pieces: Iterable[Columns]) -> SortedColumns:
    """Puts rows in order.

    Args:
        pieces: (key, address, size, kind) of some rows each, in any order.
    """
    chunks: list[_Chunk] = []
    pending: list[Columns] = []
    rows = 0
    for piece in pieces:
        for start in range(0, len(piece[0]), CHUNK):
            rows_of, (key, address, size, kind) = slice(start, start + CHUNK), piece
            pending.append((key[rows_of], address[rows_of], size[rows_of], kind[rows_of]))
            rows += len(key[rows_of])
            if rows >= CHUNK:
                chunks.append(_Chunk(pending))
                pending, rows = [], 0
    if pending:
        chunks.append(_Chunk(pending))
    if not chunks:
        none = np.empty(0, np.uint64)
        nothing = np.empty(0, np.uint32), np.empty(0, np.uint8)
        return SortedColumns(none, np.zeros(1, np.int64), none, *nothing)
    return _in_order(chunks)


def _in_order(chunks: list[_Chunk]) -> SortedColumns:
    keys = np.unique(np.concatenate([chunk.keys for chunk in chunks]))
    lowest = min(chunk.lowest for chunk in chunks)
    bits = 0
    for chunk in chunks:
        bits |= chunk.all_bits
    shift = (bits & -bits).bit_length() - 1 if bits else 0
    width = (max(chunk.highest for chunk in chunks) - lowest >> shift).bit_length()
    wide = any(chunk.size_type is np.int64 for chunk in chunks)
    address = _joined(chunks, _ADDRESS, np.uint64)
    size = _joined(chunks, _SIZE, np.int64 if wide else np.uint32)
    kind = _joined(chunks, _KIND, np.uint8)
    number = _joined(chunks, _NUMBER, np.uint32, lambda c, n: np.searchsorted(keys, c.keys)[n])
    if width + len(keys).bit_length() > 64:  # addresses of no real system
        order = np.lexsort((address, number))
        starts = np.searchsorted(number[order], np.arange(len(keys) + 1))
        return SortedColumns(keys, starts, address[order], size[order], kind[order])
    # Key and address in one number, which is sorted in place.
    address -= np.uint64(lowest)
    address >>= np.uint64(shift)
    for start in range(0, len(address), CHUNK):
        rows = slice(start, start + CHUNK)
        address[rows] |= number[rows].astype(np.uint64) << np.uint64(width)
    del number
    order = np.argsort(address)
    size = size[order]
    kind = kind[order]
    del order
    address.sort()
    starts = np.searchsorted(address, np.arange(len(keys) + 1, dtype=np.uint64) << np.uint64(width))
    address &= np.uint64((1 << width) - 1)
    address <<= np.uint64(shift)
    address += np.uint64(lowest)
    return SortedColumns(keys, starts.astype(np.int64), address, size, kind)


def _joined(
    chunks: list[_Chunk],
    column: int,
    kind: type,
    change: Callable[[_Chunk, NDArray[Any]], NDArray[Any]] = lambda _, values: values,
) -> NDArray[Any]:
    joined: NDArray[Any] = np.empty(sum(chunk.rows for chunk in chunks), kind)
    at = 0
    for chunk in chunks:
        joined[at : at + chunk.rows] = change(chunk, chunk.take(column))
        at += chunk.rows
    return joined
