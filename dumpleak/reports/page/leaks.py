"""The page of `dumpleak leaks`."""

from __future__ import annotations

from typing import IO

from dumpleak.model.totals import Totals
from dumpleak.model.units import format_address
from dumpleak.reports.answers.summary import summarize_leaks
from dumpleak.reports.page.data import (
    ROW_NAME,
    Column,
    Grid,
    Page,
    Row,
    meter,
    notes,
    shown,
    site_detail,
    site_id,
    source_facts,
    tree_data,
)
from dumpleak.reports.page.page import write
from dumpleak.reports.profiles.stack_tree import SitePair, build_tree
from dumpleak.survey.leaks import LeakGroup, Leaks

MAX_SAMPLES = 5


class LeaksHtmlReport:
    """See `LeaksReport`."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def leaks(self, leaks: Leaks, top: int | None) -> None:
        """`top` is for lists, the page has all groups."""
        write(leaks_page(leaks), self._stream)


def leaks_page(leaks: Leaks) -> Page:
    """What nothing points to, by group, and as a flame graph."""
    program = leaks.source.program or leaks.source.file
    page = Page(
        shown(f"{program}: blocks that nothing points to"),
        summarize_leaks(leaks),
        [source_facts("File", leaks.source)],
        [meter("Heap memory walked", leaks.coverage)],
    )
    page.notes, page.notes_left_out = notes(leaks.diagnostics)
    grid = Grid(
        "sites",
        "Groups with unreferenced blocks",
        (
            Column("rank", "count", minor=True),
            Column("bytes", "bytes", "of unreferenced blocks"),
            Column("blocks", "count", "that no root leads to"),
            Column("heads", "count", "that nothing at all points to", minor=True),
            Column("of its blocks", "share", "how many of all its used blocks", minor=True),
            Column("used", "bytes", "of all its used blocks", minor=True),
            Column("kind", "text", "what names the group", minor=True),
            Column(leaks.grouping, "name"),
        ),
        chosen=6,
        note="Unreferenced is not yet leaked: an address can be kept in a form that a scan does not see.",
    )
    for rank, group in enumerate(leaks.groups, start=1):
        grid.rows.append(_row(rank, group))
        grid.ids.append(site_id(group.site))
        detail = site_detail(page.strings, group.site, _evidence(group), ())
        detail["samples"] = [
            format_address(address, leaks.pointer_size)
            for address in group.addresses[:MAX_SAMPLES].tolist()
        ]
        detail["samples_of"] = "unreferenced"
        grid.details.append(detail)
    page.grids.append(grid)
    pairs = (
        SitePair(group.site, Totals(), Totals(group.unreferenced_count, group.unreferenced_bytes))
        for group in leaks.groups
    )
    page.tree = tree_data(build_tree(pairs, "all groups"), page.strings, single=True)
    roots = Grid(
        "roots",
        "Scanned for pointers",
        (Column("memory", "text"), Column("scanned", "bytes"), Column("committed", "bytes")),
    )
    roots.rows = [
        [str(kind), amount.present_bytes, amount.committed_bytes]
        for kind, amount in leaks.roots.items()
    ]
    page.grids.append(roots)
    return page


def _row(rank: int, group: LeakGroup) -> Row:
    share = group.unreferenced_count / group.used.count if group.used.count else None
    return [
        rank,
        group.unreferenced_bytes,
        group.unreferenced_count,
        group.head_count,
        share,
        group.used.bytes,
        str(group.site.kind),
        shown(group.site.name, ROW_NAME),
    ]


def _evidence(group: LeakGroup) -> list[str]:
    hanging = group.unreferenced_count - group.head_count
    evidence = [f"nothing at all points to {group.head_count:,} blocks"]
    if hanging:
        evidence.append(f"{hanging:,} hang on such blocks, or on each other")
    return evidence
