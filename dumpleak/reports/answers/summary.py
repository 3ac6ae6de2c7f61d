"""The first thing a reader wants: is it leaking, what, who, how sure, what next. For text and page alike.

Each answer that cannot be given ends with the command that gets a better dump.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from dumpleak.compare.answers import Comparison, SiteDelta, Verdict
from dumpleak.compare.comparable import SWAPPED, is_older
from dumpleak.compare.life import Life
from dumpleak.compare.site_trends import MIN_DUMPS, SiteTrend, minimum
from dumpleak.compare.trend import Trend
from dumpleak.model.account_rows import what_grew
from dumpleak.model.coverage import Coverage
from dumpleak.model.info import Info
from dumpleak.model.owners import drivers_named
from dumpleak.model.populations import BLOCKS, POPULATIONS, PROCESSES
from dumpleak.model.sites import SiteKind
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.units import format_bytes, format_count, format_share
from dumpleak.pointers.roots import TOLD_LOST_SHARE, share_told
from dumpleak.reports.answers.headline import account_facts, growth_headline, holes_told, rows_told
from dumpleak.reports.answers.next_steps import (
    OUTSIDE_HEAPS,
    THIRD_DUMP,
    Step,
    better_dump_steps,
    comparable_dumps_steps,
    named_elsewhere,
    record_stacks,
    trace_steps,
    track_driver,
)
from dumpleak.reports.document import Summary, Tone
from dumpleak.reports.names import cut_middle
from dumpleak.reports.rows import holder_evidence
from dumpleak.survey.leaks import LeakGroup, Leaks
from windumps.heaps.page_heap import heap as page_heap

USER_STACK_TRACES = 0x1000  # FLG_USER_STACK_TRACE_DB of NtGlobalFlag (gflags +ust)
NAMED = 3  # sites the summary names
MAX_NAME = 80  # characters of each


def summarize_comparison(comparison: Comparison) -> Summary:
    """Of two dumps."""
    sides = comparison.base, comparison.current
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        if comparison.doubts:
            return _in_doubt(comparison, comparison.doubts, sides)
        return _not_comparable("the two dumps are", comparison.reasons, sides)
    grown = comparison.grown
    growth = sum(delta.delta_bytes for delta in grown)
    facts = [("What", f"{_change(comparison)}{elapsed(*sides)}"), *_who(grown, growth)]
    facts += account_facts(comparison)
    if is_older(comparison.base.source, comparison.current.source):
        facts.append(("Order", SWAPPED))
    if comparison.survivors is not None:
        fate = comparison.survivors.total
        blocks = f"{fate.kept:,} of the base still there, {fate.gone:,} gone, {fate.new:,} new"
        facts.append(("Blocks", blocks))
    held = holder_evidence(comparison.current, grown[0].site) if grown else []
    if held:
        facts.append(("Holders", f"of the first: {'; '.join(held)}"))
    if comparison.life.life is Life.OTHER:
        facts.append(("Runs", f"two runs of the program: {comparison.life.why}"))
    forced = f"Compared by force although {'; '.join(comparison.reasons)}. " * bool(
        comparison.reasons
    )
    steps: tuple[Step, ...] = ()
    if comparison.verdict is Verdict.GROWTH:
        tone = Tone.CANNOT_TELL if forced else Tone.NOTICE
        sites_grown = _groups_grown(comparison)
        many = groups_told(comparison.base, sites_grown) if sites_grown else ""
        headline = growth_headline(comparison, many)
        sure = "growth, not proof"
        steps = _grown_steps(comparison, grown)
    else:
        tone = Tone.CANNOT_TELL if forced else Tone.GOOD
        what = f"No {comparison.base.noun} grew"
        if comparison.base.is_listed:
            what = f"{comparison.base.members.capitalize()} did not grow"
        headline = f"{what} between these two dumps."
        sure = "as sure as the load between the dumps was real"
    missing = holes_told(sides)
    more = f"; {missing}" if missing else ""
    facts.append(
        ("How sure", f"{forced}{sure}; {covered_told([side.coverage for side in sides])}{more}")
    )
    return Summary(tone, headline, tuple(facts), steps)


def summarize_trend(trend: Trend) -> Summary:
    """Of a series."""
    if trend.verdict is Verdict.NOT_COMPARABLE:
        if trend.doubts:
            return _in_doubt(trend, trend.doubts, trend.snapshots)
        return _not_comparable("the dumps are", trend.reasons, trend.snapshots)
    sites = (*trend.sites, *trend.private)
    leaked = [site for site in sites if site.confidence == "leaked"]
    suspects = [site for site in sites if site.confidence == "suspect"]
    facts = [("What", f"{_change(trend)}{elapsed(trend.base, trend.current)}")]
    steps: tuple[Step, ...] = ()
    if leaked:
        tone = Tone.BAD
        many = groups_told(trend.base, len(leaked))
        headline = f"Leaking: {many} grew steadily, and a stopped load did not give it back."
        sure = "leaked: steady growth that stayed after the load"
    elif suspects:
        tone = Tone.NOTICE
        many = groups_told(trend.base, len(suspects))
        headline = f"Suspect: {many} grew steadily."
        sure = "suspect: steady growth is no proof of a leak"
        step = Step(
            "Stop the load, wait, take one more dump: what does not come back is leaked.",
            "dumpleak trend DUMP… --after-idle LAST",
        )
        if trend.after_idle:  # and less than three under load, or they would be leaked
            headline = f"Suspect: {many} grew, and a stopped load did not give it back."
            sure = "suspect: a filled cache keeps its memory too"
            step = Step(
                "Take three dumps and more under load: steady growth tells a leak from a cache.",
                "dumpleak trend DUMP… --after-idle LAST",
            )
        steps = (step,)
    else:
        tone = Tone.GOOD
        headline = f"No {trend.base.noun} grows steadily."
        if trend.base.is_listed:
            headline = f"{trend.base.members.capitalize()} do not grow steadily."
        sure = f"{len(trend.snapshots)} dumps"
        grew = what_grew(trend.account)
        if grew:
            alone = trend.base.population == PROCESSES  # the rows are what there is of a process
            tone, headline = Tone.NOTICE, f"{rows_told(grew)}. {'' if alone else headline}".rstrip()
    facts += _restarts(trend)
    if trend.by_counters and not (leaked or suspects):
        tone = Tone.NOTICE
        headline = (
            f"{headline[:-1]} by its blocks; {len(trend.by_counters)} suspect by counters alone."
        )
    if trend.reasons:
        tone = Tone.CANNOT_TELL
        sure = f"compared by force although {'; '.join(trend.reasons)}. {sure}"
    growth = sum(site.delta_bytes for site in sites if site.delta_bytes > 0)
    facts += _who(leaked or suspects, growth)
    facts += account_facts(trend)
    covered = covered_told([snapshot.coverage for snapshot in trend.snapshots])
    missing = holes_told(trend.snapshots)
    more = f"; {missing}" if missing else ""
    facts.append(("How sure", f"{sure}; {covered}{more}"))
    least = minimum(trend.base.members, has_bytes=trend.base.has_bytes)
    facts.append(
        ("Verdicts", f"take {MIN_DUMPS} dumps, and growth of at least {least}: less is noise")
    )
    if trend.exhaustion is not None:
        facts.append(("When it ends", exhaustion_line(trend)))
    return Summary(
        tone,
        headline,
        tuple(facts),
        steps + _trend_steps(trend, leaked or suspects),
    )


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
        text += "; ".join(run.reasons) if run.refused else _change(run)
        grown = [site for site in run.sites if site.delta_bytes > 0][:NAMED]
        told = [
            f"{site.site.name} {format_bytes(site.delta_bytes, True)}"
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
        f"{site.site.name} ({format_bytes(site.delta_bytes, True)}, {format_count(site.delta_count, True)} "
        "blocks)"
        for site in trend.by_counters[:NAMED]
    )
    verdict = "suspect by counters alone" if steady else "grown by counters alone"
    return f"{verdict}: {told}; the blocks that were found do not bear it out"


def summarize_leaks(leaks: Leaks) -> Summary:
    """Of what nothing points to in one dump."""
    scanned = ", ".join(
        f"{kind} {_of(amount.present_bytes, amount.committed_bytes)}"
        for kind, amount in leaks.roots.items()
    )
    what = (
        f"{format_bytes(leaks.unreferenced_bytes)} in {leaks.unreferenced_count:,} of "
        f"{format_bytes(leaks.used.bytes)} in {leaks.used.count:,} used blocks are unreferenced"
    )
    registers = ", registers" if leaks.has_registers else ""
    lost = _lost(leaks)
    facts = [("What", what)]
    if leaks.groups:
        facts.append(
            (
                "Who",
                ", ".join(
                    f"{cut_middle(group.site.name, MAX_NAME)} ({format_bytes(group.unreferenced_bytes)})"
                    for group in leaks.groups[:NAMED]
                ),
            )
        )
    sure = f"unreferenced, not proof of a leak; {covered_told([leaks.coverage])}"
    facts += [("How sure", sure), ("Scanned", f"{scanned}{registers}, and what they lead to")]
    if not leaks.groups:
        used = f"{format_bytes(leaks.used.bytes)} in {leaks.used.count:,} used blocks"
        return Summary(Tone.GOOD, f"None of {used} is unreferenced.", tuple(facts), ())
    later = Step(
        "See whether they become more: compare with a later dump.", "dumpleak diff THIS LATER"
    )
    many = count_of(len(leaks.groups), POPULATIONS[BLOCKS].groupings[leaks.grouping])
    return Summary(
        Tone.CANNOT_TELL if lost else Tone.NOTICE,
        f"{lost}Nothing points to blocks of {many}.",
        tuple(facts),
        (later, *_stack_steps(leaks.source, leaks.groups)),
    )


def _lost(leaks: Leaks) -> str:
    """What has to be said first of memory that was not scanned; "" when hardly any is missing."""
    if leaks.lost_share is None:
        return "This dump of part of the memory does not say what it lacks; what only that holds is listed. "
    if leaks.lost_share < TOLD_LOST_SHARE:
        return ""
    return (
        f"{share_told(leaks.lost_share)} of the memory that may hold pointers is not in the dump or was not "
        "read; what only that holds is listed too. "
    )


def summarize_info(info: Info) -> Summary:
    """Of one dump."""
    facts = [("Heap memory", covered_told([info.coverage]))] if info.heaps else []
    if not info.usable:
        return Summary(
            Tone.CANNOT_TELL,
            f"Good enough to look for leaks? {info.advice}",
            tuple(facts),
            better_dump_steps(info.source),
        )
    partly = info.advice.startswith("partly")
    steps = better_dump_steps(info.source) if partly else ()
    used = sum(heap.used_count or 0 for heap in info.heaps)
    named = "type and shape"
    if info.sourced_blocks:
        named = f"file and line where they are known, else by {named}"
        many = f"{info.sourced_blocks:,} of {used:,} used blocks"
        facts.append(("Source lines", f"file and line of {many}, kept by the debug C runtime"))
    traced = info.nt_global_flag is None or info.nt_global_flag & USER_STACK_TRACES
    if not traced and not any(heap.kind == page_heap.NAME for heap in info.heaps):
        facts.append(("Call stacks", f"not recorded in this process; sites are named by {named}"))
        steps += (record_stacks(info.source),)
    return Summary(
        Tone.NOTICE if partly else Tone.GOOD,
        f"Good enough to look for leaks? {info.advice}",
        tuple(facts),
        steps,
    )


def exhaustion_line(trend: Trend) -> str:
    """When a limit is reached, in one sentence; "" when no limit is known."""
    end = trend.exhaustion
    if end is None:
        return ""
    when = (
        f"used up about {end.time:%Y-%m-%d %H:%M} UTC, earlier where it is in pieces"
        if end.time
        else "the sites that are suspect do not use it up"
    )
    rate = format_bytes(round(end.bytes_per_hour))
    return (
        f"{format_bytes(end.limit.free_bytes)} of {end.limit.name} left; at {rate} an hour {when}."
    )


def groups_told(snapshot: Snapshot, count: int) -> str:
    """How many of a snapshot's groups: "3 sites", "threads of 2 start functions"."""
    told = count_of(count, snapshot.noun)
    return f"{snapshot.members} of {told}" if snapshot.is_listed else told


