"""What processes hold besides memory, whether they have ended, and processes that no list names any more.

A process object lives as long as anything refers to it: a handle, a thread, a driver. The kernel keeps its
exit time, and so tells such a process from a running one. Objects that are in no list are found in their pool
blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from windumps.arrays import I64, U64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel
from windumps.kernel.processes import (
    KernelProcess,
    ProcessLayout,
    process_at,
)
from windumps.layouts.kernel import PROCESS_LAYOUTS
from windumps.layouts.process_figures import PROCESS_FIGURES
from windumps.layouts.rows import LayoutRow, candidates
from windumps.memory import AddressSpace
from windumps.times import filetime

PROCESS_TAG = int.from_bytes(b"Proc", "little")
MAX_OBJECTS = 1 << 17  # process objects that are looked at
_MAX_THREADS = 1 << 20
_MAX_QUOTA = 1 << 50
_MIN_FIT = 0.9  # of checks that must hold
_PROCESS_OBJECT = 3  # DISPATCHER_HEADER.Type, the first byte
_TYPE_BITS = 0x7F
_MAX_HEADERS = 0x100  # of pool and object manager, in front of an object


def with_figures(
    kernel: Kernel, layout: ProcessLayout, processes: Sequence[KernelProcess]
) -> list[KernelProcess]:
    """Processes with exit times, threads and charged pool, as far as these are known.

    A figure that no process has was not written, as in a dump that a tool made up: it is unknown, not zero.
    """
    row = _row(kernel, layout, processes)
    found = list(processes)
    if row is not None:
        found = [_figured(kernel.memory, row, process) for process in processes]
    columns = zip(*(_figures(process) for process in found), strict=True)
    commit, threads, nonpaged, paged = [any(column) for column in columns] or [False] * 4
    return [
        _only(process, commit=commit, threads=threads, nonpaged=nonpaged, paged=paged)
        for process in found
    ]


def _figures(process: KernelProcess) -> tuple[int | None, ...]:
    return (
        *(process.private_commit_bytes, process.thread_count),
        *(process.nonpaged_quota_bytes, process.paged_quota_bytes),
    )


def _only(
    process: KernelProcess, *, commit: bool, threads: bool, nonpaged: bool, paged: bool
) -> KernelProcess:
    """A process without the figures that nobody wrote."""
    return replace(
        process,
        private_commit_bytes=process.private_commit_bytes if commit else None,
        thread_count=process.thread_count if threads else None,
        nonpaged_quota_bytes=process.nonpaged_quota_bytes if nonpaged else None,
        paged_quota_bytes=process.paged_quota_bytes if paged else None,
    )


def _row(
    kernel: Kernel, layout: ProcessLayout, processes: Sequence[KernelProcess]
) -> LayoutRow | None:
    """The fields of this build, moved as the whole structure is; None where they are not certain."""
    if layout.source == "probed":
        return None
    own = _of_build(PROCESS_LAYOUTS, kernel)
    if not own:
        return None
    place = layout.row.offset("_EPROCESS", "UniqueProcessId")
    moved = place - own[0].offset("_EPROCESS", "UniqueProcessId")
    for row in _of_build(PROCESS_FIGURES, kernel):
        fields = {
            name: (offset + moved, kind)
            for name, (offset, kind) in row.structures["_EPROCESS"].items()
        }
        fitting = replace(row, structures={"_EPROCESS": fields})
        checks = [_fits(kernel.memory, fitting, process) for process in processes]
        if checks and sum(checks) >= _MIN_FIT * len(checks):
            return fitting
    return None


def _of_build(rows: Sequence[LayoutRow], kernel: Kernel) -> list[LayoutRow]:
    found = candidates(rows, kernel.architecture, kernel.build)
    return [row for row in found if row.first_build <= kernel.build <= row.last_build]


def _fits(memory: AddressSpace, row: LayoutRow, process: KernelProcess) -> bool:
    values = _values(memory, row, process.address)
    return values is not None and _is_possible(values, process.create_time)


def _values(memory: AddressSpace, row: LayoutRow, address: int) -> tuple[int, ...] | None:
    """(ExitTime, ActiveThreads, nonpaged and paged quota); None where one is not in the dump."""
    names = "ExitTime", "ActiveThreads", "QuotaUsage", "PagedQuota"
    try:
        return tuple(row.read_field(memory, "_EPROCESS", name, address) for name in names)
    except MemoryReadError:
        return None


def _is_possible(values: tuple[int, ...], created: datetime | None) -> bool:
    ended, threads, *quotas = values
    time = filetime(ended)
    if ended and (time is None or (created is not None and time < created)):
        return False
    return threads < _MAX_THREADS and max(quotas) < _MAX_QUOTA


def _figured(memory: AddressSpace, row: LayoutRow, process: KernelProcess) -> KernelProcess:
    values = _values(memory, row, process.address)
    if values is None or not _is_possible(values, process.create_time):
        return process
    return replace(
        process,
        exit_time=filetime(values[0]),
        thread_count=values[1],
        nonpaged_quota_bytes=values[2],
        paged_quota_bytes=values[3],
    )


def unlisted_processes(
    kernel: Kernel,
    layout: ProcessLayout,
    listed: Sequence[KernelProcess],
    blocks: tuple[U64, I64],
    log: DiagnosticLog,
) -> list[KernelProcess]:
    """Process objects in pool blocks that the kernel's list does not have.

    Args:
        kernel: The kernel.
        layout: Of its processes.
        listed: Those of the list.
        blocks: (address, bytes) of the used blocks with the tag of process objects.
        log: Says how many blocks hold no process that can be read.
    """
    addresses, sizes = blocks
    known = np.sort(np.array([process.address for process in listed], np.uint64))
    ends = addresses + sizes.astype(np.uint64)
    first = np.searchsorted(known, addresses)
    distances = Counter(
        (known[place] - address).item()
        for place, address, end in zip(first, addresses, ends, strict=True)
        if place < len(known) and known[place] < end
    )
    others = first == np.searchsorted(known, ends)
    likely = [distance for distance, _ in distances.most_common()]
    found: list[KernelProcess] = []
    unread = max(int(others.sum()) - MAX_OBJECTS, 0)
    rows = np.flatnonzero(others)[:MAX_OBJECTS]
    for address, size in zip(addresses[rows].tolist(), sizes[rows].tolist(), strict=True):
        process = _process_in(kernel.memory, layout, address, size, likely)
        if process is None:
            unread += 1
        else:
            found.append(process)
    if unread:
        log.add(
            "bad-process",
            Severity.WARNING,
            "_EPROCESS",
            None,
            f"{unread} pool blocks of process objects that are in no list cannot be read as processes",
        )
    return found


def _process_in(
    memory: AddressSpace, layout: ProcessLayout, block: int, size: int, likely: list[int]
) -> KernelProcess | None:
    """The process in one pool block; objects have headers of different lengths in front of them."""
    step = 2 * layout.row.pointer_size
    distances = [*likely, *range(0, min(_MAX_HEADERS, size), step)]
    for distance in dict.fromkeys(distances):
        head = memory.read_available(block + distance, 1)
        if head and head[0] & _TYPE_BITS == _PROCESS_OBJECT:
            process = process_at(memory, layout, block + distance)
            if process is not None:
                return replace(process, is_listed=False)
    return None
