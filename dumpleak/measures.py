"""What growth comes to in the quantity a condition asks for, and what the dumps may hide of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import inf
from typing import TypeAlias

from dumpleak.comparison import Comparison
from dumpleak.conditions import PER_HOUR, Condition, GateError, Span
from dumpleak.holes import find_hole
from dumpleak.snapshot import Snapshot
from dumpleak.trends import Trend

HOUR = 3600.0
SMALLEST_INTERVAL = 1 / HOUR  # times in dumps are whole seconds

Answer: TypeAlias = Comparison | Trend


class Scale:
    """Turns bytes and blocks into the quantity of a condition, with what the dumps may hide of it.

    Args:
        answer: The comparison.
    """

    def __init__(self, answer: Answer) -> None:
        self.holes = [find_hole(snapshot) for snapshot in _dumps(answer)]
        base, current = self.holes[0], self.holes[-1]
        self._base, self._current = base, current
        self._hours = _hours(answer)
        self._interval = _shortest_interval(answer)
        self._private = answer.private_unknown
        told = [
            f"{hole.told} in {name}"
            for name, hole in (("the base", base), ("the current dump", current))
            if hole.most_bytes
        ]
        if self._private:
            told.append(f"private memory outside heaps is not compared ({self._private})")
        self.why = "; ".join(told)

    def span(self, condition: Condition, bytes_: int, count: int, base_bytes: int) -> Span:
        """Of some growth.

        Args:
            condition: The condition that asks.
            bytes_: Growth.
            count: The same in blocks.
            base_bytes: What percent are of; growth from nothing is infinitely many.
        """
        base, current = self._base, self._current
        quantity = condition.quantity.removesuffix(PER_HOUR)
        if quantity == "count":
            span = self._around(count, base.most_blocks, current.most_blocks)
        else:
            span = self._around(bytes_, base.most_bytes, current.most_bytes)
        if quantity == "percent":
            span = Span(
                _percent(span.value, base_bytes),
                _percent(span.low, base_bytes + base.most_bytes),
                _percent(span.high, base_bytes),
                _percent(span.hole, base_bytes),
                span.why,
            )
        return self._per_hour(condition, span)

    def row_span(self, condition: Condition, name: str, delta: int) -> Span:
        """Of a row of the account; only what is counted in heaps may be hidden."""
        base, current = self._base, self._current
        if name == "blocks.count":
            span = self._around(delta, base.most_blocks, current.most_blocks)
        elif name in ("blocks.bytes", "heaps.free_bytes"):
            span = self._around(delta, base.most_bytes, current.most_bytes)
        else:
            span = Span.exact(delta)
        return self._per_hour(condition, span)

    def rate(self, rate: float, of_bytes: bool) -> Span:
        """Of a robust rate over a series: each pair of dumps may be off by what one of them hides."""
        holes = [hole.most_bytes if of_bytes else hole.most_blocks for hole in self.holes]
        most = max(holes) / self._interval if max(holes) else 0.0
        return Span(rate, rate - most, rate + most, most, self.why)

    def largest(self, condition: Condition, spans: Sequence[Span]) -> Span:
        """Of any one site: also one that is seen nowhere may have grown by what is hidden."""
        unseen = self.span(condition, 0, 0, 0) if self.why else Span.exact(0)
        if condition.quantity == "percent" and self.why:
            unseen = Span(0, 0, inf, inf, self.why)
        value = max((span.value for span in spans), default=0.0)
        low = max((span.low for span in spans), default=0.0)
        high = max([unseen.high, *(span.high for span in spans)])
        return Span(max(value, 0.0), max(low, 0.0), high, unseen.hole, self.why)

    def _around(self, value: float, base: float, current: float) -> Span:
        most = inf if self._private else value + current
        return Span(value, value - base, most, max(base, current), self.why)

    def _per_hour(self, condition: Condition, span: Span) -> Span:
        if not condition.quantity.endswith(PER_HOUR):
            return span
        if self._hours is None:
            raise GateError(no_times(condition))
        return span.scaled(1 / self._hours)


def _percent(part: float, whole: float) -> float:
    """Percent; of nothing, growth is infinitely many."""
    if whole == inf:
        return 0.0 if part != -inf else -inf
    if not whole:
        return inf if part > 0 else 0.0
    return 100 * part / whole


def _dumps(answer: Answer) -> tuple[Snapshot, ...]:
    return answer.snapshots if isinstance(answer, Trend) else (answer.base, answer.current)


def _shortest_interval(answer: Answer) -> float:
    """Hours between two neighbouring dumps; the smallest positive number where that is unknown."""
    times = [s.source.time.timestamp() for s in _dumps(answer) if s.source.time is not None]
    between = [(after - before) / HOUR for before, after in pairwise(times) if after > before]
    return min(between, default=SMALLEST_INTERVAL)


def no_times(condition: Condition) -> str:
    """Why a rate has no answer."""
    return f"{condition.text}: the dumps do not say how much time is between them"


def _hours(answer: Answer) -> float | None:
    """Between the first and the last dump; None where that is unknown or not positive."""
    first, last = answer.base.source.time, answer.current.source.time
    if first is None or last is None or last <= first:
        return None
    return (last - first).total_seconds() / HOUR
