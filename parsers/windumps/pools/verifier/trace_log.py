"""Driver Verifier's log of allocations and frees with their stacks, a ring that Windows Vista and later keep.

A record has address, size, thread and stack, but does not say whether it is of an allocation or a free, and
records of other memory are among them. So one counts as the allocation of a block only where Verifier's own
record of the block agrees: same address, same size, and its caller among the frames.

How sure: the record is in public symbols, what it tells in Microsoft's documentation of `!verifier 80`; the
names of ring, length and index in the public symbol table. That a length is a power of two and the index
counts on and on follows from what the debugger prints; without symbols nothing of that is needed: the ring is
a large allocation whose records prove themselves, and where the same block has several records that all agree
but for their stacks, none is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, PAGE_SIZE, U64
from windumps.kernel.kernel import Kernel
from windumps.layouts.rows import LayoutRow, candidates
from windumps.layouts.verifier import POOL_TRACE, POOL_TRACE_LAYOUTS
from windumps.pools.image_words import LOWEST
from windumps.pools.large.blocks import BigPages
from windumps.pools.verifier.records import MAX_BLOCK, VerifierData
from windumps.process.stack_traces import CodeMap

_FEWEST_SLOTS, _MOST_SLOTS = 1 << 6, 1 << 22
_FEWEST_RECORDS = 4  # that a ring which nothing names must have to prove itself
_SAMPLE = 256
_SURE = 0.8
_AT_ONCE = 1 << 14  # records read at once


class Ring(NamedTuple):
    """Where the log is: layout, first record, how many; the place of the newest, None if unknown."""

    row: LayoutRow
    address: int
    slots: int
    newest: int | None
    source: str


@dataclass(frozen=True)
class AllocationLog:
    """What the log says of the blocks that Verifier tracks.

    Attributes:
        ring: Where it is.
        record_count: Records in it.
        absent_count: Records that are not in the dump.
        stacks: Return addresses of each distinct stack, the tracked caller first.
        stack: int64, index into `stacks` for each block of the `VerifierData`, -1 for none.
    """

    ring: Ring
    record_count: int
    absent_count: int
    stacks: list[tuple[int, ...]]
    stack: I64

    @property
    def slot_count(self) -> int:
        """Records it has room for."""
        return self.ring.slots

    @property
    def is_ordered(self) -> bool:
        """Which record is the newest is known."""
        return self.ring.newest is not None

    @property
    def source(self) -> str:
        """How it was found, for people."""
        return self.ring.source


class LogRecord(NamedTuple):
    """One record: an allocation or a free, which it does not say."""

    address: int
    size: int
    thread: int
    frames: tuple[int, ...]


class _Traces(NamedTuple):
    """Records as columns: place in the ring, address, size, frames."""

    place: I64
    address: U64
    size: U64
    frames: U64


def read_allocation_log(
    kernel: Kernel, big_pages: BigPages, data: VerifierData
) -> AllocationLog | None:
    """Reads the log; None when nothing leads to one."""
    code = CodeMap(kernel.drivers, kernel.unloaded)
    ring = _named(kernel, code) or _found(kernel, code, big_pages)
    if ring is None:
        return None
    count = absent = 0
    last_used = -1
    kept: list[_Traces] = []
    for places, rows, present in _pieces(kernel, ring):
        used = present & (rows["Address"] != 0)
        count += int(used.sum())
        absent += int((~present).sum())
        last_used = max(last_used, int(places[used].max(initial=-1)))
        mine = np.flatnonzero(used & np.isin(rows["Address"].astype(np.uint64), data.address))
        kept.append(_columns(rows[mine], places[mine]))
    traces = _Traces(*(np.concatenate(column) for column in zip(*kept, strict=True)))
    newest = ring.newest
    # A ring that was never full was filled from its beginning, but for the slot the first turn leaves out.
    if newest is None and not absent and 0 < last_used < ring.slots - 1 and count >= last_used:
        newest = last_used
    stacks, stack = _stacks(data, traces, ring.slots, newest)
    return AllocationLog(ring._replace(newest=newest), count, absent, stacks, stack)


def newest_records(kernel: Kernel, log: AllocationLog, most: int) -> list[LogRecord]:
    """So many records, the newest first; where that is not known those the ring begins with."""
    found: list[LogRecord] = []
    for _, rows, present in _pieces(kernel, log.ring):
        for row in rows[present & (rows["Address"] != 0)][: most - len(found)]:
            address, size, thread = (int(row[name]) for name in ("Address", "Size", "Thread"))
            frames = tuple(frame for frame in row["StackTrace"].tolist() if frame)
            found.append(LogRecord(address, size, thread, frames))
        if len(found) >= most:
            break
    return found


def _named(kernel: Kernel, code: CodeMap) -> Ring | None:
    """The ring as symbols name it."""
    address, slots = kernel.value("VfPoolTraces"), kernel.value("VfPoolTracesLength", 4)
    index = kernel.value("VfPoolTracesIndex", 4)
    if not address or not slots or not _FEWEST_SLOTS <= slots <= _MOST_SLOTS or slots & slots - 1:
        return None
    for row in candidates(POOL_TRACE_LAYOUTS, kernel.architecture, kernel.build):
        ring = Ring(row, address, slots, None, "by the kernel's symbols")
        if _holds(kernel, code, ring, 1):
            return ring._replace(newest=None if index is None else index & slots - 1)
    return None


def _found(kernel: Kernel, code: CodeMap, big_pages: BigPages) -> Ring | None:
    """The ring as a large allocation that holds records, the largest such."""
    for row in candidates(POOL_TRACE_LAYOUTS, kernel.architecture, kernel.build):
        step = row.size(POOL_TRACE)
        slots = np.int64(1) << np.log2(np.maximum(big_pages.size_bytes // step, 1)).astype(np.int64)
        fits = (slots >= _FEWEST_SLOTS) & (slots <= _MOST_SLOTS)
        fits &= big_pages.size_bytes - slots * step < PAGE_SIZE
        second = big_pages.address[fits] + np.uint64(step)  # the first is filled last
        rows, present = kernel.memory.gather(second, _dtype(row))
        good = present & _are_records(kernel.pointer_size, code, rows)
        found = np.flatnonzero(fits)[good]
        for index in found[np.argsort(-slots[found], kind="stable")].tolist():
            place = int(big_pages.address[index])
            ring = Ring(row, place, int(slots[index]), None, "by what its records hold")
            if _holds(kernel, code, ring, _FEWEST_RECORDS):
                return ring
    return None


def _holds(kernel: Kernel, code: CodeMap, ring: Ring, fewest: int) -> bool:
    """Whether the first records of a ring, or as many spread over it, are records."""
    spread = np.linspace(0, ring.slots - 1, min(_SAMPLE, ring.slots)).astype(np.uint64)
    first = np.arange(min(_SAMPLE, ring.slots), dtype=np.uint64)
    places = np.unique(np.concatenate([first, spread]))
    step = np.uint64(ring.row.size(POOL_TRACE))
    rows, present = kernel.memory.gather(np.uint64(ring.address) + places * step, _dtype(ring.row))
    rows = rows[present & (rows["Address"] != 0)]
    good = _are_records(kernel.pointer_size, code, rows)
    return int(good.sum()) >= max(fewest, _SURE * len(rows))


def _are_records(pointer: int, code: CodeMap, rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows hold together: the kernel's addresses, a stack that begins in an image and ends once."""
    frames = rows["StackTrace"].astype(np.uint64)
    lowest = LOWEST[pointer]
    gone = frames == 0
    good = (rows["Address"] >= lowest) & (rows["Thread"] >= lowest) & (rows["Size"] < MAX_BLOCK)
    good &= code.index_of(frames[:, 0]) >= 0
    whole: NDArray[np.bool_] = good & ~(gone[:, :-1] & ~gone[:, 1:]).any(axis=1)
    return whole


