"""What growth comes to in the quantity a condition asks for, and what the dumps may hide of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from math import inf
from typing import TypeAlias

from dumpleak.compare.answers import Comparison
from dumpleak.compare.holes import find_hole, lost_memory
from dumpleak.compare.trend import Trend
from dumpleak.gate.conditions import PER_HOUR, Condition, GateError, Span
from dumpleak.model.account import NO_REGIONS
from dumpleak.model.snapshot import Snapshot
from windumps.arrays import PAGE_SIZE

HOUR = 3600.0
SMALLEST_INTERVAL = 1 / HOUR  # times in dumps are whole seconds


Answer: TypeAlias = Comparison | Trend


class Part(Enum):
    """What grew: a hole means something else to each."""

    ALL = "everything"
    HEAPS = "heaps"
    SITE = "one site of heap blocks"
    PRIVATE = "private memory outside heaps"


# Rows of the account that a hole touches, and bytes that one of its units takes at least; 0 where that is
# unknown. What is of a heap and was not found is taken for private memory.
_OF_ROWS = {
    "blocks.count": (Part.HEAPS, 8),
    "blocks.bytes": (Part.HEAPS, 1),
    "heaps.free_bytes": (Part.HEAPS, 1),
    "private.bytes": (Part.PRIVATE, 1),
    "private.count": (Part.PRIVATE, PAGE_SIZE),
    "private.reserved_bytes": (Part.PRIVATE, 0),
}


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
        self._lost = (
            lost_memory(answer.current, answer.base),  # by the base, by the current dump
            lost_memory(answer.base, answer.current),
        )
        # What has another name in one dump is missing where it belongs.
        shrunk = -sum(min(site.delta_bytes, 0) for site in answer.sites)
        self._renamed = min(max(hole.absent_bytes for hole in self.holes), shrunk)
        changes = [site.delta_bytes for site in answer.private]
        self._private_grown = sum(change for change in changes if change > 0)
        self._private_shrunk = -sum(change for change in changes if change < 0)
        told = [
            f"{hole.told} in {name}"
            for name, hole in (("the base", base), ("the current dump", current))
            if hole.told
        ]
        self._in_pieces = 0  # allocations that what grew may be of, where only its bytes are known
        if self._private_grown and not all(side.by_regions for side in _dumps(answer)):
            self._in_pieces = self._private_grown // PAGE_SIZE
            told.append(f"private memory outside heaps has bytes and no count ({NO_REGIONS})")
        if self._private:
            told.append(f"private memory outside heaps is not compared ({self._private})")
        self.why = "; ".join(told)
        # A verdict and a rate of a series rest on the dumps between as well.
        between = zip(self.holes[1:-1], _dumps(answer)[1:-1], strict=True)
        told += [f"{hole.told} in {dump.source.file}" for hole, dump in between if hole.told]
        self.why_of_series = "; ".join(told)

    def span(
        self,
        condition: Condition,
        bytes_: int,
        count: int,
        base_bytes: int,
        of: Part = Part.ALL,
    ) -> Span:
        """Of some growth.

        Args:
            condition: The condition that asks.
            bytes_: Growth.
            count: How many members more.
            base_bytes: What percent are of; growth from nothing is infinitely many.
            of: What grew.
        """
        base = self._base
        quantity = condition.quantity.removesuffix(PER_HOUR)
        doubt = self._doubt(of, blocks=quantity == "count")
        span = self._around(count if quantity == "count" else bytes_, doubt, of)
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
        """Of a row of the account; what stands in no heap is hidden only where it may be taken for one's."""
        of, unit = _OF_ROWS.get(name, (None, 0))
        if of is None:
            # Nobody knows how many heaps there are whose list is cut.
            cut = name.startswith("heaps.") and (self._base.unknown or self._current.unknown)
            span = self._around(delta, (inf, inf)) if cut else Span.exact(delta)
            return self._per_hour(condition, span)
        added, hidden = self._doubt(of)
        if not unit:  # of any size, and all of it where a part of a heap is not found
            added, hidden = (inf if doubt >= PAGE_SIZE else 0.0 for doubt in (added, hidden))
        else:
            added, hidden = added // unit, hidden // unit
        return self._per_hour(condition, self._around(delta, (added, hidden)))

    def new_span(self, value: int, *, blocks: bool) -> Span:
        """Of blocks that came since the base: what that does not show may have been there before."""
        added, _ = self._doubt(Part.HEAPS, blocks=blocks)
        return Span(value, value - added, value, 0.0, self.why)

    def rate(self, rate: float, *, of_bytes: bool) -> Span:
        """Of a robust rate over a series: each pair of dumps may be off by what one of them hides."""
        holes = [hole.most_bytes if of_bytes else hole.most_blocks for hole in self.holes]
        most = max(holes) / self._interval if max(holes) else 0.0
        return Span(rate, rate - most, rate + most, most, self.why_of_series)

    def largest(self, condition: Condition, spans: Sequence[Span]) -> Span:
        """Of any one site: also one that is seen nowhere may have grown by what is hidden."""
        unseen = self.span(condition, 0, 0, 0, Part.SITE) if self.why else Span.exact(0)
        if condition.quantity == "percent" and self.why:
            unseen = Span(0, 0, inf, inf, self.why)
        value = max((span.value for span in spans), default=0.0)
        low = max((span.low for span in spans), default=0.0)
        high = max([unseen.high, *(span.high for span in spans)])
        why = self.why_of_series if condition.quantity.endswith(PER_HOUR) else self.why
        return Span(max(value, 0.0), max(low, 0.0), high, unseen.hole, why)

    def _doubt(self, of: Part, *, blocks: bool = False) -> tuple[float, float]:
        """(what may be no growth, what may come on top), in bytes or as many blocks."""
        base, current = self._base, self._current
        added, hidden = base.most_bytes, current.most_bytes
        if of is Part.ALL:
            # What is not known to be a heap's is taken for private memory.
            added += min(self._lost[1], self._private_grown)
            hidden += min(self._lost[0], self._private_shrunk)
        elif of is Part.PRIVATE:
            hidden, added = self._lost
        if of is Part.SITE or (of is Part.ALL and not blocks):
            added += current.unsized_bytes + (base.unsized_bytes if of is Part.SITE else 0)
            hidden += max(base.unsized_bytes, current.unsized_bytes)
        if of is Part.SITE:
            added += self._renamed
        if not blocks:
            return added, hidden
        more = self._in_pieces if of is Part.ALL else 0
        return _blocks(added, base.granularity), _blocks(hidden, current.granularity) + more

    def _around(self, value: float, doubt: tuple[float, float], of: Part = Part.HEAPS) -> Span:
        added, hidden = doubt
        # Where private memory is not compared, it may have grown by any amount.
        most = inf if self._private and of is not Part.HEAPS else value + hidden
        return Span(value, value - added, most, max(added, hidden), self.why)

    def _per_hour(self, condition: Condition, span: Span) -> Span:
        if not condition.quantity.endswith(PER_HOUR):
            return span
        if self._hours is None:
            raise GateError(no_times(condition))
        return span.scaled(1 / self._hours)


def _blocks(size: float, granularity: int) -> float:
    """How many blocks have room in so many bytes."""
    return size if size == inf else float(int(size) // granularity)


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
