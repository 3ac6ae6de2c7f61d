"""Text for people: the verdict first, then the tables, then what was left out.

Names come from the dump and are hostile: they are shown as plain text, control characters made
visible.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import IO

from rich.text import Text

from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.account import AccountRow
from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.info import Info
from dumpleak.model.populations import BLOCKS, POOL
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_address, format_bytes, format_count, format_share
from dumpleak.reports.answers.next_steps import better_dump_steps
from dumpleak.reports.answers.summary import (
    Summary,
    Tone,
    heading_of,
    noun_of,
    summarize_comparison,
    summarize_info,
    summarize_trend,
)
from dumpleak.reports.names import visible
from dumpleak.reports.rows import block_rows, changed, process_facts, ranked_groups, whole_of
from dumpleak.reports.text.consoles import ReportConsole
from dumpleak.reports.text.tables import (
    WIDE,
    TextColumn,
    Width,
    clean,
    counted_deltas,
    counted_groups,
    counted_trends,
    delta_text,
    dumps_of,
    memory_table,
    print_heaps,
    print_table,
    site_lines,
    sparkline,
    totals_text,
)
from windumps.diagnostics import Diagnostic, Severity
from windumps.images.modules import Module

DEFAULT_TOP = 20
PIPE_WIDTH = 140  # a pipe has no width; wide enough that names stay whole
MAX_DIAGNOSTICS = 8
LABEL = 13  # columns of the summary's labels

_STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.ERROR: "red"}
_TONES = {
    Tone.GOOD: "bold green",
    Tone.NOTICE: "bold yellow",
    Tone.BAD: "bold red",
    Tone.CANNOT_TELL: "bold red",
}


class TextReport:
    """See `Report`."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = ReportConsole(file=stream, highlight=False, emoji=False, markup=False)
        if not self._console.is_terminal:
            self._console = ReportConsole(
                file=stream, highlight=False, emoji=False, markup=False, width=PIPE_WIDTH
            )

    def info(self, info: Info) -> None:
        """Verdict on usability, description, memory by use, heaps."""
        self._summary(summarize_info(info))
        self._source("File", info.source)
        self._facts(
            [
                ("Memory in file", _memory_line(info)),
                *((("Threads", str(info.thread_count)),) if info.thread_count else ()),
                *process_facts(info),
                ("Modules", f"{len(info.modules)} loaded, {len(info.unloaded_modules)} unloaded"),
                *(("Comment", comment) for comment in info.comments),
            ]
        )
        if info.memory.rows:
            self._memory(info)
        if info.heaps:
            print_heaps(self._console, info.heaps)
            self._coverage("Heap memory walked", info.coverage)
        self._diagnostics(info.diagnostics)

    def heaps(self, snapshot: Snapshot) -> None:
        """One row a heap."""
        self._source("File", snapshot.source)
        print_heaps(self._console, snapshot.heaps)
        self._coverage("Heap memory walked", snapshot.coverage)
        self._better_dump(snapshot)
        self._diagnostics(snapshot.diagnostics)

    def modules(self, file: str, modules: list[Module], unloaded: list[Module]) -> None:
        """One row a module."""
        columns = (
            TextColumn("base"),
            TextColumn("size"),
            TextColumn("version", left=True),
            TextColumn("PDB", left=True, width=Width.WIDE),
            TextColumn("GUID and age", left=True, width=Width.WIDE),
        )
        rows = [
            (
                (
                    format_address(module.base_address),
                    format_bytes(module.size_bytes),
                    clean(module.version),
                    clean(module.pdb.name if module.pdb else ""),
                    module.pdb.key if module.pdb else "",
                ),
                [clean(module.name + state)],
            )
            for state, group in (("", modules), (" (unloaded)", unloaded))
            for module in group
        ]
        print_table(self._console, columns, "name", rows)
        if self._console.width < WIDE:
            self._line("PDB names and GUIDs are shown on wider terminals, and by --format json.")

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
        self._summary(summarize_comparison(comparison))
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
        self._summary(summarize_trend(trend))
        if not trend.refused:
            self._trends(trend, DEFAULT_TOP if top is None else top)
        print_table(self._console, *dumps_of(trend))
        self._diagnostics(trend.diagnostics)

    # -- parts -------------------------------------------------------------------------------------------

    def _summary(self, summary: Summary) -> None:
        """The first screen: headline, facts, what next."""
        self._line(summary.headline, _TONES[summary.tone])
        for label, text in summary.facts:
            self._fact(label, text)
        for number, step in enumerate(summary.steps):
            self._fact("" if number else "What next", step.text)
            if step.command:
                # Whole, so that it can be copied.
                command = Text(f"{'':{LABEL + 2}}{visible(step.command)}", "bold")
                self._console.print(command, soft_wrap=True)
        self._console.print()

    def _fact(self, label: str, text: str) -> None:
        """A label and its text, wrapped beside it."""
        room = max(self._console.width - LABEL - 2, 30)
        lines = textwrap.wrap(visible(text), room, break_on_hyphens=False) or [""]
        for number, line in enumerate(lines):
            self._console.print(
                Text.assemble((f"  {'' if number else visible(label):<{LABEL}}", "dim"), line),
                soft_wrap=True,
            )

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
        """What changed of the process, or the system, as a whole."""
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
        print_table(self._console, columns, f"the {whole_of(rows)} as a whole", cells)

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

    def _source(self, label: str, source: SourceInfo) -> None:
        when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
        facts = [source.kind, source.machine or "unknown system"]
        if source.subject is not Subject.SYSTEM:
            pid = f" (pid {source.process_id})" if source.process_id is not None else ""
            facts.append((source.program or "unknown program") + pid)
        self._line(f"{label}: {source.file}", "bold")
        self._line(f"  {', '.join([*facts, when])}")

    def _facts(self, facts: list[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            self._line(f"  {name:<{width}}  {value}")

    def _memory(self, info: Info) -> None:
        self._console.print(memory_table(info.memory.rows))
        if not info.memory.complete:
            self._line(
                "  The dump does not list the process's memory regions; this is what the file holds.",
                "yellow",
            )

    def _coverage(self, label: str, coverage: Coverage) -> None:
        if isinstance(coverage, ListCovered):
            if coverage.never and ": " not in label:  # of a comparison the summary says it
                self._line(coverage.never.capitalize(), "yellow")
            return
        label = label.replace(Coverage.memory, coverage.memory)
        label = label.replace(Coverage.memory.capitalize(), coverage.memory.capitalize())
        if coverage.never:
            self._line(f"{label}: {coverage.share_text}; {coverage.never}", "yellow")
            return
        if coverage.shown_share is None:
            whose = label.partition(": ")[0] if ": " in label else "Coverage"
            self._line(f"{whose}: {coverage.told()}", "yellow")
            return
        self._line(
            f"{label}: {coverage.amounts} ({coverage.share_text}), {coverage.heaps_text}",
            "" if coverage.is_complete else "yellow",
        )

    def _better_dump(self, snapshot: Snapshot) -> None:
        """How to get what is missing, where something is."""
        if snapshot.coverage.shortfall:
            for step in better_dump_steps(snapshot.source):
                self._line(f"{step.text} {step.command}".rstrip())

    def _diagnostics(self, diagnostics: Iterable[Diagnostic]) -> None:
        serious = [item for item in diagnostics if item.severity is not Severity.INFO]
        for item in serious[:MAX_DIAGNOSTICS]:
            place = "" if item.address is None else f" at {format_address(item.address)}"
            lost = f" ({format_bytes(item.bytes_affected)})" if item.bytes_affected else ""
            self._line(
                f"{item.severity}: {item.message} [{item.structure}{place}]{lost}",
                _STYLES[item.severity],
            )
        more = len(serious) - MAX_DIAGNOSTICS
        if more > 0:
            self._line(f"… and {more} more; --format json has all of them.")

    def _left_out(self, count: int, noun: str) -> None:
        if count > 0:
            self._line(
                f"… and {count} more {noun}{'s' * (count != 1)}; --top {{N}} shows more.".format(
                    N="N"
                )
            )

    def _line(self, text: str, style: str = "") -> None:
        """Text, wrapped at words on a terminal and in one line in a pipe."""
        shown = visible(text)
        lines = [shown]
        if self._console.is_terminal and len(shown) > self._console.width:
            indent = " " * (len(shown) - len(shown.lstrip()) + 2)
            lines = textwrap.wrap(
                shown,
                self._console.width,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        for line in lines:
            self._console.print(Text(line, style), soft_wrap=True)


def _memory_line(info: Info) -> str:
    kind = "full memory" if info.full_memory else "partial memory"
    return f"{format_bytes(info.memory_bytes)} ({kind})"