def _dtype(row: LayoutRow) -> np.dtype[np.void]:
    """A record with its frames as an array."""
    pointer = row.pointer_size
    names = ["Address", "Size", "Thread", "StackTrace"]
    many = row.field_size(POOL_TRACE, "StackTrace") // pointer
    return np.dtype(
        {
            "names": names,
            "formats": [*(f"<u{pointer}",) * 3, (f"<u{pointer}", (many,))],
            "offsets": [row.offset(POOL_TRACE, name) for name in names],
            "itemsize": row.size(POOL_TRACE),
        }
    )


def _pieces(kernel: Kernel, ring: Ring) -> Iterator[tuple[I64, NDArray[Any], NDArray[np.bool_]]]:
    """All records, some at a time: (places, records, which are in the dump); the newest first if known."""
    step, dtype = np.uint64(ring.row.size(POOL_TRACE)), _dtype(ring.row)
    for start in range(0, ring.slots, _AT_ONCE):
        places = np.arange(start, min(start + _AT_ONCE, ring.slots))
        if ring.newest is not None:
            places = (ring.newest - places) % ring.slots
        at = np.uint64(ring.address) + places.astype(np.uint64) * step
        yield places, *kernel.memory.gather(at, dtype)


def _columns(rows: NDArray[Any], place: I64) -> _Traces:
    return _Traces(
        place.astype(np.int64),
        rows["Address"].astype(np.uint64),
        rows["Size"].astype(np.uint64),
        rows["StackTrace"].astype(np.uint64),
    )


def _stacks(
    data: VerifierData, traces: _Traces, slots: int, newest: int | None
) -> tuple[list[tuple[int, ...]], I64]:
    """The stack of each tracked block: its record's, where one record or all equal ones agree with it."""
    age = (newest - traces.place) % slots if newest is not None else np.zeros_like(traces.place)
    order = np.lexsort((age, traces.address))
    address, age = traces.address[order], age[order]
    low = np.searchsorted(address, data.address, "left")
    many = np.searchsorted(address, data.address, "right") - low
    if newest is not None:
        many = np.minimum(many, 1)  # an older record is of an earlier life of the address
    block = np.repeat(np.arange(len(data)), many)
    record = order[np.arange(len(block)) - np.repeat(np.cumsum(many) - many, many) + low[block]]
    frames = traces.frames[record]
    is_caller = frames == data.caller[block][:, None]
    agree = is_caller.any(axis=1) & (traces.size[record] == data.size[block].astype(np.uint64))
    block, frames, start = block[agree], frames[agree], is_caller[agree].argmax(axis=1)
    stack = np.full(len(data), -1, np.int64)
    if not len(block):
        return [], stack
    shifted = _shifted(frames, start)
    distinct, number = np.unique(shifted, axis=0, return_inverse=True)
    number = number.ravel()
    least = np.full(len(data), len(distinct), np.int64)
    np.minimum.at(least, block, number)
    most = np.full(len(data), -1, np.int64)
    np.maximum.at(most, block, number)
    stack = np.where(least == most, most, -1)
    return [tuple(value for value in row if value) for row in distinct.tolist()], stack


def _shifted(frames: U64, start: I64) -> U64:
    """Frames of each row from one on, zeros behind the last."""
    width = frames.shape[1]
    column = np.arange(width) + start[:, None]
    taken = np.take_along_axis(frames, np.minimum(column, width - 1), axis=1)
    moved: U64 = np.where(column < width, taken, np.uint64(0))
    return moved
