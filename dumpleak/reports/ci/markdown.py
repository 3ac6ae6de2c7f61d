"""Markdown: a comment for a pull request. Names are hostile, and shown as code."""

from __future__ import annotations

import re
from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.account_rows import what_grew
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.ci.findings import Findings, JudgedAnswer, findings
from dumpleak.reports.names import visible

DEFAULT_TOP = 20
_GATE = {"pass": "passed", "fail": "failed", "no-answer": "no answer"}


class MarkdownReport:
    """See `DiffReport` and `TrendReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """The verdict and a table of sites that grew."""
        listed = judged.answer.base.is_listed
        what = f"Growth of {judged.answer.base.members}" if listed else "Memory growth"
        self._answer(judged, top, what)

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """The same over a series."""
        dumps = len(judged.answer.snapshots)
        listed = judged.answer.base.is_listed
        what = f"Trend of {judged.answer.base.members}" if listed else "Memory trend"
        self._answer(judged, top, f"{what} over {dumps} dumps")

    def _answer(self, judged: JudgedAnswer, top: int | None, heading: str) -> None:
        answer, gate = judged.answer, judged.gate
        self._line(f"### {heading}")
        self._line()
        if answer.doubts and gate is None:
            self._line("**No verdict:**")
            self._line()
            for doubt in answer.doubts:
                self._line(f"- {_text(doubt)}")
            self._line()
        if answer.refused:
            self._line("**Not comparable:**")
            self._line()
            for reason in answer.reasons:
                self._line(f"- {_text(reason)}")
            return
        base, current = answer.base_totals, answer.current_totals
        change = format_bytes(answer.delta_bytes, True), format_count(answer.delta_count, True)
        self._line(
            f"**{change[0]}** and **{change[1]}** {answer.base.members} in all: from "
            f"{format_bytes(base.bytes)} in {format_count(base.count)} to {format_bytes(current.bytes)} in "
            f"{format_count(current.count)}."
        )
        self._line()
        if gate is not None:
            self._line(f"Gate: **{_GATE[gate.verdict]}**")
            self._line()
            for measured in gate.conditions:
                state = "failed" if measured.failed else "no answer" if measured.unknown else "ok"
                more = f"; {_text(measured.unknown)}" if measured.unknown else ""
                self._line(
                    f"- {_code(measured.condition.text)}: {state} (it is {measured.shown}){more}"
                )
            for entry in (*gate.expired, *gate.unused):
                state = "expired" if entry.is_expired else "matches nothing that grew"
                self._line(f"- suppression {_code(entry.site)}: {state}")
            if gate.conditions or gate.expired or gate.unused:
                self._line()
        self._table(
            findings(judged, DEFAULT_TOP if top is None else top),
            answer.base,
            is_trend=isinstance(answer, Trend),
        )
        self._account(answer)
        self._line(_coverage(answer))

    def _table(self, found: Findings, base: Snapshot, *, is_trend: bool) -> None:
        noun = base.noun if base.is_listed else "tag" if base.is_pool else "site"
        if not found.shown:
            self._line(f"No {noun} grew.")
            self._line()
            return
        more = "bytes/hour | shape | verdict | " if is_trend else ""
        dashes = "---: | --- | --- | " if is_trend else ""
        self._line(f"| bytes +/- | {base.members} +/- | {more}gate | {noun} |")
        self._line(f"| ---: | ---: | {dashes}--- | --- |")
        for finding in found.shown:
            site = finding.site
            state = "failed" if finding.failed else "suppressed" if finding.suppressed else ""
            cells = [format_bytes(site.delta_bytes, True), format_count(site.delta_count, True)]
            if isinstance(site, SiteTrend):
                rate = site.bytes_per_hour
                cells += ["" if rate is None else format_bytes(round(rate), True), site.shape]
                cells.append(site.confidence)
            self._line(f"| {' | '.join(cells)} | {state} | {_code(site.site.name)} |")
        self._line()
        if found.left_out:
            self._line(f"… and {found.left_out} more.")
            self._line()

    def _account(self, answer: Comparison | Trend) -> None:
        """What grew besides sites."""
        for row in what_grew(answer.account):
            self._line(
                f"- {row.kind.label}: **{row.told(row.delta, True)}** (from {row.told(row.base)} to "
                f"{row.told(row.current)})"
            )
        if what_grew(answer.account):
            self._line()

    def _line(self, text: str = "") -> None:
        self._stream.write(text + "\n")


def _coverage(answer: Comparison | Trend) -> str:
    sides = answer.base.coverage, answer.current.coverage
    if any(side.shown_share is None for side in sides):
        return f"Base: {sides[0].told()}. Current: {sides[1].told()}."
    memory = sides[0].memory.capitalize()
    return f"{memory} walked: {sides[0].share_text} of the base, {sides[1].share_text} of the current dump."


def _text(text: str) -> str:
    """Text without the characters that Markdown or HTML read something into."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~@])", r"\\\1", visible(text))


def _code(text: str) -> str:
    """Text as code in a table: nothing in it is markup, not even a bar or a backtick."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{space}{visible(text).replace('|', chr(92) + '|')}{space}{fence}"
