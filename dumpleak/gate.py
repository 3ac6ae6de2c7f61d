"""The gate: `--fail-on bytes>=1M,count>=1000,percent>=10` turns growth into an exit code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dumpleak.comparison import Comparison
from dumpleak.units import parse_size

_CONDITION = re.compile(r"(bytes|count|percent)\s*>=\s*(\S+)")


@dataclass(frozen=True)
class Condition:
    """One condition on the growth of all sites together.

    Attributes:
        quantity: "bytes", "count" or "percent" (of the base's bytes).
        limit: Growth at which the gate fails.
        text: As the user wrote it.
    """

    quantity: str
    limit: float
    text: str

    def fails(self, comparison: Comparison) -> bool:
        """True when the growth reaches the limit. No growth never fails, whatever the limit."""
        measured = self.measure(comparison)
        return measured > 0 and measured >= self.limit

    def measure(self, comparison: Comparison) -> float:
        """The quantity's value; growth from an empty base is infinitely many percent."""
        if self.quantity == "bytes":
            return comparison.delta_bytes
        if self.quantity == "count":
            return comparison.delta_count
        if not comparison.base_totals.bytes:
            return float("inf") if comparison.delta_bytes > 0 else 0.0
        return 100 * comparison.delta_bytes / comparison.base_totals.bytes


def parse_gate(text: str) -> list[Condition]:
    """Reads a comma-separated list of conditions; any one that holds fails the gate.

    Raises:
        ValueError: says what was not understood and what can be written.
    """
    conditions = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part.strip())
        if match is None:
            raise ValueError(
                f"{part.strip()!r} is not a condition; write bytes>=N, count>=N or percent>=N, "
                "separated by commas (N may end in K, M or G)"
            )
        quantity, value = match.groups()
        try:
            limit = float(parse_size(value) if quantity == "bytes" else float(value))
        except ValueError as error:
            raise ValueError(f"{part.strip()!r}: {value!r} is not a number") from error
        conditions.append(Condition(quantity, limit, part.strip()))
    return conditions
