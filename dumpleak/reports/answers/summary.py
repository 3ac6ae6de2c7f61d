"""The first screen about two dumps: is it leaking, what, who, how sure, what next; and what all share.

Each answer that cannot be given ends with the command that gets a better dump.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from dumpleak.compare import order
from dumpleak.compare.answers import Comparison, SiteDelta, Verdict
from dumpleak.compare.comparable import same_dump, why_no_pair
from dumpleak.compare.life import Life
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.system_changes import system_changes
from dumpleak.compare.trend import Trend
from dumpleak.model.account_rows import what_grew
from dumpleak.model.boots import is_same_boot
from dumpleak.model.owners import drivers_named
from dumpleak.model.populations import POPULATIONS, REGIONS
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.together import innocent
from dumpleak.model.units import count_of, format_bytes, format_count, format_share
from dumpleak.reports.answers.account_facts import system_steps
from dumpleak.reports.answers.changes import changes_facts
from dumpleak.reports.answers.containers import container_facts, container_steps
from dumpleak.reports.answers.headline import account_facts, growth_headline, holes_told
from dumpleak.reports.answers.left_behind import left_facts, left_told
from dumpleak.reports.answers.next_steps import (
    IN_ORDER,
    LATER_DUMP,
    OWNED,
    THIRD_DUMP,
    WHOSE_REGIONS,
    Step,
    better_dump_steps,
    comparable_dumps_steps,
    named_elsewhere,
    outside_steps,
    trace_steps,
    track_driver,
)
from dumpleak.reports.answers.said_of_dumps import (
    MAX_NAME,
    NAMED,
    covered_told,
    heading_of,
    stack_steps,
)
from dumpleak.reports.answers.together import together_facts, with_counted_roots
from dumpleak.reports.document import Summary, Tone
from dumpleak.reports.names import cut_middle

WRONG_ORDER = (
    "Cannot tell: the current dump was taken before the base, so that what shrank here has grown."
)


def summarize_comparison(comparison: Comparison) -> Summary:
    """Of two dumps."""
    sides = comparison.base, comparison.current
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        return cannot_tell(comparison, "the two dumps are", sides)
    grown = comparison.grown
    growth = sum(delta.delta_bytes for delta in grown)
    what = f"{change_told(comparison)}{elapsed(*sides)}"
    if comparison.base.is_pool:
        what += rate_of(comparison, comparison.delta_bytes)
    facts = [("What", what), *who_told(grown, growth), *left_facts(*sides)]
    facts = with_counted_roots(facts, comparison) + together_facts(comparison)
    facts += account_facts(comparison)
    drivers = [name for delta in grown for name in drivers_named(delta.site.driver)]
    facts += changes_facts(system_changes(*sides), drivers)
    facts += [
        ("Order", item.message) for item in comparison.diagnostics if item.code in order.CODES
    ]
    if comparison.survivors is not None:
        fate = comparison.survivors.total
        blocks = f"{fate.kept:,} of the base still there, {fate.gone:,} gone, {fate.new:,} new"
        facts.append(("Blocks", blocks))
    holding = comparison.current.held_by.get(grown[0].site.key) if grown else None
    if holding is not None:
        for name, clauses in (("Contents", holding.contents), ("Holders", holding.holders)):
            if clauses:
                facts.append((name, f"of the first: {'; '.join(clauses)}"))
    facts += container_facts(comparison)
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
            did = "become more" if _unsized(comparison.base) else "grow"
            what = f"{comparison.base.members.capitalize()} did not {did}"
        said = f"{_unsized(comparison.base)}{_more(comparison)}"
        headline = f"{what} between these two dumps{said}. {left_told(*sides)}"
        headline = headline.rstrip()
        sure = "as sure as the load between the dumps was real"
    if left_told(*sides) and not forced:
        tone = Tone.BAD
    if swapped := order_steps(*sides, []):
        tone, headline, steps = Tone.CANNOT_TELL, WRONG_ORDER, swapped
    facts.append(how_sure(f"{forced}{sure}", sides))
    return Summary(tone, headline, tuple(facts), steps)


def _more(comparison: Comparison) -> str:
    """What a headline adds where members became more and take less in all: some may have grown."""
    base = comparison.base
    if not base.is_listed or not base.has_bytes or comparison.delta_count <= 0:
        return ""
    finer = " (--by size tells which)" * ("size" in POPULATIONS[base.population].groupings)
    return f"; they are {comparison.delta_count:,} more, of no more bytes in all{finer}"


def _unsized(snapshot: Snapshot) -> str:
    """What a headline adds where members have sizes and the dump does not tell them; "" elsewhere."""
    has_sizes = bool(POPULATIONS[snapshot.population].what_bytes)
    return "" if snapshot.has_bytes or not has_sizes else "; how large they are is not known"


def groups_told(snapshot: Snapshot, count: int) -> str:
    """How many of a snapshot's groups: "3 sites", "threads of 2 start functions"."""
    told = count_of(count, snapshot.noun)
    return f"{snapshot.members} of {told}" if snapshot.is_listed else told


