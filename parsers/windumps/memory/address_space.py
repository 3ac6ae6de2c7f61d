"""The one memory interface: addresses in, numpy views of the file out.

Heaps and pools read through this class only, so the same code serves a minidump, a process inside a
kernel dump and the kernel itself. A subclass says where addresses lie in the file (`extents`,
`locate`); reading is done here. The file is never copied as a whole: `view` is zero-copy where
bytes are contiguous.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import ADDRESS_LIMIT, I64, U8, U64
from windumps.errors import PageNotInDumpError, PartialReadError
from windumps.memory.mapped import AT_ONCE, give_back, pieces_of, reach_of

if TYPE_CHECKING:
    from windumps.memory.regions import Regions


FEW_SPANS = 64  # up to so many are looked up one by one, which takes no list of all memory


class Presence(Enum):
    """What a dump knows of an address."""

    PRESENT = "present"
    ABSENT = "absent from the dump"  # mapped in the process, or unknown whether it was
    NOT_MAPPED = "not mapped"


class Extents(NamedTuple):
    """Pieces of an address range that are in the file, ascending, as three columns.

    Attributes:
        address: uint64, first address of each piece.
        size: int64, bytes.
        offset: int64, file offset of the first byte.
    """

    address: U64
    size: I64
    offset: I64


def values_at(data: U8, offsets: I64, dtype: str | np.dtype[np.void]) -> NDArray[Any]:
    """One value at each of many file offsets, all of which must lie in the file as a whole.

    Args:
        data: The file's bytes.
        offsets: int64.
        dtype: Little-endian integer or record type.
    """
    item = np.dtype(dtype)
    if item.kind == "u" and not np.bitwise_or.reduce(offsets, axis=None) & (item.itemsize - 1):
        # Nearly always: numpy fetches aligned integers twice as fast.
        aligned = data[: len(data) // item.itemsize * item.itemsize].view(item)
        return np.asarray(aligned[offsets >> (item.itemsize.bit_length() - 1)])
    room = max(len(data) - item.itemsize + 1, 0)
    window = np.ndarray((room,), item, buffer=data, strides=(1,))
    return np.asarray(window[offsets])


class AddressSpace(ABC):
    """Reads memory by address.

    Attributes:
        data: The whole file as read-only bytes (a memory map).
        regions: What was mapped, where the dump says so; else empty.
    """

    data: U8
    regions: Regions
    _mapped: int = 0  # bytes that reads may have mapped since pages were given back

    @property
    @abstractmethod
    def runs(self) -> Extents:
        """All memory in the file, ascending; neighbours contiguous in the file are one."""

    @property
    @abstractmethod
    def total_bytes(self) -> int:
        """Bytes of memory in the file."""

    @abstractmethod
    def extents(self, start: int, end: int) -> Extents:
        """The pieces of [start, end) in the file; neighbours contiguous in the file are one."""

    @abstractmethod
    def locate(self, addresses: U64, size: int) -> I64:
        """File offsets of `size` bytes at each address; -1 where absent or not contiguous."""

    @abstractmethod
    def presence(self, address: int) -> Presence:
        """What the dump knows of one address."""

    def view(self, address: int, size: int) -> U8:
        """`size` bytes as a read-only array, without a copy where the file has them in one piece.

        Raises:
            PageNotInDumpError: the first byte is absent.
            PartialReadError: some later byte is absent.
        """
        pieces = self.extents(address, min(address + size, ADDRESS_LIMIT))
        if size and (not len(pieces.address) or int(pieces.address[0]) != address):
            raise PageNotInDumpError(address)
        if len(pieces.address) == 1 and int(pieces.size[0]) == size:
            return self.data[int(pieces.offset[0]) : int(pieces.offset[0]) + size]
        got = 0
        parts = []
        for piece_address, piece_size, offset in zip(*pieces, strict=True):
            if int(piece_address) != address + got:
                break
            parts.append(self.data[int(offset) : int(offset) + int(piece_size)])
            got += int(piece_size)
        if got < size:
            raise PartialReadError(address, size, got)
        joined = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        joined.flags.writeable = False
        return joined

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes as `bytes`; raises as `view`."""
        return self.view(address, size).tobytes()

    def bytes_from(self, address: int, limit: int) -> int:
        """How many bytes the dump has from an address to the first hole, `limit` at most."""
        end = address
        for start, size, _ in zip(*self.extents(address, address + limit), strict=True):
            if int(start) != end:
                break
            end += int(size)
        return end - address

    def read_available(self, address: int, size: int) -> bytes:
        """As many of `size` bytes as the dump has from `address` to the first hole."""
        try:
            return self.read(address, size)
        except PartialReadError as error:
            return self.read(address, error.got)
        except PageNotInDumpError:
            return b""

    def read_uint(self, address: int, size: int) -> int:
        """A little-endian unsigned integer of `size` bytes; raises as `view`."""
        return int.from_bytes(self.view(address, size).tobytes(), "little")

    def gather(
        self, addresses: U64, dtype: str | np.dtype[np.void]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Reads one value at each of many addresses.

        Args:
            addresses: uint64, any shape; need not be aligned or sorted.
            dtype: Little-endian integer or record type.

        Returns:
            The values (zero where absent) and a mask of those that are present.
        """
        item = np.dtype(dtype)
        flat = np.ascontiguousarray(addresses, dtype=np.uint64).ravel()
        values = np.zeros(flat.shape, item)
        offsets = self.locate(flat, item.itemsize)
        present = offsets >= 0
        if present.any():
            if present.all():
                values = self._values_at(offsets, item)
            else:
                values[present] = self._values_at(offsets[present], item)
        # Values that straddle two pieces of the file: absent as a whole, but their first byte is
        # present.
        rest = np.flatnonzero(~present)
        if item.itemsize > 1 and len(rest):
            rest = rest[self.locate(flat[rest], 1) >= 0]
            raw, complete = self._gather_bytes(flat[rest], item.itemsize)
            values[rest[complete]] = raw[complete].view(item)[:, 0]
            present[rest[complete]] = True
        return values.reshape(np.shape(addresses)), present.reshape(np.shape(addresses))

    def _values_at(self, offsets: I64, item: np.dtype[Any]) -> NDArray[Any]:
        """What `values_at` gives; never are many pages mapped at once."""
        reach = reach_of(offsets)
        if reach <= AT_ONCE:
            values = values_at(self.data, offsets, item)
            self._mapped += reach
            if self._mapped > AT_ONCE:
                self._give_back()
            return values
        values = np.empty(len(offsets), item)
        for piece in pieces_of(offsets):
            values[piece] = values_at(self.data, offsets[piece], item)
            self._give_back()
        return values

    def _give_back(self) -> None:
        give_back(self.data)
        self._mapped = 0

    def _gather_bytes(self, addresses: U64, size: int) -> tuple[U8, NDArray[np.bool_]]:
        """`size` bytes at each address, byte by byte, as rows; and which rows are complete."""
        raw = np.zeros((len(addresses), size), np.uint8)
        complete = np.ones(len(addresses), np.bool_)
        for index in range(size):
            wanted = addresses + np.uint64(index)
            offsets = self.locate(wanted, 1)
            complete &= (offsets >= 0) & (wanted >= addresses)  # no value runs over 2**64
            raw[complete, index] = self.data[offsets[complete]]
        return raw, complete

    def present_bytes(self, start: int, end: int) -> int:
        """How many bytes of [start, end) are in the file."""
        return int(self.extents(start, end).size.sum())

    def present_each(self, starts: U64, ends: U64) -> I64:
        """How many bytes of each range [start, end) are in the file, as a column."""
        runs = self.runs
        if not len(runs.address):
            return np.zeros(len(starts), np.int64)
        before = np.cumsum(runs.size) - runs.size

        def below(addresses: U64) -> I64:
            row = runs.address.searchsorted(addresses, "right") - 1
            safe = np.maximum(row, 0)
            into = np.minimum(addresses - runs.address[safe], runs.size[safe].astype(np.uint64))
            return np.where(row >= 0, before[safe] + into.astype(np.int64), 0)

        return below(ends) - below(starts)

    def present_in(self, spans: Sequence[tuple[int, int]]) -> int:
        """How many bytes of (start, size) spans are in the file."""
        if len(spans) < FEW_SPANS:
            return sum(self.present_bytes(start, start + size) for start, size in spans)
        table = np.array(spans, np.uint64)
        return int(self.present_each(table[:, 0], table[:, 0] + table[:, 1]).sum())
