"""A series of dumps over restarts of the system: each boot by itself, and what grows alike in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from dumpleak.compare.refuted import why_unknown
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.stretches import Recurring
from dumpleak.compare.system_changes import SystemChanges, system_changes
from dumpleak.compare.trend import Trend
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.changes import changes_json, changes_told
from dumpleak.reports.answers.together import together_json
from dumpleak.reports.document import Column, Kind, Part, Row, Table, View
from dumpleak.reports.json_report import both_json, source_json
from dumpleak.reports.values import Absent, Name

NAMED = 3


def changes_in(trend: Trend) -> Iterator[tuple[Snapshot, Snapshot, SystemChanges]]:
    """Neighbours in time between which something of the system changed, with what did."""
    for before, after in pairwise([dump for boot in trend.boots for dump in boot]):
        found = system_changes(before, after)
        if found:
            yield before, after, found


def boots_facts(trend: Trend) -> list[tuple[str, str]]:
    """What grows alike in each boot, and what changed of the system, for the first screen."""
    facts = []
    if trend.recurring:
        told = [
            f"{each.site.name}: {each.told}" + " (by counters alone)" * each.by_counters
            for each in trend.recurring[:NAMED]
        ]
        more = len(trend.recurring) - NAMED
        text = "; ".join(told) + (f"; and {more:,} more" if more > 0 else "")
        facts.append(("Each boot", f"suspect, it grows alike in each: {text}"))
    for before, after, found in changes_in(trend):
        clauses = "; ".join(changes_told(found))
        files = f"between {before.source.file} and {after.source.file}"
        facts.append(("Changed", f"{files}: {clauses}"))
    return facts


def boots_parts(trend: Trend, top: int | None) -> list[Part]:
    """A table of what grows in each boot; none where the system was not restarted, or nothing does."""
    if not trend.recurring:
        return []
    told = [number for number, rate in enumerate(trend.recurring[0].rates) if rate is not None]
    sized = trend.base.has_bytes
    columns = (
        *(
            Column(f"boot {number + 1}", Kind.BYTES if sized else Kind.RATE, signed=sized)
            for number in told
        ),
        Column("verdict"),
        Column("grows alike in each boot, an hour", Kind.NAME),
    )

    def row(_: int, each: Recurring) -> Row:
        rates = [_rate(each, number, sized=sized) for number in told]
        return (*rates, _verdict(each), Name(each.site.name))

    title = "What grows alike in each boot"
    views = View.PEOPLE
    return [
        Table("boots", title, columns, trend.recurring, row, views, noun=trend.base.noun, top=top)
    ]


def _rate(each: Recurring, number: int, *, sized: bool) -> Any:
    rate = each.rates[number]
    if rate is None or (sized and rate.bytes_per_hour is None):
        return Absent.UNKNOWN
    return round(rate.bytes_per_hour or 0.0) if sized else rate.count_per_hour


def _verdict(each: Recurring) -> str:
    return "suspect by counters alone" if each.by_counters else "suspect"


def boots_json(
    trend: Trend, site_json: Callable[[int, SiteTrend], dict[str, Any]]
) -> dict[str, Any]:
    """Of a kernel: its boots, what changed between them, and what grows by counters only.

    Args:
        trend: The series.
        site_json: Makes the JSON of a site of a trend.
    """
    if not trend.base.is_pool:
        return {}
    return {
        "groups": together_json(trend.together),
        "restarts": [{"before": before, "after": after} for before, after in trend.restarts],
        "boots": [_boot(boot) for boot in trend.boots],
        "recurring": [_recurring(each) for each in trend.recurring],
        "changes": [
            {
                "before": before.source.file,
                "after": after.source.file,
                **(changes_json(found) or {}),
            }
            for before, after, found in changes_in(trend)
        ],
        "by_counters": [
            site_json(rank, site) for rank, site in enumerate(trend.by_counters, start=1)
        ],
        "by_counters_unknown": why_unknown(trend.snapshots) or None,
        "other_runs": [
            {
                "dumps": [source_json(snapshot.source) for snapshot in run.snapshots],
                "verdict": run.verdict,
                "reasons": [*run.reasons, *run.doubts],
                "totals": {
                    "delta_bytes": run.delta_bytes,
                    "delta_count": run.delta_count,
                    **both_json(run.base_totals, run.current_totals),
                },
                "sites": [site_json(rank, site) for rank, site in enumerate(run.sites, start=1)],
                "by_counters": [
                    site_json(rank, site) for rank, site in enumerate(run.by_counters, start=1)
                ],
            }
            for run in trend.other_runs
        ],
    }


def _boot(dumps: Sequence[Snapshot]) -> dict[str, Any]:
    times = dumps[0].source.time, dumps[-1].source.time
    hours = None
    if times[0] is not None and times[1] is not None:
        hours = (times[1] - times[0]).total_seconds() / 3600
    return {"dumps": [dump.source.file for dump in dumps], "hours": hours}


def _recurring(each: Recurring) -> dict[str, Any]:
    return {
        "key": each.site.key,
        "name": each.site.name,
        "tag": each.site.tag,
        "driver": each.site.driver,
        "confidence": "suspect",
        "by_counters": each.by_counters,
        "rates": [
            None
            if rate is None
            else {
                "bytes_per_hour": None
                if rate.bytes_per_hour is None
                else round(rate.bytes_per_hour, 3),
                "count_per_hour": round(rate.count_per_hour, 3),
                "dumps": rate.dumps,
            }
            for rate in each.rates
        ],
    }
