"""The heaps of one dump: an answer of its own, and a table of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from typing import Any

from dumpleak.model.pool import minus
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.reports.answers.next_steps import better_dump_steps
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Meter,
    Notes,
    Row,
    Source,
    Table,
    View,
    data_columns,
)
from dumpleak.reports.json_report import coverage_json, diagnostics_json, heap_json, source_json
from dumpleak.reports.values import Absent, Name, Style

_NAMES = " ".join(field.name for field in fields(HeapRow))
_COLUMNS = (
    *data_columns(_NAMES, address=Kind.ADDRESS),
    Column("heap"),
    Column("address", Kind.ADDRESS, views=View.TEXT, digits=0),
    Column("committed", Kind.BYTES),
    Column("used", Kind.BYTES),
    Column("blocks", Kind.COUNT),
    Column("free", Kind.BYTES),
    Column("overhead", Kind.BYTES),
    Column("kind", Kind.NAME),
)


def heap_table(heaps: Sequence[HeapRow], views: View = View.ALL) -> Table[HeapRow]:
    """One row a heap; why a heap was not read stands among the diagnostics."""
    return Table(
        "heaps",
        "Heaps",
        _COLUMNS,
        heaps,
        lambda _, heap: (*astuple(heap), *_cells(heap)),
        views,
    )


def _with_total(heaps: Sequence[HeapRow]) -> list[HeapRow]:
    """The heaps and, of several, a row of all; what is not known of one is not known of all."""
    if len(heaps) < 2:
        return list(heaps)

    def added(values: Iterable[int | None]) -> int | None:
        known = list(values)
        numbers = [value for value in known if value is not None]
        return sum(numbers) if len(numbers) == len(known) else None

    total = HeapRow(
        *(f"all {len(heaps):,}", 0, "", "", ""),
        committed_bytes=added(heap.committed_bytes for heap in heaps),
        used_bytes=added(heap.used_bytes for heap in heaps),
        used_count=added(heap.used_count for heap in heaps),
        free_bytes=added(heap.free_bytes for heap in heaps),
        overhead_bytes=added(heap.overhead_bytes for heap in heaps),
    )
    return [*heaps, total]


def _cells(heap: HeapRow) -> Row:
    """For people."""
    sizes = heap.committed_bytes, heap.used_bytes
    numbers = *sizes, heap.used_count, heap.free_bytes, heap.overhead_bytes
    kind = f"{heap.kind} {heap.front_end}".strip()
    return (
        heap.label,
        heap.address or Absent.NOT_READ,  # pools have none
        *(Absent.NOT_READ if number is None else number for number in numbers),
        Name(kind) if heap.read else _unread(kind, heap.reason),
    )


def changed_heap_table(base: Sequence[HeapRow], current: Sequence[HeapRow]) -> Table[HeapRow]:
    """One row a heap of a page, with how its used bytes changed; heaps that are gone come last."""
    before, now = ({heap.label: heap for heap in heaps} for heaps in (base, current))
    gone = [heap for label, heap in before.items() if label not in now]
    changes = (
        Column("used +/-", Kind.BYTES, signed=True),
        Column("blocks +/-", Kind.COUNT, signed=True),
    )
    heap, _, *numbers, kind = _COLUMNS[len(fields(HeapRow)) :]

    def row(rank: int, heap: HeapRow) -> Row:
        if rank > len(current):
            used, count = heap.used_bytes, heap.used_count
            changed = minus(0, used), minus(0, count)
            return heap.label, *changed, None, 0, 0, None, None, f"{heap.kind} (gone)"
        old = before.get(heap.label)
        changed = (
            minus(heap.used_bytes, old.used_bytes if old else 0),
            minus(heap.used_count, old.used_count if old else 0),
        )
        label, _, *cells = _cells(heap)
        return label, *changed, *cells

    rows = (*current, *gone)
    return Table("heaps", "Heaps", (heap, *changes, *numbers, kind), rows, row, View.PAGE)


def _unread(kind: str, reason: str) -> Name:
    return Name(f"{kind}, not read: {reason}", f"{kind}: not read", style=Style.BAD)


def heaps_document(snapshot: Snapshot) -> Document:
    """One row a heap, and how to get what is missing."""
    return Document(
        f"{snapshot.source.program or snapshot.source.file}: heaps",
        None,
        (
            Source("File", snapshot.source),
            heap_table(snapshot.heaps, View.DATA),
            heap_table(_with_total(snapshot.heaps), View.PEOPLE),
            Meter("Heap memory walked", snapshot.coverage),
            *better_dump_lines(snapshot),
            Notes(snapshot.diagnostics),
        ),
    )


def better_dump_lines(snapshot: Snapshot) -> list[Line]:
    """How to get what is missing, where something is."""
    steps = better_dump_steps(snapshot.source) if snapshot.coverage.shortfall else ()
    return [Line(f"{step.text} {step.command}".rstrip()) for step in steps]


def heaps_json(snapshot: Snapshot) -> dict[str, Any]:
    """Schema dumpleak/heaps/1."""
    return {
        "schema": "dumpleak/heaps/1",
        **source_json(snapshot.source),
        "heaps": [heap_json(row) for row in snapshot.heaps],
        "coverage": coverage_json(snapshot.coverage),
        "diagnostics": diagnostics_json(snapshot.diagnostics),
    }
