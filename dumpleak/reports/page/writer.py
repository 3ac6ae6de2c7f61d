"""Documents as pages: what the browser gets is plain data, computed here before any template sees it."""

from __future__ import annotations

from typing import IO, Any

from dumpleak.model.memory import MemoryByUse
from dumpleak.model.units import format_address
from dumpleak.reports import document as doc
from dumpleak.reports.document import (
    Absent,
    Change,
    Detail,
    Document,
    Kind,
    Name,
    Said,
    View,
    Width,
)
from dumpleak.reports.page.data import (
    MAX_FRAMES,
    ROW_NAME,
    STACK_LEVELS,
    Column,
    Fact,
    Grid,
    Page,
    Strings,
    meter,
    notes,
    shown,
    source_facts,
    tree_data,
)
from dumpleak.reports.page.page import write

# How the script writes values, and what it can rank.
_UNITS = {
    Kind.NAME: "name",
    Kind.BYTES: "bytes",
    Kind.COUNT: "count",
    Kind.SHARE: "share",
    Kind.TOTALS: "bytes",
    Kind.RATE: "rate",
    Kind.SERIES: "spark",
}


def write_page(document: Document, stream: IO[str]) -> None:
    """Writes one HTML file that needs nothing else; it has all rows, whatever a terminal shows."""
    write(page_of(document), stream)


def page_of(document: Document) -> Page:
    """What the page shows."""
    summary = document.summary or doc.Summary(doc.Tone.GOOD, document.title)
    page = Page(shown(document.title), summary, [], [], series=list(document.series))
    page.members = document.members
    for part in document.parts:
        match part:
            case doc.Table() if part.views & View.PAGE:
                page.grids.append(_grid(part, page.strings))
            case doc.Source():
                page.sources.append(source_facts(part.label, part.source))
            case doc.Facts() if part.views & View.PAGE:
                page.sources[-1] += [Fact(label, shown(text)) for label, text in part.rows]
            case doc.Meter() if part.views & View.PAGE:
                page.meters.append(meter(part.label, part.coverage))
            case doc.Notes():
                page.notes, page.notes_left_out = notes(part.diagnostics)
            case doc.MemoryMap():
                page.memory = _memory(part.dumps)
            case doc.Tree():
                page.tree = tree_data(
                    part.make(), page.strings, part.single, part.levels or STACK_LEVELS
                )
    return page


def _grid(table: doc.Table[Any], strings: Strings) -> Grid:
    columns = table.shown(View.PAGE)
    titles = [column.title for column in columns]
    grid = Grid(
        table.id,
        table.title,
        tuple(
            Column(column.title, _unit(column), column.hint, column.width is Width.WIDE)
            for column in columns
        ),
        note=table.note,
        chosen=titles.index(table.choose) if table.choose else -1,
    )
    for row in table.rows(View.PAGE):
        grid.rows.append(
            [_value(value, column) for value, column in zip(row, columns, strict=True)]
        )
        name = row[-1]
        if isinstance(name, Name) and name.id:
            grid.ids.append(name.id)
        if isinstance(name, Name) and name.detail is not None:
            grid.details.append(_detail(name.detail(), strings))
    return grid


def _unit(column: doc.Column) -> str:
    unit = _UNITS.get(column.kind, "text")
    return f"delta-{unit}" if column.signed and unit in ("bytes", "count") else unit


def _value(value: Any, column: doc.Column) -> Any:
    unit = _unit(column)
    if value is None or isinstance(value, Absent):
        return None if unit != "text" or value is None else value.value
    if isinstance(value, Name | Said):
        return shown(value.text, ROW_NAME)
    if isinstance(value, Change | doc.Share):
        return value.value
    match column.kind:
        case Kind.TIME:
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case Kind.ADDRESS:
            return format_address(value, column.digits // 2)
        case Kind.TOTALS:
            return value.bytes
        case Kind.FLAG:
            return "yes" if value else ""
        case Kind.RATE:
            return round(value)
        case Kind.SERIES | Kind.BYTES | Kind.COUNT:
            return value
    return shown(str(value))


def _detail(detail: Detail, strings: Strings) -> dict[str, Any]:
    """For the script; what is empty is left out."""
    made: dict[str, Any] = {}
    if len(detail.name) > ROW_NAME:
        made["name"] = strings.number(detail.name)
    if detail.frames:
        made["frames"] = [
            strings.number(f"{frame}  {line}" if line else frame)
            for frame, line in detail.frames[:MAX_FRAMES]
        ]
        if len(detail.frames) > MAX_FRAMES:
            made["more_frames"] = len(detail.frames) - MAX_FRAMES
    if detail.evidence:
        made["evidence"] = [shown(clause) for clause in detail.evidence]
    made |= {label: shown(text) for label, text in detail.facts}
    if detail.sizes:
        made["sizes"] = [[label, [list(pair) for pair in sizes]] for label, sizes in detail.sizes]
    if detail.exact:
        made["exact"] = True
    if detail.samples_of:
        made |= {"samples": list(detail.samples), "samples_of": detail.samples_of}
    if detail.points:
        made["points"] = [[point.bytes, point.count] for point in detail.points]
    return made


def _memory(dumps: Any) -> dict[str, Any]:
    """Committed memory by use in each dump; empty unless all of them know it."""
    known: list[tuple[str, MemoryByUse]] = [(label, memory) for label, memory in dumps if memory]
    if not known or len(known) < len(dumps):
        return {}
    uses = list(dict.fromkeys(row.use for _, memory in known for row in memory.rows))
    rows = [{row.use: row for row in memory.rows} for _, memory in known]
    return {
        "labels": [shown(label) for label, _ in known],
        "complete": all(memory.complete for _, memory in known),
        "uses": [use.replace("-", " ") for use in uses],
        "values": [[row[use].committed_bytes if use in row else 0 for use in uses] for row in rows],
        "present": [[row[use].present_bytes if use in row else 0 for use in uses] for row in rows],
    }
