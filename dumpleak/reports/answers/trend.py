"""Growth over three dumps and more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dumpleak.compare.account_trends import RowTrend
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import GateResult, Judged
from dumpleak.model.coverage import ListCovered
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.account_facts import trends_of
from dumpleak.reports.answers.balance import balance_growth_tables, balance_json
from dumpleak.reports.answers.boots import boots_json, boots_parts
from dumpleak.reports.answers.causes import parts_told
from dumpleak.reports.answers.diff import (
    CHANGED_DATA,
    KIND,
    PRIVATE,
    RANK,
    account_tables,
    change_columns,
    changed_cells,
    changed_title,
    growth_of,
    parts_json,
    private_parts,
    tree_of,
)
from dumpleak.reports.answers.heaps import changed_heap_table
from dumpleak.reports.answers.review import review_parts
from dumpleak.reports.answers.said_of_dumps import heading_of
from dumpleak.reports.answers.sites import site_name
from dumpleak.reports.answers.summary_trend import summarize_trend
from dumpleak.reports.answers.together import site_membership
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    MemoryMap,
    Meter,
    Notes,
    Part,
    Row,
    Source,
    Table,
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
    time_json,
)
from dumpleak.reports.rows import holder_evidence
from dumpleak.reports.values import Absent, Change, Name, Said, Style

_DATA = (
    *CHANGED_DATA,
    *data_columns(
        "bytes_per_hour count_per_hour shape confidence exhaustion evidence",
        bytes_per_hour=Kind.RATE,
        count_per_hour=Kind.RATE,
        exhaustion=Kind.TIME,
        evidence=Kind.CLAUSES,
    ),
)


def trend_document(trend: Trend, top: int | None, gate: GateResult | None = None) -> Document:
    """The verdict, the sites, the dumps."""
    base, current = trend.base, trend.current
    labels = [
        f"{snapshot.source.time:%Y-%m-%d %H:%M:%S}" if snapshot.source.time else f"dump {number}"
        for number, snapshot in enumerate(trend.snapshots, start=1)
    ]
    parts: list[Part] = [] if trend.refused else _growth(trend, labels, top)
    parts += [
        *boots_parts(trend, top),
        _dump_table(trend),
        Source("First", base.source, views=View.PAGE),
        Source("Last", current.source, views=View.PAGE),
        *(
            Meter(
                f"Dump {number}" + " walked" * snapshot.is_walked,
                snapshot.coverage,
                View.PAGE,
            )
            for number, snapshot in enumerate(trend.snapshots, start=1)
        ),
        Notes(trend.diagnostics),
        MemoryMap([(label, s.memory) for label, s in zip(labels, trend.snapshots, strict=True)]),
        _data_table(trend, top),
        *review_parts(Judged(trend, gate), top),
    ]
    if not trend.refused:
        parts += [changed_heap_table(base.heaps, current.heaps), tree_of(trend)]
    return Document(
        f"{current.source.program or 'a series'}: trend over {len(trend.snapshots)} dumps",
        summarize_trend(trend),
        parts,
        labels,
        base.members,
    )


def _growth(trend: Trend, labels: Sequence[str], top: int | None) -> list[Part]:
    noun = f"changed {trend.base.noun}"
    table = _trend_table if trend.base.has_bytes else _counted_table
    parts: list[Part] = [table(trend, trend.sites, labels, noun, top)]
    if trend.private:
        private = _trend_table(trend, trend.private, labels, "changed size", top)
        columns = (*private.columns[:-1], Column("allocations", Kind.NAME))
        parts += private_parts(replace(private, id="private", title=PRIVATE, columns=columns))
    return [*parts, *account_tables(trend.account), *balance_growth_tables(trend.account)]


def _trend_table(
    trend: Trend, sites: Sequence[SiteTrend], labels: Sequence[str], noun: str, top: int | None
) -> Table[SiteTrend]:
    members, growth = trend.base.members, growth_of(sites)
    sides = (labels[0], trend.base), (labels[-1], trend.current)
    is_private = sites is trend.private

    def row(rank: int, site: SiteTrend) -> Row:
        share = site.delta_bytes / growth if site.delta_bytes > 0 else 0.0
        rate = None if site.bytes_per_hour is None else round(site.bytes_per_hour)
        sizes = [point.bytes for point in site.points]
        said = (*_evidence(site), *parts_told(site))
        name = site_name(site.site, said, sides, site.points, site.notes)
        return (
            *(rank, _verdict(site), rate, site.count_per_hour),
            *(Change(site.delta_bytes, share), site.delta_count, site.current.bytes, sizes, sizes),
            " ".join(str(point.count) for point in site.points),
            *(site.shape, _verdict(site), site.site.kind),
            replace(name, id="", detail=None) if is_private else name,
        )

    changes = change_columns(members)
    columns = (
        RANK,
        Column("verdict", views=View.PAGE),
        Column("bytes/hour", Kind.BYTES, signed=True, hint="robust rate under load"),
        Column(f"{members}/hour", Kind.RATE, views=View.TEXT, width=Width.WIDE),
        changes[0],
        replace(changes[1], views=View.PAGE),
        Column("current", Kind.BYTES, views=View.PAGE),
        Column("bytes", Kind.SERIES, views=View.TEXT),
        Column("series", Kind.SERIES, views=View.PAGE, hint="bytes in each dump"),
        Column(members, Kind.VALUE, views=View.TEXT, width=Width.WIDE),
        Column("shape"),
        Column("verdict", views=View.TEXT),
        KIND,
        Column(heading_of(trend.base), Kind.NAME),
    )
    return Table(
        "sites",
        changed_title(trend.base),
        columns,
        sites,
        row,
        View.PEOPLE if sites else View.PAGE,
        noun=noun,
        top=top,
        choose="" if is_private else "verdict",
    )


def _counted_table(
    trend: Trend, sites: Sequence[SiteTrend], _: Sequence[str], noun: str, top: int | None
) -> Table[SiteTrend]:
    """Of members without bytes."""
    of = trend.base.population
    columns = (
        Column(f"{of}/hour", Kind.RATE),
        Column(f"{of} +/-", Kind.COUNT, signed=True),
        Column("counts"),
        Column("shape"),
        Column("verdict"),
        Column(trend.base.grouping, Kind.NAME),
    )

    def row(_: int, site: SiteTrend) -> Row:
        counts = " ".join(str(point.count) for point in site.points)
        return (
            *(site.count_per_hour, site.delta_count, counts, site.shape, _verdict(site)),
            Name(site.site.name),
        )

    views = View.PEOPLE if sites else View.PAGE
    title = changed_title(trend.base)
    return Table("sites", title, columns, sites, row, views, noun=noun, top=top)


def _dump_table(trend: Trend) -> Table[Snapshot]:
    sized = trend.base.has_bytes
    walked = not any(isinstance(each.coverage, ListCovered) for each in trend.snapshots)
    columns = (
        Column("time (UTC)", Kind.TIME),
        *(
            (Column("bytes" if trend.base.is_listed else "bytes in use", Kind.BYTES),)
            if sized
            else ()
        ),
        Column(trend.base.members if sized else trend.base.population, Kind.COUNT),
        *((Column("walked", Kind.VALUE),) if walked else ()),
        Column("dump", Kind.NAME),
    )

    def row(rank: int, snapshot: Snapshot) -> Row:
        idle = trend.after_idle and rank == len(trend.snapshots)
        return (
            snapshot.source.time or Absent.UNKNOWN,
            *((snapshot.totals.bytes,) if sized else ()),
            snapshot.totals.count,
            *((snapshot.coverage.share_text,) if walked else ()),
            snapshot.source.file + " (after the load stopped)" * idle,
        )

    return Table("dumps", "Dumps", columns, trend.snapshots, row, View.PEOPLE)


def _data_table(trend: Trend, top: int | None) -> Table[SiteTrend]:
    """For machines: sites, then private memory outside heaps; `bytes_0`, `count_0`, … are the points."""
    sized = trend.base.has_bytes
    points = " ".join(f"bytes_{n} count_{n}" for n in range(len(trend.snapshots)))

    def row(rank: int, site: SiteTrend) -> Row:
        held = holder_evidence(trend.current, site.site)
        return (
            *changed_cells(rank, site, trend.base),
            *(site.bytes_per_hour, site.count_per_hour, site.shape, site.confidence),
            *(site.exhaustion, (*site.evidence, *held)),
            *(v for p in site.points for v in (p.bytes if sized else None, p.count)),
        )

    columns = (*_DATA, *data_columns(points))
    rows = (*trend.sites, *trend.private)
    return Table("changes", "", columns, rows, row, View.DATA, top=top)


def _verdict(site: SiteTrend) -> Said:
    return Said(site.confidence, Style.PLAIN if site.confidence == "growth" else Style.STRONG)


def _evidence(site: SiteTrend) -> tuple[str, ...]:
    if site.exhaustion is None:
        return tuple(site.evidence)
    end = f"alone uses up what is left about {site.exhaustion:%Y-%m-%d %H:%M} UTC"
    return (*site.evidence, end)


def trend_json(trend: Trend, gate: GateResult | None) -> dict[str, Any]:
    """Schema dumpleak/trend/1; all sites are written."""
    made = {
        "schema": "dumpleak/trend/1",
        "base": source_json(trend.base.source),
        "current": source_json(trend.current.source),
        "dumps": [
            {
                **source_json(snapshot.source),
                "used_bytes": snapshot.totals.bytes,
                "used_count": snapshot.totals.count,
                "coverage": coverage_json(snapshot.coverage),
            }
            for snapshot in trend.snapshots
        ],
        "after_idle": trend.after_idle,
        "verdict": trend.verdict,
        "reasons": [*trend.reasons, *trend.doubts],
        "of": trend.base.population,
        "by": trend.base.grouping,
        "coverage": {
            "base": coverage_json(trend.base.coverage),
            "current": coverage_json(trend.current.coverage),
        },
        "totals": {
            "delta_bytes": trend.delta_bytes,
            "delta_count": trend.delta_count,
            **both_json(trend.base_totals, trend.current_totals),
        },
        "account": _account(trend),
        "balance": balance_json(trend.account),
        "gate": gate_json(gate),
        "exhaustion": _exhaustion(trend),
        "sites": [
            _trend(rank, site, holder_evidence(trend.current, site.site))
            | site_membership(trend, site.site)
            for rank, site in enumerate(trend.sites, start=1)
        ],
        "private": [
            _trend(rank, site, holder_evidence(trend.current, site.site))
            for rank, site in enumerate(trend.private, start=1)
        ],
        **boots_json(trend, _trend),
        "diagnostics": diagnostics_json(trend.diagnostics),
    }
    return sized_json(made, sized=trend.base.has_bytes)


def _trend(rank: int, trend: SiteTrend, more_evidence: Iterable[str] = ()) -> dict[str, Any]:
    span = trend.bytes_per_hour_range
    return {
        **site_json(rank, trend, more_evidence),
        "points": [{"bytes": point.bytes, "count": point.count} for point in trend.points],
        "bytes_per_hour": _rate(trend.bytes_per_hour),
        "bytes_per_hour_low": _rate(span[0]) if span else None,
        "bytes_per_hour_high": _rate(span[1]) if span else None,
        "count_per_hour": _rate(trend.count_per_hour),
        "shape": trend.shape,
        "newcomers": trend.newcomers._asdict() if trend.newcomers else None,
        "exhaustion": time_json(trend.exhaustion),
        **parts_json(trend),
    }


def _account(trend: Trend) -> list[dict[str, Any]]:
    trends = trends_of(trend)
    return [
        {
            **account_json(row),
            "points": list(row.points),
            "per_hour": _rate(trends[row.name].per_hour),
            "ends": _ends(trends[row.name]),
        }
        for row in trend.account
    ]


def _ends(trend: RowTrend) -> dict[str, Any] | None:
    if trend.edge is None:
        return None
    return {"value": trend.edge.value, "what": trend.edge.what, "time": time_json(trend.time)}


def _rate(per_hour: float | None) -> float | None:
    return None if per_hour is None else round(per_hour, 3)


def _exhaustion(trend: Trend) -> dict[str, Any] | None:
    if trend.exhaustion is None:
        return None
    return {
        "limit": trend.exhaustion.limit.name,
        "free_bytes": trend.exhaustion.limit.free_bytes,
        "bytes_per_hour": _rate(trend.exhaustion.bytes_per_hour),
        "time": time_json(trend.exhaustion.time),
    }
