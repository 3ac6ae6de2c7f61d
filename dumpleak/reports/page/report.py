"""One page that holds everything: no network, to look at or to mail.

The page's data are computed in `html_data`, the page is put together in `html_page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.info import Info
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes
from dumpleak.reports.answers.summary import (
    heading_of,
    summarize_comparison,
    summarize_info,
    summarize_trend,
)
from dumpleak.reports.page.data import (
    ROW_NAME,
    STACK_LEVELS,
    Column,
    Fact,
    Grid,
    Meter,
    Page,
    Strings,
    meter,
    notes,
    shown,
    site_detail,
    site_id,
    source_facts,
    tree_data,
)
from dumpleak.reports.page.grids import account_grid, heap_grid, memory_map, module_grid
from dumpleak.reports.page.page import write
from dumpleak.reports.profiles.stack_tree import build_tree, compared_pairs, root_name
from dumpleak.reports.rows import changed, holder_evidence, process_facts

_LISTED_LEVELS = "All on top, then each group."


def _delta_columns(members: str) -> tuple[Column, ...]:
    """What changed; `members` is what is counted."""
    return (
        Column("bytes +/-", "delta-bytes", "current minus base"),
        Column(f"{members} +/-", "delta-count", "current minus base"),
        Column("base", "bytes", minor=True),
        Column("current", "bytes"),
        Column(members, "count", "in the current dump", minor=True),
    )


class HtmlReport:
    """See `Report`; answers that are lists for scripts have no page."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def info(self, info: Info) -> None:
        """What a dump is, its memory and its heaps."""
        write(info_page(info), self._stream)

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Growth between two dumps; `top` is for lists, the page has all sites."""
        comparison = judged.answer
        write(diff_page(comparison), self._stream)

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Growth over three dumps and more; the page has all sites."""
        trend = judged.answer
        write(trend_page(trend), self._stream)


def info_page(info: Info) -> Page:
    """The page of `dumpleak info`."""
    program = info.source.program or info.source.file
    kind = "full memory" if info.full_memory else "partial memory"
    facts = [
        *source_facts("File", info.source),
        Fact("Memory", f"{format_bytes(info.memory_bytes)} in the file ({kind})"),
        *((Fact("Threads", str(info.thread_count)),) if info.thread_count else ()),
        *(Fact(label, shown(text)) for label, text in process_facts(info)),
        *(Fact("Comment", shown(comment)) for comment in info.comments),
    ]
    page = Page(shown(f"{program}: dump"), summarize_info(info), [facts], [])
    page.notes, page.notes_left_out = notes(info.diagnostics)
    page.memory = {
        "labels": [shown(program)],
        "complete": info.memory.complete,
        "uses": [row.use.replace("-", " ") for row in info.memory.rows],
        "values": [[row.committed_bytes for row in info.memory.rows]],
        "present": [[row.present_bytes for row in info.memory.rows]],
    }
    if info.heaps:
        page.meters.append(meter("Heap memory walked", info.coverage))
        page.grids.append(heap_grid(info.heaps))
    page.grids.append(module_grid("Modules", info.modules, info.unloaded_modules))
    return page


def diff_page(comparison: Comparison) -> Page:
    """The page of `dumpleak diff`."""
    base, current = comparison.base, comparison.current
    program = current.source.program or base.source.program or "two dumps"
    page = Page(
        shown(f"{program}: growth between two dumps"),
        summarize_comparison(comparison),
        [source_facts("Base", base.source), source_facts("Current", current.source)],
        _meters(("Base", "Current"), (base, current)),
        members=base.members,
    )
    page.notes, page.notes_left_out = notes(comparison.diagnostics)
    page.memory = memory_map([("base", base), ("current", current)])
    if comparison.refused:
        return page
    growth = sum(delta.delta_bytes for delta in comparison.sites if delta.delta_bytes > 0)
    grid = Grid(
        "sites",
        _changed(base),
        (
            Column("rank", "count", minor=True),
            *_delta_columns(base.members),
            Column("of growth", "share", f"of the bytes of all {base.noun}s that grew", minor=True),
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
    page.tree = _tree(comparison, page.strings)
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
        _meters(
            [f"Dump {number}" for number, _ in enumerate(trend.snapshots, start=1)],
            trend.snapshots,
        ),
        series=labels,
        members=base.members,
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
    page.tree = _tree(trend, page.strings)
    return page


def _meters(names: Sequence[str], snapshots: Sequence[Snapshot]) -> list[Meter]:
    """How much of each dump the answer rests on; what is listed was not walked."""
    return [
        meter(name if snapshot.is_listed else f"{name} walked", snapshot.coverage)
        for name, snapshot in zip(names, snapshots, strict=True)
    ]


def _tree(answer: Comparison | Trend, strings: Strings) -> dict[str, Any]:
    root = build_tree(compared_pairs(answer), root_name(answer.base))
    return tree_data(
        root, strings, levels=_LISTED_LEVELS if answer.base.is_listed else STACK_LEVELS
    )


def _changed(base: Snapshot) -> str:
    grouping = heading_of(base)
    if base.is_listed:
        return f"{base.members.capitalize()} by {base.noun} that changed"
    if grouping in ("site", "tag"):
        return f"{grouping.capitalize()}s that changed"
    return f"Blocks by {grouping} that changed"


def _trend_grid(page: Page, trend: Trend, labels: list[str]) -> Grid:
    grid = Grid(
        "sites",
        _changed(trend.base),
        (
            Column("rank", "count", minor=True),
            Column("verdict", "text"),
            Column("bytes/hour", "rate", "robust rate under load"),
            *_delta_columns(trend.base.members)[:2],
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
    listed = trend.base.is_listed
    grid = Grid(
        "dumps",
        "Dumps",
        (
            Column("taken (UTC)", "text"),
            Column("bytes" if listed else "bytes in use", "bytes"),
            Column(trend.base.members, "count"),
            *(() if listed else (Column("walked", "text"),)),
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
                *(() if listed else (snapshot.coverage.shown_share,)),
                shown(snapshot.source.file) + " (after the load stopped)" * idle,
            ]
        )
    return grid


def _private_grid(deltas: tuple[SiteDelta, ...] | tuple[SiteTrend, ...]) -> Grid:
    grid = Grid(
        "private",
        "Private memory outside heaps",
        (*_delta_columns("blocks"), Column("allocations", "name")),
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
