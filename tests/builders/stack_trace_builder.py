"""Writes records of allocation stacks and ntdll's stack trace database, with its own numbers.

Offsets are those of the public types of ntdll and of what XP's ntdll wrote; see the tests that read both
back from dumps with known truth.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def frame_hash(frames: Sequence[int]) -> int:
    """Ntdll's hash of a stack."""
    return sum(frame & 0xFFFFFFFF for frame in frames) & 0xFFFFFFFF


def _pointers(width: int, values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}{'I' if width == 4 else 'Q'}", *values)


def log_entry(
    width: int,
    frames: Sequence[int],
    wrong_hash: bool = False,
    count: int | None = None,
    following: int = 0,
) -> bytes:
    """A record of the heap stack trace log."""
    stated = len(frames) if count is None else count
    hashed = frame_hash(frames) ^ (1 if wrong_hash else 0)
    return (
        _pointers(width, [following])
        + struct.pack("<II", hashed, stated)
        + _pointers(width, frames)
    )


def database_entry(
    width: int, frames: Sequence[int], index: int = 0, depth: int | None = None, chain: int = 0
) -> bytes:
    """An `_RTL_STACK_TRACE_ENTRY` that one block refers to."""
    stated = len(frames) if depth is None else depth
    return (
        _pointers(width, [chain])
        + struct.pack("<IHH", 1, index & 0xFFFF, stated)
        + _pointers(width, frames)
    )


def trace_block(width: int, address: int, frames: Sequence[int], magic: int = 0xABCDAAAA) -> bytes:
    """An `_RTL_TRACE_BLOCK` that stands at `address`."""
    if width == 4:
        head = struct.pack("<8I", magic, 1, len(frames), 1, 0x30, 0, 0, address + 0x20)
    else:
        head = struct.pack("<IIII5Q", magic, 1, len(frames), 0, 1, 0x30, 0, 0, address + 0x38)
    return head + _pointers(width, frames)


class DatabaseBuilder:
    """An `_STACK_TRACE_DATABASE` of XP (`vista=False`) or later, with records and index array.

    Args:
        width: 4 or 8.
        base: Address of the region.
        vista: The later form: buckets of two words behind 32 free lists.
        size: Bytes of the region.
        buckets: Number of hash buckets.
    """

    def __init__(
        self, width: int, base: int, vista: bool, size: int = 0x4000, buckets: int = 7
    ) -> None:
        self.width, self.base, self.vista, self.size, self.buckets = (
            width,
            base,
            vista,
            size,
            buckets,
        )
        self._bucket_count_at, self._buckets_at = {
            (4, False): (0x68, 0x6C),
            (8, False): (0xC0, 0xC8),
            (4, True): (0x178, 0x17C),
            (8, True): (0x2D0, 0x2D8),
        }[width, vista]
        self._stride = width * (2 if vista else 1)
        self._records: list[tuple[int, list[int], int, int | None, bool]] = []
        self._end = self._buckets_at + buckets * self._stride

    def add(
        self,
        frames: Sequence[int],
        index: int | None = None,
        depth: int | None = None,
        chained: bool = True,
    ) -> int:
        """Adds a record; `index` is the number it bears when that is not its own. Gives its address."""
        address = self.base + self._end
        self._records.append(
            (
                address,
                list(frames),
                len(self._records) + 1 if index is None else index,
                depth,
                chained,
            )
        )
        self._end += len(database_entry(self.width, frames))
        return address

    def build(self, added: int | None = None) -> bytes:
        """The region's bytes; `added` overrides the counter of records."""
        out = bytearray(self.size)
        count = len(self._records)
        array = self.base + self.size
        page = (self._end + 0xFFF) & ~0xFFF
        at = {4: 0x48, 8: 0x88}[self.width]
        limits = (
            *(self.base, self.base + page, array - 0x1000),
            *(self.base + self._end, array - self.width * count),
        )
        out[at : at + 5 * self.width] = _pointers(self.width, limits)
        at += 5 * self.width
        stated = count if added is None else added
        out[at : at + 8] = struct.pack("<II", 10 * count, stated)
        out[at + 8 : at + 8 + self.width] = _pointers(self.width, [array])
        struct.pack_into("<I", out, self._bucket_count_at, self.buckets)
        heads = [0] * self.buckets
        for address, frames, index, depth, chained in self._records:
            bucket = frame_hash(frames) % self.buckets
            start = address - self.base
            entry = database_entry(self.width, frames, index, depth, heads[bucket])
            out[start : start + len(entry)] = entry
            if chained:
                heads[bucket] = address
        for number, head in enumerate(heads):
            start = self._buckets_at + number * self._stride
            out[start : start + self.width] = _pointers(self.width, [head])
        for number, record in enumerate(self._records, 1):
            start = self.size - number * self.width
            out[start : start + self.width] = _pointers(self.width, [record[0]])
        return bytes(out)