def elapsed(base: Snapshot, current: Snapshot) -> str:
    """The text ", over 1 h 5 min", ", over 3 s", or "" when times are unknown or the wrong way round."""
    before, after = base.source.time, current.source.time
    if before is None or after is None or after <= before:
        return ""
    minutes, seconds = divmod(round((after - before).total_seconds()), 60)
    if not minutes:
        return f", over {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f", over {hours} h {minutes} min" if hours else f", over {minutes} min"


def rate_of(comparison: Comparison, change: int) -> str:
    """The text ": +64.6 KiB an hour", or "" where there is no rate to tell."""
    rate = comparison.per_hour(change)
    return "" if not rate else f": {format_bytes(round(rate), signed=True)} an hour"


def cannot_tell(answer: Comparison | Trend, what: str, snapshots: Sequence[Snapshot]) -> Summary:
    """Of dumps that are not comparable, or whose answer may be otherwise in what they do not show.

    Args:
        answer: It.
        what: The words "the dumps are".
        snapshots: All of them.
    """
    worst = min(snapshots, key=lambda snapshot: snapshot.coverage.walked_share)
    if answer.doubts:
        facts = [
            ("What", f"{change_told(answer)}{elapsed(snapshots[0], snapshots[-1])}"),
            *(("Why", doubt) for doubt in answer.doubts),
            *account_facts(answer),
            ("How sure", covered_told([snapshot.coverage for snapshot in snapshots])),
        ]
        headline = "Cannot tell: what the dumps do not show could change the answer."
        steps = better_dump_steps(worst.source, "Take dumps with all memory:")
        return Summary(Tone.CANNOT_TELL, headline, tuple(facts), steps)
    steps = order_steps(snapshots[0], snapshots[-1], answer.reasons) or (
        *comparable_dumps_steps([snapshot.source for snapshot in snapshots], worst.source),
        Step("Compare all the same, knowing that it may mislead:", "dumpleak diff --force …"),
    )
    why = tuple(("Why", reason) for reason in answer.reasons)
    return Summary(Tone.CANNOT_TELL, f"Cannot tell: {what} not comparable.", why, steps)


def order_steps(base: Snapshot, current: Snapshot, reasons: Sequence[str]) -> tuple[Step, ...]:
    """What to do about two dumps that are one, or that are of one life and in the wrong order.

    Args:
        base: The first.
        current: The second.
        reasons: Why they cannot be compared; empty where they were.
    """
    if reasons:
        if not set(reasons) & set(why_no_pair(base, current)):
            return ()
        return (LATER_DUMP,) if same_dump(base, current) else (IN_ORDER,)
    swapped = is_same_boot(base.boot, current.boot) and order.is_older(base.source, current.source)
    return (IN_ORDER,) if swapped else ()


