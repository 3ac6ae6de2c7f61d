"""JSON: the contract with scripts. Addresses are hex strings, sizes plain bytes, times ISO 8601 in
UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import IO, Any

from dumpleak.comparison import Comparison, SiteDelta
from dumpleak.info import Info
from dumpleak.reports.base import BLOCK_COLUMNS, BlockPage
from dumpleak.reports.rows import block_rows, ranked_groups
from dumpleak.snapshot import Coverage, HeapRow, Snapshot, SourceInfo
from dumpleak.totals import Totals
from dumpleak.units import format_address
from windumps.diagnostics import Diagnostic
from windumps.windows.modules import Module


class JsonReport:
    """See `Report`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def info(self, info: Info) -> None:
        """Schema dumpleak/info/1."""
        source = info.source
        self._write(
            {
                "schema": "dumpleak/info/1",
                **_source(source),
                "full_memory": info.full_memory,
                "memory_bytes": info.memory_bytes,
                "threads": info.thread_count,
                "comments": list(info.comments),
                "nt_global_flag": info.nt_global_flag,
                "usable": info.usable,
                "advice": info.advice,
                "modules": [_module(module) for module in info.modules],
                "unloaded_modules": [_module(module) for module in info.unloaded_modules],
                "heaps": [_heap(row) for row in info.heaps],
                "coverage": asdict(info.coverage),
                "memory_by_use": {
                    row.use: {
                        "committed_bytes": row.committed_bytes,
                        "present_bytes": row.present_bytes,
                        "regions": row.regions,
                    }
                    for row in info.memory.rows
                },
                "memory_by_use_complete": info.memory.complete,
                "diagnostics": _diagnostics(info.diagnostics),
            }
        )

    def heaps(self, snapshot: Snapshot) -> None:
        """Schema dumpleak/heaps/1."""
        self._write(
            {
                "schema": "dumpleak/heaps/1",
                **_source(snapshot.source),
                "heaps": [_heap(row) for row in snapshot.heaps],
                "coverage": asdict(snapshot.coverage),
                "diagnostics": _diagnostics(snapshot.diagnostics),
            }
        )

    def modules(self, file: str, modules: list[Module], unloaded: list[Module]) -> None:
        """Schema dumpleak/modules/1."""
        self._write(
            {
                "schema": "dumpleak/modules/1",
                "file": file,
                "modules": [_module(module) for module in modules],
                "unloaded_modules": [_module(module) for module in unloaded],
            }
        )

    def allocations(self, pages: Iterable[BlockPage], top: int | None) -> None:
        """JSON lines: one object a block."""
        for row in block_rows(pages, top):
            values: dict[str, Any] = dict(zip(BLOCK_COLUMNS, row, strict=True))
            for name in ("size", "type", "tag", "stack_id"):
                values[name] = None if values[name] == "" else values[name]
            self._stream.write(json.dumps(values) + "\n")

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Schema dumpleak/stat/1; `top` is for people, all groups are written."""
        self._write(
            {
                "schema": "dumpleak/stat/1",
                "file": snapshot.source.file,
                "by": snapshot.grouping,
                "coverage": asdict(snapshot.coverage),
                "totals": {
                    "used_bytes": snapshot.totals.bytes,
                    "used_count": snapshot.totals.count,
                    "block_bytes": snapshot.totals.block_bytes,
                },
                "groups": [
                    {
                        "kind": site.kind,
                        "name": site.name,
                        "frames": list(site.frames),
                        "type": site.type,
                        "tag": site.tag,
                        "used_bytes": totals.bytes,
                        "used_count": totals.count,
                        "block_bytes": totals.block_bytes,
                        "largest": totals.largest,
                    }
                    for site, totals in ranked_groups(snapshot)
                ],
                "diagnostics": _diagnostics(snapshot.diagnostics),
            }
        )

    def diff(self, comparison: Comparison, top: int | None) -> None:
        """Schema dumpleak/diff/1; `top` is for people, all sites are written."""
        base, current = comparison.base_totals, comparison.current_totals
        self._write(
            {
                "schema": "dumpleak/diff/1",
                "base": _source(comparison.base.source),
                "current": _source(comparison.current.source),
                "verdict": comparison.verdict,
                "reasons": list(comparison.reasons),
                "by": comparison.base.grouping,
                "coverage": {
                    "base": _coverage(comparison.base.coverage),
                    "current": _coverage(comparison.current.coverage),
                },
                "totals": {
                    "delta_bytes": comparison.delta_bytes,
                    "delta_count": comparison.delta_count,
                    **_both(base, current),
                },
                "sites": [
                    _site(rank, delta) for rank, delta in enumerate(comparison.sites, start=1)
                ],
                "private": [
                    _site(rank, delta) for rank, delta in enumerate(comparison.private, start=1)
                ],
                "diagnostics": _diagnostics(comparison.diagnostics),
            }
        )

    def _write(self, document: dict[str, Any]) -> None:
        json.dump(document, self._stream, indent=1)
        self._stream.write("\n")


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _source(source: SourceInfo) -> dict[str, Any]:
    return {
        "file": source.file,
        "kind": source.kind,
        "machine": source.machine,
        "architecture": source.architecture,
        "build": source.build or None,
        "time": _time(source.time),
        "process_id": source.process_id,
        "program": source.program or None,
        "process_created": _time(source.process_created),
    }


def _heap(row: HeapRow) -> dict[str, Any]:
    return {**asdict(row), "address": format_address(row.address), "read": row.read}


def _module(module: Module) -> dict[str, Any]:
    return {
        "name": module.name,
        "path": module.path,
        "base_address": format_address(module.base_address),
        "size_bytes": module.size_bytes,
        "timestamp": module.timestamp,
        "version": module.version or None,
        "pdb_name": module.pdb.name if module.pdb else None,
        "pdb_guid": module.pdb.guid if module.pdb else None,
        "pdb_age": module.pdb.age if module.pdb else None,
    }


def _coverage(coverage: Coverage) -> dict[str, int]:
    return asdict(coverage)


def _both(base: Totals, current: Totals) -> dict[str, int]:
    return {
        "base_bytes": base.bytes,
        "base_count": base.count,
        "current_bytes": current.bytes,
        "current_count": current.count,
    }


def _site(rank: int, delta: SiteDelta) -> dict[str, Any]:
    site = delta.site
    return {
        "rank": rank,
        "kind": site.kind,
        "name": site.name,
        "frames": list(site.frames),
        "type": site.type,
        "tag": site.tag,
        "driver": site.driver,
        "delta_bytes": delta.delta_bytes,
        "delta_count": delta.delta_count,
        **_both(delta.base, delta.current),
        "confidence": delta.confidence,
        "evidence": list(delta.evidence),
    }


def _diagnostics(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(item),
            "address": None if item.address is None else format_address(item.address),
        }
        for item in diagnostics
    ]
