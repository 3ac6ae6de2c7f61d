"""Ntdll's stack trace database: found without symbols, proved by its own counters.

The database is one region: header and hash buckets first, records behind them growing up, and an array
of record addresses growing down from the region's end, so that record number i stands i pointers below
`EntryIndexArray`. Ntdll keeps its address in a global. A word of ntdll's data is taken for that global
when what it points to says of itself that it is there and its counters and limits agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.images.modules import Module
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

Mask = NDArray[np.bool_]

PIECE_BYTES = 1 << 20
PAGE = np.uint64(0x1000)
MAX_BUCKETS = 1 << 20  # 137 on XP, 9,551 from Vista on
MAX_CHAIN = 0x1000  # records looked at in one bucket
INDEX_MASK = np.uint64(0xFFFF)

_DATABASE = "_STACK_TRACE_DATABASE"
_ENTRY = "_RTL_STACK_TRACE_ENTRY"
_FIELDS = (
    "CommitBase",
    "CurrentLowerCommitLimit",
    "CurrentUpperCommitLimit",
    "NextFreeLowerMemory",
    "NextFreeUpperMemory",
    "NumberOfEntriesLookedUp",
    "NumberOfEntriesAdded",
    "EntryIndexArray",
    "NumberOfBuckets",
)


class StackTraceDatabase:
    """One `_STACK_TRACE_DATABASE`.

    Args:
        memory: The process's memory.
        layout: The row that fits.
        address: Where it is.
    """

    def __init__(self, memory: AddressSpace, layout: LayoutRow, address: int) -> None:
        self._memory = memory
        self._layout = layout
        self._pointer = f"<u{layout.pointer_size}"
        self.address = address
        record = layout.read(memory, _DATABASE, address)
        self.records_end = record["NextFreeLowerMemory"]
        self.added = record["NumberOfEntriesAdded"]
        self._array = record["EntryIndexArray"]
        self._buckets = address + layout.offset(_DATABASE, "Buckets")
        self._bucket_count = record["NumberOfBuckets"]

    def holds(self, addresses: U64) -> Mask:
        """True for addresses in the part of the region that holds records."""
        inside: Mask = (addresses >= np.uint64(self._buckets)) & (
            addresses < np.uint64(self.records_end)
        )
        return inside

    def records(self, indices: U64) -> U64:
        """Addresses of the records with these numbers (from 1); 0 where there is no such record.

        A record keeps the low 16 bits of its own number, which must agree.
        """
        known = (indices >= 1) & (indices <= np.uint64(self.added))
        slots = np.uint64(self._array) - np.where(known, indices, 0) * np.uint64(
            self._layout.pointer_size
        )
        values, present = self._memory.gather(slots, self._pointer)
        address = values.astype(np.uint64)
        entries, readable = self._memory.gather(address, self._layout.dtype(_ENTRY, "Index"))
        own = entries["Index"].astype(np.uint64) == (indices & INDEX_MASK)
        return np.where(known & present & readable & own & self.holds(address), address, 0).astype(
            np.uint64
        )

    def reached(self, addresses: U64, hashes: U64) -> tuple[Mask, Mask]:
        """Follows the database's own hash chains to records.

        Args:
            addresses: Records, uint64.
            hashes: Of each the sum of the low 32 bits of its frames, modulo 2**32; uint64.

        Returns:
            Which records their chains lead to, and which chains could not be followed to their end.
        """
        stride = np.uint64(self._layout.size("_RTL_STD_LIST_HEAD"))
        cursor = np.uint64(self._buckets) + hashes % np.uint64(self._bucket_count) * stride
        found = np.zeros(len(addresses), bool)
        ended = np.zeros(len(addresses), bool)
        open_ = np.arange(len(addresses))
        for _ in range(MAX_CHAIN):
            values, present = self._memory.gather(cursor[open_], self._pointer)
            cursor[open_] = values
            found[open_] = present & (cursor[open_] == addresses[open_])
            ended[open_] = present & (values == 0)
            open_ = open_[~found[open_] & self.holds(cursor[open_])]
            if not len(open_):
                break
        return found, ~found & ~ended


def find_database(
    memory: AddressSpace, layouts: Sequence[LayoutRow], ntdll: Module
) -> StackTraceDatabase | None:
    """Looks for the database that a global of ntdll points to.

    Args:
        memory: The process's memory.
        layouts: The layouts to try, in this order; at least one.
        ntdll: The ntdll of that architecture.

    Returns:
        None when ntdll's data is not in the dump or nothing in it checks out.
    """
    pointers = _page_pointers(memory, layouts[0].pointer_size, ntdll)
    for layout in layouts:
        records, present = memory.gather(pointers, layout.dtype(_DATABASE, *_FIELDS))
        for address in pointers[present & _consistent(layout, pointers, records)].tolist():
            if _buckets_lead_inside(memory, layout, address):
                return StackTraceDatabase(memory, layout, address)
    return None


def _page_pointers(memory: AddressSpace, pointer_size: int, image: Module) -> U64:
    """Distinct page-aligned words of an image, as addresses."""
    found = [np.empty(0, np.uint64)]
    for start in range(image.base_address, image.end_address, PIECE_BYTES):
        end = min(start + PIECE_BYTES, image.end_address)
        for address, size, offset in zip(*memory.extents(start, end), strict=True):
            skip = -int(address) % pointer_size
            words = max(int(size) - skip, 0) // pointer_size
            first = int(offset) + skip
            raw = memory.data[first : first + words * pointer_size]
            values = np.frombuffer(raw.tobytes(), f"<u{pointer_size}").astype(np.uint64)
            found.append(np.unique(values[(values % PAGE == 0) & (values != 0)]))
    return np.unique(np.concatenate(found))


def _consistent(layout: LayoutRow, address: U64, records: NDArray[np.void]) -> Mask:
    """True where a record says that it is the database at its address, and adds up."""
    field = {name: records[name].astype(np.uint64) for name in _FIELDS}
    used = field["EntryIndexArray"] - field["NextFreeUpperMemory"]
    buckets = address + np.uint64(layout.offset(_DATABASE, "Buckets"))
    heads = field["NumberOfBuckets"] * np.uint64(layout.size("_RTL_STD_LIST_HEAD"))
    good: Mask = (
        (field["CommitBase"] == address)
        & (used == field["NumberOfEntriesAdded"] * np.uint64(layout.pointer_size))
        & (field["NumberOfEntriesAdded"] <= field["NumberOfEntriesLookedUp"])
        & (field["NumberOfBuckets"] >= 1)
        & (field["NumberOfBuckets"] <= MAX_BUCKETS)
        & (buckets <= field["NextFreeLowerMemory"])
        & (heads <= field["NextFreeLowerMemory"] - buckets)
        & (field["NextFreeLowerMemory"] <= field["CurrentLowerCommitLimit"])
        & (field["CurrentLowerCommitLimit"] <= field["CurrentUpperCommitLimit"])
        & (field["CurrentUpperCommitLimit"] <= field["NextFreeUpperMemory"])
    )
    return good


def _buckets_lead_inside(memory: AddressSpace, layout: LayoutRow, address: int) -> bool:
    """True when every bucket that can be read is empty or leads to where the records are.

    Tells the layouts of XP and Vista apart, whose headers begin alike.
    """
    record = layout.read(memory, _DATABASE, address)
    count = record["NumberOfBuckets"]
    stride = layout.size("_RTL_STD_LIST_HEAD")
    start = address + layout.offset(_DATABASE, "Buckets")
    slots = np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(stride)
    values, present = memory.gather(slots, f"<u{layout.pointer_size}")
    heads = values[present].astype(np.uint64)
    heads = heads[heads != 0]
    first, end = start + count * stride, record["NextFreeLowerMemory"]
    return bool(((heads >= np.uint64(first)) & (heads < np.uint64(end))).all())
