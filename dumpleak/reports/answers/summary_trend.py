"""The first screen about a series of dumps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dumpleak.compare.answers import Verdict
from dumpleak.compare.site_trends import MIN_DUMPS, SiteTrend, minimum
from dumpleak.compare.trend import Trend
from dumpleak.model.account_rows import what_grew
from dumpleak.model.populations import PROCESSES
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.account_facts import ADDRESS_SPACE, shrinking_told, trends_of
from dumpleak.reports.answers.boots import boots_facts
from dumpleak.reports.answers.causes import cause_told
from dumpleak.reports.answers.containers import container_facts, container_steps
from dumpleak.reports.answers.headline import LARGEST_FREE, account_facts, rows_told
from dumpleak.reports.answers.left_behind import left_facts
from dumpleak.reports.answers.next_steps import Step, trace_steps
from dumpleak.reports.answers.said_of_dumps import NAMED, stack_steps
from dumpleak.reports.answers.summary import (
    cannot_tell,
    change_told,
    elapsed,
    groups_told,
    how_sure,
    of_heaps,
    who_told,
)
from dumpleak.reports.answers.together import roots_told, together_facts, with_counted_roots
from dumpleak.reports.document import Summary, Tone

_IDLE = Step(
    "Stop the load, wait, take one more dump: what does not come back is leaked.",
    "dumpleak trend DUMP… --after-idle LAST",
)
_LOADED = Step(
    "Take three dumps and more under load: steady growth tells a leak from a cache.",
    "dumpleak trend DUMP… --after-idle LAST",
)


class _Verdict(NamedTuple):
    """What is said first, and how sure that is."""

    tone: Tone
    headline: str
    sure: str
    steps: tuple[Step, ...] = ()


def summarize_trend(trend: Trend) -> Summary:
    """Is it leaking, what, who, how sure, what next."""
    if trend.verdict is Verdict.NOT_COMPARABLE:
        return cannot_tell(trend, "the dumps are", trend.snapshots)
    sites = (*trend.sites, *trend.private)
    leaked = [site for site in sites if site.confidence == "leaked"]
    suspects = [site for site in sites if site.confidence == "suspect"]
    grown = leaked or suspects
    tone, headline, sure, steps = _verdict(trend, leaked, suspects)
    if trend.by_counters and not grown:
        tone = Tone.NOTICE
        many = f"{len(trend.by_counters)} suspect by counters alone"
        headline = (
            f"{headline[:-1]} by its blocks; {many}{_counted_alike(trend)}{roots_told(trend)}."
        )
    if trend.reasons:
        tone = Tone.CANNOT_TELL
        sure = f"compared by force although {'; '.join(trend.reasons)}. {sure}"
    growth = sum(site.delta_bytes for site in sites if site.delta_bytes > 0)
    least = minimum(trend.base.members, has_bytes=trend.base.has_bytes)
    who = with_counted_roots(who_told(grown, growth), trend)
    facts = (
        ("What", f"{change_told(trend)}{elapsed(trend.base, trend.current)}"),
        *_restarts(trend),
        *left_facts(trend.base, trend.current),
        *boots_facts(trend),
        *who,
        *together_facts(trend),
        *account_facts(trend),
        *container_facts(trend),
        how_sure(sure, trend.snapshots),
        ("Verdicts", f"take {MIN_DUMPS} dumps, and growth of at least {least}: less is noise"),
        *((("When it ends", exhaustion_line(trend)),) if trend.exhaustion is not None else ()),
    )
    return Summary(tone, headline, facts, steps + _trend_steps(trend, grown))


def _verdict(trend: Trend, leaked: list[SiteTrend], suspects: list[SiteTrend]) -> _Verdict:
    cause, by = cause_told(leaked or suspects, trend.base.noun)
    many = cause or groups_told(trend.base, len(leaked or suspects))
    alike = f", by {by}" if cause else roots_told(trend)
    if leaked:
        return _Verdict(
            Tone.BAD,
            f"Leaking: {many} grew steadily{alike}, and a stopped load did not give it back.",
            "leaked: steady growth that stayed after the load",
        )
    if suspects and trend.after_idle:  # and less than three under load, or they would be leaked
        return _Verdict(
            Tone.NOTICE,
            f"Suspect: {many} grew{alike}, and a stopped load did not give it back.",
            "suspect: a filled cache keeps its memory too",
            (_LOADED,),
        )
    if suspects:
        return _Verdict(
            Tone.NOTICE,
            f"Suspect: {many} grew steadily{alike}{_alike(trend)}.",
            "suspect: steady growth is no proof of a leak",
            (_IDLE,),
        )
    tone, headline = Tone.GOOD, f"No {trend.base.noun} grows steadily."
    if trend.base.is_listed:
        headline = f"{trend.base.members.capitalize()} do not grow steadily."
    grew = what_grew(trend.account)
    if grew:
        alone = trend.base.population == PROCESSES  # the rows are what there is of a process
        tone, headline = Tone.NOTICE, f"{rows_told(grew)}. {'' if alone else headline}".rstrip()
    elif shrinking := shrinking_told(trend):
        tone, headline = Tone.NOTICE, f"{shrinking}. {headline}"
    return _Verdict(tone, headline, f"{len(trend.snapshots)} dumps")


def _counted_alike(trend: Trend) -> str:
    """The text ", 2 of them alike in each boot", of what grows by counters only; "" for none."""
    again = sum(each.by_counters for each in trend.recurring)
    if not again:
        return ""
    return ", alike in each boot" if again == 1 else f", {again:,} of them alike in each boot"


def _alike(trend: Trend) -> str:
    """The text ", 2 alike in each boot"; "" where there is nothing to tell."""
    alike = sum(not each.by_counters for each in trend.recurring)
    return f", {alike:,} alike in each boot" if alike else ""


def _restarts(trend: Trend) -> list[tuple[str, str]]:
    """Runs of the system, each by itself, and what grows by counters only."""
    facts = []
    if trend.restarts:
        of = (
            f"{len(trend.snapshots)} dumps, {trend.base.source.file} to {trend.current.source.file}"
        )
        facts.append(
            ("Restarts", f"{trend.restarted}; each run is judged by itself, this one is of {of}")
        )
    if trend.by_counters:
        facts.append(("Counters", _counted_only(trend)))
    for run in trend.other_runs:
        text = f"{len(run.snapshots)} dumps, {run.base.source.file} to {run.current.source.file}: "
        text += "; ".join(run.reasons) if run.refused else change_told(run)
        grown = [site for site in run.sites if site.delta_bytes > 0][:NAMED]
        told = [
            f"{site.site.name} {format_bytes(site.delta_bytes, signed=True)}"
            + f" ({site.confidence})" * (len(run.snapshots) >= MIN_DUMPS)
            for site in grown
        ]
        text += f"; most: {', '.join(told)}" * bool(told)
        text += f"; {_counted_only(run)}" * bool(run.by_counters)
        facts.append(("Other run", text))
    return facts


def _counted_only(trend: Trend) -> str:
    """Sites whose counters grow though no block bears that out."""
    steady = len(trend.snapshots) >= MIN_DUMPS
    told = ", ".join(
        f"{site.site.name} ({format_bytes(site.delta_bytes, signed=True)}, "
        f"{format_count(site.delta_count, signed=True)} blocks)"
        for site in trend.by_counters[:NAMED]
    )
    verdict = "suspect by counters alone" if steady else "grown by counters alone"
    return f"{verdict}: {told}; the blocks that were found do not bear it out"


def exhaustion_line(trend: Trend) -> str:
    """When a limit is reached, in one sentence; "" when no limit is known."""
    end = trend.exhaustion
    if end is None:
        return ""
    left = f"{format_bytes(end.limit.free_bytes)} of {end.limit.name} left"
    pieces = trends_of(trend).get(LARGEST_FREE) if end.limit.name == ADDRESS_SPACE else None
    if pieces and pieces.time and (end.time is None or pieces.time < end.time):
        return f"{left} in pieces, of which about {pieces.time:%Y-%m-%d %H:%M} UTC none is large enough."
    when = (
        f"used up about {end.time:%Y-%m-%d %H:%M} UTC, earlier where it is in pieces"
        if end.time
        else "the sites that are suspect do not use it up"
    )
    rate = format_bytes(round(end.bytes_per_hour))
    return f"{left}; at {rate} an hour {when}."


def _trend_steps(trend: Trend, grown: Sequence[SiteTrend]) -> tuple[Step, ...]:
    """How to see who makes what grew steadily."""
    if trend.base.is_listed:
        names = [site.site.name for site in grown[:NAMED]]
        return trace_steps(trend.base.population, trend.base.grouping, names)
    return (
        *container_steps(trend),
        *stack_steps(trend.current.source, of_heaps(trend, grown)),
    )
