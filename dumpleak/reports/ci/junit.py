"""JUnit XML, which CI servers show: one test for each condition of the gate, and one for each site.

Elements and attributes are those of Ant's JUnit task, in its order, so that strict readers take them too.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from dumpleak.compare.answers import Verdict
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Finding, told_unknown
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import count_of
from dumpleak.reports.ci.findings import JudgedAnswer, findings, told, xml_text


def write_junit(judged: JudgedAnswer, top: int | None, stream: IO[str]) -> None:
    """A suite of one comparison or trend."""
    answer = judged.answer
    name = "dumpleak.trend" if isinstance(answer, Trend) else "dumpleak.diff"
    cases = list(_conditions(judged, name))
    left_out = 0
    if not answer.refused:
        found = findings(judged, top)
        cases += [_site(finding, name, answer.base.members) for finding in found.shown]
        left_out = found.left_out
    counted = {
        tag: str(sum(case.find(tag) is not None for case in cases))
        for tag in ("failure", "error", "skipped")
    }
    when = (answer.current.source.time or datetime.fromtimestamp(0, UTC)).astimezone(UTC)
    root = Element("testsuites")
    suite = SubElement(
        root,
        "testsuite",
        {
            "id": "0",
            "package": "dumpleak",
            "name": name,
            "timestamp": f"{when:%Y-%m-%dT%H:%M:%S}",
            "hostname": "localhost",
            "tests": str(len(cases)),
            "failures": counted["failure"],
            "errors": counted["error"],
            "skipped": counted["skipped"],
            "time": "0",
        },
    )
    properties = SubElement(suite, "properties")
    for side, snapshot in (("base", answer.base), ("current", answer.current)):
        for key, value in _facts(snapshot):
            pair = {"name": f"{side}.{key}", "value": xml_text(value)}
            SubElement(properties, "property", pair)
    suite.extend(cases)
    out = SubElement(suite, "system-out")
    if left_out:
        more = count_of(left_out, f"more {answer.base.noun}")
        out.text = f"{more} that grew are left out; --top N shows more."
    SubElement(suite, "system-err")
    ElementTree.indent(root)
    stream.write('<?xml version="1.0" encoding="UTF-8"?>\n')
    stream.write(ElementTree.tostring(root, encoding="unicode") + "\n")


def _conditions(judged: JudgedAnswer, name: str) -> Iterator[Element]:
    """Whether the dumps can be compared at all, and what the gate measured."""
    answer, gate = judged.answer, judged.gate
    if answer.refused or (answer.verdict is Verdict.NOT_COMPARABLE and gate is None):
        case = _case(name, "comparable")
        _child(case, "error", "not-comparable", "; ".join(answer.reasons or answer.doubts))
        yield case
    for measured in gate.conditions if gate and not answer.refused else ():
        case = _case(f"{name}.gate", measured.condition.text)
        if measured.unknown:
            _child(case, "error", "no-answer", told_unknown(measured))
        elif measured.failed:
            message = f"{measured.condition.text}: it is {measured.shown}"
            _child(case, "failure", "gate", message)
        yield case


def _site(finding: Finding, name: str, members: str) -> Element:
    site = finding.site
    case = _case(f"{name}.site", site.site.name)
    if finding.suppressed:
        SubElement(case, "skipped")
    elif finding.failed:
        failure = _child(case, "failure", site.confidence, told(site, members))
        frames = (f"  {frame}" for frame in site.site.frames)
        failure.text = xml_text("\n".join((*finding.failed, *frames)))
    return case


def _facts(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The file, and how much of it was walked."""
    covered = snapshot.coverage
    walked = "unknown" if covered.shown_share is None else f"{covered.shown_share:.4f}"
    share = ("coverage", covered.told()) if snapshot.is_listed else ("walked_share", walked)
    return [("file", snapshot.source.file), share]


def _case(class_name: str, name: str) -> Element:
    return Element("testcase", {"classname": class_name, "name": xml_text(name), "time": "0"})


def _child(case: Element, tag: str, kind: str, message: str) -> Element:
    return SubElement(case, tag, {"type": kind, "message": xml_text(message)})
