"""The first screen of answers about kernel dumps; see `summary`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dumpleak.compare.answers import Verdict
from dumpleak.compare.comparable import SWAPPED, is_older
from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import WALK, TagDelta, TagRow
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.next_steps import THIRD_DUMP, Step, better_dump_steps, track_driver
from dumpleak.reports.answers.summary import NAMED, covered_told, summarize_comparison
from dumpleak.reports.document import Summary, Tone


def summarize_kernel(source: SourceInfo, headline: str, usable: bool, tone: Tone) -> Summary:
    """Of a dump as such.

    Args:
        source: The dump.
        headline: What it is good for.
        usable: It is good for something.
        tone: When it is.
    """
    steps = () if usable else better_dump_steps(source)
    return Summary(tone if usable else Tone.CANNOT_TELL, headline, (), steps)


def summarize_pool(answer: PoolAnswer) -> Summary:
    """Of the pools of one dump."""
    pools = answer.selection.pools
    held = [(row.total("bytes", pools), row) for row in answer.rows]
    known = sum(size for size, _ in held if size is not None)
    unknown = sum(size is None for size, _ in held)
    what = f"{format_bytes(known)} in {len(held) - unknown:,} tags"
    if unknown:
        what += f"; {unknown:,} tags unknown"
    facts = [("What", what)]
    if held:
        facts.append(("Who", ", ".join(_named(row, size) for size, row in held[:NAMED])))
        facts.extend(_limits(row.owner for _, row in held[:NAMED]))
    facts.append(("How sure", _sure([answer.account])))
    if answer.account.shortfall:
        headline = f"Cannot tell: {answer.account.shortfall}"
        return Summary(Tone.CANNOT_TELL, headline, tuple(facts), better_dump_steps(answer.source))
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
    grown = sorted(
        ((size, delta) for size, delta in changes if size is not None and size > 0),
        key=lambda entry: -entry[0],
    )
    net = sum(size for size, _ in changes if size is not None)
    blocks = sum(delta.total("count", pools) or 0 for _, delta in changes)
    facts = [("What", f"{format_bytes(net, True)} and {format_count(blocks, True)} blocks in all")]
    if grown:
        facts.append(("Who", ", ".join(_grown(delta, size) for size, delta in grown[:NAMED])))
        facts.extend(_limits(delta.owner for _, delta in grown[:NAMED]))
        holders = grown[0][1].holders
        if holders:
            facts.append(("Holders", f"of the first: {'; '.join(holders)}"))
    if is_older(comparison.base.source, comparison.current.source):
        facts.append(("Order", SWAPPED))
    if not growth.same_boot:
        facts.append(("Boots", "restarted in between, or it cannot be told: counters began anew"))
    facts.append(("How sure", f"growth, not proof; {_sure([growth.base, growth.current])}"))
    if not grown:
        return Summary(Tone.GOOD, "No tag grew between these two dumps.", tuple(facts), ())
    many = f"{len(grown):,} tag{'s' * (len(grown) != 1)}"
    return Summary(
        Tone.NOTICE,
        f"{many} grew. Leaking? Two dumps cannot tell it from a cache that fills.",
        tuple(facts),
        (THIRD_DUMP, track_driver([delta.owner.drivers for _, delta in grown])),
    )


def _limits(owners: Iterable[Ownership]) -> Iterator[tuple[str, str]]:
    """What must be known of who is named: drivers that are gone, callers that nobody knows."""
    for owner in owners:
        if owner.unloaded and owner.note:
            yield "Unloaded", f"{owner.tag}: {owner.note}"
        elif owner.on_behalf:
            yield "Caller", f"{owner.tag}: {owner.note}"


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
    return f"{row.tag} {row.owner.whose} ({amount})"


def _grown(delta: TagDelta, size: int) -> str:
    return f"{delta.current.tag} {delta.owner.whose} ({format_bytes(size, True)})"
