"""LZX as cabinets use it, decompression only.

Format: Microsoft's "LZX DATA COMPRESSION FORMAT" of the Cabinet SDK and [MS-PATCH]. Written for
correctness, not for speed: a file is unpacked once and then kept.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_LITERALS, _LENGTHS, _ALIGNED, _PRETREE = 256, 249, 8, 20
_SLOTS = {15: 30, 16: 32, 17: 34, 18: 36, 19: 38, 20: 42, 21: 50}  # window bits -> position slots
_VERBATIM, _ALIGNED_BLOCK, _UNCOMPRESSED = 1, 2, 3
_LONGEST_CODE = 16
_MIN_MATCH = 2
_TRANSLATED_FRAMES = 0x8000  # x86 calls are translated in the first GiB only

_EXTRA_BITS = [0, 0, *(min(slot // 2 - 1, 17) for slot in range(2, 50))]
_BASES = [sum(1 << bits for bits in _EXTRA_BITS[:slot]) for slot in range(50)]


class _Bits:
    """Bits of a block: 16-bit little-endian words, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0  # first byte that is not in `_held`
        self._held = 0  # its low `_count` bits are still to come
        self._count = 0

    def peek(self, count: int) -> int:
        """The next bits without taking them; zeros behind the end, which may be looked at only."""
        while self._count < count:
            if self._at >= len(self._data) + 8:
                raise ValueError("it ends too early")
            words = struct.unpack("<4H", self._data[self._at : self._at + 8].ljust(8, b"\0"))
            held = self._held & ((1 << self._count) - 1)
            for word in words:
                held = held << 16 | word
            self._held = held
            self._at += 8
            self._count += 64
        return self._held >> (self._count - count) & ((1 << count) - 1)

    def drop(self, count: int) -> None:
        self._count -= count

    def take(self, count: int) -> int:
        value = self.peek(count)
        self._count -= count
        return value

    def align(self) -> None:
        """Skips 1 to 16 bits, up to the end of a word."""
        self.take(self._count % 16 or 16)

    def raw(self, size: int) -> bytes:
        """Whole bytes; only at the end of a word."""
        start = self._at - self._count // 8
        data = self._data[start : start + size]
        if len(data) < size:
            raise ValueError("it ends too early")
        self._at, self._count = start + size, 0
        return data

    @property
    def left(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._at + self._count // 8


class _Tree:
    """Canonical Huffman codes, as a table from the next bits to symbol and length."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.bits = max(lengths)
        self._table: list[tuple[int, int]] = []
        if self.bits > _LONGEST_CODE:
            raise ValueError("a code is too long")
        for length in range(1, self.bits + 1):
            for symbol, its_length in enumerate(lengths):
                if its_length == length:
                    self._table.extend([(symbol, length)] * (1 << (self.bits - length)))
            if len(self._table) > 1 << self.bits:
                raise ValueError("the codes contradict each other")

    def take(self, bits: _Bits) -> int:
        index = bits.peek(self.bits)
        if index >= len(self._table):
            raise ValueError("a code without a meaning")
        symbol, length = self._table[index]
        bits.drop(length)
        return symbol


class LzxDecoder:
    """Decodes the blocks of one folder in turn.

    Args:
        window_bits: From the folder's compression type.

    Raises:
        ValueError: not 15 to 21.
    """

    def __init__(self, window_bits: int) -> None:
        if window_bits not in _SLOTS:
            raise ValueError(f"an LZX window of {window_bits} bits is unknown")
        self._window_bytes = 1 << window_bits
        self._window = bytearray()
        self._main_lengths = [0] * (_LITERALS + 8 * _SLOTS[window_bits])
        self._length_lengths = [0] * _LENGTHS
        self._recent = [1, 1, 1]
        self._kind = 0
        self._block_left = 0
        self._pad = False  # a byte that rounds an uncompressed block up is still to come
        self._frames = 0
        self._position = 0
        self._translated_bytes: int | None = None

    def decode(self, data: bytes, unpacked: int) -> bytes:
        """One block of a folder.

        Raises:
            ValueError: the data are damaged.
        """
        bits = _Bits(data)
        if self._translated_bytes is None:
            high = bits.take(16) << 16 if (has_size := bits.take(1)) else 0
            self._translated_bytes = high | (bits.take(16) if has_size else 0)
        del self._window[: max(len(self._window) - self._window_bytes, 0)]
        start = len(self._window)
        end = start + unpacked
        while (room := end - len(self._window)) > 0:
            if not self._block_left:
                self._begin_block(bits)
            before = len(self._window)
            if self._kind == _UNCOMPRESSED:
                self._window += bits.raw(min(room, self._block_left))
            else:
                self._decode_matches(bits, before + min(room, self._block_left))
            self._block_left -= len(self._window) - before
            if self._block_left < 0 or len(self._window) > end:
                raise ValueError("a match runs over the end of its block")
        if self._pad and not self._block_left and bits.left:
            self._pad = False
        frame = self._translate(bytes(self._window[start:]))
        self._frames += 1
        self._position += unpacked
        return frame

    def _begin_block(self, bits: _Bits) -> None:
        if self._pad:
            bits.raw(1)
            self._pad = False
        self._kind = bits.take(3)
        self._block_left = bits.take(16) << 8 | bits.take(8)
        if not self._block_left:
            raise ValueError("an empty block")
        if self._kind == _UNCOMPRESSED:
            bits.align()
            self._recent = list(struct.unpack("<3I", bits.raw(12)))
            self._pad = bool(self._block_left & 1)
            return
        if self._kind not in (_VERBATIM, _ALIGNED_BLOCK):
            raise ValueError(f"a block of kind {self._kind}")
        if self._kind == _ALIGNED_BLOCK:
            self._aligned = _Tree([bits.take(3) for _ in range(_ALIGNED)])
        self._read_lengths(bits, self._main_lengths, 0, _LITERALS)
        self._read_lengths(bits, self._main_lengths, _LITERALS, len(self._main_lengths))
        self._main = _Tree(self._main_lengths)
        self._read_lengths(bits, self._length_lengths, 0, _LENGTHS)
        self._length = _Tree(self._length_lengths)

    def _read_lengths(self, bits: _Bits, lengths: list[int], at: int, end: int) -> None:
        """Code lengths, as differences to those of the block before."""
        tree = _Tree([bits.take(4) for _ in range(_PRETREE)])
        while at < end:
            code = tree.take(bits)
            run, value = 1, 0
            if code == 17:
                run = 4 + bits.take(4)
            elif code == 18:
                run = 20 + bits.take(5)
            else:
                if code == 19:
                    run = 4 + bits.take(1)
                    code = tree.take(bits)
                    if code > 16:
                        raise ValueError("a run of runs")
                value = (lengths[at] - code) % 17
            if at + run > end:
                raise ValueError("too many code lengths")
            lengths[at : at + run] = [value] * run
            at += run

    def _decode_matches(self, bits: _Bits, end: int) -> None:
        window, main, recent = self._window, self._main, self._recent
        while len(window) < end:
            symbol = main.take(bits)
            if symbol < _LITERALS:
                window.append(symbol)
                continue
            slot, length = divmod(symbol - _LITERALS, 8)
            if length == 7:
                length += self._length.take(bits)
            length += _MIN_MATCH
            if slot < 3:  # one of the last three offsets, which becomes the last
                offset = recent[slot]
                recent[slot], recent[0] = recent[0], offset
            else:
                offset = self._offset(bits, slot)
                recent[:] = offset, recent[0], recent[1]
            start = len(window) - offset
            if start < 0 or not offset:
                raise ValueError("a match from before the beginning")
            piece = window[start : start + length]
            window += (piece * -(-length // len(piece)))[:length]

    def _offset(self, bits: _Bits, slot: int) -> int:
        extra, base = _EXTRA_BITS[slot], _BASES[slot] - 2
        if self._kind == _ALIGNED_BLOCK and extra >= 3:
            return base + (bits.take(extra - 3) << 3) + self._aligned.take(bits)
        return base + bits.take(extra)

    def _translate(self, frame: bytes) -> bytes:
        """Undoes the translation of x86 calls (E8) to absolute targets."""
        size = self._translated_bytes or 0
        if not size or self._frames >= _TRANSLATED_FRAMES or len(frame) <= 10:
            return frame
        result = bytearray(frame)
        at = result.find(0xE8, 0, len(result) - 10)
        while at >= 0:
            position = self._position + at
            (target,) = struct.unpack_from("<i", result, at + 1)
            if -position <= target < size:
                relative = target - position if target >= 0 else target + size
                struct.pack_into("<I", result, at + 1, relative & 0xFFFFFFFF)
            at = result.find(0xE8, at + 5, len(result) - 10)
        return bytes(result)
