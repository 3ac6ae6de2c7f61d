"""Growth as a comment on a pull request: the sites that grew, those that fail the gate first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Finding, GateResult
from dumpleak.model.account_rows import what_grew
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.ci.findings import JudgedAnswer, findings
from dumpleak.reports.document import DEFAULT_TOP, Column, Kind, Part, Remarks, Row, Table, View
from dumpleak.reports.values import Name, Said, Style

_GATE = {"pass": "passed", "fail": "failed", "no-answer": "no answer"}


def review_parts(judged: JudgedAnswer, top: int | None) -> Iterator[Part]:
    """The verdict, the gate, the sites that grew, and what else did."""
    answer, gate = judged.answer, judged.gate
    yield _paragraph(Said(_heading(judged), Style.HEADING))
    if answer.doubts and gate is None:
        yield from _reasons("No verdict:", answer.doubts)
    if answer.refused:
        yield from _reasons("Not comparable:", answer.reasons)
        return
    yield _change(judged)
    if gate is not None:
        yield _paragraph("Gate: ", _strong(_GATE[gate.verdict]))
        if gate.conditions or gate.expired or gate.unused:
            yield Remarks(list(_measured(gate)), listed=True)
    yield from _sites(judged, DEFAULT_TOP if top is None else top)
    grew = what_grew(answer.account)
    if grew:
        points = [
            (
                f"{row.kind.label}: ",
                _strong(row.told(row.delta, True)),
                f" (from {row.told(row.base)} to {row.told(row.current)})",
            )
            for row in grew
        ]
        yield Remarks(points, listed=True)
    yield _paragraph(_coverage(answer.base, answer.current))


def _heading(judged: JudgedAnswer) -> str:
    answer = judged.answer
    is_trend = isinstance(answer, Trend)
    words = ("Trend of", "Memory trend") if is_trend else ("Growth of", "Memory growth")
    what = f"{words[0]} {answer.base.members}" if answer.base.is_listed else words[1]
    return f"{what} over {len(answer.snapshots)} dumps" if isinstance(answer, Trend) else what


def _change(judged: JudgedAnswer) -> Remarks:
    answer = judged.answer
    base, current = answer.base_totals, answer.current_totals
    count = _strong(format_count(answer.delta_count, True)), f" {answer.base.members} in all: from "
    if not answer.base.has_bytes:
        return _paragraph(*count, f"{format_count(base.count)} to {format_count(current.count)}.")
    return _paragraph(
        _strong(format_bytes(answer.delta_bytes, True)),
        " and ",
        *count,
        f"{format_bytes(base.bytes)} in {format_count(base.count)} to {format_bytes(current.bytes)} in "
        f"{format_count(current.count)}.",
    )


def _measured(gate: GateResult) -> Iterator[Sequence[str | Said]]:
    for measured in gate.conditions:
        state = "failed" if measured.failed else "no answer" if measured.unknown else "ok"
        more = f"; {measured.unknown}" if measured.unknown else ""
        condition = Said(measured.condition.text, Style.CODE)
        yield condition, f": {state} (it is {measured.shown}){more}"
    for entry in (*gate.expired, *gate.unused):
        state = "expired" if entry.is_expired else "matches nothing that grew"
        yield "suppression ", Said(entry.site, Style.CODE), f": {state}"


def _sites(judged: JudgedAnswer, top: int) -> Iterator[Part]:
    base, is_trend = judged.answer.base, isinstance(judged.answer, Trend)
    noun = base.noun if base.is_listed else "tag" if base.is_pool else "site"
    found = findings(judged, top)
    if not found.shown:
        yield _paragraph(f"No {noun} grew.")
        return
    of_trends = (
        Column("bytes/hour", Kind.BYTES, views=View.REVIEW, signed=True),
        Column("shape", views=View.REVIEW),
        Column("verdict", views=View.REVIEW),
    )
    columns = (
        Column("bytes +/-", Kind.BYTES, views=View.REVIEW, signed=True),
        Column(f"{base.members} +/-", Kind.COUNT, views=View.REVIEW, signed=True),
        *(of_trends if is_trend else ()),
        Column("gate", views=View.REVIEW),
        Column(noun, Kind.NAME, views=View.REVIEW),
    )
    sized = slice(0 if base.has_bytes else 1, None)
    yield Table(
        "grown",
        "",
        columns[sized],
        found.shown,
        lambda _, finding: _cells(finding)[sized],
        View.REVIEW,
    )
    if found.left_out:
        yield _paragraph(f"… and {found.left_out} more.")


def _cells(finding: Finding) -> Row:
    site = finding.site
    state = "failed" if finding.failed else "suppressed" if finding.suppressed else ""
    trend: Row = ()
    if isinstance(site, SiteTrend):
        rate = site.bytes_per_hour
        trend = None if rate is None else round(rate), site.shape, site.confidence
    return (site.delta_bytes, site.delta_count, *trend, state, Name(site.site.name))


def _coverage(base: Snapshot, current: Snapshot) -> str:
    sides = base.coverage, current.coverage
    if any(side.shown_share is None for side in sides):
        return f"Base: {sides[0].told()}. Current: {sides[1].told()}."
    memory = sides[0].memory.capitalize()
    return f"{memory} walked: {sides[0].share_text} of the base, {sides[1].share_text} of the current dump."


def _reasons(what: str, reasons: Sequence[str]) -> Iterator[Part]:
    yield _paragraph(_strong(what))
    yield Remarks([(reason,) for reason in reasons], listed=True)


def _paragraph(*pieces: str | Said) -> Remarks:
    return Remarks([pieces])


def _strong(text: str) -> Said:
    return Said(text, Style.STRONG)
