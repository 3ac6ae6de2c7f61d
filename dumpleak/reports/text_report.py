"""Text for people: the verdict first, then the table, then what was left out.

Names come from the dump and are hostile: they are shown as plain text, control characters made
visible.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dumpleak.comparison import Comparison, SiteDelta, Verdict
from dumpleak.info import Info
from dumpleak.reports.base import BLOCK_COLUMNS, BlockPage
from dumpleak.reports.rows import block_rows, ranked_groups
from dumpleak.sites import Site
from dumpleak.snapshot import Coverage, HeapRow, Snapshot, SourceInfo
from dumpleak.totals import Totals
from dumpleak.units import format_address, format_bytes, format_count
from windumps.diagnostics import Diagnostic, Severity
from windumps.windows.modules import Module

DEFAULT_TOP = 20
PIPE_WIDTH = 140  # a pipe has no width; wide enough that names stay whole
MAX_DIAGNOSTICS = 8
CALLERS = 3  # frames shown under a site

_STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.ERROR: "red"}


class TextReport:
    """See `Report`."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = Console(file=stream, highlight=False, emoji=False, markup=False)
        if not self._console.is_terminal:
            self._console = Console(
                file=stream, highlight=False, emoji=False, markup=False, width=PIPE_WIDTH
            )

    def info(self, info: Info) -> None:
        """Description, memory by use, heaps, verdict on usability."""
        self._source("File", info.source)
        self._facts(
            [
                ("Memory in file", _memory_line(info)),
                ("Threads", str(info.thread_count)),
                ("Modules", f"{len(info.modules)} loaded, {len(info.unloaded_modules)} unloaded"),
                *(("Comment", comment) for comment in info.comments),
            ]
        )
        if info.memory.rows:
            self._memory(info)
        if info.heaps:
            self._heap_table(info.heaps)
            self._coverage("Heap memory walked", info.coverage)
        self._diagnostics(info.diagnostics)
        style = "green" if info.usable else "red"
        self._line(f"Good enough to look for leaks? {info.advice}", style if info.usable else "red")

    def heaps(self, snapshot: Snapshot) -> None:
        """One row a heap."""
        self._source("File", snapshot.source)
        self._heap_table(snapshot.heaps)
        self._coverage("Heap memory walked", snapshot.coverage)
        self._diagnostics(snapshot.diagnostics)

    def modules(self, file: str, modules: list[Module], unloaded: list[Module]) -> None:
        """One row a module."""
        table = _table("base", "size", "name", "version", "PDB", "GUID and age")
        for state, group in (("", modules), (" (unloaded)", unloaded)):
            for module in group:
                table.add_row(
                    format_address(module.base_address),
                    format_bytes(module.size_bytes),
                    _clean(module.name + state),
                    _clean(module.version),
                    _clean(module.pdb.name if module.pdb else ""),
                    module.pdb.key if module.pdb else "",
                )
        self._console.print(table)

    def allocations(self, pages: Iterable[BlockPage], top: int | None) -> None:
        """One row a block, tab-separated: there may be millions, so no table that needs them all
        first.
        """
        self._console.file.write("\t".join(BLOCK_COLUMNS) + "\n")
        for row in block_rows(pages, top):
            self._console.file.write("\t".join(_clean(str(value)).plain for value in row) + "\n")

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Grouped totals."""
        self._source("File", snapshot.source)
        limit = DEFAULT_TOP if top is None else top
        groups = ranked_groups(snapshot)
        table = _table("bytes", "blocks", "largest", "share", snapshot.grouping)
        total = snapshot.totals.bytes
        for site, totals in groups[:limit]:
            table.add_row(
                format_bytes(totals.bytes),
                format_count(totals.count),
                format_bytes(totals.largest),
                f"{totals.bytes / total:.1%}" if total else "",
                _site(site),
            )
        self._console.print(table)
        self._left_out(len(groups) - limit, "group")
        self._line(f"Total: {_totals(snapshot.totals)} in use by the program")
        self._coverage("Heap memory walked", snapshot.coverage)
        self._diagnostics(snapshot.diagnostics)

    def diff(self, comparison: Comparison, top: int | None) -> None:
        """The verdict, the sites, the coverage of both sides."""
        self._source("Base", comparison.base.source)
        self._source("Current", comparison.current.source)
        if comparison.verdict is Verdict.NOT_COMPARABLE:
            self._line("Not comparable:", "red")
            for reason in comparison.reasons:
                self._line(f"  {reason}", "red")
            self._line("Compare all the same with --force.")
        else:
            for reason in comparison.reasons:
                self._line(f"Compared by force although {reason}", "yellow")
            self._growth(comparison, DEFAULT_TOP if top is None else top)
        self._coverage("Base: heap memory walked", comparison.base.coverage)
        self._coverage("Current: heap memory walked", comparison.current.coverage)
        self._diagnostics(comparison.diagnostics)

    # -- parts -------------------------------------------------------------------------------------------

    def _growth(self, comparison: Comparison, limit: int) -> None:
        grown = [delta for delta in comparison.sites if delta.delta_bytes > 0]
        elapsed = _elapsed(comparison)
        change = (
            f"{format_bytes(comparison.delta_bytes, True)} and "
            f"{format_count(comparison.delta_count, True)} blocks in all"
        )
        if not comparison.sites:
            self._line("No site changed.", "green")
        elif grown:
            self._line(
                f"{len(grown)} site{'s' * (len(grown) != 1)} grew{elapsed}; {change}.", "bold"
            )
        else:
            self._line(f"No site grew{elapsed}; {change}.", "green")
        self._deltas(comparison.sites, comparison.base.grouping, limit, "changed site")
        if comparison.private:
            self._line("Private memory outside heaps:", "bold")
            self._deltas(comparison.private, "allocations", limit, "changed size")
        self._line(
            f"Base: {_totals(comparison.base_totals)}; current: {_totals(comparison.current_totals)}. "
            "Growth alone is not a leak: look at what still grows in a third dump."
        )

    def _deltas(self, deltas: tuple[SiteDelta, ...], heading: str, limit: int, noun: str) -> None:
        if not deltas:
            return
        table = _table("bytes +/-", "blocks +/-", "base", "current", "of growth", heading)
        growth = sum(delta.delta_bytes for delta in deltas if delta.delta_bytes > 0)
        for delta in deltas[:limit]:
            table.add_row(
                Text(
                    format_bytes(delta.delta_bytes, True),
                    "red" if delta.delta_bytes > 0 else "green",
                ),
                format_count(delta.delta_count, True),
                _totals(delta.base),
                _totals(delta.current),
                f"{delta.delta_bytes / growth:.1%}" if delta.delta_bytes > 0 else "",
                _site(delta.site),
            )
        self._console.print(table)
        self._left_out(len(deltas) - limit, noun)

    def _source(self, label: str, source: SourceInfo) -> None:
        when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
        process = source.program or "unknown program"
        if source.process_id is not None:
            process += f" (pid {source.process_id})"
        self._line(f"{label}: {source.file}", "bold")
        self._line(f"  {source.kind}, {source.machine or 'unknown system'}, {process}, {when}")

    def _facts(self, facts: list[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            self._line(f"  {name:<{width}}  {value}")

    def _memory(self, info: Info) -> None:
        table = _table("committed", "in the dump", "regions", "use")
        for row in info.memory.rows:
            table.add_row(
                format_bytes(row.committed_bytes),
                format_bytes(row.present_bytes),
                format_count(row.regions),
                row.use.replace("-", " "),
            )
        self._console.print(table)
        if not info.memory.complete:
            self._line(
                "  The dump does not list the process's memory regions; this is what the file holds.",
                "yellow",
            )

    def _heap_table(self, heaps: Iterable[HeapRow]) -> None:
        """One row a heap; why a heap was not read stands among the diagnostics."""
        table = _table(
            *("heap", "address", "committed", "used", "blocks", "free", "overhead", "kind"),
            left={"heap"},
        )
        for row in heaps:
            numbers = ["", "", "", "", ""]
            if row.read:
                numbers = [
                    format_bytes(row.committed_bytes or 0),
                    format_bytes(row.used_bytes or 0),
                    format_count(row.used_count or 0),
                    format_bytes(row.free_bytes or 0),
                    format_bytes(row.overhead_bytes or 0),
                ]
            kind = f"{row.kind} {row.front_end}".strip()
            shown = Text(kind) if row.read else Text(f"{kind}: not read", "red")
            table.add_row(row.label, f"0x{row.address:x}", *numbers, shown)
        self._console.print(table)

    def _coverage(self, label: str, coverage: Coverage) -> None:
        complete = coverage.walked_bytes == coverage.committed_bytes
        complete &= coverage.heaps_read == coverage.heaps_listed
        self._line(
            f"{label}: {format_bytes(coverage.walked_bytes)} of {format_bytes(coverage.committed_bytes)} "
            f"committed ({coverage.walked_share:.1%}), "
            f"{coverage.heaps_read} of {coverage.heaps_listed} heaps",
            "" if complete else "yellow",
        )

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
        self._console.print(Text(_clean(text).plain, style), soft_wrap=True)


def _table(*columns: str, left: set[str] | None = None) -> Table:
    """A table without frame; the last column holds names and is cut last."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        text = column == columns[-1] or column in (left or ())
        table.add_column(
            column,
            justify="left" if text else "right",
            no_wrap=column != columns[-1],
            overflow="fold",
        )
    return table


def _clean(text: str) -> Text:
    """Text with control and direction characters shown as escapes, so that a name cannot move the
    cursor.
    """
    return Text("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text))


def _site(site: Site) -> Text:
    """A site's name and, under it, who called: the frames behind the one that names it."""
    text = _clean(site.name)
    if site.name in site.frames:
        callers = site.frames[site.frames.index(site.name) + 1 :][:CALLERS]
        if callers:
            text.append("\n  from " + ", ".join(_clean(frame).plain for frame in callers), "dim")
    return text


def _totals(totals: Totals) -> str:
    return f"{format_bytes(totals.bytes)} in {format_count(totals.count)}"


def _memory_line(info: Info) -> str:
    kind = "full memory" if info.full_memory else "partial memory"
    return f"{format_bytes(info.memory_bytes)} ({kind})"


def _elapsed(comparison: Comparison) -> str:
    """The text " in 1 h 5 min", or "" when the times are unknown or the wrong way round."""
    before, after = comparison.base.source.time, comparison.current.source.time
    if before is None or after is None or after <= before:
        return ""
    minutes = (after - before).total_seconds() / 60
    hours = int(minutes // 60)
    return f" in {hours} h {minutes % 60:.0f} min" if hours else f" in {minutes:.0f} min"
