"""What holds the blocks of the sites that grew, put together with what became of them.

New blocks that nothing leads to are lost; new blocks that are in a container which grew are held, and nobody
will find them by looking for lost ones: what takes them out of the container, or bounds it, is the question.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.model.containment import Contained, SiteContainers
from dumpleak.model.snapshot import Snapshot

LEAST_SHARE = 0.1  # of a site's blocks that containers must hold before it is told


class _Blocks:
    """The blocks of one dump, by site and container."""

    def __init__(
        self, snapshot: Snapshot, contained: Contained, known: NDArray[np.bool_] | None
    ) -> None:
        table = snapshot.blocks() if snapshot.blocks is not None else None
        self._contained, self._known = contained, known
        if table is None or len(table) != len(contained.of_block):
            self._rows: dict[str, NDArray[np.int64]] = {}
            return
        order = np.argsort(table.group, kind="stable")
        ends = np.cumsum(np.bincount(table.group, minlength=len(table.keys)))[:-1]
        self._rows = dict(zip(table.keys, np.split(order, ends), strict=True))

    def containers_of(self, key: str) -> SiteContainers | None:
        """Those of one site's blocks, the new ones where that is known; None where few are in any."""
        rows = self._rows.get(key)
        if rows is None:
            return None
        known = self._known
        if known is not None:
            rows = rows[~known[rows]]
        numbers = self._contained.of_block[rows]
        numbers = numbers[numbers >= 0]
        if not len(numbers) or len(numbers) < LEAST_SHARE * len(rows):
            return None
        values, counts = np.unique(numbers, return_counts=True)
        first = int(values[int(counts.argmax())])
        new = None
        if known is not None:
            new = int(np.count_nonzero(~known[self._contained.members(first)]))
        return SiteContainers(
            len(numbers),
            len(rows),
            known is not None,
            len(values),
            self._contained.tell(first),
            int(counts.max()),
            new,
        )


def with_containers(comparison: Comparison) -> Comparison:
    """A comparison with the containers that hold what grew, where they were looked for."""
    current, survivors = comparison.current, comparison.survivors
    if current.contained is None:
        return comparison
    known = None if survivors is None else survivors.known
    blocks = _Blocks(current, current.contained, known)

    def told(delta: SiteDelta) -> SiteDelta:
        if not delta.grew or delta.site.key not in current.held_by:
            return delta
        found = blocks.containers_of(delta.site.key)
        if found is None:
            return delta
        grew = bool(found.largest_new) and found.mostly
        clause = f"{'growing container: ' if grew else ''}{found.told}"
        return replace(
            delta,
            contained=found,
            evidence=(*delta.evidence, clause),
            notes=(*delta.notes, *([found.short] * found.mostly)),
        )

    return replace(comparison, sites=tuple(map(told, comparison.sites)))


def with_trend_containers(trend: Trend) -> Trend:
    """A series with the containers that hold what grows, where they were looked for in its last dump."""
    current = trend.current
    if current.contained is None:
        return trend
    blocks = _Blocks(current, current.contained, None)

    def told(site: SiteTrend) -> SiteTrend:
        if site.delta_bytes <= 0 or site.site.key not in current.held_by:
            return site
        found = blocks.containers_of(site.site.key)
        if found is None:
            return site
        unbounded = site.confidence != "growth" and found.mostly
        clause = f"{'unbounded container: ' if unbounded else ''}{found.told}"
        return replace(
            site,
            contained=found,
            evidence=(*site.evidence, clause),
            notes=(*site.notes, *([found.short] * found.mostly)),
        )

    return replace(trend, sites=tuple(map(told, trend.sites)))


def containers_that_grow(answer: Comparison | Trend) -> list[SiteContainers]:
    """Of the sites that grew most, those containers that hold most of their growth, each once."""
    return list({found.largest.place: found for found in _growing(answer)}.values())


def _growing(answer: Comparison | Trend) -> Iterator[SiteContainers]:
    for site in answer.sites:
        found = site.contained
        if found is None or not found.mostly:
            continue
        if isinstance(site, SiteTrend):
            if site.confidence != "growth":
                yield found
        elif found.largest_new:
            yield found
