"""Tables and charts that several pages have: heaps, modules, memory by use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.model.account import BYTES, AccountRow
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.model.units import format_address
from dumpleak.reports.page.data import Column, Grid, Row, shown
from dumpleak.reports.rows import changed, whole_of
from windumps.images.modules import Module


def heap_grid(rows: Sequence[HeapRow], base: Sequence[HeapRow] | None = None) -> Grid:
    """One row a heap; with a base, how its used bytes changed."""
    columns = [
        Column("heap", "text"),
        Column("kind", "text"),
        Column("committed", "bytes"),
        Column("used", "bytes"),
        Column("blocks", "count"),
        Column("free", "bytes"),
        Column("overhead", "bytes"),
    ]
    before = {row.label: row for row in base or ()}
    if base is not None:
        columns[3:3] = [Column("used +/-", "delta-bytes"), Column("blocks +/-", "delta-count")]
    grid = Grid("heaps", "Heaps", tuple(columns))
    gone = [row for label, row in before.items() if label not in {now.label for now in rows}]
    for row in (*rows, *gone):
        is_gone = row in gone
        front = f" with {row.front_end}" if row.front_end else ""
        kind = f"{row.kind}{front}" if row.read else f"{row.kind}, not read: {row.reason}"
        values: Row = [
            shown(row.label),
            shown(kind + " (gone)" * is_gone),
            None if is_gone else row.committed_bytes,
            0 if is_gone else row.used_bytes,
            0 if is_gone else row.used_count,
            None if is_gone else row.free_bytes,
            None if is_gone else row.overhead_bytes,
        ]
        if base is not None:
            old = before.get(row.label)
            values[3:3] = [
                _change(values[3], old.used_bytes if old else 0),
                _change(values[4], old.used_count if old else 0),
            ]
        grid.rows.append(values)
    return grid


def account_grid(rows: Sequence[AccountRow]) -> Grid:
    """What changed of the process, or the system, as a whole; a count and bytes have columns of their own."""
    grid = Grid(
        "account",
        f"The {whole_of(rows)} as a whole",
        (
            Column("bytes +/-", "delta-bytes", "last minus first"),
            Column("count +/-", "delta-count", "last minus first"),
            Column("base", "text"),
            Column("current", "text"),
            Column("state", "text", "grew: by more than a healthy process shows"),
            Column("what", "name"),
        ),
    )
    for row in changed(rows):
        of_bytes = row.unit == BYTES
        grid.rows.append(
            [
                row.delta if of_bytes else None,
                None if of_bytes else row.delta,
                row.told(row.base),
                row.told(row.current),
                row.told_state,
                shown(row.kind.label),
            ]
        )
    return grid


def module_grid(title: str, modules: Sequence[Module], unloaded: Sequence[Module]) -> Grid:
    """One row an image."""
    grid = Grid(
        "modules",
        title,
        (
            Column("base", "text"),
            Column("size", "bytes"),
            Column("state", "text"),
            Column("version", "text"),
            Column("PDB", "text"),
            Column("GUID and age", "text"),
            Column("name", "name"),
        ),
        chosen=2,
    )
    for state, group in (("loaded", modules), ("unloaded", unloaded)):
        for module in group:
            grid.rows.append(
                [
                    format_address(module.base_address),
                    module.size_bytes,
                    state,
                    shown(module.version),
                    shown(module.pdb.name) if module.pdb else "",
                    module.pdb.key if module.pdb else "",
                    shown(module.path or module.name),
                ]
            )
    return grid


def memory_map(snapshots: Sequence[tuple[str, Snapshot]]) -> dict[str, Any]:
    """Committed memory by use in each dump; empty unless all of them know it."""
    maps = [(label, snapshot.memory) for label, snapshot in snapshots]
    known = [(label, memory) for label, memory in maps if memory is not None]
    if not known or len(known) < len(maps):
        return {}
    uses = dict.fromkeys(row.use for _, memory in known for row in memory.rows)
    return {
        "labels": [label for label, _ in known],
        "complete": all(memory.complete for _, memory in known),
        "uses": [use.replace("-", " ") for use in uses],
        "values": [
            [next((r.committed_bytes for r in memory.rows if r.use == use), 0) for use in uses]
            for _, memory in known
        ],
        "present": [
            [next((r.present_bytes for r in memory.rows if r.use == use), 0) for use in uses]
            for _, memory in known
        ],
    }


def _change(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before
