"""What grows by the kernel's counters only: the blocks of some dump refute them."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.compare.site_trends import MIN_DUMPS, SiteTrend, TrendFinder
from dumpleak.model.snapshot import Snapshot
from windumps.diagnostics import Diagnostic, Severity


def grown_by_counters(
    finder: TrendFinder, series: Sequence[Snapshot], sites: Sequence[SiteTrend]
) -> tuple[SiteTrend, ...]:
    """Groups whose counters grow, where the blocks of some dump refute these.

    A counter copied at another time than the rest is wrong once. One that rises from dump to dump is worth
    a look, though no block was found to bear it out; it ranks nowhere.

    Args:
        finder: Of the series.
        series: The dumps, in order of time.
        sites: What grows by blocks, and by counters that are believed.
    """
    keys = {key for snapshot in series for key in snapshot.refuted}
    groups = [
        {
            key: snapshot.refuted.get(key) or snapshot.groups[key]
            for key in keys
            if key in snapshot.refuted or key in snapshot.groups
        }
        for snapshot in series
    ]
    known = {site.site.key for site in sites if site.confidence != "growth"}
    return tuple(
        trend
        for trend in finder.trends(groups, {})
        if trend.site.key not in known
        and (trend.confidence != "growth" or (len(series) < MIN_DUMPS and trend.delta_bytes > 0))
    )


def why_unknown(series: Sequence[Snapshot]) -> str:
    """Why nothing tells what grows by counters only; "" when something does, and where none is refuted."""
    return next((s.refuted_unknown for s in series if s.refuted_unknown), "")


def unknown_notes(series: Sequence[Snapshot]) -> list[Diagnostic]:
    """Why nothing tells what grows by counters only, as a diagnostic."""
    why = why_unknown(series)
    if not why:
        return []
    return [
        Diagnostic("refuted-not-shown", Severity.WARNING, "_POOL_TRACKER_TABLE", None, why),
    ]
