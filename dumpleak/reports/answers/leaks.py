"""Blocks that nothing points to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from dumpleak.compare.answers import SiteDelta
from dumpleak.compare.causes import NO_CAUSES, Causes, find_causes
from dumpleak.model.sites import Site
from dumpleak.model.texts import Texts
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address
from dumpleak.reports.answers.causes import causes_json
from dumpleak.reports.answers.sites import site_detail, site_name
from dumpleak.reports.answers.summary_dump import summarize_leaks
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Meter,
    Notes,
    Row,
    Source,
    Table,
    Tree,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.profiles.stack_tree import Node, SitePair, build_tree
from dumpleak.reports.rows import quoted, samples_json
from dumpleak.reports.shown import USUAL, Shown
from dumpleak.reports.values import Detail, Share
from dumpleak.survey.leaks import LeakGroup, Leaks

MAX_SAMPLES = 5
TEXTS_TOLD = 20  # groups whose texts are looked at, unless --top says more or less
_COLUMNS = (
    Column("rank", Kind.COUNT, views=View.PAGE, width=Width.WIDE),
    Column("bytes", Kind.BYTES, "unreferenced_bytes", hint="of unreferenced blocks"),
    Column("blocks", Kind.COUNT, "unreferenced_count", hint="that no root leads to"),
    Column("nothing points to", Kind.COUNT, "head_count", hint="the others hang on such blocks"),
    Column(
        "of all its blocks", Kind.SHARE, width=Width.WIDE, hint="how many of all its used blocks"
    ),
    Column("used", Kind.BYTES, "used_bytes", View.PAGE, width=Width.WIDE),
    Column("kind", Kind.TEXT, "kind", View.PAGE, width=Width.WIDE, hint="what names the group"),
    *data_columns("used_count type tag"),
)
_DATA = "kind name type tag unreferenced_bytes unreferenced_count head_count used_bytes used_count"


def _listed(leaks: Leaks, shown: Shown) -> list[LeakGroup]:
    only = shown.only.among({group.site.name for group in leaks.groups})
    return [group for group in leaks.groups if only.takes_site(group.site)]


def _caused(groups: Sequence[LeakGroup]) -> tuple[list[LeakGroup], Causes]:
    """Groups of one cause as one, and what they are."""
    lost = {group.site.key: (group.site, _lost(group)) for group in groups}
    sites, causes = find_causes({}, lost)
    parts: dict[str, list[LeakGroup]] = {}
    for group in groups:
        parts.setdefault(causes.keys.get(group.site.key, group.site.key), []).append(group)
    found = [_together(sites.get(mine[0].site.key, mine[0].site), mine) for mine in parts.values()]
    found.sort(key=lambda g: (-g.unreferenced_bytes, -g.unreferenced_count, g.site.key))
    return found, causes


def _together(site: Site, groups: Sequence[LeakGroup]) -> LeakGroup:
    if len(groups) == 1:
        return replace(groups[0], site=site)
    return LeakGroup(
        site,
        reduce(add, (group.used for group in groups)),
        sum(group.unreferenced_count for group in groups),
        sum(group.unreferenced_bytes for group in groups),
        sum(group.head_count for group in groups),
        np.sort(np.concatenate([group.addresses for group in groups])),
    )


def _lost(group: LeakGroup) -> Totals:
    return Totals(group.unreferenced_count, group.unreferenced_bytes)


def leaks_document(leaks: Leaks, top: int | None, shown: Shown = USUAL) -> Document:
    """What was found, what was scanned, the groups."""
    listed = _listed(leaks, shown)
    told, causes = listed, NO_CAUSES
    if leaks.grouping == "site" and not shown.only:
        told, causes = _caused(listed)

    def row(rank: int, group: LeakGroup) -> Row:
        texts = _texts(leaks, group) if rank <= (top or TEXTS_TOLD) else None
        said = (*(texts.evidence if texts is not None else ()), *quoted(texts))
        notes = (*said, *causes.notes.get(group.site.key, ()))
        name = replace(
            site_name(group.site, notes=notes, shown=shown),
            detail=lambda: _detail(group, leaks.pointer_size, notes),
        )
        lost, used = group.unreferenced_count, group.used
        return (
            *(rank, group.unreferenced_bytes, lost, group.head_count),
            *(Share(lost, used.count, digits=0), used.bytes, group.site.kind),
            *(used.count, group.site.type, group.site.tag, name),
        )

    groups = Table(
        "sites",
        "Groups with unreferenced blocks",
        (*_COLUMNS, Column(leaks.grouping, Kind.NAME, "name")),
        told,
        row,
        View.PEOPLE if listed else View.PAGE,
        data=_DATA,
        noun="group",
        top=top,
        note="Unreferenced is not yet leaked: an address can be kept in a form that a scan does not see.",
        choose="kind",
    )
    roots = Table(
        "roots",
        "Scanned for pointers",
        (Column("memory"), Column("scanned", Kind.BYTES), Column("committed", Kind.BYTES)),
        list(leaks.roots.items()),
        lambda _, root: (root[0], root[1].present_bytes, root[1].committed_bytes),
        View.PAGE,
    )
    return Document(
        f"{leaks.source.program or leaks.source.file}: blocks that nothing points to",
        summarize_leaks(leaks, [_row_of(group, causes) for group in told]),
        (
            groups,
            replace(groups, items=listed, views=View.DATA),
            *(Line(told) for told in shown.told("groups", len(listed))),
            Source("File", leaks.source),
            Line(
                "Any word that is an address inside a block counts as a pointer to it. A block can be "
                "unreferenced and still be in use, if its address is kept in another form."
            ),
            Meter("Heap memory walked", leaks.coverage),
            Notes(leaks.diagnostics),
            roots,
            Tree(lambda: _tree(leaks), single=True),
        ),
    )


def _texts(leaks: Leaks, group: LeakGroup) -> Texts | None:
    return leaks.texts(group.addresses) if leaks.texts is not None else None


def _tree(leaks: Leaks) -> Node:
    pairs = (
        SitePair(group.site, Totals(), Totals(group.unreferenced_count, group.unreferenced_bytes))
        for group in leaks.groups
    )
    return build_tree(pairs, "all groups")


def _row_of(group: LeakGroup, causes: Causes) -> SiteDelta:
    """What nothing points to of a group, as growth from nothing."""
    cause = causes.words.get(group.site.key, "")
    return SiteDelta(group.site, Totals(), _lost(group), cause=cause)


def _detail(group: LeakGroup, pointer_size: int, notes: Sequence[str]) -> Detail:
    hanging = group.unreferenced_count - group.head_count
    evidence = [f"nothing at all points to {group.head_count:,} blocks"]
    if hanging:
        evidence.append(f"{hanging:,} hang on such blocks, or on each other")
    evidence += notes
    samples = group.addresses[:MAX_SAMPLES].tolist()
    return replace(
        site_detail(group.site, evidence),
        samples=tuple(format_address(address, pointer_size) for address in samples),
        samples_of="unreferenced",
    )


def _texts_json(texts: Texts | None) -> dict[str, list[str]]:
    if texts is None or not texts.evidence + texts.samples:
        return {}
    return {"evidence": list(texts.evidence), **samples_json(texts)}


def leaks_json(leaks: Leaks, shown: Shown = USUAL) -> dict[str, Any]:
    """Schema dumpleak/leaks/1; all groups are written, or those that are asked for."""
    listed = _listed(leaks, shown)
    causes = _caused(listed)[1] if leaks.grouping == "site" else NO_CAUSES
    return {
        "schema": "dumpleak/leaks/1",
        **source_json(leaks.source),
        "by": leaks.grouping,
        "coverage": asdict(leaks.coverage),
        "totals": {
            "unreferenced_bytes": leaks.unreferenced_bytes,
            "unreferenced_count": leaks.unreferenced_count,
            "head_count": leaks.head_count,
            "used_bytes": leaks.used.bytes,
            "used_count": leaks.used.count,
        },
        "lost_share": leaks.lost_share,
        "roots": {str(kind): asdict(amount) for kind, amount in leaks.roots.items()},
        "groups": [
            {
                "kind": group.site.kind,
                "name": group.site.name,
                "frames": list(group.site.frames),
                "type": group.site.type,
                "tag": group.site.tag,
                "unreferenced_bytes": group.unreferenced_bytes,
                "unreferenced_count": group.unreferenced_count,
                "head_count": group.head_count,
                "used_bytes": group.used.bytes,
                "used_count": group.used.count,
                "addresses": [
                    format_address(address, leaks.pointer_size)
                    for address in group.addresses.tolist()
                ],
                **(_texts_json(_texts(leaks, group)) if rank <= TEXTS_TOLD else {}),
            }
            for rank, group in enumerate(listed, start=1)
        ],
        "causes": causes_json(
            causes, [(group.site, _lost(group)) for group in listed], "unreferenced"
        ),
        "diagnostics": diagnostics_json(leaks.diagnostics),
    }
