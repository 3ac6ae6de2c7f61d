"""The account: the whole process in figures, so that whatever grows is seen, blocks or not.

A figure that is not in the dump is None, with the reason; it is never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.units import format_bytes, format_count
from dumpleak.process.memory_use import USES, charged_bytes, region_uses
from dumpleak.process.session import Session
from windumps.dump import Dump
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_FREE, MEM_PRIVATE, MEM_RESERVE

if TYPE_CHECKING:
    from dumpleak.model.snapshot import Snapshot

BYTES, COUNT = "bytes", "count"
NO_REGIONS = "the dump does not list the process's memory regions"
REGIONS_CUT = "the dump's list of memory regions is cut"
THREADS_CUT = "the dump's list of threads is cut"
NO_THREADS = "the dump does not list the process's threads"
NO_MODULES = "the dump does not list the process's modules"
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
_OF_HEAPS = ("blocks.", "heaps.", "private.count", "private.bytes")
_OUTSIDE = tuple(name for name in ROWS if not name.startswith(_OF_HEAPS))
# Sums of other rows, and the row that tells that all of a sum is known: they are named only when none of
# those grew.
UNEXPLAINED = "unexplained.bytes"
SUMS = {
    "regions.committed_bytes": "regions.committed_bytes",
    "regions.reserved_bytes": "regions.reserved_bytes",
    "counters.private_bytes": UNEXPLAINED,
    "counters.virtual_bytes": "regions.reserved_bytes",
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
    """

    name: str
    unit: str
    points: tuple[int | None, ...]
    reason: str = ""

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
        return _kind(self.name)

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

    def told(self, value: int | None, signed: bool = False) -> str:
        """A value of this row for people."""
        if value is None:
            return "unknown"
        return format_bytes(value, signed) if self.unit == BYTES else format_count(value, signed)


def account_of(snapshot: Snapshot) -> tuple[Figure, ...]:
    """All figures of a snapshot, in the order of `ROWS`; rows that do not apply are absent."""
    if snapshot.is_pool:
        return ()
    figures = {figure.name: figure for figure in (*_of_heaps(snapshot), *_outside(snapshot))}
    known = [figures[name] for name in ROWS if name in figures]
    return (*known, *(figure for name, figure in figures.items() if name not in ROWS))


def account_rows(snapshots: Sequence[Snapshot]) -> tuple[AccountRow, ...]:
    """The account over several dumps: every row that one of them has."""
    sides = [{figure.name: figure for figure in account_of(snapshot)} for snapshot in snapshots]
    names = dict.fromkeys(name for side in sides for name in side)
    rows = []
    for name in names:
        unit = next(side[name].measure for side in sides if name in side)
        found = [side.get(name, Figure(name, None, NOT_KEPT)) for side in sides]
        reasons = [
            f"{snapshot.source.file}: {figure.reason}"
            for snapshot, figure in zip(snapshots, found, strict=True)
            if figure.value is None
        ]
        points = tuple(figure.value for figure in found)
        rows.append(AccountRow(name, unit, points, "; ".join(dict.fromkeys(reasons))))
    return tuple(rows)


def what_grew(rows: Iterable[AccountRow]) -> list[AccountRow]:
    """Rows that grew by more than their thresholds, the worst first; sums of others only alone."""
    known = {row.name: row for row in rows if row.delta is not None}
    grew = [row for row in known.values() if row.state is State.GREW]
    grew.sort(key=lambda row: -row.excess)
    return [row for row in grew if SUMS.get(row.name) not in known] or grew


def _of_heaps(snapshot: Snapshot) -> list[Figure]:
    """What heaps, blocks and private memory come to: every snapshot knows them."""
    covered = snapshot.coverage
    unread = covered.heaps_listed - covered.heaps_read
    reason = f"{unread} of {covered.heaps_listed} heaps could not be read" if unread else ""
    if not covered.heaps_listed:
        reason = NO_HEAPS
    read = [row for row in snapshot.heaps if row.read]
    figures = [
        _figure("blocks.count", snapshot.totals.count, reason),
        _figure("blocks.bytes", snapshot.totals.bytes, reason),
        _figure("heaps.count", covered.heaps_listed, "" if covered.heaps_listed else NO_HEAPS),
    ]
    for name, values in (
        ("heaps.committed_bytes", [row.committed_bytes for row in read]),
        ("heaps.free_bytes", [row.free_bytes for row in read]),
    ):
        known = [value for value in values if value is not None]
        why = reason or (NOT_KEPT if len(known) < len(values) or not values else "")
        figures.append(_figure(name, sum(known), why))
    private = [totals for _, totals in snapshot.private.values()]
    why = why_no_private(snapshot)
    if snapshot.outside is None and not snapshot.private:
        why = NOT_KEPT
    for name, value in (
        ("private.count", sum(totals.count for totals in private)),
        ("private.bytes", sum(totals.bytes for totals in private)),
    ):
        figures.append(_figure(name, value, why))
    return figures


def _figure(name: str, value: int, reason: str) -> Figure:
    return Figure(name, None, reason) if reason else Figure(name, value)


