"""The gate of a fleet: `--fail-on new-clusters>=1,bytes-per-hour>=1M`; muted leaks do not count.

Inputs that could not be read may hold what would fail it. That is said beside the verdict; `errors>=1` makes
a failure of it. Where nothing at all could be compared, there is no answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from dumpleak.fleets.belonging import SINGLE
from dumpleak.fleets.summary import NEW, FleetLeak, FleetSummary
from dumpleak.gate.conditions import Condition, Measured, Span, decide
from dumpleak.model.units import count_of, parse_size

_CONDITION = re.compile(r"([a-z][a-z-]*)\s*>=\s*(\S+)")
# What can be asked for; each with what it is.
QUANTITIES = {
    "clusters": "leaks",
    "new-clusters": "leaks that the run before did not have, and that are not known",
    "machines": "machines that one leak is on",
    "series": "series that one leak grew in",
    "bytes-per-hour": "median growth of one leak",
    "errors": "inputs that could not be read",
}


@dataclass(frozen=True)
class FleetGate:
    """What the gate says.

    Attributes:
        conditions: All of them, measured.
        unread: How many inputs could not be read.
    """

    conditions: tuple[Measured, ...]
    unread: int = 0

    @property
    def verdict(self) -> str:
        """The text "pass", "fail", or "no-answer"."""
        if any(measured.failed for measured in self.conditions):
            return "fail"
        return "no-answer" if any(measured.unknown for measured in self.conditions) else "pass"

    @property
    def summary(self) -> str:
        """One line for logs."""
        failed = [m for m in self.conditions if m.failed]
        unknown = [m for m in self.conditions if m.unknown]
        if failed:
            said = "FAIL " + ", ".join(f"{m.condition.text} (it is {m.shown})" for m in failed)
        elif unknown:
            said = "NO ANSWER; " + "; ".join(f"{m.condition.text}: {m.unknown}" for m in unknown)
        else:
            said = "PASS"
        unread = f"; {count_of(self.unread, 'input')} could not be read" if self.unread else ""
        return f"SUMMARY: {said}{unread}"


def parse_fleet_gate(text: str) -> list[Condition]:
    """Reads a comma-separated list of conditions; any one that holds fails the gate.

    Raises:
        ValueError: says what was not understood and what can be written.
    """
    found = []
    for part in (piece.strip() for piece in text.split(",")):
        match = _CONDITION.fullmatch(part)
        if match is None or match[1] not in QUANTITIES:
            known = ", ".join(f"{name}>=N" for name in QUANTITIES)
            raise ValueError(f"{part!r} is not a condition; write {known}; separated by commas")
        of_bytes = match[1].startswith("bytes")
        try:
            limit = float(parse_size(match[2]) if of_bytes else float(match[2]))
        except ValueError as error:
            raise ValueError(f"{part!r}: {match[2]!r} is not a number") from error
        if not isfinite(limit):
            raise ValueError(f"{part!r}: {match[2]!r} is not a number")
        found.append(Condition(match[1], limit, False, part))
    return found


def fleet_gate(conditions: list[Condition], summary: FleetSummary) -> FleetGate:
    """Measures the conditions on a fleet."""
    barred = _barred(summary)
    measured = []
    for condition in conditions:
        if condition.quantity == "errors":
            measured.append(decide(condition, Span.exact(summary.errors)))
            continue
        measured.append(_measured(condition, summary, barred))
    return FleetGate(tuple(measured), summary.errors)


def _measured(condition: Condition, summary: FleetSummary, barred: str) -> Measured:
    counted = summary.counted
    if condition.quantity == "clusters":
        value: float = len(counted)
    elif condition.quantity == "new-clusters":
        value = sum(leak.state == NEW for leak in counted)
    else:
        values = [_value(condition.quantity, leak) for leak in counted]
        value = max((v for v in values if v is not None), default=0.0)
        if not condition.fails(value) and None in values:
            why = f"{count_of(values.count(None), 'leak')} without times"
            return Measured(condition, value, False, why)
    return decide(condition, Span.exact(value), barred)


def _value(quantity: str, leak: FleetLeak) -> float | None:
    if quantity == "machines":
        return leak.machines
    return leak.series if quantity == "series" else leak.bytes_per_hour


def _barred(summary: FleetSummary) -> str:
    """Why a fleet answers nothing; a condition that holds all the same fails."""
    if summary.errors == summary.inputs:
        return "no input could be read"
    if not summary.leaks and len(summary.not_compared) >= sum(summary.series.values()):
        return "no series could be compared"
    if not summary.leaks and sum(summary.series.values()) == summary.series.get(SINGLE, 0):
        return "there are only single dumps, which show no growth"
    return ""