def heading_of(snapshot: Snapshot) -> str:
    """What stands above the names of a snapshot's groups: the sites of the kernel's pools are tags."""
    return "tag" if snapshot.is_pool and snapshot.grouping == "site" else snapshot.grouping


def count_of(count: int, noun: str) -> str:
    """The text "3 sites"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def elapsed(base: Snapshot, current: Snapshot) -> str:
    """The text ", over 1 h 5 min", or "" when the times are unknown or the wrong way round."""
    before, after = base.source.time, current.source.time
    if before is None or after is None or after <= before:
        return ""
    minutes = (after - before).total_seconds() / 60
    hours = int(minutes // 60)
    if not hours:
        return f", over {minutes:.0f} min"
    return f", over {hours} h {int(minutes % 60)} min"


def _in_doubt(
    answer: Comparison | Trend, doubts: Sequence[str], snapshots: Sequence[Snapshot]
) -> Summary:
    """Of what was compared, and may be otherwise in what a dump does not show."""
    worst = min(snapshots, key=lambda snapshot: snapshot.coverage.walked_share)
    facts = [
        ("What", f"{_change(answer)}{elapsed(snapshots[0], snapshots[-1])}"),
        *(("Why", doubt) for doubt in doubts),
        *account_facts(answer),
        ("How sure", covered_told([snapshot.coverage for snapshot in snapshots])),
    ]
    return Summary(
        Tone.CANNOT_TELL,
        "Cannot tell: what the dumps do not show could change the answer.",
        tuple(facts),
        better_dump_steps(worst.source, "Take dumps with all memory:"),
    )


def _not_comparable(what: str, reasons: Sequence[str], snapshots: Sequence[Snapshot]) -> Summary:
    worst = min(snapshots, key=lambda snapshot: snapshot.coverage.walked_share)
    steps = (
        *comparable_dumps_steps([snapshot.source for snapshot in snapshots], worst.source),
        Step("Compare all the same, knowing that it may mislead:", "dumpleak diff --force …"),
    )
    return Summary(
        Tone.CANNOT_TELL,
        f"Cannot tell: {what} not comparable.",
        tuple(("Why", reason) for reason in reasons),
        steps,
    )


def _groups_grown(comparison: Comparison) -> int:
    """How many sites grew; of the kernel's pools how many tags did, whichever pools their memory is in."""
    rows = len(comparison.grown) - sum(delta.grew for delta in comparison.private)
    if heading_of(comparison.base) == comparison.base.grouping:
        return rows
    by_tag: Counter[str | None] = Counter()
    for delta in comparison.sites:
        by_tag[delta.site.tag] += delta.delta_bytes
    # What moved from one pool to another grew there all the same.
    return sum(size > 0 for size in by_tag.values()) or rows


