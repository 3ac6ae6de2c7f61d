"""Changes what a minidump says of its modules, byte by byte and with its own numbers.

    text = ModuleRecords(path).without_codeview("app.exe").bytes

Offsets are those of the MINIDUMP_* pages of the Windows SDK reference.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

MODULES, MEMORY64, UNLOADED, REGIONS = 4, 9, 14, 16
RECORD = 108
SIZE, CHECKSUM, STAMP, NAME, VERSION, CODEVIEW = 8, 12, 16, 20, 24, 76
FAR = 0x7000_0000_0000  # where no process has anything


class ModuleRecords:
    """One dump file; methods change it and give it back."""

    def __init__(self, path: Path) -> None:
        self.bytes = bytearray(gzip.decompress(path.read_bytes()))

    def save(self, path: Path) -> Path:
        """Writes the file."""
        path.write_bytes(self.bytes)
        return path

    def base(self, name: str) -> int:
        """Where a module is loaded."""
        return self._number("<Q", self._record(name))

    def without_codeview(self, *names: str) -> ModuleRecords:
        """No CodeView records."""
        for name in names:
            self._put("<II", self._record(name) + CODEVIEW, 0, 0)
        return self

    def codeview_cut(self, name: str, size: int) -> ModuleRecords:
        """A CodeView record of which only the first bytes are there."""
        self._put("<I", self._record(name) + CODEVIEW, size)
        return self

    def stamp(self, name: str, value: int) -> ModuleRecords:
        """Another time stamp in the record."""
        self._put("<I", self._record(name) + STAMP, value)
        return self

    def resized(self, name: str, size: int) -> ModuleRecords:
        """Another size in the record."""
        self._put("<I", self._record(name) + SIZE, size)
        return self

    def checksum(self, name: str, value: int) -> ModuleRecords:
        """Another checksum in the record."""
        self._put("<I", self._record(name) + CHECKSUM, value)
        return self

    def without_version(self, name: str) -> ModuleRecords:
        """No version in the record."""
        at = self._record(name) + VERSION
        self.bytes[at : at + 52] = bytes(52)
        return self

    def called(self, name: str, path: str) -> ModuleRecords:
        """Another path; "" for none."""
        text = path.encode("utf-16-le")
        at = self._record(name) + NAME
        self._put("<I", at, self._append(struct.pack("<I", len(text)) + text + b"\0\0"))
        return self

    def without_headers(self, *names: str) -> ModuleRecords:
        """The image's first bytes are not those of an image any more."""
        for name in names:
            at = self._place(self.base(name))
            self.bytes[at : at + 2] = b"\0\0"
        return self

    def unlisted(self, name: str) -> ModuleRecords:
        """The list of modules lacks it."""
        at = self._record(name)
        start, size = self._stream(MODULES)
        end = start + size
        self.bytes[at : end - RECORD] = self.bytes[at + RECORD : end]
        self._put("<I", start, self._number("<I", start) - 1)
        return self

    def unloaded(self, name: str) -> ModuleRecords:
        """It is in the list of unloaded modules, and its memory is gone."""
        at = self._record(name)
        base, size = self.base(name), self._number("<I", at + SIZE)
        stamp, path = self._number("<I", at + STAMP), self._number("<I", at + NAME)
        entry = struct.pack("<QIIIII", base, size, 0, stamp, path, 0)
        entry_size = 24
        self._replace(UNLOADED, struct.pack("<III", 12, entry_size, 1) + entry[:entry_size])
        self.unlisted(name)
        for row in self._regions(base):
            self._put("<III", row + 32, 0x10000, 1, 0)  # MEM_FREE
        for row in self._ranges():
            if base <= self._number("<Q", row) < base + size:
                self._put("<Q", row, FAR + self._number("<Q", row) - base)
        return self

    def private(self, base: int) -> ModuleRecords:
        """An allocation is private memory."""
        for row in self._regions(base):
            self._put("<I", row + 40, 0x20000)  # MEM_PRIVATE
        return self

    def _regions(self, base: int) -> list[int]:
        start, length = self._stream(REGIONS)
        rows = range(start + 16, start + length, 48)
        return [row for row in rows if self._number("<Q", row + 8) == base]

    def _record(self, name: str) -> int:
        start, _ = self._stream(MODULES)
        for number in range(self._number("<I", start)):
            at = start + 4 + RECORD * number
            string = self._number("<I", at + NAME)
            length = self._number("<I", string)
            path = self.bytes[string + 4 : string + 4 + length].decode("utf-16-le")
            if path.rpartition("\\")[2] == name:
                return at
        raise LookupError(name)

    def _ranges(self) -> range:
        start, _ = self._stream(MEMORY64)
        return range(start + 16, start + 16 + 16 * self._number("<Q", start), 16)

    def _place(self, address: int) -> int:
        """The file offset of a virtual address."""
        at = self._number("<Q", self._stream(MEMORY64)[0] + 8)
        for row in self._ranges():
            start, size = struct.unpack_from("<QQ", self.bytes, row)
            if start <= address < start + size:
                return int(at + address - start)
            at += size
        raise LookupError(hex(address))

    def _stream(self, kind: int) -> tuple[int, int]:
        row = self._directory(kind)
        return self._number("<I", row + 8), self._number("<I", row + 4)

    def _directory(self, kind: int) -> int:
        count, start = struct.unpack_from("<II", self.bytes, 8)
        return next(
            at for at in range(start, start + 12 * count, 12) if self._number("<I", at) == kind
        )

    def _replace(self, kind: int, body: bytes) -> None:
        self._put("<II", self._directory(kind) + 4, len(body), self._append(body))

    def _append(self, data: bytes) -> int:
        self.bytes += data
        return len(self.bytes) - len(data)

    def _number(self, form: str, at: int) -> int:
        (value,) = struct.unpack_from(form, self.bytes, at)
        return int(value)

    def _put(self, form: str, at: int, *values: int) -> None:
        struct.pack_into(form, self.bytes, at, *values)
