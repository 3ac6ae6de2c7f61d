"""JSON: the contract with scripts. Addresses are hex strings, sizes plain bytes, times ISO 8601 in
UTC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime
from math import isfinite
from typing import IO, Any

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.refuted import why_unknown
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import GateResult, Judged
from dumpleak.model.account import AccountRow, Figure
from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.info import Info
from dumpleak.model.snapshot import HeapRow, Snapshot, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address
from dumpleak.reports.rows import block_rows, holder_evidence, ranked_groups
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module

_BYTES = {
    *("delta_bytes", "base_bytes", "current_bytes"),  # of diff
    *("used_bytes", "block_bytes", "largest"),  # of stat
    "bytes",  # of a trend's points
}
_OF_MEMBERS = ("totals", "groups", "sites", "dumps")  # what tells how many bytes members have


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
                "account": [_figure(figure) for figure in info.account],
                "handles_by_type": None
                if info.handles is None
                else [{"type": name or None, "count": count} for name, count in info.handles],
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
                "coverage": _coverage(snapshot.coverage),
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
                "of": snapshot.population,
                "by": snapshot.grouping,
                "coverage": _coverage(snapshot.coverage),
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
                        "lines": list(site.lines),
                        "type": site.type,
                        "tag": site.tag,
                        "driver": site.driver,
                        "used_bytes": totals.bytes,
                        "used_count": totals.count,
                        "block_bytes": totals.block_bytes,
                        "largest": totals.largest,
                        "evidence": holder_evidence(snapshot, site),
                    }
                    for site, totals in ranked_groups(snapshot)
                ],
                "diagnostics": _diagnostics(snapshot.diagnostics),
            },
            sized=snapshot.has_bytes,
        )

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Schema dumpleak/diff/1; `top` is for people, all sites are written."""
        comparison = judged.answer
        base, current = comparison.base_totals, comparison.current_totals
        proof = comparison.proof
        self._write(
            {
                "schema": "dumpleak/diff/1",
                "base": _source(comparison.base.source),
                "current": _source(comparison.current.source),
                "verdict": comparison.verdict,
                "reasons": [*comparison.reasons, *comparison.doubts],
                "of": comparison.base.population,
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
                "account": [_account(row) for row in comparison.account],
                "unreferenced": asdict(proof) if proof else None,
                "gate": _gate(judged.gate),
                "process_life": {"life": comparison.life.life, "evidence": comparison.life.why},
                "survivors": None
                if comparison.survivors is None
                else {
                    **asdict(comparison.survivors.total),
                    "reused_addresses": comparison.survivors.reused,
                },
                "sites": [
                    {
                        **_site(rank, delta, holder_evidence(comparison.current, delta.site)),
                        "survivors": asdict(delta.fate) if delta.fate else None,
                    }
                    for rank, delta in enumerate(comparison.sites, start=1)
                ],
                "private": [
                    _site(rank, delta) for rank, delta in enumerate(comparison.private, start=1)
                ],
                "diagnostics": _diagnostics(comparison.diagnostics),
            },
            sized=comparison.base.has_bytes,
        )

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Schema dumpleak/trend/1; `top` is for people, all sites are written."""
        trend = judged.answer
        self._write(
            {
                "schema": "dumpleak/trend/1",
                "base": _source(trend.base.source),
                "current": _source(trend.current.source),
                "dumps": [
                    {
                        **_source(snapshot.source),
                        "used_bytes": snapshot.totals.bytes,
                        "used_count": snapshot.totals.count,
                        "coverage": _coverage(snapshot.coverage),
                    }
                    for snapshot in trend.snapshots
                ],
                "after_idle": trend.after_idle,
                "verdict": trend.verdict,
                "reasons": [*trend.reasons, *trend.doubts],
                "of": trend.base.population,
                "by": trend.base.grouping,
                "coverage": {
                    "base": _coverage(trend.base.coverage),
                    "current": _coverage(trend.current.coverage),
                },
                "totals": {
                    "delta_bytes": trend.delta_bytes,
                    "delta_count": trend.delta_count,
                    **_both(trend.base_totals, trend.current_totals),
                },
                "account": [{**_account(row), "points": list(row.points)} for row in trend.account],
                "gate": _gate(judged.gate),
                "exhaustion": _exhaustion(trend),
                "sites": [
                    _trend(rank, site, holder_evidence(trend.current, site.site))
                    for rank, site in enumerate(trend.sites, start=1)
                ],
                "private": [_trend(rank, site) for rank, site in enumerate(trend.private, start=1)],
                **_runs(trend),
                "diagnostics": _diagnostics(trend.diagnostics),
            },
            sized=trend.base.has_bytes,
        )

    def _write(self, document: dict[str, Any], *, sized: bool = True) -> None:
        if not sized:
            document |= {
                name: _without_bytes(document[name]) for name in _OF_MEMBERS if name in document
            }
        json.dump(document, self._stream, indent=1)
        self._stream.write("\n")


def _without_bytes(part: Any) -> Any:
    """A part of a document whose members are only counted."""
    if isinstance(part, list):
        return [_without_bytes(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {name: None if name in _BYTES else _without_bytes(value) for name, value in part.items()}


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


def _figure(figure: Figure) -> dict[str, Any]:
    return {
        "name": figure.name,
        "unit": figure.measure,
        "value": figure.value,
        "reason": figure.reason or None,
    }


def _account(row: AccountRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "unit": row.unit,
        "base": row.base,
        "current": row.current,
        "delta": row.delta,
        "state": row.state,
        "reason": row.reason or None,
    }


def _runs(trend: Trend) -> dict[str, Any]:
    """Of a kernel: restarts, the other runs of the system, and what grows by counters only."""
    if not trend.base.is_pool:
        return {}
    return {
        "restarts": [{"before": before, "after": after} for before, after in trend.restarts],
        "by_counters": [_trend(rank, site) for rank, site in enumerate(trend.by_counters, start=1)],
        "by_counters_unknown": why_unknown(trend.snapshots) or None,
        "other_runs": [
            {
                "dumps": [_source(snapshot.source) for snapshot in run.snapshots],
                "verdict": run.verdict,
                "reasons": [*run.reasons, *run.doubts],
                "totals": {
                    "delta_bytes": run.delta_bytes,
                    "delta_count": run.delta_count,
                    **_both(run.base_totals, run.current_totals),
                },
                "sites": [_trend(rank, site) for rank, site in enumerate(run.sites, start=1)],
                "by_counters": [
                    _trend(rank, site) for rank, site in enumerate(run.by_counters, start=1)
                ],
            }
            for run in trend.other_runs
        ],
    }


def _coverage(coverage: Coverage) -> dict[str, int | str | None]:
    """Of what never tells how much there was, that is null, and the reason stands beside it.

    Members that the dump lists are not walked: all is null.
    """
    if isinstance(coverage, ListCovered):
        return dict.fromkeys(f.name for f in fields(Coverage)) | {"list_cut": False}
    never = {"committed_bytes": None, "never": coverage.never} if coverage.never else {}
    return asdict(coverage) | never


def _both(base: Totals, current: Totals) -> dict[str, int]:
    return {
        "base_bytes": base.bytes,
        "base_count": base.count,
        "current_bytes": current.bytes,
        "current_count": current.count,
    }


def _site(
    rank: int, delta: SiteDelta | SiteTrend, more_evidence: Iterable[str] = ()
) -> dict[str, Any]:
    site = delta.site
    return {
        "rank": rank,
        "key": site.key,
        "kind": site.kind,
        "name": site.name,
        "frames": list(site.frames),
        "lines": list(site.lines),
        "type": site.type,
        "tag": site.tag,
        "driver": site.driver,
        "delta_bytes": delta.delta_bytes,
        "delta_count": delta.delta_count,
        **_both(delta.base, delta.current),
        "confidence": delta.confidence,
        "evidence": [*delta.evidence, *more_evidence],
    }


def _gate(gate: GateResult | None) -> dict[str, Any] | None:
    if gate is None:
        return None
    return {
        "passed": gate.passed,
        "answer": gate.verdict,
        "conditions": [
            {
                "condition": measured.condition.text,
                "measured": measured.value
                if measured.value is not None and isfinite(measured.value)
                else None,
                "failed": measured.failed,
                "unknown": measured.unknown or None,
            }
            for measured in gate.conditions
        ],
        "baseline": gate.baseline or None,
        "failed_sites": [
            {"key": f.site.site.key, "name": f.site.site.name, "conditions": list(f.failed)}
            for f in gate.findings
            if f.failed
        ],
        "suppressed_sites": [
            {"key": f.site.site.key, "name": f.site.site.name, "because": f.suppressed}
            for f in gate.findings
            if f.suppressed
        ],
        "unused_suppressions": [entry.told for entry in gate.unused],
        "expired_suppressions": [entry.told for entry in gate.expired],
    }


def _trend(rank: int, trend: SiteTrend, more_evidence: Iterable[str] = ()) -> dict[str, Any]:
    span = trend.bytes_per_hour_range
    return {
        **_site(rank, trend, more_evidence),
        "points": [{"bytes": point.bytes, "count": point.count} for point in trend.points],
        "bytes_per_hour": _rate(trend.bytes_per_hour),
        "bytes_per_hour_low": _rate(span[0]) if span else None,
        "bytes_per_hour_high": _rate(span[1]) if span else None,
        "count_per_hour": _rate(trend.count_per_hour),
        "shape": trend.shape,
        "newcomers": trend.newcomers._asdict() if trend.newcomers else None,
        "exhaustion": _time(trend.exhaustion),
    }


def _rate(per_hour: float | None) -> float | None:
    return None if per_hour is None else round(per_hour, 3)


def _exhaustion(trend: Trend) -> dict[str, Any] | None:
    if trend.exhaustion is None:
        return None
    return {
        "limit": trend.exhaustion.limit.name,
        "free_bytes": trend.exhaustion.limit.free_bytes,
        "bytes_per_hour": _rate(trend.exhaustion.bytes_per_hour),
        "time": _time(trend.exhaustion.time),
    }


def _diagnostics(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    return [
        {
            **asdict(item),
            "address": None if item.address is None else format_address(item.address),
        }
        for item in diagnostics
    ]
