"""What grew in a series, site by site, and how much each row of it weighs as a sign of a leak.

A trend tells by itself: its suspects are leaks until somebody knows better. Growth between two dumps is a
leak only where most series of the program show it, and so are a few blocks that nothing leads to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dumpleak.compare.answers import Comparison, SiteDelta, Verdict, tag_number_of
from dumpleak.compare.diff import compare
from dumpleak.compare.shape import FLAT_SHARE, MIN_NOISY_POINTS
from dumpleak.compare.site_trends import CHANCE_DEVIATIONS, LARGE_BYTES, SiteTrend, is_enough
from dumpleak.compare.trend import Trend, TrendError, find_trend
from dumpleak.files.columns import arrow
from dumpleak.files.detect import read_series
from dumpleak.fleets.belonging import SINGLE, TREND, Series
from dumpleak.fleets.fingerprints import Fingerprints
from dumpleak.fleets.identity import unreferenced_of
from dumpleak.fleets.tables import GROWTH, schema_of
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import Together
from dumpleak.model.totals import Totals
from dumpleak.survey.open import open_snapshot
from dumpleak.survey.wanted import Wanted
from windumps.errors import WindumpsError

if TYPE_CHECKING:
    import pyarrow as pa

SURE, LIKELY, NOISE = 2, 1, 0  # weights
MOST_DUMPS = 24  # of a series that are compared
MOST_ROWS = 1000  # of a series
# Of a site's blocks, this share has to be unreferenced; so many of them are enough by themselves.
LOST_SHARE = 0.5
MANY_LOST = 100
# Parts of one cause grow by the same number of blocks, or some times that, and its root holds them.
MIN_TOGETHER = 16
HELD_SHARE = 0.8
MOST_TIMES = 8
# Where so many sites grew between two dumps, a leak grew by so many times as much as the one in the middle.
# In the pairs with known truth leaks have 6 times that and more, the others about twice that at most.
MANY_SITES = 12
STANDS_OUT = 4.0


@dataclass(frozen=True)
class _Row:
    """A site that grew.

    Attributes:
        site: It.
        counts: How many blocks it had in the dumps, in order.
        delta_bytes: Growth.
        delta_count: Growth.
        totals: In the last dump.
        confidence: "growth", "suspect" or "leaked".
        weight: `SURE`, `LIKELY` or `NOISE`.
        rates: Bytes and blocks an hour; None where nothing tells.
        shape: Of a trend.
    """

    site: Site
    counts: tuple[int, ...]
    delta_bytes: int
    delta_count: int
    totals: Totals
    confidence: str
    weight: int
    rates: tuple[float | None, float | None] = (None, None)
    shape: str | None = None


def grown(series: Series, folder: str, by: str = "site") -> pa.Table:
    """What grew in a series.

    Args:
        series: The inputs.
        folder: The fleet's, with a snapshot of each.
        by: The grouping of sites.

    Raises:
        WindumpsError: a snapshot cannot be used, or they are not comparable.
        OSError: one cannot be read.
    """
    paths = [_snapshot_path(folder, id_) for id_ in _chosen(series.ids)]
    wanted = Wanted(by=by, keep_blocks=True)
    inside = read_series(paths[0], None) if series.kind == SINGLE else None
    snapshots = inside or [open_snapshot(path, wanted) for path in paths]
    usable = [snapshot for snapshot in snapshots if not snapshot.shortfall]
    if len(usable) > 1:
        snapshots = usable  # one of which too little is known would keep all from being compared
    found = _found(series, snapshots)
    kind = series.kind if inside is None else TREND
    return _table(series, kind, found, _span(snapshots))


@dataclass(frozen=True)
class _Found:
    """What a series comes to.

    Attributes:
        rows: Sites that grew.
        last: The last dump, as it was compared.
        together: Tags of the kernel's pools that grew alike.
    """

    rows: list[_Row]
    last: Snapshot
    together: tuple[Together, ...] = ()


def _found(series: Series, snapshots: Sequence[Snapshot]) -> _Found:
    if len(snapshots) == 1:
        return _Found(_of_single(snapshots[0]), snapshots[0])
    if len(snapshots) > 2:
        trend = _trend(snapshots)
        if isinstance(trend, Trend):
            return _Found(_of_trend(trend), trend.current, trend.together)
        if series.one_life:
            raise TrendError(trend)
    # A process that was started anew: the youngest is compared with the oldest.
    answer = compare(snapshots[0], snapshots[-1])
    if answer.verdict is Verdict.NOT_COMPARABLE:
        raise TrendError(f"not comparable: {'; '.join((*answer.reasons, *answer.doubts))}")
    return _Found(_of_pair(answer, snapshots), answer.current, answer.together)


def _trend(snapshots: Sequence[Snapshot]) -> Trend | str:
    """The trend, or why there is none."""
    try:
        trend = find_trend(snapshots)
    except TrendError as error:
        return str(error)
    if trend.verdict is Verdict.NOT_COMPARABLE:
        return f"not comparable: {'; '.join((*trend.reasons, *trend.doubts))}"
    return trend


def _chosen(ids: Sequence[str]) -> list[str]:
    """At most so many of a series, evenly, the first and the last among them."""
    if len(ids) <= MOST_DUMPS:
        return list(ids)
    last = len(ids) - 1
    return [ids[round(number * last / (MOST_DUMPS - 1))] for number in range(MOST_DUMPS)]


def _snapshot_path(folder: str, id_: str) -> Path:
    found = sorted(Path(folder, "snapshots").glob(f"{id_}.*"))
    if not found:
        raise WindumpsError(f"{folder}: the snapshot of {id_} is gone; run again")
    return found[0]


def _span(snapshots: Sequence[Snapshot]) -> tuple[datetime | None, datetime | None]:
    times = [s.source.time for s in snapshots if s.source.time is not None]
    return min(times, default=None), max(times, default=None)


def _of_trend(trend: Trend) -> list[_Row]:
    rows = []
    for found in (*trend.sites, *trend.private):
        if found.delta_bytes > 0 or (found.delta_bytes == 0 and found.delta_count > 0):
            rows.append(_trend_row(found))
    return rows


def _trend_row(found: SiteTrend) -> _Row:
    return _Row(
        found.site,
        tuple(point.count for point in found.points),
        found.delta_bytes,
        found.delta_count,
        found.current,
        found.confidence,
        _trend_weight(found),
        (found.bytes_per_hour, found.count_per_hour),
        str(found.shape),
    )


def _trend_weight(found: SiteTrend) -> int:
    """Suspects are sure, but for few blocks of which nobody knows whether they come and go: chance."""
    if found.confidence == "growth":
        return NOISE
    moved = found.base.count + found.current.count
    is_chance = found.delta_count < CHANCE_DEVIATIONS * moved**0.5
    few = len(found.points) < MIN_NOISY_POINTS and found.delta_bytes < LARGE_BYTES
    return LIKELY if found.newcomers is None and few and is_chance else SURE


def _of_pair(comparison: Comparison, snapshots: Sequence[Snapshot]) -> list[_Row]:
    lost = unreferenced_of(comparison.current)
    rows = []
    for delta in comparison.grown:
        counts = [delta.base.count, delta.current.count]
        if len(snapshots) > 2:
            held = [one.groups.get(delta.site.key) for one in snapshots]
            counts = [pair[1].count if pair else 0 for pair in held]
        weight = LIKELY if _is_beyond_chance(delta, counts) else NOISE
        count = min(lost.get(delta.site.key, (0, 0))[1], delta.delta_count)
        is_lost = bool(weight) and count >= LOST_SHARE * max(delta.delta_count, 1)
        rates = comparison.per_hour(delta.delta_bytes), comparison.per_hour(delta.delta_count)
        rows.append(
            _Row(
                delta.site,
                tuple(counts),
                delta.delta_bytes,
                delta.delta_count,
                delta.current,
                "suspect" if is_lost else "growth",
                SURE if is_lost and count >= MANY_LOST else weight,
                rates,
            )
        )
    return _standing_out(rows)


def _standing_out(rows: list[_Row]) -> list[_Row]:
    """What grew as many other sites did is load, no leak; unless it is sure by itself."""
    likely = [row for row in rows if row.weight]
    if len(likely) < MANY_SITES:
        return rows
    size = STANDS_OUT * median(row.delta_bytes for row in likely)
    count = STANDS_OUT * median(row.delta_count for row in likely)
    return [
        replace(row, weight=NOISE)
        if row.weight == LIKELY and row.delta_bytes < size and row.delta_count < count
        else row
        for row in rows
    ]


def _is_beyond_chance(delta: SiteDelta, counts: Sequence[int]) -> bool:
    """Growth of two dumps that neither noise, nor blocks that come and go, explain."""
    if not is_enough(delta.delta_bytes, delta.delta_count):
        return False
    if delta.delta_bytes <= FLAT_SHARE * delta.base.bytes:
        return False
    if any(after < before for before, after in pairwise(counts)):
        return False
    fate = delta.fate
    moved = fate.new + fate.gone if fate is not None else 0
    if fate is None:
        # Two numbers of independent events differ by the root of their sum.
        moved = delta.base.count + delta.current.count
    return (
        delta.delta_count >= CHANCE_DEVIATIONS * moved**0.5
        or delta.delta_bytes >= LARGE_BYTES
        or (fate is not None and not fate.gone)
    )


def _of_single(snapshot: Snapshot) -> list[_Row]:
    """Sites of which most blocks are unreferenced."""
    rows = []
    for key, (size, count) in unreferenced_of(snapshot).items():
        site, totals = snapshot.groups[key]
        if count < LOST_SHARE * totals.count or not is_enough(size, count):
            continue
        many = count >= MANY_LOST or size >= LARGE_BYTES
        weight = SURE if many else LIKELY
        rows.append(_Row(site, (totals.count,), size, count, totals, "suspect", weight))
    return rows


def _tags_together(found: _Found, rows: Sequence[_Row], prints: dict[int, str]) -> dict[int, str]:
    """As `_parts`, of tags that hang on another one, which evidence says."""
    tags = [tag_number_of(row.site, found.last) for row in rows]
    parts: dict[int, str] = {}
    for group in found.together:
        root = next(
            (n for n, tag in enumerate(tags) if tag is not None and tag == group.root), None
        )
        if root is not None and rows[root].weight:
            hanging = set(group.tags) - {group.root}
            parts |= {n: prints[root] for n, tag in enumerate(tags) if tag in hanging}
    return parts


def _parts(rows: Sequence[_Row], prints: dict[int, str], last: Snapshot) -> dict[int, str]:
    """By number of a row the fingerprint of the one it is part of.

    It grew by the root's number of blocks, or some times that, in every interval, and the root's blocks hold
    its own.
    """
    find = last.holders
    likely = [n for n, row in enumerate(rows) if row.weight and row.delta_count >= MIN_TOGETHER]
    if find is None or len(likely) < 2:
        return {}
    held = find({rows[number].site.key for number in likely})
    found: dict[int, str] = {}
    for number in likely:
        holding = held.get(rows[number].site.key)
        if holding is None or holding.held < HELD_SHARE * holding.blocks:
            continue
        roots = [
            other
            for other in likely
            if other != number
            and _holds(rows[other].site, holding.holder)
            and _in_step(rows[number], rows[other])
        ]
        if len(roots) == 1 and found.get(roots[0]) != prints[number]:
            found[number] = prints[roots[0]]
    return found


def _in_step(part: _Row, root: _Row) -> bool:
    """Whether one row grew as another did, so many times in every interval."""
    times, rest = divmod(part.delta_count, root.delta_count)
    if rest or not 0 < times <= MOST_TIMES:
        return False
    sides = [[count - row.counts[0] for count in row.counts] for row in (part, root)]
    return all(mine == times * its for mine, its in zip(*sides, strict=True))


def _holds(site: Site, holder: str) -> bool:
    """Whether a holder's name, as `block_name` makes it, is that of a site's blocks."""
    names = {site.name, site.type or site.name}
    return any(holder == name or holder.endswith(f" {name}") for name in names)


def _table(
    series: Series,
    kind: str,
    grew: _Found,
    span: tuple[datetime | None, datetime | None],
) -> pa.Table:
    chosen = sorted(
        grew.rows, key=lambda r: (-r.weight, -r.delta_bytes, -r.delta_count, r.site.key)
    )
    del chosen[MOST_ROWS:]
    fingerprints = Fingerprints(grew.last)
    prints = {n: fingerprints.of(row.site, row.totals) for n, row in enumerate(chosen)}
    parts = _parts(chosen, prints, grew.last) | _tags_together(grew, chosen, prints)
    found: list[dict[str, Any]] = []
    for number, row in enumerate(chosen):
        found.append(
            {
                "series": series.id,
                "series_kind": kind,
                "fingerprint": prints[number],
                "key": row.site.key,
                "kind": str(row.site.kind),
                "name": row.site.name.encode("utf-8", "backslashreplace").decode(),
                "dumps": list(series.ids),
                "first": span[0],
                "last": span[1],
                "delta_bytes": row.delta_bytes,
                "delta_count": row.delta_count,
                "bytes_per_hour": row.rates[0],
                "count_per_hour": row.rates[1],
                "shape": row.shape,
                "confidence": row.confidence,
                "program": series.program or None,
                "version": series.version or None,
                "computer": series.computer or None,
                "weight": row.weight,
                "part_of": parts.get(number),
            }
        )
    table: pa.Table = arrow().Table.from_pylist(found, schema=schema_of(GROWTH))
    return table
