"""The gate: `--fail-on bytes>=1M,site.count>=1000` turns growth into an exit code.

It never passes on what a dump does not show: where that could decide, there is no answer.

What a suppression names, and what a baseline has accepted, does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Generic, TypeAlias, TypeVar

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.comparable import why_no_pair
from dumpleak.compare.site_trends import MIN_BYTES, SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.baseline import Baseline
from dumpleak.gate.conditions import (
    COUNTED_SITES,
    PER_HOUR,
    UNREFERENCED,
    Condition,
    GateError,
    Measured,
    Span,
    decide,
)
from dumpleak.gate.measures import Answer, Part, Scale, no_times
from dumpleak.gate.suppressions import Suppression
from dumpleak.model.account import State
from dumpleak.model.populations import BLOCKS
from dumpleak.model.sites import is_private
from dumpleak.model.units import count_of

AnySite: TypeAlias = SiteDelta | SiteTrend
A = TypeVar("A", Comparison, Trend)


@dataclass(frozen=True)
class Finding:
    """One site that grew, and what the gate makes of it.

    Attributes:
        site: The site.
        bytes: Growth that counts: less what a baseline accepted.
        count: How many members more, less what a baseline accepted.
        failed: Texts of the conditions that it breaks.
        suppressed: Why it does not count; "" when it does.
    """

    site: AnySite
    bytes: int
    count: int
    failed: tuple[str, ...] = ()
    suppressed: str = ""


@dataclass(frozen=True)
class GateResult:
    """What the gate says.

    Attributes:
        conditions: All of them, measured.
        findings: Sites that grew, in the order of the comparison.
        unused: Suppressions that match no site that grew.
        expired: Suppressions past their date; they suppress nothing.
        baseline: Name of the baseline's file, or "".
        members: What was compared, `Snapshot.members`.
        noun: What one of their groups is called.
        sized: They have bytes.
    """

    conditions: tuple[Measured, ...]
    findings: tuple[Finding, ...]
    unused: tuple[Suppression, ...] = ()
    expired: tuple[Suppression, ...] = ()
    baseline: str = ""
    members: str = BLOCKS
    noun: str = "site"
    sized: bool = True

    @property
    def passed(self) -> bool:
        """True when every condition was measured and none failed."""
        return not any(measured.failed or measured.unknown for measured in self.conditions)

    @property
    def failed(self) -> list[Measured]:
        """The conditions that surely hold."""
        return [measured for measured in self.conditions if measured.failed]

    @property
    def unanswered(self) -> list[Measured]:
        """The conditions that the dumps cannot answer; they matter where none failed."""
        return [measured for measured in self.conditions if measured.unknown]

    @property
    def verdict(self) -> str:
        """The text "pass", "fail", or "no-answer"."""
        if self.failed:
            return "fail"
        return "no-answer" if self.unanswered else "pass"

    @property
    def counted(self) -> list[Finding]:
        """Findings that are not suppressed and more than was accepted."""
        return [
            f
            for f in self.findings
            if not f.suppressed and (f.failed or f.bytes > 0 or (f.bytes == 0 and f.count > 0))
        ]

    @property
    def summary(self) -> str:
        """One line for logs."""
        counted = self.counted
        if self.failed:
            said = ", ".join(f"{m.condition.text} (it is {m.shown})" for m in self.failed)
            first = f"FAIL {said}"
        elif self.unanswered:
            first = f"NO ANSWER; {'; '.join(told_unknown(m) for m in self.unanswered)}"
        else:
            first = "PASS"
        count = f"{sum(f.count for f in counted)} {self.members}"
        if self.sized:
            count = f"{sum(f.bytes for f in counted)} bytes in {count}"
        parts = [first, f"{count_of(len(counted), self.noun)} grew by {count}"]
        suppressed = sum(bool(f.suppressed) for f in self.findings)
        if suppressed:
            parts.append(f"{suppressed} suppressed")
        if self.baseline:
            parts.append(f"baseline {self.baseline}")
        return f"SUMMARY: {'; '.join(parts)}"


def _because(site: AnySite, live: Sequence[Suppression]) -> str:
    """Why a site may grow, or each of the shapes it was put together of; "" where it may not."""
    grown = [part.site for part in site.parts if part.grew]
    by_part = [next((s.told for s in live if s.matches(part)), "") for part in grown]
    own = next((s.told for s in live if s.matches(site.site)), "")
    return own or (by_part[0] if by_part and all(by_part) else "")


@dataclass(frozen=True)
class Judged(Generic[A]):
    """An answer, and what the gate says of it.

    Attributes:
        answer: A comparison or a trend.
        gate: None when the user asked for none.
    """

    answer: A
    gate: GateResult | None = None


@dataclass
class Gate:
    """What the user asked for.

    Attributes:
        conditions: Any one that holds fails the gate.
        suppressions: Sites that do not count.
        baseline: Growth that was accepted before.
    """

    conditions: list[Condition] = field(default_factory=list)
    suppressions: Sequence[Suppression] = ()
    baseline: Baseline | None = None

    def judge(self, answer: Answer) -> GateResult:
        """Measures a comparison.

        Raises:
            GateError: a condition cannot be measured on it.
        """
        grown = [
            site
            for site in (*answer.sites, *answer.private)
            if site.delta_bytes > 0 or site.delta_count > 0
        ]
        live = [s for s in self.suppressions if not s.is_expired]
        findings = [self._finding(site, live) for site in grown]
        scale = Scale(answer)
        barred = "; ".join(why_no_pair(answer.base, answer.current))
        measured = []
        for condition in self.conditions:
            if condition.per_site:
                spans = [_of_site(condition, finding, scale) for finding in findings]
                findings = [_marked(condition, *pair) for pair in zip(findings, spans, strict=True)]
                counted = [
                    span for f, span in zip(findings, spans, strict=True) if not f.suppressed
                ]
                result = decide(condition, scale.largest(condition, counted), barred)
            else:
                result = self._measure_all(condition, answer, findings, scale, barred)
            if isinstance(answer, Trend) and answer.restarts and not result.failed:
                # What another run of the system leaked is in none of these figures.
                result = replace(
                    result, unknown=f"{answer.restarted}, and only one run is measured"
                )
            measured.append(result)
        return GateResult(
            tuple(measured),
            tuple(findings),
            tuple(
                s
                for s in live
                if not any(s.matches(own.site) for site in grown for own in (site, *site.parts))
            ),
            tuple(s for s in self.suppressions if s.is_expired),
            self.baseline.file if self.baseline else "",
            answer.base.members,
            answer.base.noun if answer.base.is_listed else "site",
            answer.base.has_bytes,
        )

    def _finding(self, site: AnySite, live: list[Suppression]) -> Finding:
        bytes_, count = site.delta_bytes, site.delta_count
        if self.baseline is not None:
            bytes_, count = self.baseline.beyond(site)
        because = _because(site, live)
        return Finding(site, bytes_, count, (), because)

    def _measure_all(
        self,
        condition: Condition,
        answer: Answer,
        findings: list[Finding],
        scale: Scale,
        barred: str,
    ) -> Measured:
        if condition.quantity in COUNTED_SITES:
            return decide(condition, _counted(condition, answer, findings, scale), barred)
        if condition.quantity in UNREFERENCED:
            return _unreferenced(condition, answer, scale, barred)
        if condition.is_of_account:
            return _of_account(condition, answer, scale, barred)
        # What shrank pays for what grew, less what does not count.
        bytes_, count = answer.delta_bytes, answer.delta_count
        for finding in findings:
            left = (0, 0) if finding.suppressed else (finding.bytes, finding.count)
            bytes_ -= finding.site.delta_bytes - left[0]
            count -= finding.site.delta_count - left[1]
        return decide(
            condition, scale.span(condition, bytes_, count, answer.base_totals.bytes), barred
        )


def told_unknown(measured: Measured) -> str:
    """Why a condition has no answer, in one clause."""
    seen = "" if measured.value is None else f"it is {measured.shown} as far as can be seen, but "
    return f"{measured.condition.text}: {seen}{measured.unknown}"


def _marked(condition: Condition, finding: Finding, span: Span) -> Finding:
    """A finding, with the condition where it surely breaks it."""
    if finding.suppressed or not condition.fails(span.low):
        return finding
    return Finding(finding.site, finding.bytes, finding.count, (*finding.failed, condition.text))


def _of_site(condition: Condition, finding: Finding, scale: Scale) -> Span:
    site = finding.site
    if isinstance(site, SiteTrend) and condition.quantity.endswith(PER_HOUR):
        of_bytes = condition.quantity == "bytes-per-hour"
        rate = site.bytes_per_hour if of_bytes else site.count_per_hour
        if rate is None:
            raise GateError(no_times(condition))
        # A baseline accepts growth, and with it the same share of the rate.
        whole, counted = (
            (site.delta_bytes, finding.bytes) if of_bytes else (site.delta_count, finding.count)
        )
        return scale.rate(rate * counted / whole if whole > 0 else 0.0, of_bytes=of_bytes)
    of = Part.PRIVATE if is_private(site.site) else Part.SITE
    return scale.span(condition, finding.bytes, finding.count, site.base.bytes, of)


def _counted(condition: Condition, answer: Answer, findings: list[Finding], scale: Scale) -> Span:
    """How many sites are suspect or leaked."""
    words = ("leaked",) if condition.quantity == "leaked" else ("leaked", "suspect")
    if not isinstance(answer, Trend):
        raise GateError(
            f"{condition.text}: two dumps show growth only; suspects and leaks take a trend of three"
        )
    if condition.quantity == "leaked" and not answer.after_idle:
        raise GateError(
            f"{condition.text}: what leaked shows once the load has stopped; take one more dump then "
            "and give it with --after-idle"
        )
    sizes = [
        f.bytes if answer.base.has_bytes else f.count
        for f in findings
        if f.site.confidence in words and not f.suppressed
    ]
    found = [size for size in sizes if size > 0]
    most = max(hole.most_bytes for hole in scale.holes)
    sure = sum(size > most for size in found)
    # Each site that is hidden grew by so much at least.
    hidden = most // MIN_BYTES if most != inf else inf
    return Span(len(found), sure, len(found) + hidden, hidden, scale.why_of_series)


def _of_account(condition: Condition, answer: Answer, scale: Scale, barred: str) -> Measured:
    row = next((row for row in answer.account if row.name == condition.row), None)
    if row is None:
        return Measured(condition, None, False, f"the dumps have no figure {condition.row}")
    if row.state is State.UNKNOWN or row.delta is None:
        return Measured(condition, None, False, f"it is not known ({row.reason})")
    return decide(condition, scale.row_span(condition, row.name, row.delta), barred)


def _unreferenced(condition: Condition, answer: Answer, scale: Scale, barred: str) -> Measured:
    proof = answer.proof if isinstance(answer, Comparison) else None
    if proof is None or not proof.new:
        return Measured(
            condition,
            None,
            False,
            "which new blocks nothing points to is not known: that takes two dumps of one process life, the "
            "later one with all its memory, and --holders",
        )
    if condition.quantity == "unreferenced.bytes":
        return decide(condition, scale.new_span(proof.bytes, blocks=False), barred)
    return decide(condition, scale.new_span(proof.unreferenced, blocks=True), barred)
