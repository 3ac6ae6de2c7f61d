"""The first line of a comparison: what grew most, whatever it is, and what proof there is."""

from __future__ import annotations

from collections.abc import Sequence

from dumpleak.compare.answers import Comparison, Proof
from dumpleak.compare.evidence import containers_that_grow
from dumpleak.compare.holes import HIDDEN_BYTES, find_hole
from dumpleak.compare.trend import Trend
from dumpleak.model.account import AccountRow
from dumpleak.model.account_rows import what_grew
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes
from dumpleak.reports.answers.account_facts import (
    end_told,
    fragmentation_facts,
    memory_facts,
    rate_told,
    trends_of,
)
from dumpleak.reports.answers.causes import cause_told
from dumpleak.reports.answers.left_behind import CANNOT_TELL_A_CACHE, left_told
from dumpleak.reports.answers.together import roots_told

NAMED_ROWS = 3
MOST = 0.5  # share of allocations that one holder must have to be told
WORTH_TELLING = 0.1  # share of the largest free piece whose loss is told
LARGEST_FREE = "address_space.largest_free_bytes"


def growth_headline(comparison: Comparison, many: str) -> str:
    """Of two dumps between which something grew.

    Args:
        comparison: The comparison.
        many: The groups that grew, "3 sites", "threads of 1 start function"; "" when none did.
    """
    of_sites, outside = (
        sum(max(delta.delta_bytes, 0) for delta in deltas)
        for deltas in (comparison.sites, comparison.private)
    )
    rows = what_grew(comparison.account)
    cause, by = cause_told(comparison.grown, comparison.base.noun)
    grew = f"{cause} grew by {by}" if cause else f"{many} grew" if many else ""
    # Each with how many times what is usual it grew by, so that bytes and counts can be ranked.
    parts = [
        (of_sites / HIDDEN_BYTES, grew),
        (
            outside / HIDDEN_BYTES,
            f"{format_bytes(outside, signed=True)} private memory outside heaps{_whose(comparison)}"
            if outside
            else "",
        ),
        (rows[0].excess if rows else 0.0, rows_told(rows)),
    ]
    named = [text for _, text in sorted(parts, key=lambda part: -part[0]) if text]
    # What sites tell is not told again by the memory that they take.
    first = named[0] if named[0] != parts[2][1] else "; ".join(named)
    if many:
        first = first if parts[0][1] in first else f"{first}; {parts[0][1]}"
    first = first[:1].upper() + first[1:] + roots_told(comparison)
    if not many or comparison.base.is_listed:
        return f"{first}. Leaking? Two dumps cannot tell."
    if comparison.proof is not None and comparison.proof.blocks:
        whole = not find_hole(comparison.base).told
        told = proof_told(comparison.proof, whole_base=whole)
        return f"{first}. {told}{'' if comparison.proof.unreferenced else growing_told(comparison)}"
    return f"{first}. {left_told(comparison.base, comparison.current) or CANNOT_TELL_A_CACHE}"


def _whose(comparison: Comparison) -> str:
    """Who holds the private memory that grew most, where it is one: ", held by app.exe's data"."""
    worst = max(comparison.private, key=lambda delta: delta.delta_bytes)
    held = comparison.current.held_by.get(worst.site.key)
    if held is None:
        return ""
    if held.holder and held.held > MOST * held.blocks:
        return f", held by {held.holder}"
    return " that nothing points to" if held.unreferenced > MOST * held.blocks else ""


def proof_told(proof: Proof, *, whole_base: bool = True) -> str:
    """What references say of blocks, in one sentence.

    Args:
        proof: It.
        whole_base: False when blocks may be new only because the base does not show them.
    """
    new = "new blocks" if whole_base else "blocks that the base does not show"
    what = new if proof.new else "blocks of the sites that grew"
    if proof.unreferenced:
        are = "is" if proof.unreferenced == 1 else "are"
        many = f"{proof.unreferenced:,} of {proof.blocks:,} {what}"
        return f"{many} {are} unreferenced: a cache would hold them."
    return (
        f"None of {proof.blocks:,} {what} is unreferenced: they are held, be it by a cache that fills or by "
        "a list that nobody empties."
    )


def growing_told(comparison: Comparison) -> str:
    """A sentence on the container that grew most; "" where none did."""
    grown = containers_that_grow(comparison)
    return f" Most grew: {grown[0].largest.short}." if grown else ""


def rows_told(rows: Sequence[AccountRow]) -> str:
    """What grew of the process as a whole: "+795 threads, +15.5 MiB committed memory of thread stacks"."""
    told = [f"{row.told(row.delta, signed=True)} {row.kind.label}" for row in rows[:NAMED_ROWS]]
    return ", ".join(told) + (
        f", and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
    )


def account_facts(answer: Comparison | Trend) -> list[tuple[str, str]]:
    """What else of the process grew, and what is left of its address space where it shrank."""
    rows = what_grew(answer.account)
    facts = [("Account", rows_told(rows))] if rows else []
    trends = trends_of(answer)
    if rows and trends:
        facts.append(("Rates", "; ".join(rate_told(trends[row.name]) for row in rows[:NAMED_ROWS])))
    facts += fragmentation_facts(answer.base.heaps, answer.current.heaps)
    for row in answer.account:
        if row.name == LARGEST_FREE and (row.delta or 0) <= -WORTH_TELLING * (row.base or 0) < 0:
            text = f"{row.kind.label} fell from {row.told(row.base)} to {row.told(row.current)}"
            facts.append(("Addresses", text + end_told(trends.get(row.name))))
    return facts + memory_facts(answer.account, trends)


def holes_told(snapshots: Sequence[Snapshot]) -> str:
    """What was not walked, of the dump that lacks most; "" when nothing is missing."""
    worst = max(snapshots, key=lambda snapshot: find_hole(snapshot).most_bytes)
    hole = find_hole(worst)
    return f"{hole.told} in {worst.source.file}" if hole.most_bytes else ""
