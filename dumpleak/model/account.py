"""The account: the whole process in figures, so that whatever grows is seen, blocks or not.

A figure that is not in the dump is None, with the reason; it is never zero.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from dumpleak.model.units import format_bytes, format_count

BYTES, COUNT = "bytes", "count"
NO_REGIONS = "the dump does not list the process's memory regions"
PIECES = "compared by what files hold, which does not tell in how many allocations"
REGIONS_CUT = "the dump's list of memory regions is cut"
THREADS_CUT = "the dump's list of threads is cut"
NO_THREADS = "the dump does not list the process's threads"
NO_MODULES = "the dump does not list the process's modules"
MODULES_CUT = "the dump has no whole list of the process's modules"
NO_FREE = "the dump does not list free address space"
NO_HEAPS = "no heap was found in the dump"
NO_HANDLES = "the dump does not list the process's handles (MiniDumpWithHandleData)"
CUT_HANDLES = "the dump's list of the process's handles is cut or damaged"
NO_COUNTERS = "the dump does not hold what Windows counted of the process"
NOT_KEPT = "the file does not say"
NARROW_LIMIT = 1 << 32  # first address a 32-bit pointer cannot hold


class State(StrEnum):
    """What became of a row."""

    GREW = "grew"
    STEADY = "steady"
    FELL = "fell"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class RowKind:
    """What a row of the account is.

    Attributes:
        unit: `BYTES` or `COUNT`.
        label: For people, in the plural.
        threshold: Growth up to this is what a healthy process shows; 0 where sites tell of it already,
            or it is no growth at all.
    """

    unit: str
    label: str
    threshold: int = 0


# Thresholds: heaps take memory in steps of up to 1 MiB and keep some of it free; loading one DLL may map
# some MiB, map its resources and create a heap; a thread pool starts and ends a handful of threads, each with
# a stack of 1 MiB reserved. Address space that is left is no growth; what takes it stands in other rows.
# A few threads, a dialog or COM open handles by the dozen. The working set is no growth either: a page that
# is touched again after a trim is nothing new. What Windows charges moves as committed memory does.
ROWS: dict[str, RowKind] = {
    "blocks.count": RowKind(COUNT, "heap blocks"),
    "blocks.bytes": RowKind(BYTES, "bytes in heap blocks"),
    "heaps.count": RowKind(COUNT, "heaps", 3),
    "heaps.committed_bytes": RowKind(BYTES, "committed heap memory", 1 << 20),
    "heaps.free_bytes": RowKind(BYTES, "free heap memory (fragmentation)", 1 << 20),
    "private.count": RowKind(COUNT, "private allocations outside heaps"),
    "private.bytes": RowKind(BYTES, "private memory outside heaps"),
    "private.reserved_bytes": RowKind(BYTES, "reserved private memory outside heaps", 16 << 20),
    "mapped.count": RowKind(COUNT, "mapped views", 16),
    "mapped.bytes": RowKind(BYTES, "mapped memory", 4 << 20),
    "modules.count": RowKind(COUNT, "modules", 8),
    "modules.bytes": RowKind(BYTES, "memory of modules", 32 << 20),
    "threads.count": RowKind(COUNT, "threads", 8),
    "stacks.bytes": RowKind(BYTES, "committed memory of thread stacks", 1 << 20),
    "stacks.reserved_bytes": RowKind(BYTES, "reserved memory of thread stacks", 16 << 20),
    "handles.count": RowKind(COUNT, "handles", 64),
    "regions.committed_bytes": RowKind(BYTES, "committed memory in all", 4 << 20),
    "regions.reserved_bytes": RowKind(BYTES, "reserved memory in all", 64 << 20),
    "address_space.free_bytes": RowKind(BYTES, "free address space"),
    "address_space.largest_free_bytes": RowKind(BYTES, "largest free piece of address space"),
    "counters.private_bytes": RowKind(BYTES, "private bytes as Windows counts them", 4 << 20),
    "counters.virtual_bytes": RowKind(BYTES, "virtual bytes as Windows counts them", 64 << 20),
    "counters.working_set_bytes": RowKind(BYTES, "working set as Windows counts it"),
    "unexplained.bytes": RowKind(
        BYTES, "private bytes that Windows counts and nothing in the dump explains", 4 << 20
    ),
}
# Rows of processes with a .NET runtime. Garbage of some MiB, that no collection has taken yet, is usual.
MANAGED_ROWS: dict[str, RowKind] = {
    "managed.count": RowKind(COUNT, ".NET objects", 100_000),
    "managed.bytes": RowKind(BYTES, "bytes in .NET objects", 8 << 20),
    "managed.free_bytes": RowKind(BYTES, "free memory between .NET objects", 16 << 20),
    "managed.committed_bytes": RowKind(BYTES, "committed memory of the .NET heap", 16 << 20),
}
# Rows of systems, and of logs of counters. A handle, a thread or an open file takes some hundred bytes of
# pool. The kernel starts and ends threads and opens handles by the hundred; caches of files and pages move by
# much more than one process. An ended process that is kept alive a while is usual, dozens are not.
SYSTEM_ROWS: dict[str, RowKind] = {
    "counters.pool_paged_bytes": RowKind(BYTES, "paged pool charged to the process", 1 << 18),
    "counters.pool_nonpaged_bytes": RowKind(BYTES, "nonpaged pool charged to the process", 1 << 18),
    "pool.count": RowKind(COUNT, "pool blocks"),
    "pool.bytes": RowKind(BYTES, "bytes in pool blocks"),
    "pool.paged_bytes": RowKind(BYTES, "paged pool", 16 << 20),
    "pool.nonpaged_bytes": RowKind(BYTES, "nonpaged pool", 16 << 20),
    "pool.paged_limit_bytes": RowKind(BYTES, "limit of paged pool"),
    "pool.nonpaged_limit_bytes": RowKind(BYTES, "limit of nonpaged pool"),
    "processes.count": RowKind(COUNT, "processes", 16),
    "processes.ended_count": RowKind(COUNT, "ended processes that something keeps alive", 4),
    "processes.bytes": RowKind(BYTES, "private memory of processes", 256 << 20),
    "memory.physical_bytes": RowKind(BYTES, "physical memory"),
    "memory.available_bytes": RowKind(BYTES, "available memory"),
    "memory.committed_bytes": RowKind(BYTES, "committed memory of the system", 256 << 20),
    "memory.commit_limit_bytes": RowKind(BYTES, "limit of committed memory"),
    "memory.driver_bytes": RowKind(BYTES, "memory that drivers took outside pool", 32 << 20),
    "memory.shared_bytes": RowKind(BYTES, "shared committed memory", 64 << 20),
    "memory.page_table_bytes": RowKind(BYTES, "memory of page tables", 64 << 20),
    # Of the PFN database. What takes them stands in other rows, but for locked and AWE pages.
    "pages.zeroed_bytes": RowKind(BYTES, "zeroed pages"),
    "pages.free_bytes": RowKind(BYTES, "free pages"),
    "pages.standby_bytes": RowKind(BYTES, "standby pages (file cache, trimmed memory)"),
    "pages.modified_bytes": RowKind(BYTES, "modified pages"),
    "pages.bad_bytes": RowKind(BYTES, "bad pages"),
    "pages.active_bytes": RowKind(BYTES, "pages in use"),
    "pages.private_bytes": RowKind(BYTES, "private pages of processes in memory"),
    "pages.shared_bytes": RowKind(BYTES, "pages of mapped files, images, sections in memory"),
    "pages.awe_bytes": RowKind(BYTES, "AWE pages", 32 << 20),
    "pages.system_bytes": RowKind(BYTES, "other pages of the system in memory"),
    "pages.locked_bytes": RowKind(BYTES, "locked pages", 64 << 20),
    "memory.unexplained_bytes": RowKind(
        BYTES, "committed memory that nothing in the dump explains", 256 << 20
    ),
}
# Of a whole system the same rows move by more.
_OF_SYSTEM = {
    "handles.count": RowKind(COUNT, "handles", 2000),
    "threads.count": RowKind(COUNT, "threads", 200),
}
_OF_HEAPS = ("blocks.", "heaps.", "private.count", "private.bytes")
_OUTSIDE = tuple(name for name in ROWS if not name.startswith(_OF_HEAPS))
# Rows of allocators, absent where a process has none. What each took from Windows has a row of its own.
ARENA_ROWS = {
    "arenas.count": RowKind(COUNT, "blocks of other allocators"),
    "arenas.bytes": RowKind(BYTES, "bytes in blocks of other allocators", 1 << 20),
}
OF_ALLOCATOR = "private_"
OF_ALLOCATORS = ("arenas.", OF_ALLOCATOR)
# Sums of other rows, and the row that tells that all of a sum is known: they are named only when none of
# those grew.
UNEXPLAINED = "unexplained.bytes"
SUMS = {
    "regions.committed_bytes": "regions.committed_bytes",
    "regions.reserved_bytes": "regions.reserved_bytes",
    "counters.private_bytes": UNEXPLAINED,
    "counters.virtual_bytes": "regions.reserved_bytes",
    "memory.committed_bytes": "memory.unexplained_bytes",
}


@dataclass(frozen=True)
class Figure:
    """One figure of one dump.

    Attributes:
        name: A key of `ROWS`, or another name that a newer file has.
        value: None when it is not known.
        reason: Why it is not known; "" when it is.
        unit: `BYTES` or `COUNT`.
    """

    name: str
    value: int | None
    reason: str = ""
    unit: str = ""

    @property
    def measure(self) -> str:
        """`BYTES` or `COUNT`."""
        return self.unit or _kind(self.name).unit


@dataclass(frozen=True)
class AccountRow:
    """One figure over two dumps and more.

    Attributes:
        name: As `Figure.name`.
        unit: `BYTES` or `COUNT`.
        points: Its value in each dump, in order of time.
        reason: Why one is not known; "" when all are.
        of_system: It is of a system and not of a process.
    """

    name: str
    unit: str
    points: tuple[int | None, ...]
    reason: str = ""
    of_system: bool = False

    @property
    def base(self) -> int | None:
        """In the first dump."""
        return self.points[0]

    @property
    def current(self) -> int | None:
        """In the last dump."""
        return self.points[-1]

    @property
    def delta(self) -> int | None:
        """Last minus first; None where one is not known."""
        if self.base is None or self.current is None:
            return None
        return self.current - self.base

    @property
    def kind(self) -> RowKind:
        """What it is, and how much growth of it is usual."""
        found = _OF_SYSTEM.get(self.name) if self.of_system else None
        return found or _kind(self.name)

    @property
    def state(self) -> State:
        """Whether it grew by more than a healthy process shows."""
        if self.delta is None:
            return State.UNKNOWN
        if self.kind.threshold and self.delta > self.kind.threshold:
            return State.GREW
        return State.FELL if self.delta < 0 else State.STEADY

    @property
    def excess(self) -> float:
        """How many times its threshold a row grew: what compares bytes with counts."""
        return (self.delta or 0) / self.kind.threshold if self.state is State.GREW else 0.0

    @property
    def told_state(self) -> str:
        """The state for people; "" for more of what is no growth: to call it steady would be wrong."""
        return "" if self.state is State.STEADY and not self.kind.threshold else str(self.state)

    def told(self, value: int | None, *, signed: bool = False) -> str:
        """A value of this row for people."""
        if value is None:
            return "unknown"
        return (
            format_bytes(value, signed=signed)
            if self.unit == BYTES
            else format_count(value, signed=signed)
        )


def _figure(name: str, value: int, reason: str) -> Figure:
    return Figure(name, None, reason) if reason else Figure(name, value)


def older_figures(threads: int, committed: int | None, reason: str) -> tuple[Figure, ...]:
    """What a snapshot file tells that was written before there was an account.

    Args:
        threads: Threads listed.
        committed: All committed memory; None when unknown.
        reason: Why it is unknown.
    """
    known = {
        "threads.count": _figure("threads.count", threads, "" if threads else NO_THREADS),
        "regions.committed_bytes": Figure("regions.committed_bytes", committed, reason),
    }
    return tuple(known.get(name, Figure(name, None, NOT_KEPT)) for name in _OUTSIDE)


def allocator_row(allocator: str) -> str:
    """The row of what one allocator took from Windows: "private_go_heap.bytes"."""
    return f"{OF_ALLOCATOR}{re.sub('[^a-z0-9]+', '_', allocator.lower()).strip('_')}.bytes"


def allocator_told(row: str) -> str:
    """The allocator of such a row, for people."""
    told = row.removeprefix(OF_ALLOCATOR).partition(".")[0].replace("_", " ")
    return (
        f".NET {told[4:]}" if told.startswith("net ") else told
    )  # a dot is no part of a row's name


def _kind(name: str) -> RowKind:
    if name.startswith(OF_ALLOCATOR):  # its sites tell of growth, as those of the sum do
        return RowKind(BYTES, f"private memory: {allocator_told(name)}")
    return (
        ROWS.get(name)
        or MANAGED_ROWS.get(name)
        or SYSTEM_ROWS.get(name)
        or ARENA_ROWS.get(name)
        or RowKind(COUNT if name.endswith("count") else BYTES, name)
    )