def how_sure(sure: str, snapshots: Sequence[Snapshot]) -> tuple[str, str]:
    """What an answer rests on, and what was not walked."""
    missing = holes_told(snapshots)
    if missing and snapshots[0].is_listed:  # nothing is walked: what is not listed says it all
        return "How sure", f"{sure}; {missing}"
    covered = covered_told([snapshot.coverage for snapshot in snapshots])
    return "How sure", f"{sure}; {covered}" + (f"; {missing}" if missing else "")


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


def who_told(grown: Sequence[SiteDelta | SiteTrend], growth: int) -> list[tuple[str, str]]:
    """The sites that grew most, with their shares of all growth; what shrank is not taken off it."""
    if not grown:
        return []
    named = []
    if any(delta.weight is not None for delta in grown):  # shares of what they hold, too
        growth = sum(max(delta.ranked_by, 0) for delta in grown)
    for delta in islice(grown, NAMED):
        size = format_count(delta.delta_count, signed=True)  # of what is only counted
        if growth:
            share = _share(delta.ranked_by, growth)
            size = f"{format_bytes(delta.ranked_by, signed=True)}, {share} of growth"
            if delta.weight is not None and delta.weight > delta.delta_bytes:
                size = f"{format_count(delta.delta_count, signed=True)}; with what they hold {size}"
        named.append(f"{cut_middle(delta.site.name, MAX_NAME)} ({size})")
    more = f", and {len(grown) - NAMED:,} more" if len(grown) > NAMED else ""
    return [("Who", ", ".join(named) + more)]


def _grown_steps(
    comparison: Comparison, grown: Sequence[SiteDelta | SiteTrend]
) -> tuple[Step, ...]:
    """What next, after what grew most: heap calls and VirtualAlloc are recorded in different ways."""
    outside = {id(delta) for delta in comparison.private}
    if comparison.base.is_pool:
        rows = what_grew(comparison.account)
        hang = innocent(comparison.together)
        whose = [
            drivers_named(delta.site.driver)
            for delta in grown
            if comparison.tag_of(delta.site) not in hang
        ]
        tracked = (track_driver(whose),) if grown else ()
        return (THIRD_DUMP, *system_steps(rows, comparison.base.population), *tracked)
    seen = named_elsewhere(what_grew(comparison.account), comparison.base.population)
    if comparison.base.is_listed:
        names = [delta.site.name for delta in grown[:NAMED]]
        traced = trace_steps(comparison.base.population, comparison.base.grouping, names)
        asked = comparison.base.population == REGIONS and not OWNED.isdisjoint(names)
        return tuple(dict.fromkeys((THIRD_DUMP, *((WHOSE_REGIONS,) * asked), *traced, *seen)))
    steps = [THIRD_DUMP, *container_steps(comparison)]
    steps += [*stack_steps(comparison.current.source, of_heaps(comparison, grown))]
    steps += outside_steps(delta.site.key for delta in grown[:NAMED] if id(delta) in outside)
    return tuple(dict.fromkeys((*steps, *seen)))


def of_heaps(
    answer: Comparison | Trend, grown: Sequence[SiteDelta | SiteTrend]
) -> list[SiteDelta | SiteTrend]:
    """Those that grew most, without private memory outside heaps: nobody records stacks for that."""
    outside = {id(row) for row in answer.private}
    return [row for row in grown[:NAMED] if id(row) not in outside]


def change_told(answer: Comparison | Trend) -> str:
    """By how much all grew together."""
    count = format_count(answer.delta_count, signed=True)
    if not answer.base.has_bytes:
        return f"{count} {answer.base.members} in all"
    return (
        f"{format_bytes(answer.delta_bytes, signed=True)} and {count} {answer.base.members} in all"
    )


def _share(part: int, whole: int) -> str:
    return format_share(part, whole, 0) if whole and part >= 0.01 * whole else "less than 1%"
