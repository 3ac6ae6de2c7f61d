"""Tables for terminals: numbers never wrap, names get the room that is left and are cut in the middle.

A pipe has no width: names stay whole there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dumpleak.attribution.source import shortened
from dumpleak.compare.answers import Comparison, SiteDelta
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.model.coverage import ListCovered
from dumpleak.model.memory import UseRow
from dumpleak.model.populations import POPULATIONS
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import HeapRow, Snapshot
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes, format_count, format_share
from dumpleak.reports.names import cut_middle, visible

WIDE = 110  # columns from which a console shows what is good to have
CALLERS = 3  # frames shown under a site
MIN_NAME = 24  # columns for names, also where the numbers leave less
PADDING = 2
UNKNOWN = "–"  # in place of a number

_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = ".:-=+*#@"
# Share of all growth from which a site's growth is shown hotter.
_HEAT = ((0.25, "bold red"), (0.05, "red"), (0.0, "dark_orange"))


class Width(StrEnum):
    """On which consoles a column is shown."""

    ANY = "any"
    WIDE = "wide"
    NARROW = "narrow"


@dataclass(frozen=True)
class TextColumn:
    """One column.

    Attributes:
        title: Its head.
        left: Texts, not numbers.
        width: Where it is shown.
    """

    title: str
    left: bool = False
    width: Width = Width.ANY


Cell = str | Text
NameLines = list[Text]  # a name and, under it, more about it
# Columns, heading of the last one, and rows: what `print_table` takes.
CountTable = tuple[list[TextColumn], str, list[tuple[Sequence[Cell], NameLines]]]


def print_table(
    console: Console,
    columns: Sequence[TextColumn],
    heading: str,
    rows: Sequence[tuple[Sequence[Cell], NameLines]],
) -> None:
    """Prints a table with a last column of names.

    Args:
        console: Where to; its width decides what is shown, and whether names are cut.
        columns: All but the last.
        heading: Of the last.
        rows: A cell for each column, and the name with what else is known of it.
    """
    wide = console.width >= WIDE
    hidden = Width.NARROW if wide else Width.WIDE
    shown = [at for at, column in enumerate(columns) if column.width is not hidden]
    cells = [[_text(row[0][at]) for at in shown] for row in rows]
    widths = [
        max([cell_len(columns[at].title), *(row[number].cell_len for row in cells)])
        for number, at in enumerate(shown)
    ]
    before = sum(widths) + PADDING * len(widths)
    room = max(console.width - before, MIN_NAME) if console.is_terminal else None
    # Under a name there is room for more about it on wide consoles only; else it gets lines of its own.
    indent, more_room = before, room
    if not wide and room is not None:
        indent, more_room = 4, console.width - 4

    def line(values: Sequence[Text], name: Text) -> Text:
        made = Text()
        for at, width, value in zip(shown, widths, values, strict=True):
            space = " " * (width - value.cell_len)
            parts = (value, space) if columns[at].left else (space, value)
            made = Text.assemble(made, *parts, " " * PADDING)
        return made + name

    def write(text: Text) -> None:
        text.rstrip()
        console.print(text, soft_wrap=True)

    titles = [Text(columns[at].title, "bold") for at in shown]
    write(line(titles, Text(heading, "bold")))
    for values, (_, lines) in zip(cells, rows, strict=True):
        write(line(values, _cut(lines[0], room)))
        for more in lines[1:]:
            write(Text(" " * indent) + _cut(more, more_room))


def plain_table(*columns: str, left: set[str] | None = None) -> Table:
    """A table without frame; the last column holds names and is folded."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, PADDING, 0, 0))
    for column in columns:
        text = column == columns[-1] or column in (left or ())
        table.add_column(
            column,
            justify="left" if text else "right",
            no_wrap=column != columns[-1],
            overflow="fold",
        )
    return table


def memory_table(uses: Iterable[UseRow]) -> Table:
    """One row a use of memory."""
    table = plain_table("committed", "in the dump", "regions", "use")
    for row in uses:
        table.add_row(
            format_bytes(row.committed_bytes),
            format_bytes(row.present_bytes),
            format_count(row.regions),
            row.use.replace("-", " "),
        )
    return table


def print_heaps(console: Console, heaps: Iterable[HeapRow]) -> None:
    """One row a heap; why a heap was not read stands among the diagnostics."""
    columns = [
        TextColumn("heap", left=True),
        *(
            TextColumn(name)
            for name in ("address", "committed", "used", "blocks", "free", "overhead")
        ),
    ]
    rows: list[tuple[Sequence[Cell], NameLines]] = []
    for row in heaps:
        numbers = [
            UNKNOWN if value is None else form(value)
            for value, form in (
                (row.committed_bytes, format_bytes),
                (row.used_bytes, format_bytes),
                (row.used_count, format_count),
                (row.free_bytes, format_bytes),
                (row.overhead_bytes, format_bytes),
            )
        ]
        address = f"0x{row.address:x}" if row.address else UNKNOWN  # pools have none
        kind = f"{row.kind} {row.front_end}".strip()
        shown = Text(kind) if row.read else Text(f"{kind}: not read", "red")
        rows.append(((row.label, address, *numbers), [shown]))
    print_table(console, columns, "kind", rows)


def clean(text: str) -> Text:
    """Text of a dump, as plain text with what could move the cursor made visible."""
    return Text(visible(text))


