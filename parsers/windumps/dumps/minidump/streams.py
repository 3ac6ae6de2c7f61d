"""The streams of a minidump as bounded places in the file, and the pieces they are made of.

Nothing here trusts the file: a stream is clipped to what is there, a count to the room behind it
and to a limit, and every clip is said.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from windumps.arrays import U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps.minidump import structures as c
from windumps.errors import CorruptDumpError, TruncatedDumpError
from windumps.file_structure import Layout


class Stream(NamedTuple):
    """One row of the stream directory.

    Attributes:
        kind: `structures.StreamType`, or another writer's number.
        offset: File offset of the first byte.
        size: Bytes that are in the file.
        claimed: Bytes the directory says.
    """

    kind: int
    offset: int
    size: int
    claimed: int

    @property
    def end(self) -> int:
        """File offset behind the last byte that is there."""
        return self.offset + self.size

    @property
    def name(self) -> str:
        """Microsoft's name; unknown ones share one, so that garbage gives few diagnostics."""
        return c.STREAM_NAMES.get(self.kind, "MINIDUMP_DIRECTORY")


class Streams:
    """Header and stream directory of a minidump, and readers of what streams hold.

    Args:
        data: The file's bytes.
        log: Where trouble is said.

    Raises:
        TruncatedDumpError: the file ends before its header or stream directory.
        CorruptDumpError: the header is not a minidump's.
    """

    def __init__(self, data: U8, log: DiagnosticLog) -> None:
        self.data = data
        self.log = log
        self.header = c.HEADER.record(data, 0)
        version = self.header.Version & 0xFFFF
        if version != c.VERSION:
            raise CorruptDumpError(
                "MINIDUMP_HEADER.Version", 4, f"0x{c.VERSION:x} in its low word", f"0x{version:x}"
            )
        self._text_left = c.MAX_TEXT_BYTES
        self.all = self._directory()

    def say(
        self, code: str, structure: str, offset: int | None, message: str, lost: int = 0
    ) -> None:
        """Records that a part is missing."""
        self.log.add(code, Severity.WARNING, structure, offset, message, lost)

    def _directory(self) -> list[Stream]:
        count, rva = self.header.NumberOfStreams, self.header.StreamDirectoryRva
        rows = c.DIRECTORY.records(self.data, rva, min(count, c.MAX_STREAMS))
        if count and not len(rows):
            raise TruncatedDumpError(
                f"the stream directory at file offset 0x{rva:x}",
                count * c.DIRECTORY.size,
                max(len(self.data) - rva, 0),
            )
        if len(rows) < count:
            self.say(
                "stream-directory-cut",
                "MINIDUMP_DIRECTORY",
                rva,
                f"the header claims {count} streams, {len(rows)} are there"
                + (
                    f"; at most {c.MAX_STREAMS} are looked at (MAX_STREAMS)"
                    * (count > c.MAX_STREAMS)
                ),
            )
        streams: list[Stream] = []
        seen: set[int] = set()
        for kind, claimed, offset in rows[rows["StreamType"] != c.UNUSED_STREAM].tolist():
            there = min(claimed, max(len(self.data) - offset, 0))
            stream = Stream(kind, offset, there, claimed)
            streams.append(stream)
            if there < claimed:
                self.say(
                    "stream-cut",
                    stream.name,
                    offset,
                    f"the file ends inside stream {kind}: {claimed} bytes claimed, {there} there",
                )
            if kind in seen:
                self.say(
                    "duplicate-stream",
                    stream.name,
                    offset,
                    "a second stream of this type is ignored, as MiniDumpReadDumpStream does",
                )
            elif claimed and kind in c.STREAM_NAMES:
                seen.add(kind)
        return streams

    def find(self, kind: c.StreamType, least: int) -> Stream | None:
        """A stream of at least `least` bytes; None when absent or empty, or (said) when shorter."""
        stream = next((s for s in self.all if s.kind == kind and s.claimed), None)
        if stream is None:
            return None
        if stream.size < least:
            self.say(
                "stream-too-short",
                stream.name,
                stream.offset,
                f"it needs at least {least} bytes and has {stream.size}",
            )
            return None
        return stream

    def counted(self, kind: c.StreamType, record_size: int) -> tuple[int, int, int] | None:
        """(first record, stream end, count) of a stream that starts with a 32-bit count.

        Some writers put four bytes of padding behind the count so that records are 8-aligned
        (Breakpad on some systems; LLDB has a test file of each); the size in the directory tells,
        also when the file ends earlier.
        """
        stream = self.find(kind, 4)
        if stream is None:
            return None
        count = self.integer(stream.offset, 4)
        padded = stream.claimed == 8 + count * record_size
        return stream.offset + (8 if padded else 4), stream.end, count

    def lists_all(self, stream: Stream, first: int, count: int, stride: int) -> bool:
        """False, and said, when a stream has room for more records than its count tells of.

        Args:
            stream: The stream.
            first: File offset of its first record.
            count: How many it says it has.
            stride: Bytes of each.
        """
        room = (stream.offset + stream.claimed - first) // stride
        if room > count:
            self.say(
                "count-too-small",
                stream.name,
                stream.offset,
                f"{count} records claimed, the stream has room for {room}; the rest is not read",
            )
        return room <= count

    def fitting(
        self, structure: str, start: int, end: int, count: int, stride: int, limit: tuple[str, int]
    ) -> int:
        """How many of `count` records fit between two file offsets; says what is left out.

        `limit` is the name of a limit of ours, and the limit.
        """
        name, most = limit
        fit = max(end - start, 0) // stride
        if count > min(fit, most):
            self.say(
                "count-too-large",
                structure,
                start,
                f"{count} records claimed, the stream has room for {fit}"
                + (f", at most {most} are read ({name})" if fit > most else "")
                + "; check that the copy is complete",
            )
        return min(count, fit, most)

    def rows(self, layout: Layout, start: int, end: int, count: int, stride: int) -> Any:
        """Records as a structured array, without a copy; see `fitting`."""
        fit = self.fitting(layout.name, start, end, count, stride, ("MAX_RANGES", c.MAX_RANGES))
        return layout.records(self.data, start, fit, stride)

    def buffers(
        self, structure: str, start: int, end: int, count: int, size: int, stride: int
    ) -> Iterator[tuple[int, io.BytesIO]]:
        """File offset and bytes of exactly one record each; see `fitting`."""
        fit = self.fitting(structure, start, end, count, stride, ("MAX_OBJECTS", c.MAX_OBJECTS))
        for offset in range(start, start + fit * stride, stride):
            yield offset, io.BytesIO(self.data[offset : offset + size].tobytes())

    def integer(self, offset: int, size: int) -> int:
        """A little-endian unsigned integer; the caller has checked that it is in the file."""
        return int.from_bytes(self.data[offset : offset + size].tobytes(), "little")

    def text(self, structure: str, offset: int, size: int) -> bytes:
        """Bytes of a name; empty, which is said, when outside the file or beyond all measure."""
        if size > c.MAX_PATH_BYTES or offset + size > len(self.data):
            self.say(
                "bad-string",
                structure,
                offset,
                "a name lies outside the file or is longer than MAX_PATH_BYTES",
            )
            return b""
        if size > self._text_left:
            self.say(
                "bad-string", structure, offset, "all names together are longer than MAX_TEXT_BYTES"
            )
            return b""
        self._text_left -= size
        return self.data[offset : offset + size].tobytes()

    def string(self, structure: str, rva: int) -> str:
        """A MINIDUMP_STRING: 32-bit length in bytes, then UTF-16; empty (said) when damaged."""
        head = self.text(structure, rva, 4)
        raw = self.text(structure, rva + 4, int.from_bytes(head, "little")) if head else b""
        return raw.decode("utf-16-le", "replace").rstrip("\0")


def exact_sum(values: np.ndarray[Any, np.dtype[np.uint64]]) -> int:
    """Sum of a uint64 column as a Python integer: absurd sizes must not wrap to plausible ones."""
    low = int((values & np.uint64(0xFFFFFFFF)).sum(dtype=np.uint64))
    return (int((values >> np.uint64(32)).sum(dtype=np.uint64)) << 32) + low
