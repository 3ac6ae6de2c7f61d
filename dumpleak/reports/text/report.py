"""Text for people: the verdict first, then the tables, then what was left out.

Names come from the dump and are hostile: they are shown as plain text, control characters made
visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.account import AccountRow
from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.model.populations import BLOCKS, POOL
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes, format_count, format_share
from dumpleak.reports.answers.next_steps import better_dump_steps
from dumpleak.reports.answers.summary import (
    heading_of,
    noun_of,
    summarize_comparison,
    summarize_trend,
)
from dumpleak.reports.document import DEFAULT_TOP, Width
from dumpleak.reports.names import visible
from dumpleak.reports.rows import block_rows, changed, ranked_groups
from dumpleak.reports.text.cells import sparkline
from dumpleak.reports.text.tables import (
    TextColumn,
    clean,
    counted_deltas,
    counted_groups,
    counted_trends,
    delta_text,
    dumps_of,
    print_table,
    site_lines,
    totals_text,
)
from dumpleak.reports.text.writer import TextWriter


class TextReport(TextWriter):
    """See `Report`."""

    def allocations(self, pages: Iterable[BlockPage], top: int | None) -> None:
        """One row a block, tab-separated: there may be millions, so no table that needs them all
        first.
        """
        self._console.file.write("\t".join(BLOCK_COLUMNS) + "\n")
        for row in block_rows(pages, top):
            self._console.file.write("\t".join(visible(str(value)) for value in row) + "\n")

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Grouped totals."""
        self._source("File", snapshot.source)
        limit = DEFAULT_TOP if top is None else top
        groups = ranked_groups(snapshot)
        if not snapshot.has_bytes:
            print_table(self._console, *counted_groups(snapshot, groups[:limit]))
            self._left_out(len(groups) - limit, "group")
            self._line(f"Total: {snapshot.totals.count:,} {snapshot.population}")
            self._diagnostics(snapshot.diagnostics)
            return
        total = snapshot.totals.bytes
        rows = [
            (
                (
                    format_bytes(totals.bytes),
                    format_count(totals.count),
                    format_bytes(totals.largest),
                    format_share(totals.bytes, total) if total else "",
                ),
                site_lines(site, snapshot),
            )
            for site, totals in groups[:limit]
        ]
        columns = [TextColumn(title) for title in ("bytes", snapshot.members, "largest", "share")]
        print_table(self._console, columns, heading_of(snapshot), rows)
        self._left_out(len(groups) - limit, "group")
        of = "in use by the program" if snapshot.population in (BLOCKS, POOL) else snapshot.members
        self._line(f"Total: {totals_text(snapshot.totals)} {of}")
        self._coverage("Heap memory walked", snapshot.coverage)
        self._better_dump(snapshot)
        self._diagnostics(snapshot.diagnostics)

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """The verdict, the sites, the coverage of both sides."""
        comparison = judged.answer
        self.summary(summarize_comparison(comparison))
        if not comparison.refused:
            self._growth(comparison, DEFAULT_TOP if top is None else top)
        self._source("Base", comparison.base.source)
        self._source("Current", comparison.current.source)
        self._coverage("Base: heap memory walked", comparison.base.coverage)
        self._coverage("Current: heap memory walked", comparison.current.coverage)
        self._diagnostics(comparison.diagnostics)

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """The verdict, the sites, the dumps."""
        trend = judged.answer
        self.summary(summarize_trend(trend))
        if not trend.refused:
            self._trends(trend, DEFAULT_TOP if top is None else top)
        print_table(self._console, *dumps_of(trend))
        self._diagnostics(trend.diagnostics)

    def _growth(self, comparison: Comparison, limit: int) -> None:
        noun = f"changed {noun_of(comparison.base)}"
        self._deltas(comparison, comparison.sites, heading_of(comparison.base), limit, noun)
        if comparison.private:
            self._line("Private memory outside heaps:", "bold")
            self._deltas(comparison, comparison.private, "allocations", limit, "changed size")
        self._whole_process(comparison.account)
        if not comparison.base.has_bytes:
            return
        self._line(
            f"Base: {totals_text(comparison.base_totals)}; "
            f"current: {totals_text(comparison.current_totals)}."
        )

    def _deltas(
        self,
        comparison: Comparison,
        deltas: tuple[SiteDelta, ...],
        heading: str,
        limit: int,
        noun: str,
    ) -> None:
        if not deltas:
            return
        if not comparison.base.has_bytes:
            print_table(self._console, *counted_deltas(comparison, deltas[:limit]))
            self._left_out(len(deltas) - limit, noun)
            return
        columns = (
            TextColumn("bytes +/-"),
            TextColumn(f"{comparison.base.members} +/-"),
            TextColumn("base", width=Width.WIDE),
            TextColumn("current", width=Width.WIDE),
            TextColumn("current", width=Width.NARROW),
            TextColumn("of growth"),
        )
        growth = sum(delta.delta_bytes for delta in deltas if delta.delta_bytes > 0)
        rows = []
        for delta in deltas[:limit]:
            share = delta.delta_bytes / growth if delta.delta_bytes > 0 else 0.0
            cells = (
                delta_text(delta.delta_bytes, share),
                format_count(delta.delta_count, True),
                totals_text(delta.base),
                totals_text(delta.current),
                format_bytes(delta.current.bytes),
                format_share(delta.delta_bytes, growth) if share else "",
            )
            notes = [Text(f"  {visible(note)}", "dim") for note in delta.notes]
            rows.append((cells, [*site_lines(delta.site, comparison.current), *notes]))
        print_table(self._console, columns, heading, rows)
        self._left_out(len(deltas) - limit, noun)

    def _trends(self, trend: Trend, limit: int) -> None:
        noun = f"changed {noun_of(trend.base)}"
        self._trend_table(trend.sites, trend, heading_of(trend.base), limit, noun)
        if trend.private:
            self._line("Private memory outside heaps:", "bold")
            self._trend_table(trend.private, trend, "allocations", limit, "changed size")
        self._whole_process(trend.account)

    def _whole_process(self, rows: Sequence[AccountRow]) -> None:
        """What changed of the process as a whole."""
        shown = changed(rows)
        if not shown:
            return
        columns = (
            TextColumn("+/-"),
            TextColumn("base"),
            TextColumn("current"),
            TextColumn("state", left=True),
        )
        cells = [
            (
                (
                    row.told(row.delta, True),
                    row.told(row.base),
                    row.told(row.current),
                    row.told_state,
                ),
                [clean(row.kind.label)],
            )
            for row in shown
        ]
        print_table(self._console, columns, "the process as a whole", cells)

    def _trend_table(
        self, sites: Sequence[SiteTrend], trend: Trend, heading: str, limit: int, noun: str
    ) -> None:
        if not sites:
            return
        if not trend.base.has_bytes:
            print_table(self._console, *counted_trends(trend, sites[:limit]))
            self._left_out(len(sites) - limit, noun)
            return
        columns = (
            TextColumn("bytes/hour"),
            TextColumn(f"{trend.base.members}/hour", width=Width.WIDE),
            TextColumn("bytes +/-"),
            TextColumn("bytes", left=True),
            TextColumn(trend.base.members, width=Width.WIDE),
            TextColumn("shape", left=True),
            TextColumn("verdict", left=True),
        )
        growth = sum(site.delta_bytes for site in sites if site.delta_bytes > 0)
        rows = []
        for site in sites[:limit]:
            rates = site.bytes_per_hour, site.count_per_hour
            share = site.delta_bytes / growth if site.delta_bytes > 0 else 0.0
            cells = (
                "" if rates[0] is None else format_bytes(round(rates[0]), True),
                "" if rates[1] is None else f"{rates[1]:+.1f}",
                delta_text(site.delta_bytes, share),
                sparkline([point.bytes for point in site.points], self._console.encoding),
                " ".join(str(point.count) for point in site.points),
                str(site.shape),
                Text(site.confidence, "" if site.confidence == "growth" else "bold red"),
            )
            rows.append((cells, site_lines(site.site, trend.current)))
        print_table(self._console, columns, heading, rows)
        self._left_out(len(sites) - limit, noun)

    def _better_dump(self, snapshot: Snapshot) -> None:
        """How to get what is missing, where something is."""
        if snapshot.coverage.shortfall:
            for step in better_dump_steps(snapshot.source):
                self._line(f"{step.text} {step.command}".rstrip())
