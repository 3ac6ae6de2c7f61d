"""Members of one dump, added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.compare.causes import NO_CAUSES, Causes, with_causes
from dumpleak.model.coverage import ListCovered
from dumpleak.model.populations import POPULATIONS
from dumpleak.model.sites import Site
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_count, format_share
from dumpleak.reports.answers.causes import MOST, causes_json
from dumpleak.reports.answers.heaps import better_dump_lines
from dumpleak.reports.answers.retained import RETAINED_COLUMN, RETAINED_DATA, retained_json
from dumpleak.reports.answers.said_of_dumps import heading_of
from dumpleak.reports.answers.sites import site_name
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Meter,
    Notes,
    Part,
    Row,
    Source,
    Table,
    View,
    data_columns,
)
from dumpleak.reports.json_report import coverage_json, diagnostics_json, named_json, sized_json
from dumpleak.reports.rows import (
    holder_evidence,
    ranked_groups,
    retained_of,
    samples_json,
    texts_of,
)
from dumpleak.reports.shown import USUAL, Shown
from dumpleak.reports.values import Name, Share, Style

_DATA = data_columns(
    "kind name type tag used_bytes used_count block_bytes largest evidence", evidence=Kind.CLAUSES
)


def _members(snapshot: Snapshot) -> str:
    """How many members there are: "1 thread"."""
    count, name = snapshot.totals.count, POPULATIONS[snapshot.population].member
    covered = snapshot.coverage
    least = "at least " * (isinstance(covered, ListCovered) and bool(covered.lacking))
    return f"{least}{count:,} {name if count == 1 else snapshot.members}"


def _listed(snapshot: Snapshot, shown: Shown) -> list[tuple[Site, Totals]]:
    ranked = ranked_groups(snapshot)
    only = shown.only.among({site.name for site, _ in ranked})
    return [pair for pair in ranked if only.takes_site(pair[0])]


def stat_document(
    snapshot: Snapshot, top: int | None, shown: Shown = USUAL, causes: Causes = NO_CAUSES
) -> Document:
    """Grouped totals, the largest first; `causes` tells which of them are shapes put together."""
    groups = _listed(snapshot, shown)
    total, sized = snapshot.totals, snapshot.has_bytes
    if sized:
        said = f"Total: {format_bytes(total.bytes)} in {format_count(total.count)} in use by the program"
        if snapshot.is_listed:
            population = POPULATIONS[snapshot.population]
            of_system = snapshot.source.subject is Subject.SYSTEM and population.of_a_system
            what = of_system or population.what_bytes
            said = f"Total: {format_bytes(total.bytes)} {what}, {_members(snapshot)}"
        more: list[Part] = [
            Meter("Heap memory walked", snapshot.coverage),
            *better_dump_lines(snapshot),
        ]
    else:
        said, more = f"Total: {_members(snapshot)}", []

    kept = RETAINED_DATA if snapshot.tells_retained else ()

    def data(_: int, group: tuple[Site, Totals]) -> Row:
        site, totals = group
        sizes = totals.bytes, totals.count, totals.block_bytes, totals.largest
        return (
            *(site.kind, site.name, site.type, site.tag),
            *(sizes if sized else (None, totals.count, None, None)),
            holder_evidence(snapshot, site),
            *(retained_of(snapshot, site) if kept else ()),
        )

    return Document(
        f"{snapshot.source.program or snapshot.source.file}: {snapshot.population}",
        None,
        (
            *_most(groups, causes, total),
            Source("File", snapshot.source),
            _groups(snapshot, groups, top, shown, causes),
            *(Line(told) for told in shown.told("groups", len(groups))),
            Line(said),
            *more,
            Notes(snapshot.diagnostics),
            Table("groups", "", (*_DATA, *kept), groups, data, View.DATA, top=top),
        ),
    )


def _most(groups: Sequence[tuple[Site, Totals]], causes: Causes, total: Totals) -> list[Line]:
    """What most of the bytes are, where that is shapes put together."""
    site, totals = groups[0] if groups else (None, Totals())
    if site is None or site.key not in causes.words or totals.bytes < MOST * total.bytes:
        return []
    what = causes.words[site.key]
    said = f"{what[:1].upper()}{what[1:]}: {format_bytes(totals.bytes)} in {totals.count:,} blocks"
    return [Line(f"{said}, {format_share(totals.bytes, total.bytes)} of all.", Style.HEADING)]


def _groups(
    snapshot: Snapshot,
    groups: list[tuple[Site, Totals]],
    top: int | None,
    shown: Shown,
    causes: Causes,
) -> Table[tuple[Site, Totals]]:
    """For people; members without bytes are only counted."""
    total, title = snapshot.totals, "Groups"
    if not snapshot.has_bytes:
        return Table(
            "sites",
            title,
            (
                Column(snapshot.population, Kind.COUNT),
                Column("share", Kind.SHARE),
                Column(snapshot.grouping, Kind.NAME),
            ),
            groups,
            lambda _, group: (
                group[1].count,
                Share(group[1].count, total.count),
                Name(group[0].name),
            ),
            View.PEOPLE,
            noun="group",
            top=top,
        )
    keeps = (RETAINED_COLUMN,) if snapshot.tells_retained else ()
    return Table(
        "sites",
        title,
        (
            *keeps,
            Column("bytes", Kind.BYTES),
            Column(snapshot.members, Kind.COUNT),
            Column("largest", Kind.BYTES),
            Column("share", Kind.SHARE),
            Column(heading_of(snapshot), Kind.NAME),
        ),
        groups,
        lambda _, group: (
            *(retained_of(snapshot, group[0])[0] for _ in keeps),
            *(group[1].bytes, group[1].count, group[1].largest),
            Share(group[1].bytes, total.bytes),
            site_name(
                group[0],
                snapshots=[(snapshot.source.file, snapshot)],
                notes=causes.notes.get(group[0].key, ()),
                shown=shown,
            ),
        ),
        View.PEOPLE,
        noun="group",
        top=top,
    )


def _caused(snapshot: Snapshot, listed: list[tuple[Site, Totals]]) -> list[dict[str, Any]]:
    return causes_json(with_causes((snapshot,))[1], listed, "used")


def stat_json(snapshot: Snapshot, shown: Shown = USUAL) -> dict[str, Any]:
    """Schema dumpleak/stat/1; all groups are written, or those that are asked for."""
    listed = _listed(snapshot, shown)
    made = {
        "schema": "dumpleak/stat/1",
        "file": snapshot.source.file,
        "of": snapshot.population,
        "by": snapshot.grouping,
        "coverage": coverage_json(snapshot.coverage),
        "totals": {
            "used_bytes": snapshot.totals.bytes,
            "used_count": snapshot.totals.count,
            "block_bytes": snapshot.totals.block_bytes,
        },
        "groups": [
            {
                **named_json(site),
                "used_bytes": totals.bytes,
                "used_count": totals.count,
                "block_bytes": totals.block_bytes,
                "largest": totals.largest,
                "evidence": holder_evidence(snapshot, site),
                **retained_json(snapshot, site),
                **samples_json(texts_of(snapshot, site)),
            }
            for site, totals in listed
        ],
        "causes": _caused(snapshot, listed),
        "diagnostics": diagnostics_json(snapshot.diagnostics),
    }
    return sized_json(made, sized=snapshot.has_bytes)
