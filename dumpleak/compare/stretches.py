"""What grows in every life of a system: rates of each boot by itself, never a slope over a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dumpleak.compare.site_trends import MIN_DUMPS, USUAL_COUNT, SiteTrend, is_enough
from dumpleak.model.sites import Site
from dumpleak.model.units import format_bytes

ALIKE = 2.0  # the fastest life is at most so many times as fast as the slowest
MIN_LIVES = 2


@dataclass(frozen=True)
class Rate:
    """How a site grew within one boot.

    Attributes:
        bytes_per_hour: None of what is only counted.
        count_per_hour: Of its members.
        dumps: Of that boot.
    """

    bytes_per_hour: float | None
    count_per_hour: float
    dumps: int


@dataclass(frozen=True)
class Recurring:
    """A site that grows at a like rate in every boot that has two dumps and more.

    Attributes:
        site: Who allocated.
        rates: One for each boot in order; None where a single dump tells no rate.
        by_counters: The counters grow; the blocks of some dump refute them.
    """

    site: Site
    rates: tuple[Rate | None, ...]
    by_counters: bool

    @property
    def told(self) -> str:
        """The rates, for people: "+34.4 KiB, +34.4 KiB an hour"."""
        return rates_told(self.rates)


def rates_told(rates: Iterable[Rate | None]) -> str:
    """Rates of all boots that tell one: "+34.4 KiB, +34.4 KiB an hour"."""
    told = [
        f"{round(rate.count_per_hour):+,}"
        if rate.bytes_per_hour is None
        else format_bytes(round(rate.bytes_per_hour), signed=True)
        for rate in rates
        if rate is not None
    ]
    return f"{', '.join(told)} an hour"


class Lives:
    """The boots of a series, each judged by itself.

    Args:
        boots: (what changed, what changed by counters only, dumps) of each, in order; None for one with a
            single dump.
        has_bytes: Members have sizes.
    """

    def __init__(
        self,
        boots: Sequence[tuple[Sequence[SiteTrend], Sequence[SiteTrend], int] | None],
        *,
        has_bytes: bool,
    ) -> None:
        self._dumps = [0 if boot is None else boot[2] for boot in boots]
        self._has_bytes = has_bytes
        self._found: list[dict[str, SiteTrend]] = []
        self._counted: set[str] = set()
        for boot in boots:
            sites, counted, _ = boot or ((), (), 0)
            self._counted |= {trend.site.key for trend in counted}
            self._found.append({trend.site.key: trend for trend in (*sites, *counted)})

    def rates(self, key: str) -> tuple[Rate | None, ...]:
        """Of a site in each boot; zeros where it did not change."""
        return tuple(
            self._rate(found.get(key), dumps) if dumps else None
            for found, dumps in zip(self._found, self._dumps, strict=True)
        )

    def _rate(self, trend: SiteTrend | None, dumps: int) -> Rate | None:
        if trend is None:
            return Rate(0.0 if self._has_bytes else None, 0.0, dumps)
        if trend.count_per_hour is None:
            return None
        return Rate(trend.bytes_per_hour, trend.count_per_hour, dumps)

    def recurring(self) -> tuple[Recurring, ...]:
        """What grows at a like rate in each, the fastest first."""
        if sum(bool(dumps) for dumps in self._dumps) < MIN_LIVES:
            return ()
        lives = [found for found, dumps in zip(self._found, self._dumps, strict=True) if dumps]
        found = []
        for key in set.intersection(*(set(life) for life in lives)):
            rates = self.rates(key)
            speeds = [self._speed(rate) for rate in rates if rate is not None]
            grew = all(self._grew(life[key]) for life in lives)
            if grew and len(speeds) == len(lives) and max(speeds) <= ALIKE * min(speeds):
                found.append(Recurring(lives[-1][key].site, rates, key in self._counted))
        return tuple(
            sorted(found, key=lambda each: (-max(map(self._speed, each.rates)), each.site.key))
        )

    def _speed(self, rate: Rate | None) -> float:
        if rate is None:
            return 0.0
        return rate.count_per_hour if rate.bytes_per_hour is None else rate.bytes_per_hour

    def _grew(self, trend: SiteTrend) -> bool:
        """Within one boot: steadily where that can be told, by more than noise in any case."""
        if len(trend.points) >= MIN_DUMPS:
            return trend.confidence != "growth"
        if self._has_bytes:
            return trend.delta_bytes > 0 and is_enough(trend.delta_bytes, trend.delta_count)
        return trend.delta_count > USUAL_COUNT

    def said(self, trends: Iterable[SiteTrend]) -> tuple[SiteTrend, ...]:
        """Trends of one boot; suspects among them with what they do in each."""
        made = []
        for trend in trends:
            rates = self.rates(trend.site.key)
            told = sum(rate is not None for rate in rates)
            if trend.confidence != "growth" and told >= MIN_LIVES:
                clause = f"in each of {told} boots: {rates_told(rates)}"
                trend = replace(trend, evidence=(*trend.evidence, clause))
            made.append(trend)
        return tuple(made)
