"""The gate: `--fail-on bytes>=1M,site.count>=1000` turns growth into an exit code.

What a suppression names, and what a baseline has accepted, does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeAlias

from dumpleak.baseline import Baseline
from dumpleak.comparison import Comparison, SiteDelta
from dumpleak.suppressions import Suppression
from dumpleak.trends import SiteTrend, Trend
from dumpleak.units import parse_size
from windumps.errors import WindumpsError

_CONDITION = re.compile(r"(site\.)?([a-z-]+)\s*>=\s*(\S+)")
BYTE_QUANTITIES = ("bytes", "bytes-per-hour")
QUANTITIES = (*BYTE_QUANTITIES, "count", "count-per-hour", "percent")
COUNTED_SITES = ("suspects", "leaked")  # how many sites of that verdict, in a trend
HOUR = 3600.0

AnySite: TypeAlias = SiteDelta | SiteTrend


class GateError(WindumpsError):
    """A condition cannot be measured on this input; the message says why."""


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        quantity: Of `QUANTITIES` or `COUNTED_SITES`; percent is of the base's bytes.
        limit: Growth at which the gate fails.
        per_site: It is about any one site, not about all together.
        text: As the user wrote it.
    """

    quantity: str
    limit: float
    per_site: bool
    text: str

    def fails(self, measured: float) -> bool:
        """True when the growth reaches the limit. No growth never fails, whatever the limit."""
        return measured > 0 and measured >= self.limit


@dataclass(frozen=True)
class Measured:
    """What came of one condition.

    Attributes:
        condition: It.
        value: Growth of all together, or of the site that grew most.
        failed: The gate fails because of it.
    """

    condition: Condition
    value: float
    failed: bool

    @property
    def shown(self) -> str:
        """The value for people: whole, or with one decimal."""
        if self.value == float("inf"):
            return "infinite"
        return f"{self.value:.0f}" if self.value == int(self.value) else f"{self.value:.1f}"


@dataclass(frozen=True)
class Finding:
    """One site that grew, and what the gate makes of it.

    Attributes:
        site: The site.
        bytes: Growth that counts: less what a baseline accepted.
        count: The same in blocks.
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
    """

    conditions: tuple[Measured, ...]
    findings: tuple[Finding, ...]
    unused: tuple[Suppression, ...] = ()
    expired: tuple[Suppression, ...] = ()
    baseline: str = ""

    @property
    def passed(self) -> bool:
        """True when no condition failed."""
        return not any(measured.failed for measured in self.conditions)

    @property
    def counted(self) -> list[Finding]:
        """Findings that are not suppressed and more than was accepted."""
        return [f for f in self.findings if not f.suppressed and (f.bytes > 0 or f.count > 0)]

    @property
    def summary(self) -> str:
        """One line for logs."""
        counted = self.counted
        failed = [m for m in self.conditions if m.failed]
        parts = [
            "PASS"
            if self.passed
            else f"FAIL {', '.join(f'{m.condition.text} (it is {m.shown})' for m in failed)}",
            f"{len(counted)} site{'s' * (len(counted) != 1)} grew by {sum(f.bytes for f in counted)} bytes "
            f"in {sum(f.count for f in counted)} blocks",
        ]
        suppressed = sum(bool(f.suppressed) for f in self.findings)
        if suppressed:
            parts.append(f"{suppressed} suppressed")
        if self.baseline:
            parts.append(f"baseline {self.baseline}")
        return f"SUMMARY: {'; '.join(parts)}"


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

    def judge(self, answer: Comparison | Trend) -> GateResult:
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
        hours = _hours(answer)
        base_bytes = answer.base.totals.bytes
        measured = []
        for condition in self.conditions:
            if condition.per_site:
                value, findings = _per_site(condition, findings, hours)
            else:
                value = self._measure_all(condition, answer, findings, base_bytes, hours)
            measured.append(Measured(condition, value, condition.fails(value)))
        return GateResult(
            tuple(measured),
            tuple(findings),
            tuple(s for s in live if not any(s.matches(site.site) for site in grown)),
            tuple(s for s in self.suppressions if s.is_expired),
            self.baseline.file if self.baseline else "",
        )

    def _finding(self, site: AnySite, live: list[Suppression]) -> Finding:
        bytes_, count = site.delta_bytes, site.delta_count
        if self.baseline is not None:
            bytes_, count = self.baseline.beyond(site)
        because = next((s.told for s in live if s.matches(site.site)), "")
        return Finding(site, bytes_, count, (), because)

    def _measure_all(
        self,
        condition: Condition,
        answer: Comparison | Trend,
        findings: list[Finding],
        base_bytes: int,
        hours: float | None,
    ) -> float:
        if condition.quantity in COUNTED_SITES:
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
            return sum(
                f.site.confidence in words for f in findings if not f.suppressed and f.bytes > 0
            )
        # The totals are those of the heaps: what shrank pays for what grew. Less what does not count.
        bytes_, count = answer.delta_bytes, answer.delta_count
        private = {id(site) for site in answer.private}
        for finding in findings:
            if id(finding.site) not in private:
                left = (0, 0) if finding.suppressed else (finding.bytes, finding.count)
                bytes_ -= finding.site.delta_bytes - left[0]
                count -= finding.site.delta_count - left[1]
        return _quantity(condition, bytes_, count, base_bytes, hours)


