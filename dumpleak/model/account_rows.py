"""The account of a snapshot, and over several: which figures there are, and which grew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from dumpleak.model.account import (
    _OUTSIDE,
    NO_HEAPS,
    NOT_KEPT,
    OF_ALLOCATORS,
    PIECES,
    ROWS,
    SUMS,
    AccountRow,
    Figure,
    State,
    _figure,
    allocator_row,
)
from dumpleak.model.sites import allocator_in
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.subject import Subject


def account_of(snapshot: Snapshot) -> tuple[Figure, ...]:
    """All figures of a snapshot, in the order of `ROWS`; rows that do not apply are absent."""
    subject = snapshot.source.subject
    of_process = subject is not Subject.SYSTEM and snapshot.of_process
    if not of_process or (snapshot.outside and subject is Subject.LOG):
        return snapshot.outside or ()  # counters are all that a log has of a process
    figures = {figure.name: figure for figure in (*_of_heaps(snapshot), *_outside(snapshot))}
    known = [figures[name] for name in ROWS if name in figures]
    return (*known, *(figure for name, figure in figures.items() if name not in ROWS))


def account_rows(snapshots: Sequence[Snapshot]) -> tuple[AccountRow, ...]:
    """The account over several dumps: every row that one of them has."""
    sides = [{figure.name: figure for figure in account_of(snapshot)} for snapshot in snapshots]
    names = dict.fromkeys(name for side in sides for name in side)
    of_system = all(snapshot.source.subject is Subject.SYSTEM for snapshot in snapshots)
    rows = []
    for name in names:
        unit = next(side[name].measure for side in sides if name in side)
        found = [
            side.get(name) or _absent(name, side, snapshot)
            for side, snapshot in zip(sides, snapshots, strict=True)
        ]
        reasons = [
            f"{snapshot.source.file}: {figure.reason}"
            for snapshot, figure in zip(snapshots, found, strict=True)
            if figure.value is None
        ]
        points = tuple(figure.value for figure in found)
        rows.append(AccountRow(name, unit, points, "; ".join(dict.fromkeys(reasons)), of_system))
    return tuple(rows)


def _absent(name: str, side: Mapping[str, Figure], snapshot: Snapshot) -> Figure:
    """A figure that a snapshot lacks: none of an allocator, where allocators were looked for."""
    private = side.get("private.bytes")
    looked_for = private is not None and private.value is not None and snapshot.allocators_known
    if name.startswith(OF_ALLOCATORS) and looked_for:
        return Figure(name, 0)
    return Figure(name, None, NOT_KEPT)


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
    # What lies side by side in a file is one piece of it, of however many allocations.
    pieces = "" if snapshot.by_regions else _why_no_regions(snapshot) or PIECES
    count = sum(totals.count for totals in private)
    figures.append(_figure("private.count", count, why or pieces))
    figures.append(_figure("private.bytes", sum(totals.bytes for totals in private), why))
    return [*figures, *_of_allocators(snapshot)]


def _of_allocators(snapshot: Snapshot) -> list[Figure]:
    """What each allocator that is recognised took from Windows."""
    sums: dict[str, int] = {}
    for key, (_, totals) in snapshot.private.items():
        if allocator := allocator_in(key):
            name = allocator_row(allocator)
            sums[name] = sums.get(name, 0) + totals.bytes
    return [Figure(name, value) for name, value in sorted(sums.items())]


def why_no_private(snapshot: Snapshot) -> str:
    """Why a dump does not tell of private memory outside heaps; "" when it does, and for what is no dump."""
    if not snapshot.has_bytes:
        return ""
    covered = snapshot.coverage
    unread = covered.heaps_listed - covered.heaps_read
    if unread and snapshot.of_process:
        return f"memory of {unread} heaps that could not be read is among it"
    if snapshot.private_unknown:
        return snapshot.private_unknown
    if snapshot.private or not snapshot.by_regions:
        return ""
    return _why_no_regions(snapshot)


def _why_no_regions(snapshot: Snapshot) -> str:
    """Why a dump does not list its regions, or not all; "" when it does, and where nobody says."""
    told = (f.reason for f in snapshot.outside or () if f.name == "regions.committed_bytes")
    return next(told, "")


def _outside(snapshot: Snapshot) -> tuple[Figure, ...]:
    # A file of an older version lacks newer rows.
    figures = {name: Figure(name, None, NOT_KEPT) for name in _OUTSIDE}
    figures |= {figure.name: figure for figure in snapshot.outside or ()}
    return tuple(figures.values())
