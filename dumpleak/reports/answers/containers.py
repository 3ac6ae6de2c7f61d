"""Containers that hold what grows, in a summary: which, and what to do about them."""

from __future__ import annotations

from dumpleak.compare.answers import Comparison
from dumpleak.compare.evidence import containers_that_grow
from dumpleak.compare.trend import Trend
from dumpleak.model.containment import SiteContainers
from dumpleak.reports.answers.next_steps import Step

NAMED = 2


def container_facts(answer: Comparison | Trend) -> list[tuple[str, str]]:
    """The containers that grow, the first of them; none where none do."""
    grown = containers_that_grow(answer)
    if not grown:
        return []
    told = "; ".join(map(_told, grown[:NAMED]))
    more = f"; and {len(grown) - NAMED:,} more" if len(grown) > NAMED else ""
    return [("Containers", f"hold what grew: {told}{more}")]


def _told(found: SiteContainers) -> str:
    grown = f", {found.largest_new:,} of them new" if found.largest_new else ""
    return f"{found.largest.short}, {found.largest.members:,} members{grown}"


def container_steps(answer: Comparison | Trend) -> tuple[Step, ...]:
    """How to look at the container that holds most of what grew."""
    grown = containers_that_grow(answer)
    if not grown:
        return ()
    largest = grown[0].largest
    return (
        Step(
            f"Look at what takes members out of the {largest.short}, and what bounds it:",
            f"dumpleak explain CURRENT 0x{largest.address:x}",
        ),
    )
