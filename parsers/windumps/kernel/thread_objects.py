"""Threads by their objects in the pool: those that run, and those that ended and are kept alive.

A thread's object lives as long as anything refers to it. It names its process, and keeps its exit time in a
word that points to a list while it runs.

Sources: `_ETHREAD` of public kernel symbols and published headers, as in `layouts/kernel.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.kernel.kernel import Kernel
from windumps.layouts.kernel import THREAD_LAYOUTS
from windumps.layouts.process_figures import exit_before_id
from windumps.layouts.rows import LayoutRow, candidates

THREAD_TAG = int.from_bytes(b"Thre", "little")
_MOST_IN_FRONT = 0x100  # of headers of the object manager, in front of an object
_MOST_ID = 1 << 26
_MIN_FIT = 0.5  # of the blocks that must hold a thread under one layout at one place
# FILETIMEs of 1990 and 2200: what lies between is a time, and no pointer.
_FIRST_TIME, _LAST_TIME = 0x01B0_0000_0000_0000, 0x02A0_0000_0000_0000


@dataclass(frozen=True)
class ThreadObjects:
    """Threads as columns, in the order of their blocks.

    Attributes:
        address: uint64, of the `_ETHREAD`.
        process_id: int64.
        thread_id: int64.
        exit_time: int64, a FILETIME; 0 for a thread that runs.
        unread: Blocks that hold no thread that can be read.
    """

    address: U64
    process_id: I64
    thread_id: I64
    exit_time: I64
    unread: int


def thread_objects(
    kernel: Kernel, blocks: tuple[U64, I64], process_ids: Collection[int]
) -> ThreadObjects | None:
    """The threads in pool blocks of thread objects.

    Args:
        kernel: The kernel.
        blocks: (address, bytes).
        process_ids: Of all processes there are; a thread keeps its process.

    Returns:
        None where no layout of this build fits them.
    """
    start, size = blocks
    back = exit_before_id(kernel.architecture, kernel.build)
    rows = [
        row
        for row in candidates(THREAD_LAYOUTS, kernel.architecture, kernel.build)
        if row.first_build <= kernel.build <= row.last_build
    ]
    known = np.array(sorted(set(process_ids) - {0}), np.int64)
    if back is None or not rows or not len(start) or not len(known):
        return None
    distances = range(0, _MOST_IN_FRONT, 2 * kernel.pointer_size)
    tried = [(row, distance) for row in rows for distance in distances]
    fits = [_fits(kernel, row, start + np.uint64(distance), known) for row, distance in tried]
    best = max(range(len(tried)), key=lambda number: int(fits[number].sum()))
    if fits[best].sum() < _MIN_FIT * len(start):
        return None
    row = tried[best][0]
    mine = [number for number, (other, _) in enumerate(tried) if other is row]
    # Objects have headers of different lengths; what fits most blocks goes first.
    mine.sort(key=lambda number: -int(fits[number].sum()))
    address: U64 = np.zeros(len(start), np.uint64)
    for number in mine:
        free = fits[number] & (address == 0)
        address[free] = start[free] + np.uint64(tried[number][1])
    address = address[(address != 0) & (address - start < size.astype(np.uint64))]
    return _read(kernel, row, address, back, len(start))


def _fits(kernel: Kernel, row: LayoutRow, address: U64, known: I64) -> NDArray[np.bool_]:
    """Which addresses are those of a thread of a known process, in a list of threads."""
    owner, number = _ids(kernel, row, address)
    link, present = kernel.memory.gather(
        address + np.uint64(row.offset("_ETHREAD", "ThreadListEntry")), f"<u{row.pointer_size}"
    )
    lowest = 0x8000_0000 if row.pointer_size == 4 else 0xFFFF_8000_0000_0000
    place = np.minimum(np.searchsorted(known, owner), len(known) - 1)
    plain = (number > 0) & (number < _MOST_ID) & (number % 4 == 0)
    fits: NDArray[np.bool_] = present & (link >= lowest) & (known[place] == owner) & plain
    return fits


def _ids(kernel: Kernel, row: LayoutRow, address: U64) -> tuple[I64, I64]:
    """(process, thread) of each; 0 where absent."""
    place = address + np.uint64(row.offset("_ETHREAD", "Cid"))
    form = f"<i{row.pointer_size}"
    owner, _ = kernel.memory.gather(place, form)
    number, _ = kernel.memory.gather(place + np.uint64(row.pointer_size), form)
    return owner.astype(np.int64), number.astype(np.int64)


def _read(kernel: Kernel, row: LayoutRow, address: U64, back: int, blocks: int) -> ThreadObjects:
    owner, number = _ids(kernel, row, address)
    place = address + np.uint64(row.offset("_ETHREAD", "Cid") - back)
    ended, _ = kernel.memory.gather(place, "<i8")
    ended = np.where((ended > _FIRST_TIME) & (ended < _LAST_TIME), ended, 0)
    return ThreadObjects(address, owner, number, ended.astype(np.int64), blocks - len(address))


def ended_by_process(found: ThreadObjects) -> Sequence[tuple[int, int, int]]:
    """(process id, threads that ended, the last exit time) of each process, most threads first."""
    ended = found.exit_time > 0
    owners, inverse = np.unique(found.process_id[ended], return_inverse=True)
    counts = np.bincount(inverse, minlength=len(owners))
    last = np.zeros(len(owners), np.int64)
    np.maximum.at(last, inverse, found.exit_time[ended])
    rows = zip(owners.tolist(), counts.tolist(), last.tolist(), strict=True)
    return sorted(rows, key=lambda row: (-row[1], row[0]))
