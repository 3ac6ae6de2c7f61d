"""SARIF 2.1.0, which code-scanning services show and follow over time by fingerprint.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; sections in comments are of that text.
"""

from __future__ import annotations

import json
from typing import IO, Any

from dumpleak import __version__
from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Finding, Judged, told_unknown
from dumpleak.model.sites import Site
from dumpleak.reports.ci.findings import JudgedAnswer, findings, fingerprint, source_line, told
from windumps.diagnostics import Diagnostic, Severity

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
FINGERPRINT = "dumpleakSite/v1"
MAX_NOTIFICATIONS = 100

_RULES = {
    "growth": "A site has more memory in use than before. That alone is no leak.",
    "suspect": "A site grows steadily over a series of dumps.",
    "leaked": "A site grew steadily and did not give memory back after the load stopped.",
}
_LEVELS = {Severity.INFO: "note", Severity.WARNING: "warning", Severity.ERROR: "error"}


class SarifReport:
    """See `DiffReport` and `TrendReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """A result for each site that grew."""
        self._write(judged, top)

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """The same of a series."""
        self._write(judged, top)

    def _write(self, judged: JudgedAnswer, top: int | None) -> None:
        answer, gate = judged.answer, judged.gate
        comparable = not answer.refused
        unanswered = gate.unanswered if gate else []
        found = findings(judged, top) if comparable else None
        notifications = [_notification(item) for item in answer.diagnostics[:MAX_NOTIFICATIONS]]
        left_out = len(answer.diagnostics) - MAX_NOTIFICATIONS
        if left_out > 0:
            notifications.append(
                _note(f"{left_out} more diagnostics are left out; --format json has them")
            )
        if found is not None and found.left_out:
            notifications.append(
                _note(
                    f"{found.left_out} more {answer.base.noun}s that grew are left out; --top N shows more"
                )
            )
        notifications += [_note(told_unknown(measured), "error") for measured in unanswered]
        run = {
            "tool": {
                "driver": {
                    "name": "dumpleak",
                    "version": __version__,
                    "rules": [
                        {"id": rule, "shortDescription": {"text": text}}
                        for rule, text in _RULES.items()
                    ],
                }
            },
            "automationDetails": {"id": "dumpleak/"},
            "columnKind": "utf16CodeUnits",
            "invocations": [
                {
                    "executionSuccessful": comparable
                    and (answer.verdict is not Verdict.NOT_COMPARABLE or gate is not None)
                    and not (gate and gate.verdict == "no-answer"),
                    "toolExecutionNotifications": notifications,
                }
            ],
            "results": [_result(finding, answer.base.members) for finding in found.shown]
            if found
            else [],
        }
        json.dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, self._stream, indent=1)
        self._stream.write("\n")


def _result(finding: Finding, members: str) -> dict[str, Any]:
    site = finding.site
    result: dict[str, Any] = {
        "ruleId": site.confidence,
        "ruleIndex": list(_RULES).index(site.confidence),
        "level": "error"
        if finding.failed
        else "warning"
        if site.confidence != "growth"
        else "note",
        "message": {
            "text": f"{told(site, members)}. {'; '.join((*finding.failed, *site.evidence))}"
        },
        "locations": [_location(site.site)],
        "partialFingerprints": {FINGERPRINT: fingerprint(site.site)},
        "properties": {
            "delta_bytes": site.delta_bytes,
            "delta_count": site.delta_count,
            **(
                {"bytes_per_hour": site.bytes_per_hour, "shape": site.shape}
                if isinstance(site, SiteTrend)
                else {}
            ),
        },
    }
    if site.site.frames:  # §3.27.18
        frames = [{"location": {"message": {"text": frame}}} for frame in site.site.frames]
        result["stacks"] = [{"message": {"text": "allocated by"}, "frames": frames}]
    # §3.27.23: an empty list says that nothing suppresses it.
    result["suppressions"] = (
        [{"kind": "external", "justification": finding.suppressed}] if finding.suppressed else []
    )
    return result


def _location(site: Site) -> dict[str, Any]:
    """Where a site is: its source line where symbols tell it, else its module, as a name.

    Code-scanning services want a file; a module is the nearest thing there is.
    """
    known = source_line(site)
    module = site.driver or site.name.partition("!")[0].partition("+0x")[0]
    place = known[0] if known else module
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(place)}}
    if known:
        physical["region"] = {"startLine": known[1]}
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": site.name, "kind": "function"}],
    }


def _uri(path: str) -> str:
    r"""A relative reference (RFC 3986): `src\cache.cpp` → `src/cache.cpp`; a drive becomes a folder."""
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
    text = path.replace("\\", "/").lstrip("/") or "unknown"
    return "".join(
        c if c in safe else "".join(f"%{b:02X}" for b in c.encode("utf-8", "surrogatepass"))
        for c in text
    )


def _notification(item: Diagnostic) -> dict[str, Any]:
    return {
        "descriptor": {"id": item.code},
        "level": _LEVELS[item.severity],
        "message": {"text": item.message},
    }


def _note(text: str, level: str = "note") -> dict[str, Any]:
    return {"level": level, "message": {"text": text}}
