"""The kernel's pools, of one dump and of two. Columns as PoolMon has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from dumpleak.compare.pool_answers import PoolAnswer, PoolGrowth
from dumpleak.compare.system_changes import system_changes
from dumpleak.gate.gate import GateResult, Judged
from dumpleak.model.owners import Ownership
from dumpleak.model.pool import Counters, TagDelta, TagRow, is_never_freed
from dumpleak.model.pool_account import PoolAccount
from dumpleak.model.pool_blocks import said_of_new
from dumpleak.model.together import Together, told_together
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.balance import balance_growth_tables, balance_json
from dumpleak.reports.answers.changes import changes_json
from dumpleak.reports.answers.diff import account_tables
from dumpleak.reports.answers.held_objects import objects_json
from dumpleak.reports.answers.left_pool import left_json
from dumpleak.reports.answers.listed_blocks import listed_json, listed_parts
from dumpleak.reports.answers.pool_rows import (
    CHANGES,
    COUNTERS,
    GROWTH_COLUMNS,
    LEVELS,
    NAMED,
    RANK,
    TAG_COLUMNS,
    TOTALS,
    ShownCounters,
    driver_tree,
    flat_counters,
    growth_cells,
    growth_detail,
    more_tags,
    not_empty,
    owner_detail,
    pool_cells,
    side_parts,
    tag_cells,
    tag_name,
    totals_by_pool,
)
from dumpleak.reports.answers.review import review_parts
from dumpleak.reports.answers.summary import rate_of
from dumpleak.reports.answers.summary_kernel import summarize_pool, summarize_pool_growth
from dumpleak.reports.answers.together import membership_json, together_json
from dumpleak.reports.document import (
    DEFAULT_TOP,
    Document,
    Line,
    Notes,
    Part,
    Row,
    Table,
    Tree,
    View,
    data_columns,
)
from dumpleak.reports.json_report import account_json, diagnostics_json, figure_json, source_json
from dumpleak.reports.values import Style

EXPLAINED = 6  # tags of a comparison that are explained below the table
_TWINS = " ".join(f"delta_{name}" for name in (*COUNTERS.split(), "bytes", "count"))


def pool_document(answer: PoolAnswer, top: int | None) -> Document:
    """The pools of one dump: the summary, the table, then how sure it is."""
    pools, limit = answer.selection.pools, DEFAULT_TOP if top is None else top
    shown = [
        ShownCounters(row.tag, pool, counters, counters, row.owner)
        for row in answer.rows[:limit]
        for pool, counters in not_empty(row.pools, pools)
    ]
    tags = Table(
        "sites",
        "Tags",
        (RANK, *TOTALS, NAMED),
        answer.rows,
        lambda rank, row: (
            rank,
            *tag_cells(row, row.owner, pools),
            tag_name(row, row.owner, lambda: owner_detail(row.owner)),
        ),
        View.PAGE | View.DATA,
        f"rank tag driver confidence {COUNTERS} source evidence",
        top=top,
        choose="confidence",
    )
    return Document(
        "Kernel pool by tag",
        summarize_pool(answer),
        (
            Table("pools", "", TAG_COLUMNS, shown, pool_cells, View.TEXT),
            *more_tags(len(answer.rows) - limit, "tag"),
            *listed_parts(answer.blocks, top, 4 if answer.source.architecture == "x86" else 8),
            *_held_lines(answer),
            *side_parts("File", "", "Pool", answer.source, answer.account),
            Notes(answer.diagnostics),
            tags,
            totals_by_pool(answer.rows, pools, None),
            Tree(
                lambda: driver_tree((row.owner, row.tag, None, row) for row in answer.rows),
                single=True,
                levels=LEVELS,
            ),
        ),
    )


def _held_lines(answer: PoolAnswer) -> Iterator[Line]:
    """Who holds kernel objects, of the tags of which that was looked at."""
    for row in answer.rows:
        held = answer.held.get(row.number)
        if held is not None:
            yield Line(f"{row.tag}: {held.type} objects", Style.HEADING)
            yield from (Line(f"  {clause}") for clause in (*held.holders_told, *held.clauses))


def pool_growth_document(
    growth: PoolGrowth, top: int | None, gate: GateResult | None = None
) -> Document:
    """The pools of two dumps: the summary, what changed, what is known of the tags that grew most, and
    how sure it is.
    """
    comparison, pools = growth.comparison, growth.selection.pools
    parts: list[Part] = []
    refused = comparison.refused
    if not refused:
        if not growth.same_boot:
            said = "Restarted in between, or it cannot be told: allocs and frees begin anew."
            parts.append(Line(said, Style.WARNING))
        parts += _growth_lines(growth, DEFAULT_TOP if top is None else top)
        # What the pools come to stands above.
        others = [row for row in comparison.account if not row.name.startswith("pool.")]
        parts += [*account_tables(others), *balance_growth_tables(comparison.account)]
    parts += [
        *side_parts("Base", "Base: ", "Base", comparison.base.source, growth.base),
        *side_parts("Current", "Current: ", "Current", comparison.current.source, growth.current),
        Notes(growth.diagnostics),
        _delta_table(growth, top, View.DATA if refused else View.PAGE | View.DATA),
        *review_parts(Judged(comparison, gate), top),
    ]
    if not refused:
        rows, older = [d.current for d in growth.deltas], [d.base for d in growth.deltas]
        parts += [
            totals_by_pool(rows, pools, older),
            Tree(
                lambda: driver_tree(
                    (d.owner, d.current.tag, d.base, d.current) for d in growth.deltas
                ),
                levels=LEVELS,
            ),
        ]
    return Document("Kernel pool: growth by tag", summarize_pool_growth(growth), parts)


def _delta_table(growth: PoolGrowth, top: int | None, views: View) -> Table[TagDelta]:
    pools = growth.selection.pools
    width = 4 if growth.comparison.current.source.architecture == "x86" else 8

    def row(rank: int, delta: TagDelta) -> Row:
        alike = told_together(growth.comparison.together, delta.current.number)
        twins = flat_counters(delta.deltas, "delta_")
        twins |= {"delta_bytes": delta.total("bytes"), "delta_count": delta.total("count")}
        return (
            *(rank, delta.total("bytes", pools), delta.total("count", pools)),
            *tag_cells(delta.current, delta.owner, pools),
            *(twins.get(name) for name in _TWINS.split()),
            tag_name(delta.current, delta.owner, lambda: growth_detail(delta, width, alike)),
        )

    return Table(
        "sites",
        "Tags that changed",
        (RANK, *CHANGES, *TOTALS, *data_columns(_TWINS), NAMED),
        growth.deltas,
        row,
        views,
        f"rank tag driver confidence {COUNTERS} {_TWINS} source evidence",
        top=top,
        note="Growth alone is not a leak: look at what still grows in a third dump.",
        choose="confidence",
    )


def _growth_lines(growth: PoolGrowth, limit: int) -> list[Part]:
    """The table of a terminal, and what is known of the tags that grew most."""
    changes = [delta.total("bytes") or 0 for delta in growth.deltas]
    total = sum(change for change in changes if change > 0)
    shown = [
        ShownCounters(
            delta.current.tag,
            pool,
            change,
            delta.current.pools.get(pool) or Counters(0, 0, 0, 0),
            delta.owner,
            (change.bytes or 0) / total if total else 0.0,
        )
        for delta in growth.deltas[:limit]
        for pool, change in not_empty(delta.deltas, growth.selection.pools)
    ]
    width = 4 if growth.comparison.current.source.architecture == "x86" else 8
    grown = [delta for delta in growth.deltas if (delta.total("bytes") or 0) > 0]
    return [
        Table("pools", "", GROWTH_COLUMNS, shown, growth_cells, View.TEXT),
        *more_tags(len(growth.deltas) - limit, "changed tag"),
        *(
            line
            for delta in grown[: min(EXPLAINED, limit)]
            for line in _explained(
                delta,
                width,
                growth.comparison.together,
                rate_of(growth.comparison, delta.total("bytes") or 0),
            )
        ),
    ]


def _explained(
    delta: TagDelta, pointer_size: int, groups: Sequence[Together], rate: str
) -> Iterator[Line]:
    size, count, owner = delta.total("bytes") or 0, delta.total("count"), delta.owner
    blocks = "" if count is None else f", {format_count(count, signed=True)} blocks"
    change = f"{format_bytes(size, signed=True)}{blocks}{rate.replace(':', ',')}"
    yield Line(f"{delta.current.tag}: {change}", Style.HEADING)
    if is_never_freed(delta.total("allocs"), delta.total("frees")):
        frees = delta.total("frees") or 0
        yield Line(f"  never freed: {delta.total('allocs'):,} allocations, {frees:,} frees")
    for alike in told_together(groups, delta.current.number):
        yield Line(f"  {alike}", Style.STRONG)
    if owner.description:
        yield Line(f"  {owner.description}")
    for candidate in owner.owners[:2]:
        yield Line(
            f"  {candidate.driver} ({candidate.confidence}): {'; '.join(candidate.evidence)}"
        )
    if owner.note:
        yield Line(f"  {owner.note}", Style.WARNING)
    clauses = said_of_new(delta.new, pointer_size) if delta.new is not None else ()
    for clause in (*clauses, *delta.holders):
        yield Line(f"  {clause}")


def pool_json(answer: PoolAnswer) -> dict[str, Any]:
    """Schema dumpleak/pool/1: counters of each tag; all that match are written."""
    return {
        "schema": "dumpleak/pool/1",
        **source_json(answer.source),
        "sort": answer.selection.order.name,
        "left_by_unloaded_driver": left_json(answer.left),
        "account": _account(answer.account),
        "system": [figure_json(figure) for figure in answer.system],
        "balance": balance_json(answer.system),
        "blocks": listed_json(answer.blocks),
        "tags": [
            _tag(row, rank) | {"objects": objects_json(answer.held.get(row.number))}
            for rank, row in enumerate(answer.rows, start=1)
        ],
        "diagnostics": diagnostics_json(answer.diagnostics),
    }


def pool_growth_json(growth: PoolGrowth) -> dict[str, Any]:
    """Schema dumpleak/pool/1 of two dumps: counters of each tag that changed, each with its `delta_` twin."""
    comparison = growth.comparison
    return {
        "schema": "dumpleak/pool/1",
        "base": source_json(comparison.base.source),
        "current": source_json(comparison.current.source),
        "same_boot": growth.same_boot,
        "verdict": comparison.verdict,
        "reasons": list(comparison.reasons),
        "sort": growth.selection.order.name,
        "account": {"base": _account(growth.base), "current": _account(growth.current)},
        "system": [account_json(row) for row in comparison.account],
        "balance": balance_json(comparison.account),
        "hours": comparison.hours,
        "changes": changes_json(system_changes(comparison.base, comparison.current)),
        "groups": together_json(comparison.together),
        "tags": [
            _delta(delta, rank)
            | membership_json(comparison.together, delta.current.number)
            | {
                "bytes_per_hour": comparison.per_hour(delta.total("bytes")),
                "count_per_hour": comparison.per_hour(delta.total("count")),
            }
            for rank, delta in enumerate(growth.deltas, start=1)
        ],
        "diagnostics": diagnostics_json(growth.diagnostics),
    }


def _owners(owner: Ownership) -> dict[str, Any]:
    return {
        "driver": owner.driver,
        "drivers": [
            {
                "name": candidate.driver,
                "confidence": candidate.confidence,
                "score": candidate.score,
                "evidence": list(candidate.evidence),
            }
            for candidate in owner.owners
        ],
        "description": owner.description or None,
        "note": owner.note or None,
    }


def _tag(row: TagRow, rank: int) -> dict[str, Any]:
    return {
        "rank": rank,
        "tag": row.tag,
        **_owners(row.owner),
        **flat_counters(row.pools),
        "source": row.source,
        "never_freed": is_never_freed(row.total("allocs"), row.total("frees")),
    }


def _delta(delta: TagDelta, rank: int) -> dict[str, Any]:
    new = delta.new
    return {
        "rank": rank,
        "tag": delta.current.tag,
        **_owners(delta.owner),
        "delta_bytes": delta.total("bytes"),
        "delta_count": delta.total("count"),
        **flat_counters(delta.current.pools),
        **flat_counters(delta.deltas, "delta_"),
        "source": delta.current.source,
        "new_blocks": None
        if new is None
        else {
            "sizes": [{"block_bytes": size, "count": more} for size, more in new.sizes],
            "other_sizes": new.other_sizes,
            "samples": [format_address(address) for address in new.samples],
            "samples_are_new": new.are_new,
        },
        "holders": list(delta.holders),
        "never_freed": is_never_freed(delta.total("allocs"), delta.total("frees")),
        "objects": objects_json(delta.held),
    }


def _account(account: PoolAccount) -> dict[str, Any]:
    covered = account.covered()
    return asdict(account) | {"coverage": None if covered is None else asdict(covered)}
