"""Structures declared once, without logic, under Microsoft's names; read singly or as columns.

`Layout` is for structures of fixed shape (file formats): one declaration gives a construct parser
for one record and a numpy dtype for many. Structures of Windows whose offsets differ by build are
rows in `windumps.layouts.rows` instead.

Why both: construct gives names and paths for a single header, but costs microseconds an entry; a
million entries are read by numpy. Both readers come from the same list of fields, so they cannot
drift apart.
"""

from __future__ import annotations

from typing import Any

import construct
import numpy as np
from numpy.typing import NDArray

from windumps.errors import TruncatedDumpError

_SCALARS: dict[str, Any] = {
    "u1": construct.Int8ul,
    "u2": construct.Int16ul,
    "u4": construct.Int32ul,
    "u8": construct.Int64ul,
    "i4": construct.Int32sl,
}


class Layout:
    """A packed little-endian structure.

    Args:
        name: Microsoft's name.
        size: Its size in bytes, as documented; checked against the fields at import.
        fields: (name, type) pairs; types are `u1 u2 u4 u8 i4`, or `S<n>` for n raw bytes.
    """

    def __init__(self, name: str, size: int, fields: list[tuple[str, str]]) -> None:
        self.name = name
        self.size = size
        self.dtype: np.dtype[np.void] = np.dtype(
            [(f, f"V{t[1:]}" if t[0] == "S" else f"<{t}") for f, t in fields]
        )
        self.parser = construct.Struct(
            *(f / (construct.Bytes(int(t[1:])) if t[0] == "S" else _SCALARS[t]) for f, t in fields)
        )
        if not self.dtype.itemsize == self.parser.sizeof() == size:
            raise ValueError(f"{name} is declared with {self.dtype.itemsize} bytes, not {size}")

    def record(self, data: NDArray[np.uint8], offset: int) -> Any:
        """One record at a file offset, as a construct container.

        Raises:
            TruncatedDumpError: the file ends inside it.
        """
        if offset < 0 or offset + self.size > len(data):
            raise TruncatedDumpError(
                f"{self.name} at file offset 0x{offset:x}", self.size, max(len(data) - offset, 0)
            )
        return self.parser.parse(data[offset : offset + self.size].tobytes())

    def records(
        self, data: NDArray[np.uint8], offset: int, count: int, stride: int | None = None
    ) -> NDArray[np.void]:
        """Up to `count` records as a structured array, without a copy; fewer where the file ends.

        Args:
            data: The file's bytes.
            offset: File offset of the first.
            count: How many the file claims; not trusted.
            stride: Bytes from one to the next; the structure's size when None, never less.
        """
        step = self.size if stride is None else stride
        if step < self.size or not 0 <= offset <= len(data):
            return np.empty(0, self.dtype)
        room = len(data) - offset
        fit = 0 if room < self.size else (room - self.size) // step + 1
        return np.ndarray(
            (min(count, fit),), self.dtype, buffer=data, offset=offset, strides=(step,)
        )
