"""Growth between two dumps, and what a series shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.system_changes import system_changes
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import GateResult, Judged
from dumpleak.model.account import BYTES, AccountRow
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.balance import balance_growth_tables, balance_json
from dumpleak.reports.answers.causes import parts_told
from dumpleak.reports.answers.changes import changes_json
from dumpleak.reports.answers.grown_types import held_json
from dumpleak.reports.answers.heaps import changed_heap_table
from dumpleak.reports.answers.retained import RETAINED_COLUMN, RETAINED_DATA, retained_json
from dumpleak.reports.answers.review import review_parts
from dumpleak.reports.answers.said_of_dumps import heading_of
from dumpleak.reports.answers.sites import site_name
from dumpleak.reports.answers.summary import summarize_comparison
from dumpleak.reports.answers.together import site_membership, together_json
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    MemoryMap,
    Meter,
    Notes,
    Part,
    Row,
    Source,
    Table,
    Tree,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import (
    account_json,
    both_json,
    coverage_json,
    diagnostics_json,
    gate_json,
    site_json,
    sized_json,
    source_json,
)
from dumpleak.reports.profiles.stack_tree import build_tree, compared_pairs, root_name
from dumpleak.reports.rows import (
    changed,
    holder_evidence,
    retained_of,
    samples_json,
    texts_of,
    whole_of,
)
from dumpleak.reports.shown import USUAL, Shown
from dumpleak.reports.values import Change, Name, Share, Style

CHANGED_DATA = data_columns(
    "rank kind name type tag delta_bytes delta_count base_bytes base_count current_bytes current_count"
)
_DATA = (*CHANGED_DATA, *data_columns("confidence evidence", evidence=Kind.CLAUSES))
_LISTED_LEVELS = "All on top, then each group."
_ACCOUNT = (
    Column("+/-", Kind.VALUE, views=View.TEXT),
    Column("bytes +/-", Kind.BYTES, views=View.PAGE, signed=True, hint="last minus first"),
    Column("count +/-", Kind.COUNT, views=View.PAGE, signed=True, hint="last minus first"),
    Column("base", Kind.VALUE),
    Column("current", Kind.VALUE),
    Column("state", hint="grew: by more than a healthy process shows"),
)


def diff_document(
    comparison: Comparison,
    top: int | None,
    gate: GateResult | None = None,
    shown: Shown = USUAL,
) -> Document:
    """The verdict, the sites, the coverage of both sides."""
    base, current = comparison.base, comparison.current
    parts: list[Part] = [] if comparison.refused else _growth(comparison, top, shown)
    parts += [
        Source("Base", base.source),
        Source("Current", current.source),
        *(
            Meter(f"{name}: heap memory walked" if side.is_walked else name, side.coverage)
            for name, side in (("Base", base), ("Current", current))
        ),
        Notes(comparison.diagnostics),
        MemoryMap([("base", base.memory), ("current", current.memory)]),
        _data_table(comparison, top, shown),
        *review_parts(Judged(comparison, gate), top),
    ]
    if not comparison.refused:
        parts += [changed_heap_table(base.heaps, current.heaps), tree_of(comparison)]
    program = current.source.program or base.source.program or "two dumps"
    return Document(
        f"{program}: growth between two dumps",
        summarize_comparison(comparison),
        parts,
        members=base.members,
    )


def _growth(comparison: Comparison, top: int | None, shown: Shown) -> list[Part]:
    base = comparison.base
    table = _site_table if base.has_bytes else _counted_table
    made = table(comparison, top, shown)
    parts: list[Part] = [made]
    parts += [Line(told) for told in shown.told(f"changed {base.noun}s", len(made.items))]
    if comparison.private:
        parts += private_parts(_private_table(comparison, top))
    parts += [*account_tables(comparison.account), *balance_growth_tables(comparison.account)]
    if base.has_bytes:
        before, after = totals_told(comparison.base_totals), totals_told(comparison.current_totals)
        parts.append(Line(f"Base: {before}; current: {after}."))
    return parts


def change_columns(members: str) -> tuple[Column, ...]:
    """What changed; `members` is what is counted."""
    return (
        Column("bytes +/-", Kind.BYTES, signed=True, hint="current minus base"),
        Column(f"{members} +/-", Kind.COUNT, signed=True, hint="current minus base"),
    )


def _delta_columns(comparison: Comparison, heading: str) -> tuple[Column, ...]:
    members = comparison.base.members
    return (
        *change_columns(members),
        *((RETAINED_COLUMN,) if comparison.current.tells_retained else ()),
        Column("base", Kind.TOTALS, width=Width.WIDE),
        Column("current", Kind.TOTALS, views=View.TEXT, width=Width.WIDE),
        Column("current", Kind.BYTES, width=Width.NARROW),
        Column(members, Kind.COUNT, views=View.PAGE, width=Width.WIDE, hint="in the current dump"),
        Column("of growth", Kind.SHARE, hint="of the bytes of all that grew"),
        Column(heading, Kind.NAME),
    )


def _delta_cells(delta: SiteDelta, growth: int, name: Name, current: Snapshot) -> Row:
    grew = delta.delta_bytes > 0
    return (
        Change(delta.delta_bytes, delta.delta_bytes / growth if grew else 0.0),
        delta.delta_count,
        *((retained_of(current, delta.site)[0],) if current.tells_retained else ()),
        *(delta.base, delta.current),
        *(delta.current.bytes, delta.current.count),
        Share(delta.delta_bytes, growth) if grew else None,
        name,
    )


def _listed(comparison: Comparison, shown: Shown) -> list[SiteDelta]:
    only = shown.only.among({delta.site.name for delta in comparison.sites})
    return [delta for delta in comparison.sites if only.takes_site(delta.site)]


def _site_table(comparison: Comparison, top: int | None, shown: Shown) -> Table[SiteDelta]:
    base, current = comparison.base, comparison.current
    growth, listed = growth_of(comparison.sites), _listed(comparison, shown)
    *numbers, name_column = _delta_columns(comparison, heading_of(base))
    sides = ("base", base), ("current", current)

    def row(rank: int, delta: SiteDelta) -> Row:
        said = (*delta.evidence, *parts_told(delta))
        name = site_name(delta.site, said, sides, notes=delta.notes, shown=shown)
        *cells, last = _delta_cells(delta, growth, name, current)
        return (rank, *cells, delta.site.kind, last)

    return Table(
        "sites",
        changed_title(base),
        (RANK, *numbers, KIND, name_column),
        listed,
        row,
        View.PEOPLE if listed else View.PAGE,
        noun=f"changed {base.noun}",
        top=top,
        note="Growth alone is not a leak: look at what still grows in a third dump.",
        choose="kind",
    )


RANK = Column("rank", Kind.COUNT, views=View.PAGE, width=Width.WIDE)
KIND = Column("kind", views=View.PAGE, width=Width.WIDE, hint="what names the site")


def _private_table(comparison: Comparison, top: int | None) -> Table[SiteDelta]:
    growth, sides = growth_of(comparison.private), (("current", comparison.current),)

    def row(_: int, delta: SiteDelta) -> Row:
        name = site_name(delta.site, snapshots=sides, notes=delta.notes)
        return _delta_cells(delta, growth, replace(name, id="", detail=None), comparison.current)

    return Table(
        "private",
        PRIVATE,
        _delta_columns(comparison, "allocations"),
        comparison.private,
        row,
        View.PEOPLE,
        noun="changed size",
        top=top,
    )


def _counted_table(comparison: Comparison, top: int | None, shown: Shown) -> Table[SiteDelta]:
    """Of members without bytes."""
    base = comparison.base
    columns = (
        Column(f"{base.members} +/-", Kind.COUNT, signed=True),
        Column("base", Kind.COUNT),
        Column("current", Kind.COUNT),
        Column(base.grouping, Kind.NAME),
    )
    return Table(
        "sites",
        changed_title(base),
        columns,
        _listed(comparison, shown),
        lambda _, delta: (
            *(delta.delta_count, delta.base.count, delta.current.count),
            Name(delta.site.name),
        ),
        View.PEOPLE if comparison.sites else View.PAGE,
        noun=f"changed {base.noun}",
        top=top,
    )


def _data_table(comparison: Comparison, top: int | None, shown: Shown) -> Table[SiteDelta]:
    """For machines: sites, then private memory outside heaps."""
    kept = RETAINED_DATA if comparison.current.tells_retained else ()

    def row(rank: int, delta: SiteDelta) -> Row:
        held = holder_evidence(comparison.current, delta.site)
        return (
            *changed_cells(rank, delta, comparison.base),
            *(delta.confidence, (*delta.evidence, *held)),
            *(retained_of(comparison.current, delta.site) if kept else ()),
        )

    rows = (*_listed(comparison, shown), *comparison.private)
    return Table("changes", "", (*_DATA, *kept), rows, row, View.DATA, top=top)


# -- what a series shares --------------------------------------------------------------------------------

PRIVATE = "Private memory outside heaps"


def growth_of(deltas: Sequence[SiteDelta | SiteTrend]) -> int:
    """Bytes of all that grew."""
    return sum(delta.delta_bytes for delta in deltas if delta.delta_bytes > 0)


def changed_cells(rank: int, delta: SiteDelta | SiteTrend, base: Snapshot) -> Row:
    """By `CHANGED_DATA`; bytes only where members have them."""

    def size(value: int) -> int | None:
        return value if base.has_bytes else None

    site = delta.site
    return (
        *(rank, site.kind, site.name, site.type, site.tag),
        *(size(delta.delta_bytes), delta.delta_count, size(delta.base.bytes), delta.base.count),
        *(size(delta.current.bytes), delta.current.count),
    )


def changed_title(base: Snapshot) -> str:
    """What stands above the table."""
    grouping = heading_of(base)
    if base.is_listed:
        return f"{base.members.capitalize()} by {base.noun} that changed"
    if grouping in ("site", "tag"):
        return f"{grouping.capitalize()}s that changed"
    return f"Blocks by {grouping} that changed"


def private_parts(table: Table[Any]) -> list[Part]:
    """The table with a heading of its own."""
    return [Line(f"{PRIVATE}:", Style.HEADING), table]


def totals_told(totals: Totals) -> str:
    """Bytes and members."""
    return f"{format_bytes(totals.bytes)} in {format_count(totals.count)}"


def account_tables(rows: Sequence[AccountRow]) -> list[Part]:
    """What changed of the process, or the system, as a whole; none where nothing did."""

    def cells(_: int, row: AccountRow) -> Row:
        of_bytes = row.unit == BYTES
        return (
            row.told(row.delta, signed=True),
            *(row.delta if of_bytes else None, None if of_bytes else row.delta),
            *(row.told(row.base), row.told(row.current), row.told_state, row.kind.label),
        )

    shown = changed(rows)
    title = f"the {whole_of(rows)} as a whole"
    columns = (*_ACCOUNT, Column(title, Kind.NAME))
    title = title.capitalize()
    return [Table("account", title, columns, shown, cells, View.PEOPLE)] if shown else []


def tree_of(answer: Comparison | Trend) -> Tree:
    """All sites, changed or not."""
    return Tree(
        lambda: build_tree(compared_pairs(answer), root_name(answer.base)),
        levels=_LISTED_LEVELS if answer.base.is_listed else "",
    )


def parts_json(delta: SiteDelta | SiteTrend) -> dict[str, Any]:
    """The shapes that a site was put together of, where it was."""
    if not delta.parts:
        return {}
    return {
        "cause": delta.cause,
        "parts": [
            {
                "key": part.site.key,
                "name": part.site.name,
                "delta_bytes": part.delta_bytes,
                "delta_count": part.delta_count,
                **both_json(part.base, part.current),
            }
            for part in delta.parts
        ],
    }


def diff_json(
    comparison: Comparison, gate: GateResult | None, shown: Shown = USUAL
) -> dict[str, Any]:
    """Schema dumpleak/diff/1; all sites are written, or those that are asked for."""
    base, current = comparison.base_totals, comparison.current_totals
    proof = comparison.proof
    made = {
        "schema": "dumpleak/diff/1",
        "base": source_json(comparison.base.source),
        "current": source_json(comparison.current.source),
        "verdict": comparison.verdict,
        "reasons": [*comparison.reasons, *comparison.doubts],
        "of": comparison.base.population,
        "by": comparison.base.grouping,
        "coverage": {
            "base": coverage_json(comparison.base.coverage),
            "current": coverage_json(comparison.current.coverage),
        },
        "totals": {
            "delta_bytes": comparison.delta_bytes,
            "delta_count": comparison.delta_count,
            **both_json(base, current),
        },
        "hours": comparison.hours,
        "changes": changes_json(system_changes(comparison.base, comparison.current)),
        "account": [account_json(row) for row in comparison.account],
        "balance": balance_json(comparison.account),
        "unreferenced": asdict(proof) if proof else None,
        "gate": gate_json(gate),
        "process_life": {"life": comparison.life.life, "evidence": comparison.life.why},
        "survivors": None
        if comparison.survivors is None
        else {
            **asdict(comparison.survivors.total),
            "reused_addresses": comparison.survivors.reused,
        },
        "sites": [
            {
                **site_json(rank, delta, holder_evidence(comparison.current, delta.site)),
                **site_membership(comparison, delta.site),
                "survivors": asdict(delta.fate) if delta.fate else None,
                "bytes_per_hour": comparison.per_hour(delta.delta_bytes),
                "count_per_hour": comparison.per_hour(delta.delta_count),
                **retained_json(comparison.current, delta.site),
                **samples_json(texts_of(comparison.current, delta.site)),
                **parts_json(delta),
                **held_json(delta),
            }
            for rank, delta in enumerate(_listed(comparison, shown), start=1)
        ],
        "private": [
            site_json(rank, delta, holder_evidence(comparison.current, delta.site))
            for rank, delta in enumerate(comparison.private, start=1)
        ],
        **({"groups": together_json(comparison.together)} if comparison.base.is_pool else {}),
        "diagnostics": diagnostics_json(comparison.diagnostics),
    }
    return sized_json(made, sized=comparison.base.has_bytes)
