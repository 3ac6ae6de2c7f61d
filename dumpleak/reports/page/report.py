"""One page that holds everything: no network, to look at or to mail.

The page's data are computed in `html_data`, the page is put together in `html_page`.
"""

from __future__ import annotations

from typing import IO

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.reports.answers.summary import (
    heading_of,
    summarize_comparison,
    summarize_trend,
)
from dumpleak.reports.page.data import (
    ROW_NAME,
    Column,
    Grid,
    Page,
    meter,
    notes,
    shown,
    site_detail,
    site_id,
    source_facts,
    tree_data,
)
from dumpleak.reports.page.grids import account_grid, heap_grid, memory_map
from dumpleak.reports.page.page import write
from dumpleak.reports.profiles.stack_tree import build_tree, compared_pairs
from dumpleak.reports.rows import changed, holder_evidence

_DELTAS = (
    Column("bytes +/-", "delta-bytes", "current minus base"),
    Column("blocks +/-", "delta-count", "current minus base"),
    Column("base", "bytes", minor=True),
    Column("current", "bytes"),
    Column("blocks", "count", "in the current dump", minor=True),
)


class HtmlReport:
    """See `Report`; answers that are lists for scripts have no page."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Growth between two dumps; `top` is for lists, the page has all sites."""
        comparison = judged.answer
        write(diff_page(comparison), self._stream)

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Growth over three dumps and more; the page has all sites."""
        trend = judged.answer
        write(trend_page(trend), self._stream)


def diff_page(comparison: Comparison) -> Page:
    """The page of `dumpleak diff`."""
    base, current = comparison.base, comparison.current
    program = current.source.program or base.source.program or "two dumps"
    page = Page(
        shown(f"{program}: growth between two dumps"),
        summarize_comparison(comparison),
        [source_facts("Base", base.source), source_facts("Current", current.source)],
        [meter("Base walked", base.coverage), meter("Current walked", current.coverage)],
    )
    page.notes, page.notes_left_out = notes(comparison.diagnostics)
    page.memory = memory_map([("base", base), ("current", current)])
    if comparison.refused:
        return page
    growth = sum(delta.delta_bytes for delta in comparison.sites if delta.delta_bytes > 0)
    grid = Grid(
        "sites",
        _changed(heading_of(base)),
        (
            Column("rank", "count", minor=True),
            *_DELTAS,
            Column("of growth", "share", "of the bytes of all sites that grew", minor=True),
            Column("kind", "text", "what names the site", minor=True),
            Column(base.grouping, "name"),
        ),
        chosen=7,
        note="Growth alone is not a leak: look at what still grows in a third dump.",
    )
    for rank, delta in enumerate(comparison.sites, start=1):
        share = delta.delta_bytes / growth if delta.delta_bytes > 0 else None
        grid.rows.append(
            [
                rank,
                *_delta_values(delta),
                share,
                str(delta.site.kind),
                shown(delta.site.name, ROW_NAME),
            ]
        )
        grid.ids.append(site_id(delta.site))
        known = [
            ("base", base.details.get(delta.site.key)),
            ("current", current.details.get(delta.site.key)),
        ]
        evidence = [*delta.evidence, *holder_evidence(current, delta.site)]
        grid.details.append(site_detail(page.strings, delta.site, evidence, known))
    page.grids.append(grid)
    if comparison.private:
        page.grids.append(_private_grid(comparison.private))
    if changed(comparison.account):
        page.grids.append(account_grid(comparison.account))
    page.grids.append(heap_grid(current.heaps, base.heaps))
    page.tree = tree_data(build_tree(compared_pairs(comparison), "all sites"), page.strings)
    return page


def trend_page(trend: Trend) -> Page:
    """The page of `dumpleak trend`."""
    base, current = trend.base, trend.current
    program = current.source.program or "a series"
    labels = [
        f"{snapshot.source.time:%Y-%m-%d %H:%M:%S}" if snapshot.source.time else f"dump {number}"
        for number, snapshot in enumerate(trend.snapshots, start=1)
    ]
    page = Page(
        shown(f"{program}: trend over {len(trend.snapshots)} dumps"),
        summarize_trend(trend),
        [source_facts("First", base.source), source_facts("Last", current.source)],
        [
            meter(f"Dump {number} walked", snapshot.coverage)
            for number, snapshot in enumerate(trend.snapshots, start=1)
        ],
        series=labels,
    )
    page.notes, page.notes_left_out = notes(trend.diagnostics)
    page.memory = memory_map(list(zip(labels, trend.snapshots, strict=True)))
    page.grids.append(_dump_grid(trend, labels))
    if trend.refused:
        return page
    page.grids.insert(0, _trend_grid(page, trend, labels))
    if trend.private:
        page.grids.insert(1, _private_grid(trend.private))
    if changed(trend.account):
        page.grids.append(account_grid(trend.account))
    page.grids.append(heap_grid(current.heaps, base.heaps))
    page.tree = tree_data(build_tree(compared_pairs(trend), "all sites"), page.strings)
    return page


def _changed(grouping: str) -> str:
    if grouping in ("site", "tag"):
        return f"{grouping.capitalize()}s that changed"
    return f"Blocks by {grouping} that changed"


def _trend_grid(page: Page, trend: Trend, labels: list[str]) -> Grid:
    grid = Grid(
        "sites",
        _changed(heading_of(trend.base)),
        (
            Column("rank", "count", minor=True),
            Column("verdict", "text"),
            Column("bytes/hour", "rate", "robust rate under load"),
            *_DELTAS[:2],
            Column("current", "bytes"),
            Column("series", "spark", "bytes in each dump"),
            Column("shape", "text", minor=True),
            Column("kind", "text", "what names the site", minor=True),
            Column(trend.base.grouping, "name"),
        ),
        chosen=1,
    )
    first, last = trend.base.details, trend.current.details
    for rank, site in enumerate(trend.sites, start=1):
        rate = None if site.bytes_per_hour is None else round(site.bytes_per_hour)
        grid.rows.append(
            [
                rank,
                site.confidence,
                rate,
                site.delta_bytes,
                site.delta_count,
                site.current.bytes,
                [point.bytes for point in site.points],
                str(site.shape),
                str(site.site.kind),
                shown(site.site.name, ROW_NAME),
            ]
        )
        grid.ids.append(site_id(site.site))
        known = [
            (labels[0], first.get(site.site.key)),
            (labels[-1], last.get(site.site.key)),
        ]
        evidence = [*site.evidence, *holder_evidence(trend.current, site.site)]
        if site.exhaustion is not None:
            evidence.append(
                f"alone uses up what is left about {site.exhaustion:%Y-%m-%d %H:%M} UTC"
            )
        grid.details.append(site_detail(page.strings, site.site, evidence, known, site.points))
    return grid


def _dump_grid(trend: Trend, labels: list[str]) -> Grid:
    grid = Grid(
        "dumps",
        "Dumps",
        (
            Column("taken (UTC)", "text"),
            Column("bytes in use", "bytes"),
            Column("blocks", "count"),
            Column("walked", "text"),
            Column("file", "name"),
        ),
    )
    for number, (label, snapshot) in enumerate(zip(labels, trend.snapshots, strict=True)):
        idle = trend.after_idle and number == len(labels) - 1
        grid.rows.append(
            [
                label,
                snapshot.totals.bytes,
                snapshot.totals.count,
                snapshot.coverage.shown_share,
                shown(snapshot.source.file) + " (after the load stopped)" * idle,
            ]
        )
    return grid


def _private_grid(deltas: tuple[SiteDelta, ...] | tuple[SiteTrend, ...]) -> Grid:
    grid = Grid(
        "private", "Private memory outside heaps", (*_DELTAS, Column("allocations", "name"))
    )
    grid.rows = [[*_delta_values(delta), shown(delta.site.name)] for delta in deltas]
    return grid


def _delta_values(delta: SiteDelta | SiteTrend) -> list[int]:
    return [
        delta.delta_bytes,
        delta.delta_count,
        delta.base.bytes,
        delta.current.bytes,
        delta.current.count,
    ]