def _who(grown: Sequence[SiteDelta | SiteTrend], growth: int) -> list[tuple[str, str]]:
    """The sites that grew most, with their shares of all growth; what shrank is not taken off it."""
    if not grown:
        return []
    named = []
    for delta in islice(grown, NAMED):
        size = format_count(delta.delta_count, True)  # of what is only counted
        if growth:
            share = _share(delta.delta_bytes, growth)
            size = f"{format_bytes(delta.delta_bytes, True)}, {share} of growth"
        named.append(f"{cut_middle(delta.site.name, MAX_NAME)} ({size})")
    more = f", and {len(grown) - NAMED:,} more" if len(grown) > NAMED else ""
    return [("Who", ", ".join(named) + more)]


def _grown_steps(
    comparison: Comparison, grown: Sequence[SiteDelta | SiteTrend]
) -> tuple[Step, ...]:
    """What next, after what grew most: heap calls and VirtualAlloc are recorded in different ways."""
    outside = {id(delta) for delta in comparison.private}
    if comparison.base.is_pool:
        return THIRD_DUMP, track_driver([drivers_named(delta.site.driver) for delta in grown])
    seen = named_elsewhere(what_grew(comparison.account), comparison.base.population)
    if comparison.base.is_listed:
        names = [delta.site.name for delta in grown[:NAMED]]
        traced = trace_steps(comparison.base.population, names)
        return tuple(dict.fromkeys((THIRD_DUMP, *traced, *seen)))
    steps = [THIRD_DUMP, *_stack_steps(comparison.current.source, _of_heaps(comparison, grown))]
    if any(id(delta) in outside for delta in grown[:NAMED]):
        steps.append(OUTSIDE_HEAPS)
    return (*steps, *seen)


