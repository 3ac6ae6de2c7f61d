"""Conditions of a gate: `bytes>=1M,site.count>=1000,threads.count>=10`, and whether they hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf, isfinite

from dumpleak.model.units import parse_size
from windumps.errors import WindumpsError

_CONDITION = re.compile(r"(site\.)?([a-z][a-z0-9_.-]*)\s*>=\s*(\S+)")
_ACCOUNT = re.compile(r"[a-z0-9_]+\.[a-z_]+(-per-hour)?")
PER_HOUR = "-per-hour"
BYTE_QUANTITIES = ("bytes", "bytes-per-hour")
QUANTITIES = (*BYTE_QUANTITIES, "count", "count-per-hour", "percent")
COUNTED_SITES = ("suspects", "leaked")  # how many sites of that verdict, in a trend
UNREFERENCED = ("unreferenced.bytes", "unreferenced.count")  # new blocks that nothing points to


class GateError(WindumpsError):
    """A condition cannot be measured on this input; the message says why."""


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        quantity: Of `QUANTITIES`, `COUNTED_SITES` or `UNREFERENCED`, or a row of the account, with or
            without `PER_HOUR`; percent is of the base's bytes.
        limit: Growth at which the gate fails.
        per_site: It is about any one site, not about all together.
        text: As the user wrote it.
    """

    quantity: str
    limit: float
    per_site: bool
    text: str

    @property
    def is_of_account(self) -> bool:
        """It names a row of the account."""
        return "." in self.quantity and self.quantity not in UNREFERENCED

    @property
    def row(self) -> str:
        """The row of the account that it names."""
        return self.quantity.removesuffix(PER_HOUR)

    def fails(self, measured: float) -> bool:
        """True when the growth reaches the limit. No growth never fails, whatever the limit."""
        return measured > 0 and measured >= self.limit


@dataclass(frozen=True)
class Span:
    """What a quantity may really be, where a dump does not show everything.

    Attributes:
        value: As it was measured.
        low: At least.
        high: At most.
        hole: What one side hides at most, in this quantity.
        why: What is not shown; "" when everything is.
    """

    value: float
    low: float
    high: float
    hole: float = 0.0
    why: str = ""

    @classmethod
    def exact(cls, value: float) -> Span:
        """Nothing is hidden."""
        return cls(value, value, value)

    def scaled(self, factor: float) -> Span:
        """A span in another unit, which has so many of this one."""
        return Span(
            self.value * factor,
            self.low * factor,
            self.high * factor,
            self.hole * factor,
            self.why,
        )


@dataclass(frozen=True)
class Measured:
    """What came of one condition.

    Attributes:
        condition: It.
        value: Growth of all together, or of the site that grew most; None where it is not known.
        failed: The gate fails because of it.
        unknown: Why it can be neither failed nor passed; "" when it is one of these.
    """

    condition: Condition
    value: float | None
    failed: bool
    unknown: str = ""

    @property
    def shown(self) -> str:
        """The value for people: whole, or with one decimal."""
        if self.value is None:
            return "unknown"
        if abs(self.value) == inf:
            return "infinite"
        return f"{self.value:.0f}" if self.value == int(self.value) else f"{self.value:.1f}"


def decide(condition: Condition, span: Span, barred: str = "") -> Measured:
    """Fails what surely reaches the limit, passes what surely does not, and says of the rest why not.

    Args:
        condition: The condition.
        span: What it may come to.
        barred: Why these dumps answer nothing at all; "" in general.
    """
    if barred:
        return Measured(condition, span.value, False, barred)
    if condition.fails(span.low):
        return Measured(condition, span.value, True)
    hidden = span.hole > 0 and span.hole >= condition.limit
    why = span.why if condition.fails(span.high) or hidden else ""
    return Measured(condition, span.value, False, why)


def parse_gate(text: str) -> list[Condition]:
    """Reads a comma-separated list of conditions; any one that holds fails the gate.

    Raises:
        ValueError: says what was not understood and what can be written.
    """
    conditions = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part.strip())
        known = match is not None and (
            match[2] in QUANTITIES
            or (
                not match[1]
                and (match[2] in COUNTED_SITES or _ACCOUNT.fullmatch(match[2]) is not None)
            )
        )
        if match is None or not known:
            raise ValueError(
                f"{part.strip()!r} is not a condition; write bytes>=N, count>=N, percent>=N, "
                "bytes-per-hour>=N or count-per-hour>=N, with site. in front for any one site, "
                "suspects>=N or leaked>=N of a trend, a row of the account (threads.count>=N, "
                "private.bytes>=N, with -per-hour behind for a rate), or unreferenced.count>=N; separated "
                "by commas (N may end in K, M or G)"
            )
        site, quantity, value = match.groups()
        of_bytes = quantity.removesuffix(PER_HOUR).endswith("bytes")
        try:
            limit = float(parse_size(value) if of_bytes else float(value))
        except ValueError as error:
            raise ValueError(f"{part.strip()!r}: {value!r} is not a number") from error
        if not isfinite(limit):
            raise ValueError(f"{part.strip()!r}: {value!r} is not a number")
        conditions.append(Condition(quantity, limit, site is not None, part.strip()))
    return conditions
