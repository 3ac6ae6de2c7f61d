"""One site over a series of dumps: its rate, its shape, and what that makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from dumpleak.compare.answers import Change, SiteDelta
from dumpleak.compare.shape import FLAT_SHARE, MIN_NOISY_POINTS, Fit, Shape, fit, theil_sen
from dumpleak.model.account import ROWS
from dumpleak.model.containment import SiteContainers
from dumpleak.model.memory import Limit
from dumpleak.model.populations import BLOCKS
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_share
from windumps.arrays import F64

# Fewer dumps under load show growth, but no shape.
MIN_DUMPS = 3
# Growth of less than so many blocks, or so many bytes (sixteen of the smallest blocks), is noise, however
# regular; but for a few blocks so large that each is worth a look.
MIN_BLOCKS = 4
MIN_BYTES = 256
LARGE_BYTES = 1 << 20
# Of four intervals and more, this share has to show growth; of fewer, all.
RISING_SHARE = 0.8
MANY_INTERVALS = 4
# What a stopped load gave back, as a share of the growth under load, before a site is no leak any more.
GIVEN_BACK_SHARE = 0.5
# Of the blocks a site grew by in the first half of a series, this share has to be there at its end.
STAYING_SHARE = 0.5
# So many of them at the end of an idle time are a leak, however much else was given back.
LEFT_SHARE = 0.8
# Of few dumps, growth of less than this many standard deviations of what came and went is chance.
CHANCE_DEVIATIONS = 2.0
# Of what is only counted, growth up to this is what a healthy process shows.
USUAL_COUNT = ROWS["handles.count"].threshold
HOUR = 3600.0
LAST_DATE = datetime.max.replace(tzinfo=UTC)


class Newcomers(NamedTuple):
    """Blocks that were not in the first dump and are in the middle one: how many, and how many stay."""

    new: int
    kept: int


@dataclass(frozen=True)
class SiteTrend(Change):
    """One site over all dumps.

    Attributes:
        site: Who allocated.
        points: Totals in each dump, in order of time; zeros where the site was not there.
        bytes_per_hour: Robust rate under load; None where the dumps do not tell their times, and of what
            is only counted.
        bytes_per_hour_range: Its 95 % confidence interval.
        count_per_hour: Robust rate of members under load.
        shape: How the bytes run under load; of what is only counted, how their number runs.
        confidence: "growth", "suspect" or "leaked".
        evidence: Why, one clause each.
        newcomers: Of its blocks that came in the first half of the series, how many there were and how many
            are still there in the last dump; None where the dumps do not tell.
        exhaustion: When this site alone will have used up what limits the process; None when nothing
            is known to limit it, or it does not grow steadily.
        notes: Those clauses of the evidence that a table shows under the site's name.
        parts: Shapes that were put together to this, since they have one cause; see `causes`.
        cause: What they are, in plain words; "" where nothing was put together.
        weight: See `Change`.
        contained: The containers that hold its blocks in the last dump; None where none do, or nobody looked.
    """

    site: Site
    points: tuple[Totals, ...]
    bytes_per_hour: float | None
    bytes_per_hour_range: tuple[float, float] | None
    count_per_hour: float | None
    shape: Shape
    confidence: str
    evidence: tuple[str, ...]
    exhaustion: datetime | None
    newcomers: Newcomers | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[SiteDelta, ...] = ()
    cause: str = ""
    weight: int | None = None
    contained: SiteContainers | None = None

    @property
    def base(self) -> Totals:
        """Totals in the first dump."""
        return self.points[0]

    @property
    def current(self) -> Totals:
        """Totals in the last dump."""
        return self.points[-1]


@dataclass(frozen=True)
class Exhaustion:
    """When a limit is reached if everything goes on as it did.

    Attributes:
        limit: The limit that is reached first.
        time: When; None when the suspects do not grow, or not within this calendar.
        bytes_per_hour: Growth of all suspects together.
    """

    limit: Limit
    time: datetime | None
    bytes_per_hour: float


class TrendFinder:
    """Judges sites; knows the times and what the series ends with."""

    def __init__(self, series: Sequence[Snapshot], under_load: int) -> None:
        hours, last = _hours(series[:under_load]), series[under_load - 1]
        self.timed = hours is not None
        self._times: F64 = np.arange(float(under_load)) if hours is None else hours
        self._under_load = under_load
        self._after_idle = under_load < len(series)
        self._limits, self._when = last.limits, last.source.time
        self._has_bytes, self._members = series[0].has_bytes, series[0].members

    def trends(
        self, groups: list[dict[str, tuple[Site, Totals]]], newcomers: dict[str, Newcomers]
    ) -> tuple[SiteTrend, ...]:
        """All sites that changed, best suspects first; `newcomers` are by the sites' own keys."""
        sites = {
            key: site for one in groups for key, (site, _) in one.items()
        }  # the last name counts
        found = []
        nothing = None, Totals()
        for key, site in sites.items():
            points = tuple(one.get(key, nothing)[1] for one in groups)
            if len({(point.count, point.bytes) for point in points}) > 1:
                found.append(self._judge(site, points, newcomers.get(site.key)))
        rank = {"leaked": 0, "suspect": 1, "growth": 2}
        found.sort(key=lambda t: (rank[t.confidence], -t.delta_bytes, -t.delta_count, t.site.key))
        return tuple(found)

    def exhaustion(self, trends: Sequence[SiteTrend]) -> Exhaustion | None:
        """When everything that leaks, or may, has used up what limits the process."""
        rate = sum(
            trend.bytes_per_hour or 0.0
            for trend in trends
            if trend.confidence != "growth" and (trend.bytes_per_hour or 0) > 0
        )
        return first_reached(self._limits, rate, self._when)

    def _judge(
        self, site: Site, points: tuple[Totals, ...], newcomers: Newcomers | None
    ) -> SiteTrend:
        if self._has_bytes and self._members != BLOCKS and len({p.bytes for p in points}) == 1:
            # Reservations without a committed page, say: they become more, their bytes do not.
            counting = copy(self)
            counting._has_bytes = False
            rate = 0.0 if self.timed else None
            return replace(counting._judge(site, points, newcomers), bytes_per_hour=rate)
        loaded = points[: self._under_load]
        fitted = fit(self._times, np.array([self._size(point) for point in loaded], np.float64))
        per_hour = theil_sen(self._times, np.array([point.count for point in loaded], np.float64))
        confidence, evidence = self._confidence(fitted, points, newcomers)
        if self.timed and confidence != "growth" and len(loaded) >= MIN_DUMPS:
            low, high = (round(end) for end in (fitted.low, fitted.high))
            unit = "bytes " * self._has_bytes
            evidence.append(f"{round(fitted.slope)} {unit}an hour (95 %: {low} to {high})")
        if newcomers is not None and newcomers.new:
            evidence.append(
                f"{newcomers.kept:,} of {newcomers.new:,} blocks that came in the first half are still there"
            )
        exhaustion = None
        if self.timed and confidence != "growth":
            first = first_reached(self._limits, fitted.slope, self._when)
            exhaustion = first.time if first else None
        by_bytes = self.timed and self._has_bytes
        return SiteTrend(
            site,
            points,
            fitted.slope if by_bytes else None,
            (fitted.low, fitted.high) if by_bytes and len(loaded) >= MIN_DUMPS else None,
            per_hour if self.timed else None,
            fitted.shape,
            confidence,
            tuple(evidence),
            exhaustion,
            newcomers,
        )

    def _size(self, totals: Totals) -> int:
        """What growth is measured by."""
        return totals.bytes if self._has_bytes else totals.count

    def _stays(self, points: tuple[Totals, ...], newcomers: Newcomers | None) -> bool:
        """False when what a site grew by in the first half is of blocks that do not stay, or is chance.

        Chance makes a site of blocks that come and go grow over three dumps in a row, now and then.
        """
        if newcomers is None:
            return True
        first, middle, last = (
            points[0],
            points[middle_of(self._under_load)],
            points[self._under_load - 1],
        )
        if last.bytes - first.bytes <= FLAT_SHARE * first.bytes:
            # Hardly any growth: then nearly all that came has to stay.
            return newcomers.kept >= STAYING_SHARE * newcomers.new
        grown = middle.count - first.count
        gone = newcomers.new - grown
        # Two numbers of independent events differ by the root of their sum, as standard deviation.
        chance = CHANCE_DEVIATIONS * (newcomers.new + gone) ** 0.5
        if gone > 0 and self._under_load < MIN_NOISY_POINTS and grown < chance:
            return False
        return newcomers.kept >= STAYING_SHARE * grown

    def _are_left(self, points: tuple[Totals, ...], newcomers: Newcomers | None) -> bool:
        """True when nearly all blocks that a site grew by in the first half are there at the end.

        Work in progress ends with the load, so that a site's total may fall below what it began with.
        """
        grown = points[middle_of(self._under_load)].count - points[0].count
        return newcomers is not None and grown > 0 and newcomers.kept >= LEFT_SHARE * grown

    def _confidence(
        self, fitted: Fit, points: tuple[Totals, ...], newcomers: Newcomers | None
    ) -> tuple[str, list[str]]:
        loaded = points[: self._under_load]
        first, last, end = (self._size(point) for point in (loaded[0], loaded[-1], points[-1]))
        growth = last - first
        evidence = [f"grew in {fitted.rising} of {fitted.intervals} intervals"]
        enough = growth > USUAL_COUNT
        if self._has_bytes:
            enough = is_enough(growth, loaded[-1].count - loaded[0].count)
        if growth > 0 and not enough:
            least = minimum(self._members, has_bytes=self._has_bytes)
            evidence.append(f"too little to tell from noise: less than {least}")
        suspect = enough and grew_steadily(fitted) and self._stays(points, newcomers)
        if len(loaded) >= MIN_DUMPS and fitted.shape is not Shape.FLAT:
            evidence.append(f"Mann-Kendall tau {fitted.tau:.2f}, p {fitted.p_value:.3f}")
        if not self._after_idle or growth <= 0:
            return "suspect" if suspect else "growth", evidence
        kept = (end - first) / growth
        fell = format_bytes(last - end) if self._has_bytes else f"{last - end:,}"
        evidence.append(
            f"{format_share(max(1 - kept, 0), 1, 0)} of it given back after the load stopped"
            if kept >= 0
            else f"{fell} given back after the load stopped, more than it grew by"
        )
        if len(loaded) < MIN_DUMPS:
            # A filled cache keeps its memory too, and two dumps under load cannot tell it from a leak.
            return "suspect" if enough and kept > GIVEN_BACK_SHARE else "growth", evidence
        if not suspect:
            return "growth", evidence
        leaked = kept > GIVEN_BACK_SHARE or self._are_left(points, newcomers)
        return "leaked" if leaked else "growth", evidence