def why_no_private(snapshot: Snapshot) -> str:
    """Why a dump does not tell of private memory outside heaps; "" when it does, and for what is no dump."""
    if not snapshot.has_bytes:
        return ""
    covered = snapshot.coverage
    unread = covered.heaps_listed - covered.heaps_read
    if unread and not snapshot.is_pool:
        return f"memory of {unread} heaps that could not be read is among it"
    if snapshot.private_unknown:
        return snapshot.private_unknown
    if snapshot.private or not snapshot.by_regions:
        return ""
    told = (f.reason for f in snapshot.outside or () if f.name == "regions.committed_bytes")
    return next(told, "")


def _outside(snapshot: Snapshot) -> tuple[Figure, ...]:
    # A file of an older version lacks newer rows.
    figures = {name: Figure(name, None, NOT_KEPT) for name in _OUTSIDE}
    figures |= {figure.name: figure for figure in snapshot.outside or ()}
    return tuple(figures.values())


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


def outside_figures(session: Session) -> tuple[Figure, ...]:
    """The figures of what is neither block nor heap; heaps have to be walked first."""
    dump = session.dump
    regions = dump.memory.regions
    figures = [
        _figure("threads.count", len(dump.threads), _why_no_threads(dump)),
        _figure("modules.count", len(dump.modules), "" if dump.modules else NO_MODULES),
    ]
    return (
        *(*figures, _of_handles(session), *_of_regions(session, regions)),
        *(*_address_space(session, regions), *_counters(session, regions)),
    )


def _of_handles(session: Session) -> Figure:
    handles = session.dump.handles
    if handles is None:
        return Figure("handles.count", None, NO_HANDLES)
    return _figure("handles.count", len(handles), "" if handles.whole else CUT_HANDLES)


def _counters(session: Session, regions: Regions) -> list[Figure]:
    """What Windows counted, and what of its private bytes the dump does not show."""
    counted = session.dump.vm_counters
    private = counted.private if counted else None
    figures = [
        Figure(name, value, NO_COUNTERS if value is None else "")
        for name, value in (
            ("counters.private_bytes", private),
            ("counters.virtual_bytes", counted.virtual if counted else None),
            ("counters.working_set_bytes", counted.working_set if counted else None),
        )
    ]
    if private is None or not len(regions) or not regions.whole:
        reason = NO_COUNTERS if private is None else NO_REGIONS
        return [*figures, Figure(UNEXPLAINED, None, reason)]
    return [*figures, Figure(UNEXPLAINED, private - charged_bytes(regions))]


def _of_regions(session: Session, regions: Regions) -> list[Figure]:
    names = (
        *("private.reserved_bytes", "mapped.count", "mapped.bytes", "modules.bytes"),
        *("stacks.bytes", "stacks.reserved_bytes"),
        *("regions.committed_bytes", "regions.reserved_bytes"),
    )
    if not (len(regions) and regions.whole):
        reason = REGIONS_CUT if len(regions) else NO_REGIONS
        return [Figure(name, None, reason) for name in names]
    use = region_uses(session, regions)
    committed, reserved = regions.state == MEM_COMMIT, regions.state == MEM_RESERVE
    taken = committed | reserved
    private = (use == USES.index("other-private")) & (regions.type == MEM_PRIVATE)
    stacks, mapped = use == USES.index("stacks"), use == USES.index("mapped")
    images = use == USES.index("images")

    def size(rows: NDArray[np.bool_]) -> int:
        return int(regions.region_size[rows].sum())

    values = (
        size(private & taken),
        len(np.unique(regions.allocation_base[mapped & taken])),
        size(mapped & committed),
        size(images & committed),
        size(stacks & committed),
        size(stacks & taken),
        size(committed),
        size(taken),
    )
    no_threads = _why_no_threads(session.dump)
    reasons = [no_threads if "stacks" in name else "" for name in names]
    return [
        _figure(name, value, reason)
        for name, value, reason in zip(names, values, reasons, strict=True)
    ]


def _why_no_threads(dump: Dump) -> str:
    """Why a dump does not tell how many threads there are; "" when it does."""
    if not dump.threads:
        return NO_THREADS
    return "" if dump.threads_whole else THREADS_CUT


def _address_space(session: Session, regions: Regions) -> list[Figure]:
    """What is left of the address space; of a process with 32-bit pointers below their end."""
    free = regions.state == MEM_FREE
    if any(view.pointer_size == 4 for view in session.views):
        free &= regions.base_address < np.uint64(NARROW_LIMIT)
    names = ("address_space.free_bytes", "address_space.largest_free_bytes")
    if not free.any() or not regions.whole:
        reason = NO_FREE if len(regions) else NO_REGIONS
        return [Figure(name, None, reason if regions.whole else REGIONS_CUT) for name in names]
    start = regions.base_address[free]
    size = regions.region_size[free]
    if any(view.pointer_size == 4 for view in session.views):
        size = np.minimum(size, np.uint64(NARROW_LIMIT) - start)
    return [Figure(names[0], int(size.sum())), Figure(names[1], int(size.max()))]


def _kind(name: str) -> RowKind:
    return ROWS.get(name) or RowKind(COUNT if name.endswith("count") else BYTES, name)
