"""Writes cabinets byte by byte (Microsoft's cabinet and LZX documents), own numbers.

The LZX encoder knows one fixed set of codes; `cabextract` unpacks what it writes.
"""

from __future__ import annotations

import struct
import zlib
from itertools import count

FRAME = 0x8000
VERBATIM, ALIGNED, UNCOMPRESSED = 1, 2, 3


def cabinet(
    blocks: list[tuple[bytes, int]],
    method: int,
    size: int,
    name: bytes = b"sample.pdb",
    files: int = 1,
    flags: int = 0,
    with_checksums: bool = True,
    reserve: bytes | None = None,
    entries: list[tuple[bytes, int, int, int]] | None = None,
) -> bytes:
    """A cabinet; `blocks` are (packed bytes, unpacked size), `reserve` stands in each block.

    `entries` are (name, size, start, attributes) of the files, when there are several.
    """
    header_reserve = b"" if reserve is None else struct.pack("<HBB", 3, 2, len(reserve)) + b"abc"
    flags |= 4 if reserve is not None else 0
    folder_size = 8 + (2 if reserve is not None else 0)
    files_at = 36 + len(header_reserve) + folder_size
    listed = [(name, size, 0, 0x20)] * files if entries is None else entries
    table = b"".join(
        struct.pack("<IIHHHH", its_size, start, 0, 0, 0, attributes) + its_name + b"\0"
        for its_name, its_size, start, attributes in listed
    )
    data_at = files_at + len(table)
    data = b""
    for packed, unpacked in blocks:
        tail = struct.pack("<HH", len(packed), unpacked)
        checksum = _checksum(tail, _checksum(packed, 0)) if with_checksums else 0
        data += struct.pack("<I", checksum) + tail + (reserve or b"") + packed
    total = data_at + len(data)
    head = b"MSCF" + struct.pack(
        "<IIIIIBBHHHHH", 0, total, 0, files_at, 0, 3, 1, 1, len(listed), flags, 0, 0
    )
    folder = struct.pack("<IHH", data_at, len(blocks), method)
    folder += b"xy" if reserve is not None else b""
    return head + header_reserve + folder + table + data


