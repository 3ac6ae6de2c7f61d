"""JUnit XML, which CI servers show: one test for each condition of the gate, and one for each site.

Elements and attributes are those of Ant's JUnit task, in its order, so that strict readers take them too.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import IO
from xml.etree import ElementTree

from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged, told_unknown
from dumpleak.reports.ci.findings import JudgedAnswer, findings, told, xml_text


class JunitReport:
    """See `DiffReport` and `TrendReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """A test for each condition and each site that grew."""
        self._write(judged, top, "dumpleak.diff")

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """The same of a series."""
        self._write(judged, top, "dumpleak.trend")

    def _write(self, judged: JudgedAnswer, top: int | None, name: str) -> None:
        answer, gate = judged.answer, judged.gate
        cases: list[ElementTree.Element] = []
        errors = failures = skipped = 0
        doubted = answer.verdict is Verdict.NOT_COMPARABLE and gate is None
        if answer.refused or doubted:
            case = _case(cases, name, "comparable")
            _child(case, "error", "not-comparable", "; ".join(answer.reasons or answer.doubts))
            errors = 1
        if not answer.refused:
            for measured in gate.conditions if gate else ():
                case = _case(cases, f"{name}.gate", measured.condition.text)
                if measured.unknown:
                    errors += 1
                    _child(case, "error", "no-answer", told_unknown(measured))
                elif measured.failed:
                    failures += 1
                    message = f"{measured.condition.text}: it is {measured.shown}"
                    _child(case, "failure", "gate", message)
            found = findings(judged, top)
            for finding in found.shown:
                case = _case(cases, f"{name}.site", finding.site.site.name)
                if finding.suppressed:
                    skipped += 1
                    ElementTree.SubElement(case, "skipped")
                elif finding.failed:
                    failures += 1
                    message = told(finding.site, answer.base.members)
                    failure = _child(case, "failure", finding.site.confidence, message)
                    failure.text = xml_text(
                        "\n".join(_details(finding.site.site.frames, finding.failed))
                    )
        when = (answer.current.source.time or datetime.fromtimestamp(0, UTC)).astimezone(UTC)
        root = ElementTree.Element("testsuites")
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            {
                "id": "0",
                "package": "dumpleak",
                "name": name,
                "timestamp": f"{when:%Y-%m-%dT%H:%M:%S}",
                "hostname": "localhost",
                "tests": str(len(cases)),
                "failures": str(failures),
                "errors": str(errors),
                "skipped": str(skipped),
                "time": "0",
            },
        )
        properties = ElementTree.SubElement(suite, "properties")
        for side, snapshot in (("base", answer.base), ("current", answer.current)):
            shown = snapshot.coverage.shown_share
            share = "unknown" if shown is None else f"{shown:.4f}"
            facts = [("file", snapshot.source.file), ("walked_share", share)]
            if snapshot.is_listed:
                facts[1] = ("coverage", snapshot.coverage.told())
            for key, value in facts:
                ElementTree.SubElement(
                    properties, "property", {"name": f"{side}.{key}", "value": xml_text(value)}
                )
        suite.extend(cases)
        out = ElementTree.SubElement(suite, "system-out")
        if not answer.refused and found.left_out:
            more = f"{found.left_out} more {answer.base.noun}s that grew are left out"
            out.text = f"{more}; --top N shows more."
        ElementTree.SubElement(suite, "system-err")
        ElementTree.indent(root)
        self._stream.write('<?xml version="1.0" encoding="UTF-8"?>\n')
        self._stream.write(ElementTree.tostring(root, encoding="unicode") + "\n")


def _case(cases: list[ElementTree.Element], class_name: str, name: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", {"classname": class_name, "name": xml_text(name), "time": "0"}
    )
    cases.append(case)
    return case


def _child(case: ElementTree.Element, tag: str, kind: str, message: str) -> ElementTree.Element:
    return ElementTree.SubElement(case, tag, {"type": kind, "message": xml_text(message)})


def _details(frames: tuple[str, ...], failed: tuple[str, ...]) -> list[str]:
    return [*failed, *(f"  {frame}" for frame in frames)]
