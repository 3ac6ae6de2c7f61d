"""Shapes with one cause, as headlines and JSON tell of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.causes import Causes
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.model.sites import Site
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_count

PARTS_TOLD = 8
MOST = 0.5  # share of all growth that a cause must have to be what a first line tells of


class Grown(Protocol):
    """A site that grew."""

    @property
    def delta_bytes(self) -> int:
        """Bytes more."""

    @property
    def delta_count(self) -> int:
        """Blocks more."""

    @property
    def cause(self) -> str:
        """What it is in plain words, where it was put together."""


def cause_told(grown: Sequence[Grown], noun: str) -> tuple[str, str]:
    """The cause that has most of the growth, and by how much it grew: two texts; "" where none has.

    Args:
        grown: All that grew.
        noun: What one of them is called, "site".
    """
    growth = sum(each.delta_bytes for each in grown)
    first = max(grown, key=lambda each: each.delta_bytes, default=None)
    if first is None or not first.cause or first.delta_bytes < MOST * growth:
        return "", ""
    others = len(grown) - 1
    more = f", and {others:,} more {noun}{'s' * (others != 1)}" if others else ""
    by = f"{format_bytes(first.delta_bytes)} in {first.delta_count:,} blocks{more}"
    return first.cause, by


def parts_told(site: SiteDelta | SiteTrend) -> list[str]:
    """The parts of a site with most of its growth, as clauses."""
    told = [
        f"{part.site.name}: {format_bytes(part.delta_bytes, signed=True)} in "
        f"{format_count(part.delta_count, signed=True)}"
        for part in site.parts[:PARTS_TOLD]
    ]
    more = len(site.parts) - len(told)
    return [*told, *([f"and {more:,} more such parts"] if more else [])]


def causes_json(
    causes: Causes, listed: Sequence[tuple[Site, Totals]], prefix: str
) -> list[dict[str, Any]]:
    """Causes of groups of one dump, by rank of these.

    Args:
        causes: They.
        listed: The groups in their order, each with totals.
        prefix: What the names of keys of totals begin with, "used".
    """
    made: dict[str, dict[str, Any]] = {}
    for rank, (site, totals) in enumerate(listed, start=1):
        key = causes.keys.get(site.key)
        if key is None:
            continue
        cause = made.setdefault(
            key,
            {
                "key": key,
                "name": causes.names[key],
                "cause": causes.words[key],
                f"{prefix}_bytes": 0,
                f"{prefix}_count": 0,
                "evidence": list(causes.notes[key]),
                "parts": [],
            },
        )
        cause[f"{prefix}_bytes"] += totals.bytes
        cause[f"{prefix}_count"] += totals.count
        cause["parts"].append(rank)
    return sorted(made.values(), key=lambda cause: -int(cause[f"{prefix}_bytes"]))