def _checksum(data: bytes, seed: int) -> int:
    for at in range(0, len(data) // 4 * 4, 4):
        seed ^= int.from_bytes(data[at : at + 4], "little")
    rest = data[len(data) // 4 * 4 :]
    return seed ^ int.from_bytes(rest, "big")


def frames(data: bytes) -> list[bytes]:
    return [data[at : at + FRAME] for at in range(0, len(data), FRAME)]


def stored(data: bytes, **how: object) -> bytes:
    return cabinet([(f, len(f)) for f in frames(data)], 0, len(data), **how)  # type: ignore[arg-type]


def mszip(data: bytes, **how: object) -> bytes:
    blocks, before = [], b""
    for frame in frames(data):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=before)
        blocks.append((b"CK" + packer.compress(frame) + packer.flush(), len(frame)))
        before = frame
    return cabinet(blocks, 1, len(data), **how)  # type: ignore[arg-type]


def mszip_of(*members: tuple[bytes, bytes], attributes: int = 0x20) -> bytes:
    """A cabinet of several files, which lie behind each other in one folder."""
    entries, start = [], 0
    for name, content in members:
        entries.append((name, len(content), start, attributes))
        start += len(content)
    return mszip(b"".join(content for _, content in members), entries=entries)


def lzx(data: bytes, kinds: tuple[int, ...] = (VERBATIM,), calls: int = 0, bits: int = 15) -> bytes:
    """LZX; `kinds` are the kinds of the blocks in turn, `calls` the file size that x86 calls are
    translated with (0: they are not)."""
    encoder = LzxEncoder(kinds, calls, bits)
    blocks = [(encoder.encode(frame), len(frame)) for frame in frames(data)]
    return cabinet(blocks, 3 | bits << 8, len(data))


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray()
        self._value = self._count = 0

    def put(self, value: int, bits: int) -> None:
        self._value = self._value << bits | value
        self._count += bits
        while self._count >= 16:
            self._count -= 16
            self.out += struct.pack("<H", self._value >> self._count & 0xFFFF)
        self._value &= (1 << self._count) - 1

    def flush(self, at_least_one: bool = False) -> None:
        if self._count or at_least_one:
            self.put(0, 16 - self._count)


def _codes(lengths: list[int]) -> list[tuple[int, int]]:
    codes, code = [(0, 0)] * len(lengths), 0
    for length in range(1, 17):
        for symbol, its in enumerate(lengths):
            if its == length:
                codes[symbol] = code, length
                code += 1
        code <<= 1
    return codes


class LzxEncoder:
    """One folder. Codes are complete: 2**-length adds up to 1 in each tree."""

    def __init__(self, kinds: tuple[int, ...], calls: int, bits: int) -> None:
        slots = {15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}[bits]
        elements = 256 + 8 * slots
        ten = 2 * elements - 1024 if elements > 512 else 0  # with 9 bits for the others
        eight = 512 - elements if elements <= 512 else 0
        self._main = [8] * eight + [10 if i < ten else 9 for i in range(elements - eight)]
        self._lengths = [7] * 7 + [8] * 242
        self._kinds, self._calls = kinds, calls
        self._block = count()
        self._history = b""
        self._recent = [1, 1, 1]
        self._first = True
        self._trees_sent = False

    def encode(self, frame: bytes) -> bytes:
        writer = _Writer()
        if self._first:
            writer.put(int(self._calls > 0), 1)
            if self._calls:
                writer.put(self._calls >> 16, 16)
                writer.put(self._calls & 0xFFFF, 16)
        self._first = False
        frame = self._with_absolute_calls(frame)
        # Two blocks a frame, so that blocks begin inside frames, the second of odd length.
        cut = len(frame) // 2 | 1 if len(frame) > 4 else len(frame)
        for part in (frame[:cut], frame[cut:]):
            if part:
                self._encode_block(writer, self._kinds[next(self._block) % len(self._kinds)], part)
        writer.flush()
        return bytes(writer.out)

    def _with_absolute_calls(self, frame: bytes) -> bytes:
        position, result, at = len(self._history), bytearray(frame), 0
        while self._calls and at < len(result) - 10:
            if result[at] != 0xE8:
                at += 1
                continue
            (relative,) = struct.unpack_from("<i", result, at + 1)
            here = position + at
            if -here <= relative < self._calls - here:
                struct.pack_into("<i", result, at + 1, relative + here)
            elif self._calls - here <= relative < self._calls:
                struct.pack_into("<i", result, at + 1, relative - self._calls)
            at += 5
        return bytes(result)

    def _encode_block(self, writer: _Writer, kind: int, part: bytes) -> None:
        writer.put(kind, 3)
        writer.put(len(part) >> 8, 16)
        writer.put(len(part) & 0xFF, 8)
        if kind == UNCOMPRESSED:
            writer.flush(at_least_one=True)
            writer.out += struct.pack("<3I", *self._recent) + part + b"\0" * (len(part) & 1)
            self._history += part
            return
        if kind == ALIGNED:
            for _ in range(8):
                writer.put(3, 3)
        self._send_lengths(writer, self._main[:256])
        self._send_lengths(writer, self._main[256:])
        self._send_lengths(writer, self._lengths)
        self._trees_sent = True
        main, lengths = _codes(self._main), _codes(self._lengths)
        end = len(self._history) + len(part)
        whole = self._history + part
        while len(self._history) < end:
            at = len(self._history)
            length, offset = self._match(whole, at, end)
            if not length:
                writer.put(*main[whole[at]])
                self._history += whole[at : at + 1]
                continue
            self._put_match(writer, kind, main, lengths, length, offset)
            self._history += whole[at : at + length]

    def _send_lengths(self, writer: _Writer, wanted: list[int]) -> None:
        pretree = [4] * 12 + [5] * 8
        codes = _codes(pretree)
        for length in pretree:
            writer.put(length, 4)
        at = 0
        while at < len(wanted):
            before = wanted[at] if self._trees_sent else 0
            run = next((r for r in (5, 4) if wanted[at : at + r] == [wanted[at]] * r), 0)
            if run:
                writer.put(*codes[19])
                writer.put(run - 4, 1)
            writer.put(*codes[(before - wanted[at]) % 17])
            at += run or 1

    def _match(self, whole: bytes, at: int, end: int) -> tuple[int, int]:
        best = 0, 0
        for offset in {*self._recent, 1, 2, 3, 7, 100, 5000, 20000}:
            if offset > at or offset > 0x7000:
                continue
            length = 0
            while (
                at + length < end
                and length < 257
                and whole[at + length] == whole[at + length - offset]
            ):
                length += 1
            if length >= 2:
                best = max(best, (length, offset))
        return best

    def _put_match(
        self,
        writer: _Writer,
        kind: int,
        main: list[tuple[int, int]],
        lengths: list[tuple[int, int]],
        length: int,
        offset: int,
    ) -> None:
        extra = footer = 0
        if offset in self._recent:
            slot = self._recent.index(offset)
            self._recent[slot], self._recent[0] = self._recent[0], offset
        else:
            formatted, slot, base = offset + 2, 3, 3
            while True:
                extra = slot // 2 - 1
                if formatted < base + (1 << extra):
                    break
                base, slot = base + (1 << extra), slot + 1
            footer = formatted - base
            self._recent = [offset, *self._recent[:2]]
        header = min(length - 2, 7)
        writer.put(*main[256 + slot * 8 + header])
        if header == 7:
            writer.put(*lengths[length - 9])
        if kind == ALIGNED and extra >= 3:
            writer.put(footer >> 3, extra - 3)
            writer.put(footer & 7, 3)  # all eight codes have three bits
        else:
            writer.put(footer, extra)