def site_lines(site: Site, snapshot: Snapshot | None = None) -> NameLines:
    """A site's name and, under it, who called: the frames behind the one that names it; and who
    holds its blocks, where a snapshot knows that.
    """
    name = visible(site.name)
    if site.type is not None and site.kind in (SiteKind.STACK, SiteKind.SOURCE):
        name = f"{visible(site.type)} from {name}"
    lines = [name]
    if site.name in site.frames:
        own = site.frames.index(site.name)
        if site.lines and site.lines[own]:
            lines.append(f"  at {visible(shortened(site.lines[own]))}")
        callers = site.frames[own + 1 :][:CALLERS]
        if callers:
            lines.append("  from " + ", ".join(visible(frame) for frame in callers))
    holding = snapshot.held_by.get(site.key) if snapshot is not None else None
    lines += [f"  {visible(clause)}" for clause in (holding.evidence if holding else ())]
    return [Text(lines[0]), *(Text(line, "dim") for line in lines[1:])]


def members_told(snapshot: Snapshot) -> str:
    """How many members there are: "1 thread"."""
    count, name = snapshot.totals.count, POPULATIONS[snapshot.population].member
    return f"{count:,} {name if count == 1 else snapshot.members}"


def totals_text(totals: Totals) -> str:
    """Bytes and blocks."""
    return f"{format_bytes(totals.bytes)} in {format_count(totals.count)}"


def delta_text(delta_bytes: int, share: float) -> Text:
    """A change of bytes, hotter the larger its share of all growth."""
    return Text(format_bytes(delta_bytes, True), delta_style(delta_bytes, share))


def delta_style(delta: int, share: float) -> str:
    """The style of a change: hotter the larger its share (0 to 1) of all growth."""
    if delta <= 0:
        return "green" if delta else ""
    return next(style for least, style in _HEAT if share >= least)


def sparkline(values: Sequence[int], encoding: str) -> str:
    """A series as a line of bars, the largest value the highest; plain characters where the
    encoding has no bars.
    """
    bars = _BARS if encoding.lower().replace("-", "").startswith("utf") else _ASCII_BARS
    most = max([*values, 1])
    return "".join(bars[min(value * len(bars) // (most + 1), len(bars) - 1)] for value in values)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)


def _cut(line: Text, room: int | None) -> Text:
    """The line, at most `room` columns wide."""
    if room is None or line.cell_len <= room:
        return line
    width = room
    while cell_len(cut_middle(line.plain, width)) > room:  # characters that take two columns
        width -= 1
    return Text(cut_middle(line.plain, width), line.style)


def counted_groups(snapshot: Snapshot, groups: Sequence[tuple[Site, Totals]]) -> CountTable:
    """Columns, heading and rows of groups whose members are only counted."""
    total = snapshot.totals.count
    rows: list[tuple[Sequence[Cell], NameLines]] = [
        ((format_count(totals.count), format_share(totals.count, total)), [clean(site.name)])
        for site, totals in groups
    ]
    return [TextColumn(snapshot.population), TextColumn("share")], snapshot.grouping, rows


def counted_deltas(comparison: Comparison, deltas: Sequence[SiteDelta]) -> CountTable:
    """The same of what changed."""
    rows: list[tuple[Sequence[Cell], NameLines]] = [
        (
            (
                format_count(delta.delta_count, True),
                format_count(delta.base.count),
                format_count(delta.current.count),
            ),
            [clean(delta.site.name)],
        )
        for delta in deltas
    ]
    titles = (f"{comparison.base.population} +/-", "base", "current")
    return [TextColumn(title) for title in titles], comparison.base.grouping, rows


def dumps_of(trend: Trend) -> CountTable:
    """The same of the dumps of a series."""
    sized = trend.base.has_bytes
    walked = not any(isinstance(each.coverage, ListCovered) for each in trend.snapshots)
    rows: list[tuple[Sequence[Cell], NameLines]] = []
    for number, snapshot in enumerate(trend.snapshots):
        source, totals = snapshot.source, snapshot.totals
        idle = trend.after_idle and number == len(trend.snapshots) - 1
        when = f"{source.time:%Y-%m-%d %H:%M:%S}" if source.time else "unknown"
        count = format_count(totals.count)
        cells: tuple[Cell, ...] = when, count
        if sized:
            cells = when, format_bytes(totals.bytes), count
        if walked:
            cells = *cells, snapshot.coverage.share_text
        rows.append((cells, [clean(source.file + " (after the load stopped)" * idle)]))
    titles: tuple[str, ...] = "time (UTC)", trend.base.population
    if sized:
        told = "bytes" if trend.base.is_listed else "bytes in use"
        titles = "time (UTC)", told, trend.base.members
    if walked:
        titles = *titles, "walked"
    return [TextColumn(title) for title in titles], "dump", rows


def counted_trends(trend: Trend, sites: Sequence[SiteTrend]) -> CountTable:
    """The same of what changed over a series."""
    rows: list[tuple[Sequence[Cell], NameLines]] = [
        (
            (
                "" if site.count_per_hour is None else f"{site.count_per_hour:+.1f}",
                format_count(site.delta_count, True),
                " ".join(str(point.count) for point in site.points),
                str(site.shape),
                Text(site.confidence, "" if site.confidence == "growth" else "bold red"),
            ),
            [clean(site.site.name)],
        )
        for site in sites
    ]
    titles = (f"{trend.base.population}/hour", f"{trend.base.population} +/-")
    columns = [TextColumn(title) for title in titles]
    columns += [TextColumn(title, left=True) for title in ("counts", "shape", "verdict")]
    return columns, trend.base.grouping, rows