def _trend_steps(trend: Trend, grown: Sequence[SiteTrend]) -> tuple[Step, ...]:
    """How to see who makes what grew steadily."""
    if trend.base.is_listed:
        return trace_steps(trend.base.population, [site.site.name for site in grown[:NAMED]])
    return _stack_steps(trend.current.source, _of_heaps(trend, grown))


def _of_heaps(
    answer: Comparison | Trend, grown: Sequence[SiteDelta | SiteTrend]
) -> list[SiteDelta | SiteTrend]:
    """Those that grew most, without private memory outside heaps: nobody records stacks for that."""
    outside = {id(row) for row in answer.private}
    return [row for row in grown[:NAMED] if id(row) not in outside]


def _stack_steps(
    source: SourceInfo, sites: Sequence[SiteDelta | SiteTrend | LeakGroup]
) -> tuple[Step, ...]:
    """How to get call stacks, when the sites that matter have none."""
    nameless = (SiteKind.TYPE, SiteKind.SHAPE)
    if any(delta.site.kind in nameless for delta in sites[:NAMED]):
        return (record_stacks(source),)
    return ()


def _change(answer: Comparison | Trend) -> str:
    count = format_count(answer.delta_count, True)
    if not answer.base.has_bytes:
        return f"{count} {answer.base.members} in all"
    return f"{format_bytes(answer.delta_bytes, True)} and {count} {answer.base.members} in all"


def covered_told(sides: Sequence[Coverage]) -> str:
    """How much of the heaps the answer rests on; of several dumps the worst."""
    never = next((side.never for side in sides if side.never), "")
    if never:
        return never
    worst = min(sides, key=lambda side: (side.walked_share, side.heaps_read - side.heaps_listed))
    return worst.told(
        " of the worst dump" if len({side.walked_share for side in sides}) > 1 else ""
    )


def _of(part: int, whole: int) -> str:
    """Bytes, and of how many where some are missing."""
    return format_bytes(part) + (f" of {format_bytes(whole)}" if part < whole else "")


def _share(part: int, whole: int) -> str:
    return format_share(part, whole, 0) if whole and part >= 0.01 * whole else "less than 1%"
