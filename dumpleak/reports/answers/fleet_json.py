"""A fleet as JSON: the contract with scripts. All rows are in the Parquet files."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dumpleak.fleets.gate import FleetGate
from dumpleak.fleets.summary import FleetLeak, FleetSummary
from dumpleak.reports.json_report import time_json


def fleet_json(summary: FleetSummary, gate: FleetGate | None = None) -> dict[str, Any]:
    """Schema dumpleak/fleet/1; all leaks are written, and the first inputs that could not be read."""
    return {
        "schema": "dumpleak/fleet/1",
        "folder": summary.folder,
        "inputs": summary.inputs,
        "read": summary.inputs - summary.errors,
        "errors": summary.errors,
        "copies": summary.copies,
        "machines": summary.machines,
        "leaking_machines": summary.leaking,
        "first": time_json(summary.first),
        "last": time_json(summary.last),
        "series": {kind: summary.series.get(kind, 0) for kind in ("trend", "pair", "single")},
        "walked_bytes": summary.walked_bytes,
        "committed_bytes": summary.committed_bytes,
        "leaks": [_leak(leak) for leak in summary.leaks],
        "failed": [
            {"url": each.url, "kind": each.kind, "error": each.error} for each in summary.failed
        ],
        "not_compared": [{"series": name, "why": why} for name, why in summary.not_compared],
        "gate": None if gate is None else _gate(gate),
    }


def _leak(leak: FleetLeak) -> dict[str, Any]:
    return {
        name: time_json(value) if isinstance(value, datetime) else value
        for name, value in ((name, getattr(leak, name)) for name in FleetLeak.__dataclass_fields__)
    }


def _gate(gate: FleetGate) -> dict[str, Any]:
    return {
        "verdict": gate.verdict,
        "conditions": [
            {"condition": m.condition.text, "failed": m.failed, "unknown": m.unknown}
            for m in gate.conditions
        ],
    }
