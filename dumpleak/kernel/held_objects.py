"""Who holds the kernel objects of one pool tag: by handle, by their own counts, and by pointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dumpleak.kernel.processes import (
    EMPTY_HANDLES,
    NO_HANDLES,
    SystemProcesses,
    WalkedPools,
    read_processes,
)
from dumpleak.model.held_objects import Ended, HandleHolder, HeldObjects, PointerHolder
from dumpleak.model.object_tags import OBJECT_TAGS
from dumpleak.model.owners import Ownership
from dumpleak.model.pool_blocks import PoolBlocks
from dumpleak.model.pools import OpenObjects
from dumpleak.model.units import count_of
from dumpleak.owners.contents import words_in
from windumps.arrays import I64, U64
from windumps.dumps.kernel.dump import KernelDump
from windumps.kernel.kernel import Kernel
from windumps.kernel.object_headers import HEADER_BYTES, find_headers
from windumps.kernel.object_types import object_type
from windumps.kernel.process_figures import PROCESS_TAG
from windumps.kernel.processes import KernelProcess
from windumps.kernel.thread_objects import THREAD_TAG, ended_by_process, thread_objects
from windumps.pool_tags import tag_text
from windumps.times import filetime

MAX_SEARCHED = 1 << 16  # pool blocks that are searched for pointers, evenly over all
_AT_ONCE = 1 << 12
# A handle table names its process, and its handles are counted already.
_HANDLE_TABLES = int.from_bytes(b"Obtb", "little")
_WORTH_NAMING = 0.1  # of the objects, that blocks of one tag point to
_Mask = NDArray[np.bool_]


class OpenedSystem(WalkedPools, Protocol):
    """Pools with the handles of all processes, and whose each tag is, see `PoolReader`."""

    @property
    def handles(self) -> list[OpenObjects]:
        """Handle tables, as far as they were read."""

    def owner(self, tag: int) -> Ownership:
        """Whose a tag is."""


class ObjectHolders:
    """Who holds the objects of any tag; each is looked at once.

    Args:
        dump: The dump.
        system: Its pools and handles.
    """

    def __init__(self, dump: KernelDump, system: OpenedSystem) -> None:
        self._dump, self._system = dump, system
        self._known: dict[int, HeldObjects] = {}

    def of(self, tag: int) -> HeldObjects | None:
        """Who holds the objects of a tag; None of other tags."""
        if tag_text(tag) not in OBJECT_TAGS:
            return None
        if tag not in self._known:
            blocks, handles = self._system.blocks, self._system.handles
            self._known[tag] = held_objects(
                self._dump.kernel, blocks, tag, handles, self._processes, self._system.owner
            )
        return self._known[tag]

    @cached_property
    def _processes(self) -> Sequence[KernelProcess]:
        """All processes, those that ended included; empty where the dump lists none."""
        if self._dump.process_layout is None:
            return ()
        return read_processes(self._dump, self._system).all


def ended_processes(
    dump: KernelDump, system: OpenedSystem | None, processes: SystemProcesses
) -> HeldObjects | None:
    """Who holds processes that ended; None where there are none, or the pools cannot be looked at."""
    if system is None or not processes.ended or system.why_no_walk:
        return None
    return ObjectHolders(dump, system).of(PROCESS_TAG)


def held_objects(
    kernel: Kernel,
    blocks: PoolBlocks,
    tag: int,
    tables: Sequence[OpenObjects],
    processes: Sequence[KernelProcess],
    owner_of: Callable[[int], Ownership],
) -> HeldObjects:
    """The objects of a tag and who holds them.

    Args:
        kernel: The kernel.
        blocks: Of its pools.
        tag: Of objects.
        tables: Handle tables, as far as they were read.
        processes: All there are, those that ended included.
        owner_of: Whose a tag is.
    """
    mine = _ascending(*blocks.of(tag))
    opened: _Mask = np.zeros(len(mine[0]), np.bool_)
    holders, headers = [], []
    for table in tables:
        row, inside = _rows_of(mine, table.objects)
        held = np.unique(row[inside])
        opened[held] = True
        headers.append(table.objects[inside])
        if len(held):
            holders.append(HandleHolder(table.process_id, table.name, len(held)))
    known = _known(kernel, tag, mine, processes)
    found = find_headers(kernel, mine, np.concatenate([known.headers, *headers]))
    read = found.handles >= 0
    why_unknown = _why_unknown(tables, processes)
    alone = (read & (found.handles == 0) & ~opened) if why_unknown else ~opened
    if known.ended is not None:  # what runs needs nobody to keep it alive
        row, inside = _rows_of(mine, known.ended)
        over: _Mask = np.zeros(len(opened), np.bool_)
        over[row[inside]] = True
        alone &= over
    pointers, sampled = _pointers(kernel, blocks, tag, (mine[0][alone], mine[1][alone]), owner_of)
    return HeldObjects(
        object_type(tag),
        len(opened),
        int(opened.sum()),
        tuple(sorted(holders, key=lambda row: (-row.objects, row.process_id))),
        why_unknown,
        int(read.sum()),
        int((found.handles[read] == 0).sum()),
        None if why_unknown and not read.all() else int(alone.sum()),
        pointers,
        sampled,
        known.told,
    )


def _ascending(address: U64, size: I64) -> tuple[U64, I64]:
    order = np.argsort(address)
    return address[order], size[order]


def _rows_of(blocks: tuple[U64, I64], addresses: U64) -> tuple[I64, _Mask]:
    """The block that each address lies in, and whether it does in any."""
    start, size = blocks
    if not len(start):
        return np.zeros(len(addresses), np.int64), np.zeros(len(addresses), np.bool_)
    row = np.maximum(np.searchsorted(start, addresses, "right").astype(np.int64) - 1, 0)
    # Below the first block the difference wraps around, and is larger than any block.
    return row, addresses - start[row] < size[row].astype(np.uint64)


class _Known(NamedTuple):
    """Objects that are known otherwise than by their blocks.

    Attributes:
        headers: Of all of them.
        ended: Addresses of those that ended; None of types that do not end, and where nobody can tell.
        told: The same for people.
    """

    headers: U64
    ended: U64 | None = None
    told: tuple[Ended, ...] | None = None


def _known(
    kernel: Kernel, tag: int, blocks: tuple[U64, I64], processes: Sequence[KernelProcess]
) -> _Known:
    """Processes, and threads."""
    size = np.uint64(HEADER_BYTES[kernel.pointer_size])
    if tag == PROCESS_TAG:
        address = np.array([process.address for process in processes], np.uint64)
        over = np.array([process.exit_time is not None for process in processes], np.bool_)
        return _Known(address - size, address[over], _ended_processes(processes))
    if tag != THREAD_TAG:
        return _Known(np.empty(0, np.uint64))
    names = {process.process_id: process.name for process in processes}
    found = thread_objects(kernel, blocks, names)
    if found is None:
        return _Known(np.empty(0, np.uint64))
    ended = tuple(
        Ended(owner, names[owner], count, time)
        for owner, count, last in ended_by_process(found)
        if (time := filetime(last)) is not None
    )
    return _Known(found.address - size, found.address[found.exit_time > 0], ended)


def _ended_processes(processes: Sequence[KernelProcess]) -> tuple[Ended, ...]:
    """Processes that ended, by program."""
    times: dict[str, list[datetime]] = {}
    for process in processes:
        if process.exit_time is not None:
            times.setdefault(process.name or "(no name)", []).append(process.exit_time)
    rows = [Ended(None, name, len(ended), max(ended)) for name, ended in times.items()]
    return tuple(sorted(rows, key=lambda row: (-row.objects, row.name)))


def _why_unknown(tables: Sequence[OpenObjects], processes: Sequence[KernelProcess]) -> str:
    """Why there may be handles that nobody sees; "" when there are none."""
    if not tables:
        return NO_HANDLES
    absent = [table for table in tables if table.absent_pages]
    whole = sum(1 for table in absent if not len(table.objects))
    said = []
    if whole:
        said.append(f"handle tables of {count_of(whole, 'process')} are not in the dump")
    if len(absent) > whole:
        partly = count_of(len(absent) - whole, "process")
        said.append(f"handle tables of {partly} are only partly in the dump")
    if not absent and not any(len(table.objects) for table in tables):
        return EMPTY_HANDLES
    if blank := sum(1 for table in tables if table.blank_pages):
        said.append(f"handle tables of {count_of(blank, 'process')} were not written to the dump")
    read = {table.process_id for table in tables}
    running = [process for process in processes if process.exit_time is None]
    unread = sum(1 for process in running if process.process_id not in read)
    if unread:
        said.append(f"handle tables of {count_of(unread, 'process')} could not be read")
    return ", ".join(said)


def _pointers(
    kernel: Kernel,
    blocks: PoolBlocks,
    tag: int,
    objects: tuple[U64, I64],
    owner_of: Callable[[int], Ownership],
) -> tuple[tuple[PointerHolder, ...], bool]:
    """Who points to objects, most of them first; and whether only a part of the pool was searched."""
    if not len(objects[0]):
        return (), False
    step = max(-(-len(blocks) // MAX_SEARCHED), 1)
    tags, address, size = blocks.every(step)
    hits: dict[int, list[I64]] = {}
    for at in range(0, len(tags), _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        rows, words = words_in(kernel, address[part], size[part])
        target, inside = _rows_of(objects, words)
        who = tags[part][rows[inside]]
        for holder in np.unique(who).tolist():
            hits.setdefault(holder, []).append(np.unique(target[inside][who == holder]))
    # Objects of one type stand in lists with each other.
    for other in (tag, _HANDLE_TABLES):
        hits.pop(other, None)
    counts = {holder: len(np.unique(np.concatenate(parts))) for holder, parts in hits.items()}
    least = max(_WORTH_NAMING * len(objects[0]) / step, 1)
    ranked = sorted(counts.items(), key=lambda row: (-row[1], row[0]))
    found = tuple(
        PointerHolder(tag_text(holder), owner_of(holder).driver, count)
        for holder, count in ranked
        if count >= least
    )
    return found, step > 1
