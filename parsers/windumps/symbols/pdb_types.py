"""Types in a PDB: the records of the TPI stream, found by index or by name.

Layout: LLVM's "The PDB TPI Stream" and "CodeView Type Records", Microsoft's published cvinfo.h.
Records are variable in length, so their places are found by walking; the stream's own index of
every few KiB is used to walk only where something is looked for.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.symbols.errors import CorruptSymbolsError

_HEADER_BYTES = 56
_VERSION_80 = 20040203
MAX_INDEX_BYTES = 64 << 20

LF_MODIFIER, LF_POINTER, LF_BITFIELD = 0x1001, 0x1002, 0x1205
LF_PROCEDURE, LF_MFUNCTION, LF_FIELDLIST = 0x1008, 0x1009, 0x1203
LF_ARRAY, LF_CLASS, LF_STRUCTURE = 0x1503, 0x1504, 0x1505
LF_UNION, LF_ENUM, LF_INTERFACE = 0x1506, 0x1507, 0x1519
STRUCTURES = (LF_CLASS, LF_STRUCTURE, LF_UNION, LF_INTERFACE)
_NAMED = {
    # kind: offset of the size (a numeric leaf), or of the name where there is no size
    LF_CLASS: 16,
    LF_STRUCTURE: 16,
    LF_INTERFACE: 16,
    LF_UNION: 8,
    LF_ENUM: 12,
}
_FORWARD_REFERENCE, _HAS_UNIQUE_NAME = 0x80, 0x200

# Numeric leaves from 0x8000 on: how the value behind the leaf is packed.
_NUMERIC = {
    0x8000: "<b",
    0x8001: "<h",
    0x8002: "<H",
    0x8003: "<i",
    0x8004: "<I",
    0x8009: "<q",
    0x800A: "<Q",
}


class NamedType(NamedTuple):
    """A structure, class, union or enum.

    Attributes:
        kind: LF_… constant.
        is_forward: Only the name is known here.
        fields: Type index of the field list.
        underlying: Type index of an enum's type; 0 for others.
        size: Bytes; 0 for an enum.
        name: As written in the source, with namespaces.
        key: The decorated name where the compiler gave one, else the name.
    """

    kind: int
    is_forward: bool
    fields: int
    underlying: int
    size: int
    name: str
    key: str


class TypeRecords:
    """The TPI stream.

    Args:
        stream: The stream's bytes.
        file: Name of the file, for messages.

    Raises:
        CorruptSymbolsError: its header makes no sense.
    """

    def __init__(self, stream: NDArray[np.uint8], file: str) -> None:
        self._file = file
        if len(stream) < _HEADER_BYTES:
            raise self.corrupt("it ends inside its header")
        head = struct.unpack("<IIIIIHHIIiIiIiI", stream[:_HEADER_BYTES].tobytes())
        version, header_bytes, first, end, record_bytes, self.hash_stream = head[:6]
        if version != _VERSION_80 or header_bytes < _HEADER_BYTES or not 0 < first <= end:
            raise self.corrupt("its header makes no sense")
        self.first, self.end = first, end
        self._bytes = stream[header_bytes : header_bytes + record_bytes].tobytes()
        self._index_place = head[11], head[12]
        self._set_chunks(np.zeros((0, 2), np.int64))

    def corrupt(self, reason: str) -> CorruptSymbolsError:
        """The error for a damaged record."""
        return CorruptSymbolsError(self._file, "the type stream", reason)

    def use_index(self, stream: NDArray[np.uint8]) -> None:
        """Takes the index of record offsets from the hash stream, where it is sound."""
        start, size = self._index_place
        if start < 0 or size > MAX_INDEX_BYTES or start + size > len(stream):
            return
        pairs = stream[start : start + size // 8 * 8].view("<u4").reshape(-1, 2).astype(np.int64)
        sound = (
            np.all(np.diff(pairs, axis=0) > 0)
            and np.all(pairs[:, 0] < self.end)
            and np.all(pairs[:, 1] < len(self._bytes))
        )
        if len(pairs) and sound and pairs[0].tolist() == [self.first, 0]:
            self._set_chunks(pairs)

    def _set_chunks(self, pairs: NDArray[np.int64]) -> None:
        if not len(pairs):
            pairs = np.array([[self.first, 0]], np.int64)
        self._chunk_first, self._chunk_start = pairs[:, 0], pairs[:, 1]
        self._chunks: dict[int, NDArray[np.int64]] = {}

    def _chunk(self, chunk: int) -> NDArray[np.int64]:
        """Offsets of the records of one chunk; raises `CorruptSymbolsError`."""
        if chunk not in self._chunks:
            self._chunks[chunk] = self._walk(chunk)
        return self._chunks[chunk]

    def _walk(self, chunk: int) -> NDArray[np.int64]:
        data = self._bytes
        last = chunk + 1 == len(self._chunk_start)
        offset = int(self._chunk_start[chunk])
        stop = len(data) if last else int(self._chunk_start[chunk + 1])
        offsets = []
        while offset + 4 <= stop:
            length = data[offset] | data[offset + 1] << 8
            if length < 2 or offset + 2 + length > stop:
                break
            offsets.append(offset)
            offset += 2 + length
        end = self.end if last else int(self._chunk_first[chunk + 1])
        expected = end - int(self._chunk_first[chunk])
        if len(offsets) != expected:
            raise self.corrupt(f"{len(offsets)} records where there should be {expected}")
        return np.array(offsets, np.int64)

    def record(self, type_index: int) -> tuple[int, bytes]:
        """Kind and contents (behind the kind) of a record.

        Raises:
            CorruptSymbolsError: there is none of that index.
        """
        if self.first <= type_index < self.end:
            chunk = int(np.searchsorted(self._chunk_first, type_index, "right")) - 1
            offsets = self._chunk(chunk)
            place = type_index - int(self._chunk_first[chunk])
            if place < len(offsets):
                return self._at(int(offsets[place]))
        raise self.corrupt(f"type 0x{type_index:x} is not in it")

    def _at(self, offset: int) -> tuple[int, bytes]:
        length = self._bytes[offset] | self._bytes[offset + 1] << 8
        kind = self._bytes[offset + 2] | self._bytes[offset + 3] << 8
        return kind, self._bytes[offset + 4 : offset + 2 + length]

    def find(self, name: str) -> NamedType | None:
        """The definition of a structure or union of that name or key; None when there is none.

        Raises:
            CorruptSymbolsError: records cannot be told apart where the name stands.
        """
        wanted = name.encode() + b"\0"
        if len(wanted) < 2:
            return None
        at, seen = self._bytes.find(wanted), -1
        while at >= 0:
            chunk = int(np.searchsorted(self._chunk_start, at, "right")) - 1
            offsets = self._chunk(chunk)
            place = int(np.searchsorted(offsets, at, "right")) - 1
            start = int(offsets[place]) if place >= 0 else -1
            # The name may stand in a record several times (a name and its decorated form).
            if start >= 0 and start != seen:
                seen = start
                found = self._structure_at(start)
                if found and not found.is_forward and name in (found.name, found.key):
                    return found
            at = self._bytes.find(wanted, at + 1)
        return None

    def _structure_at(self, offset: int) -> NamedType | None:
        if int.from_bytes(self._bytes[offset + 2 : offset + 4], "little") not in STRUCTURES:
            return None
        try:
            return self.named(*self._at(offset))
        except CorruptSymbolsError:  # then it is not the one looked for
            return None

    def named(self, kind: int, body: bytes) -> NamedType:
        """Decodes a structure, class, union or enum; raises `CorruptSymbolsError`."""
        start = _NAMED[kind]
        if len(body) < start:
            raise self.corrupt("a structure ends inside its head")
        _, properties, first = struct.unpack_from("<HHI", body)
        size, underlying, fields = 0, 0, first
        if kind == LF_ENUM:
            underlying, fields = first, int.from_bytes(body[8:12], "little")
        else:
            size, start = self.place(body, start)
        name, start = self.text(body, start)
        key = name
        if properties & _HAS_UNIQUE_NAME and start < len(body):
            key, _ = self.text(body, start)
        is_forward = bool(properties & _FORWARD_REFERENCE)
        return NamedType(kind, is_forward, fields, underlying, size, name, key)

    def number(self, body: bytes, offset: int) -> tuple[int, int]:
        """A numeric leaf: its value, and where it ends; raises `CorruptSymbolsError`."""
        if offset + 2 > len(body):
            raise self.corrupt("a record ends inside a number")
        leaf = body[offset] | body[offset + 1] << 8
        if leaf < 0x8000:
            return leaf, offset + 2
        code = _NUMERIC.get(leaf)
        if code is None or offset + 2 + struct.calcsize(code) > len(body):
            raise self.corrupt(f"number of kind 0x{leaf:x}")
        (value,) = struct.unpack_from(code, body, offset + 2)
        return int(value), offset + 2 + struct.calcsize(code)

    def place(self, body: bytes, offset: int) -> tuple[int, int]:
        """A numeric leaf that is an offset or a size; raises `CorruptSymbolsError`."""
        value, end = self.number(body, offset)
        if not 0 <= value < 1 << 32:
            raise self.corrupt(f"a size or offset of {value}")
        return value, end

    def text(self, body: bytes, offset: int) -> tuple[str, int]:
        """A name that ends with a zero: the name, and where it ends; raises `CorruptSymbolsError`."""
        end = body.find(b"\0", offset)
        if end < 0:
            raise self.corrupt("a name does not end")
        return body[offset:end].decode("utf-8", "replace"), end + 1