def _hours(under_load: Sequence[Snapshot]) -> F64 | None:
    """Hours since the first dump; None where a dump does not tell its time, or two tell the same."""
    times = [s.source.time.timestamp() for s in under_load if s.source.time is not None]
    hours = (np.array(times) - times[0]) / HOUR if times else np.empty(0)
    return hours if len(hours) == len(under_load) and (np.diff(hours) > 0).all() else None


def middle_of(under_load: int) -> int:
    """Which dump of a series ends its first half."""
    return under_load // 2


def minimum(members: str, *, has_bytes: bool) -> str:
    """The least growth that can be told from noise, for people; `members` is what is counted."""
    if not has_bytes:
        return f"{USUAL_COUNT + 1:,} {members}"
    return f"{MIN_BLOCKS} {members} and {format_bytes(MIN_BYTES)}, or {format_bytes(LARGE_BYTES)}"


def has_counted_growth(series: Sequence[Snapshot], sites: Sequence[SiteTrend]) -> bool:
    """Something that is only counted grew by more than a healthy process shows."""
    return not series[0].has_bytes and any(site.delta_count > USUAL_COUNT for site in sites)


def is_enough(growth_bytes: int, growth_count: int) -> bool:
    """Growth that can be told from noise."""
    many = growth_count >= MIN_BLOCKS and growth_bytes >= MIN_BYTES
    return many or growth_bytes >= LARGE_BYTES


def grew_steadily(fitted: Fit) -> bool:
    """Growth in every interval (one of many may be missing), and not less and less of it."""
    if fitted.intervals < MIN_DUMPS - 1:
        return False
    enough = RISING_SHARE if fitted.intervals >= MANY_INTERVALS else 1.0
    if fitted.shape is Shape.STEADY:
        return fitted.rising >= enough * fitted.intervals
    return fitted.shape is Shape.IRREGULAR and fitted.rising == fitted.intervals


def first_reached(
    limits: tuple[Limit, ...], bytes_per_hour: float, when: datetime | None
) -> Exhaustion | None:
    """The limit that growth reaches first; None when no limit is known or the start is not."""
    if not limits or when is None:
        return None
    limit = min(limits, key=lambda limit: limit.free_bytes)
    time = None
    if bytes_per_hour > 0:
        hours = limit.free_bytes / bytes_per_hour
        if hours < (LAST_DATE - when).total_seconds() / HOUR:
            time = (when + timedelta(hours=hours)).replace(microsecond=0)
    return Exhaustion(limit, time, bytes_per_hour)
