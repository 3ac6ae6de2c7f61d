"""SARIF 2.1.0, which code-scanning services show and follow over time by fingerprint.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html; sections in comments are of that text.
"""

from __future__ import annotations

import json
from typing import IO, Any

from dumpleak import __version__
from dumpleak.compare.answers import Verdict
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.gate.gate import Finding, told_unknown
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import count_of
from dumpleak.reports.ci.findings import (
    Findings,
    JudgedAnswer,
    findings,
    fingerprint,
    source_line,
    told,
)
from windumps.diagnostics import Diagnostic, Severity

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
FINGERPRINT = "dumpleakSite/v1"
MAX_NOTIFICATIONS = 100

# Of what is only listed, members take the place of memory.
_RULES = {
    "growth": "A {noun} has more {more} than before. That alone is no leak.",
    "suspect": "A {noun} grows steadily over a series of dumps.",
    "leaked": "A {noun} grew steadily and did not give {back} back after the load stopped.",
}
_LEVELS = {Severity.INFO: "note", Severity.WARNING: "warning", Severity.ERROR: "error"}


def write_sarif(judged: JudgedAnswer, top: int | None, stream: IO[str]) -> None:
    """A result for each site that grew."""
    answer, gate = judged.answer, judged.gate
    found = Findings([], 0) if answer.refused else findings(judged, top)
    answered = answer.verdict is not Verdict.NOT_COMPARABLE or gate is not None
    run = {
        "tool": {
            "driver": {"name": "dumpleak", "version": __version__, "rules": _rules(answer.base)}
        },
        "automationDetails": {"id": "dumpleak/"},
        "columnKind": "utf16CodeUnits",
        "invocations": [
            {
                "executionSuccessful": not answer.refused
                and answered
                and not (gate and gate.verdict == "no-answer"),
                "toolExecutionNotifications": _notifications(judged, found.left_out),
            }
        ],
        "results": [_result(finding, answer.base.members) for finding in found.shown],
    }
    json.dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, stream, indent=1)
    stream.write("\n")


def _rules(base: Snapshot) -> list[dict[str, Any]]:
    """In the words of what was compared: sites, tags, threads of a start function."""
    more, back = (base.members,) * 2 if base.is_listed else ("memory in use", "memory")
    words = {"noun": base.noun, "more": more, "back": back}
    return [
        {"id": rule, "shortDescription": {"text": text.format(**words)}}
        for rule, text in _RULES.items()
    ]


def _notifications(judged: JudgedAnswer, left_out: int) -> list[dict[str, Any]]:
    """What was left out, and what the gate could not measure."""
    answer, gate = judged.answer, judged.gate
    notifications = [_notification(item) for item in answer.diagnostics[:MAX_NOTIFICATIONS]]
    more = len(answer.diagnostics) - MAX_NOTIFICATIONS
    if more > 0:
        notifications.append(_note(f"{more} more diagnostics are left out; --format json has them"))
    if left_out:
        more_sites = count_of(left_out, f"more {answer.base.noun}")
        notifications.append(_note(f"{more_sites} that grew are left out; --top N shows more"))
    unanswered = gate.unanswered if gate else []
    return [*notifications, *(_note(told_unknown(measured), "error") for measured in unanswered)]


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
