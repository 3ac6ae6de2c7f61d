"""What stands in a cell of a table, besides plain texts and numbers; each format writes it in its own way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from dumpleak.model.totals import Totals
from dumpleak.model.units import format_share


class Absent(Enum):
    """Why a cell has no value, as people read it; formats for machines leave the cell empty."""

    UNKNOWN = "unknown"
    NOT_READ = "–"
    NONE = ""


class Style(StrEnum):
    """How a text stands out."""

    PLAIN = "plain"
    HEADING = "heading"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"
    STRONG = "strong"
    CODE = "code"  # of reviews: nothing in it is markup


@dataclass(frozen=True)
class Said:
    """A text that stands out in its column."""

    text: str
    style: Style


@dataclass(frozen=True)
class Change:
    """A difference, with its share (0 to 1) of all growth: the larger, the hotter it is shown."""

    value: int | None
    share: float = 0.0


@dataclass(frozen=True)
class Share:
    """A part of a whole. `digits`: decimals that a terminal shows."""

    part: float
    whole: float
    digits: int = 1

    @property
    def value(self) -> float | None:
        """0 to 1; None of nothing."""
        return self.part / self.whole if self.whole else None

    @property
    def text(self) -> str:
        """For people."""
        return format_share(self.part, self.whole, self.digits) if self.whole else ""


@dataclass(frozen=True)
class Detail:
    """What a row opens to, where a format can open rows.

    Attributes:
        name: The whole name where that is long.
        frames: (function, source line or "") of a stack, innermost first.
        evidence: Clauses.
        facts: (label, text): type, tag, driver.
        sizes: For each dump its name and (size, blocks) of its blocks.
        exact: Sizes are exact, not classes of sizes.
        samples: Addresses of some blocks, as text.
        samples_of: Whose these are.
        points: Totals over a series.
    """

    name: str = ""
    frames: tuple[tuple[str, str], ...] = ()
    evidence: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    sizes: tuple[tuple[str, Sequence[tuple[int, int]]], ...] = ()
    exact: bool = False
    samples: tuple[str, ...] = ()
    samples_of: str = ""
    points: tuple[Totals, ...] = ()


@dataclass(frozen=True)
class Name:
    """A name, and what else is known of it.

    Attributes:
        text: The name; machines get only this.
        told: The name as terminals say it, with what stands there in no other column; "" for the same.
        more: Said behind it.
        lines: Said under it.
        style: How it stands out.
        id: For links, and equal in the next report; "" for none.
        detail: Makes what its row opens to.
    """

    text: str
    told: str = ""
    more: str = ""
    lines: tuple[str, ...] = ()
    style: Style = Style.PLAIN
    id: str = ""
    detail: Callable[[], Detail] | None = None
