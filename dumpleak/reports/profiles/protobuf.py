"""Writes the protocol buffer wire format: varints and length-delimited fields, all that pprof needs.

The format is fixed since 2008 and small; a library and generated code would be a dependency for some forty
lines. Google's own library reads the result in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable

_VARINT, _LENGTH = 0, 2
_MASK = (1 << 64) - 1


class Message:
    """A message that is being written. Zero and empty values are left out, as proto3 does."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def integer(self, field: int, value: int) -> None:
        """An int64, uint64 or bool field; negative numbers as two's complement."""
        if value:
            _append(self._bytes, field << 3 | _VARINT)
            _append(self._bytes, value & _MASK)

    def integers(self, field: int, values: Iterable[int]) -> None:
        """A packed repeated integer field; zeros in it count."""
        packed = bytearray()
        for value in values:
            _append(packed, value & _MASK)
        if packed:
            self._delimited(field, packed)

    def text(self, field: int, value: str) -> None:
        """One string of a repeated field, so an empty one is written too."""
        self._delimited(field, value.encode())

    def message(self, field: int, message: Message) -> None:
        """An embedded message."""
        self._delimited(field, message._bytes)

    def finish(self) -> bytes:
        """What was written."""
        return bytes(self._bytes)

    def _delimited(self, field: int, value: bytes | bytearray) -> None:
        _append(self._bytes, field << 3 | _LENGTH)
        _append(self._bytes, len(value))
        self._bytes += value


def _append(target: bytearray, value: int) -> None:
    while value > 0x7F:
        target.append(value & 0x7F | 0x80)
        value >>= 7
    target.append(value)
