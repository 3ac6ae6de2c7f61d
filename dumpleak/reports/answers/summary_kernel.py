"""The first screen about the dump of a system: what it is good for, and what its pools hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dumpleak.compare import order
from dumpleak.compare.answers import Verdict
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.compare.system_changes import system_changes
from dumpleak.model.account_rows import what_grew
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import WALK, TagDelta, TagRow, is_never_freed
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.together import innocent, roots_first
from dumpleak.model.units import count_of, format_bytes, format_count
from dumpleak.reports.answers.account_facts import system_steps, system_told
from dumpleak.reports.answers.changes import changes_facts
from dumpleak.reports.answers.headline import account_facts, rows_told
from dumpleak.reports.answers.left_behind import CANNOT_TELL_A_CACHE, left_facts, left_told
from dumpleak.reports.answers.left_pool import left_blocks, left_steps
from dumpleak.reports.answers.next_steps import THIRD_DUMP, Step, better_dump_steps, track_driver
from dumpleak.reports.answers.said_of_dumps import NAMED, covered_told
from dumpleak.reports.answers.summary import (
    WRONG_ORDER,
    elapsed,
    order_steps,
    rate_of,
    summarize_comparison,
)
from dumpleak.reports.answers.together import roots_told, together_facts, with_counted_roots
from dumpleak.reports.document import Summary, Tone


def summarize_kernel(source: SourceInfo, headline: str, *, usable: bool) -> Summary:
    """What a dump is good for, and how to get a better one where that is nothing."""
    if usable:
        return Summary(Tone.GOOD, headline)
    return Summary(Tone.CANNOT_TELL, headline, (), better_dump_steps(source))


def summarize_pool(answer: PoolAnswer) -> Summary:
    """Of the pools of one dump."""
    pools = answer.selection.pools
    held = [(row.total("bytes", pools), row) for row in answer.rows]
    known = sum(size for size, _ in held if size is not None)
    unknown = sum(size is None for size, _ in held)
    what = f"{format_bytes(known)} in {count_of(len(held) - unknown, 'tag')}"
    if unknown:
        what += f"; {count_of(unknown, 'tag')} unknown"
    facts, left = [("What", what), *_system({f.name: f.value for f in answer.system})], answer.left
    if left is not None:
        facts[:0] = [("Left", left_blocks(left))]
    if held:
        facts.append(("Who", ", ".join(_named(row, size) for size, row in held[:NAMED])))
        facts += _never_freed(answer)
        facts.extend(_limits(row.owner for _, row in held[:NAMED]))
    facts.append(("How sure", _sure([answer.account])))
    if answer.account.shortfall:
        headline = f"Cannot tell: {answer.account.shortfall}"
        return Summary(Tone.CANNOT_TELL, headline, tuple(facts), better_dump_steps(answer.source))
    if left is not None:
        return Summary(Tone.BAD, f"{left.told}.", tuple(facts), left_steps(left, answer.source))
    return Summary(
        Tone.NOTICE,
        "What the kernel's pools hold; one dump cannot tell what grows.",
        tuple(facts),
        (
            Step(
                "Take a second dump later, under the same load, and compare:",
                "dumpleak pool BASE CURRENT",
            ),
        ),
    )


def summarize_pool_growth(growth: PoolGrowth) -> Summary:
    """Of the pools of two dumps."""
    comparison, pools = growth.comparison, growth.selection.pools
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        return summarize_comparison(comparison)
    changes = [(delta.total("bytes", pools), delta) for delta in growth.deltas]
    grown = roots_first(
        sorted(
            ((size, delta) for size, delta in changes if size is not None and size > 0),
            key=lambda entry: -entry[0],
        ),
        lambda entry: entry[1].current.number,
        comparison.together,
    )
    left = comparison.current.pool.left if comparison.current.pool is not None else None
    facts = _growth_facts(growth, changes, grown)
    if left is not None:
        facts[:0] = [("Stopped", f"{left.told}: {left_blocks(left)}")]
    rows = what_grew(comparison.account)
    outside = rows_told(rows)
    sign = left_told(comparison.base, comparison.current)
    if swapped := order_steps(comparison.base, comparison.current, []):
        return Summary(Tone.CANNOT_TELL, WRONG_ORDER, tuple(facts), swapped)
    if not grown and not rows:
        headline = f"No tag grew between these two dumps. {sign}".rstrip()
        return Summary(Tone.BAD if sign else Tone.GOOD, headline, tuple(facts), ())
    steps = (THIRD_DUMP, *system_steps(rows, comparison.base.population))
    if left is not None:
        steps = (*left_steps(left, comparison.current.source, "CURRENT"), *steps)
    if not grown:
        headline = f"{outside}. No tag grew. Leaking? Two dumps cannot tell."
        return Summary(Tone.NOTICE, headline, tuple(facts), steps)
    hang = innocent(comparison.together)
    many = f"{len(grown):,} tag{'s' * (len(grown) != 1)}"
    first = f"{outside}; {many}" if rows else many
    drivers = [d.owner.drivers for _, d in grown if d.current.number not in hang]
    steps = (*steps, track_driver(drivers))
    return Summary(
        Tone.BAD if sign else Tone.NOTICE,
        f"{first} grew{roots_told(comparison)}. {sign or CANNOT_TELL_A_CACHE}",
        tuple(facts),
        steps,
    )


def _growth_facts(
    growth: PoolGrowth,
    changes: Sequence[tuple[int | None, TagDelta]],
    grown: Sequence[tuple[int, TagDelta]],
) -> list[tuple[str, str]]:
    """What, who, how sure; `grown` is what of all changes grew, the worst first."""
    comparison, pools = growth.comparison, growth.selection.pools
    net = sum(size for size, _ in changes if size is not None)
    blocks = sum(delta.total("count", pools) or 0 for _, delta in changes)
    facts = [
        (
            "What",
            f"{format_bytes(net, signed=True)} and {format_count(blocks, signed=True)} blocks in all"
            + elapsed(comparison.base, comparison.current)
            + rate_of(comparison, net),
        )
    ]
    if grown:
        facts.append(("Who", ", ".join(_grown(delta, size) for size, delta in grown[:NAMED])))
        facts.extend(_limits(delta.owner for _, delta in grown[:NAMED]))
        holders = grown[0][1].holders
        if holders:
            facts.append(("Holders", f"of the first: {'; '.join(holders)}"))
    facts += left_facts(comparison.base, comparison.current)
    facts = with_counted_roots(facts, comparison) + together_facts(comparison)
    facts += [
        ("Order", item.message) for item in comparison.diagnostics if item.code in order.CODES
    ]
    facts += changes_facts(
        system_changes(comparison.base, comparison.current),
        [name for _, delta in grown for name in delta.owner.drivers],
    )
    if not growth.same_boot:
        facts.append(("Boots", "restarted in between, or it cannot be told: counters began anew"))
    facts += account_facts(comparison)
    facts += _system({row.name: row.current for row in comparison.account}, "System now")
    facts.append(("How sure", f"growth, not proof; {_sure([growth.base, growth.current])}"))
    return facts


def _system(values: Mapping[str, int | None], label: str = "System") -> list[tuple[str, str]]:
    """How much memory there is, and how much of it is taken."""
    told = system_told(values)
    return [(label, told)] if told else []


def _never_freed(answer: PoolAnswer) -> list[tuple[str, str]]:
    """The tags that hold most and are allocated and not freed."""
    found = []
    for row in answer.rows:
        allocs, frees = row.total("allocs"), row.total("frees")
        if is_never_freed(allocs, frees):
            found.append(f"{row.tag.rstrip()} {row.owner.whose} ({frees:,} of {allocs:,})")
    more = f", and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    return [("Never freed", ", ".join(found[:NAMED]) + more)] if found else []


def _limits(owners: Iterable[Ownership]) -> Iterator[tuple[str, str]]:
    """What must be known of who is named: drivers that are gone, callers that nobody knows."""
    for owner in owners:
        if owner.unloaded and not owner.drivers:  # else it is said what they left
            yield "Unloaded", f"{owner.tag.rstrip()}: {owner.note}"
        elif owner.on_behalf:
            yield "Caller", f"{owner.tag.rstrip()}: {owner.note}"


def _sure(accounts: Sequence[PoolAccount]) -> str:
    """What the answer rests on: how it was counted, and of two dumps the worst coverage."""
    account = accounts[-1]
    source = "a walk over the blocks" if account.ranking == WALK else "the kernel's own trackers"
    sure = f"counted by {source}"
    if account.said_of_blocks:
        sure += f", but {account.said_of_blocks}"
    covered = [side for side in (one.covered() for one in accounts) if side is not None]
    if covered:
        sure += f"; {covered_told(covered)}"
    if account.absent_bytes:
        sure += f"; {format_bytes(account.absent_bytes)} of pool are not in the dump"
    return sure


def _named(row: TagRow, size: int | None) -> str:
    amount = "unknown" if size is None else format_bytes(size)
    return f"{row.tag.rstrip()} {row.owner.whose} ({amount})"


def _grown(delta: TagDelta, size: int) -> str:
    return f"{delta.current.tag.rstrip()} {delta.owner.whose} ({format_bytes(size, signed=True)})"
