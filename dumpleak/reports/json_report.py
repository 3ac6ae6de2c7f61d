"""Parts that JSON answers share: the contract with scripts.

Addresses are hex strings, sizes plain bytes, times ISO 8601 in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any

from dumpleak.model.account import AccountRow, Figure
from dumpleak.model.containment import SiteContainers
from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import HeapRow, SourceInfo
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module

if TYPE_CHECKING:
    from dumpleak.compare.answers import SiteDelta
    from dumpleak.compare.site_trends import SiteTrend
    from dumpleak.gate.gate import GateResult

_BYTES = {
    *("delta_bytes", "base_bytes", "current_bytes", "bytes_per_hour"),  # of diff
    *("used_bytes", "block_bytes", "largest"),  # of stat
    "bytes",  # of a trend's points
}
_OF_MEMBERS = ("totals", "groups", "sites", "dumps")  # what tells how many bytes members have


def sized_json(made: dict[str, Any], *, sized: bool) -> dict[str, Any]:
    """An answer; of members that are only counted without bytes."""
    parts = [] if sized else [name for name in _OF_MEMBERS if name in made]
    return made | {name: _without_bytes(made[name]) for name in parts}


def _without_bytes(part: Any) -> Any:
    """A part of a document whose members are only counted."""
    if isinstance(part, list):
        return [_without_bytes(item) for item in part]
    if not isinstance(part, dict):
        return part
    return {name: None if name in _BYTES else _without_bytes(value) for name, value in part.items()}


def time_json(moment: datetime | None) -> str | None:
    """A moment in ISO 8601."""
    return moment.isoformat() if moment else None


def source_json(source: SourceInfo) -> dict[str, Any]:
    """Where an answer comes from."""
    return {
        "file": source.file,
        "kind": source.kind,
        "machine": source.machine,
        "architecture": source.architecture,
        "build": source.build or None,
        "time": time_json(source.time),
        "process_id": source.process_id,
        "program": source.program or None,
        "process_created": time_json(source.process_created),
    }


def heap_json(row: HeapRow) -> dict[str, Any]:
    """One heap."""
    return {**asdict(row), "address": format_address(row.address), "read": row.read}


def module_json(module: Module) -> dict[str, Any]:
    """One image."""
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


def figure_json(figure: Figure) -> dict[str, Any]:
    """One figure of the account."""
    return {
        "name": figure.name,
        "unit": figure.measure,
        "value": figure.value,
        "reason": figure.reason or None,
    }


def account_json(row: AccountRow) -> dict[str, Any]:
    """One row of the account."""
    return {
        "name": row.name,
        "unit": row.unit,
        "base": row.base,
        "current": row.current,
        "delta": row.delta,
        "state": row.state,
        "reason": row.reason or None,
    }


def coverage_json(coverage: Coverage) -> dict[str, int | str | None]:
    """Of what never tells how much there was, that is null, and the reason stands beside it.

    Members that the dump lists are not walked: all is null.
    """
    if isinstance(coverage, ListCovered):
        cut = bool(coverage.lacking)
        return dict.fromkeys(f.name for f in fields(Coverage)) | {"list_cut": cut}
    never = {"committed_bytes": None, "never": coverage.never} if coverage.never else {}
    return asdict(coverage) | never


def both_json(base: Totals, current: Totals) -> dict[str, int]:
    """Totals of both sides."""
    return {
        "base_bytes": base.bytes,
        "base_count": base.count,
        "current_bytes": current.bytes,
        "current_count": current.count,
    }


def named_json(site: Site) -> dict[str, Any]:
    """A site as such."""
    return {
        "kind": site.kind,
        "name": site.name,
        "frames": list(site.frames),
        "lines": list(site.lines),
        "type": site.type,
        "tag": site.tag,
        "driver": site.driver,
    }


def site_json(
    rank: int, delta: SiteDelta | SiteTrend, more_evidence: Iterable[str] = ()
) -> dict[str, Any]:
    """One site that changed."""
    site = delta.site
    return {
        "rank": rank,
        "key": site.key,
        **named_json(site),
        "delta_bytes": delta.delta_bytes,
        "delta_count": delta.delta_count,
        **both_json(delta.base, delta.current),
        "confidence": delta.confidence,
        "evidence": [*delta.evidence, *more_evidence],
        **containers_json(delta.contained),
    }


def containers_json(found: SiteContainers | None) -> dict[str, Any]:
    """The container that holds most of a site's blocks, where one does."""
    if found is None:
        return {}
    largest = found.largest
    return {
        "container": {
            "pattern": largest.pattern,
            "place": largest.place,
            "address": largest.address,
            "members": largest.members,
            "member_bytes": largest.member_bytes,
            "new_members": found.largest_new,
            "notes": list(largest.notes),
            "holds": found.largest_held,
            "containers": found.containers,
            "held": found.held,
            "of": found.of,
            "of_new": found.new,
        }
    }


def gate_json(gate: GateResult | None) -> dict[str, Any] | None:
    """What the gate says; None where there is none."""
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


def diagnostics_json(diagnostics: Iterable[Diagnostic]) -> list[dict[str, Any]]:
    """What was left out, and why."""
    return [
        {
            **asdict(item),
            "address": None if item.address is None else format_address(item.address),
        }
        for item in diagnostics
    ]