def parse_gate(text: str) -> list[Condition]:
    """Reads a comma-separated list of conditions; any one that holds fails the gate.

    Raises:
        ValueError: says what was not understood and what can be written.
    """
    conditions = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part.strip())
        known = match is not None and (
            match[2] in QUANTITIES or (match[2] in COUNTED_SITES and not match[1])
        )
        if match is None or not known:
            raise ValueError(
                f"{part.strip()!r} is not a condition; write bytes>=N, count>=N, percent>=N, "
                "bytes-per-hour>=N or count-per-hour>=N, with site. in front for any one site, or "
                "suspects>=N or leaked>=N of a trend; separated by commas (N may end in K, M or G)"
            )
        site, quantity, value = match.groups()
        try:
            limit = float(parse_size(value) if quantity in BYTE_QUANTITIES else float(value))
        except ValueError as error:
            raise ValueError(f"{part.strip()!r}: {value!r} is not a number") from error
        if not isfinite(limit):
            raise ValueError(f"{part.strip()!r}: {value!r} is not a number")
        conditions.append(Condition(quantity, limit, site is not None, part.strip()))
    return conditions


def _per_site(
    condition: Condition, findings: list[Finding], hours: float | None
) -> tuple[float, list[Finding]]:
    """The largest value of any site, and the findings with those that reach the limit marked."""
    largest, marked = 0.0, []
    for finding in findings:
        if not finding.suppressed:
            value = _of_site(condition, finding, hours)
            largest = max(largest, value)
            if condition.fails(value):
                failed = (*finding.failed, condition.text)
                finding = Finding(finding.site, finding.bytes, finding.count, failed)
        marked.append(finding)
    return largest, marked


def _of_site(condition: Condition, finding: Finding, hours: float | None) -> float:
    site = finding.site
    if isinstance(site, SiteTrend) and condition.quantity.endswith("-per-hour"):
        of_bytes = condition.quantity == "bytes-per-hour"
        rate = site.bytes_per_hour if of_bytes else site.count_per_hour
        if rate is None:
            raise GateError(_no_times(condition))
        # A baseline accepts growth, and with it the same share of the rate.
        whole, counted = (
            (site.delta_bytes, finding.bytes) if of_bytes else (site.delta_count, finding.count)
        )
        return rate * counted / whole if whole > 0 else 0.0
    return _quantity(condition, finding.bytes, finding.count, site.base.bytes, hours)


def _quantity(
    condition: Condition, bytes_: int, count: int, base_bytes: int, hours: float | None
) -> float:
    """A quantity's value; growth from an empty base is infinitely many percent."""

    def per_hour(value: int) -> float:
        if hours is None:
            raise GateError(_no_times(condition))
        return value / hours

    measures: dict[str, Callable[[], float]] = {
        "bytes": lambda: bytes_,
        "count": lambda: count,
        "bytes-per-hour": lambda: per_hour(bytes_),
        "count-per-hour": lambda: per_hour(count),
        "percent": lambda: (
            100 * bytes_ / base_bytes if base_bytes else float("inf") if bytes_ > 0 else 0.0
        ),
    }
    return measures[condition.quantity]()


def _no_times(condition: Condition) -> str:
    return f"{condition.text}: the dumps do not say how much time is between them"


def _hours(answer: Comparison | Trend) -> float | None:
    """Between the first and the last dump; None where that is unknown or not positive."""
    first, last = answer.base.source.time, answer.current.source.time
    if first is None or last is None or last <= first:
        return None
    return (last - first).total_seconds() / HOUR
