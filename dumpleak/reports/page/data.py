"""What a page shows of a document: plain data, computed before any template sees it.

Names are cut and their control characters made visible here, once; the template and the script only ever
insert them as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.memory import MemoryByUse
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_address
from dumpleak.reports import document as doc
from dumpleak.reports.document import Column, Document, Kind, View, Width
from dumpleak.reports.names import cut_middle, visible
from dumpleak.reports.profiles.stack_tree import prune
from dumpleak.reports.sentences import note_told, process_told
from dumpleak.reports.values import Absent, Change, Detail, Name, Said, Share
from windumps.diagnostics import Diagnostic, Severity

MAX_NAME = 400  # characters of one name; ten thousand long ones would make the page too large
MAX_TEXT = 4 * MAX_NAME  # of a sentence, which has several names
ROW_NAME = 140  # of a name in its row; the whole is among the row's details
MAX_FRAMES = 64
MAX_NODES = 2500  # of the flame graph; more cannot be told apart and draw slowly
MAX_NOTES = 200
STACK_LEVELS = "Outermost callers on top; sites without a stack by kind and name."

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
_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)

Facts = list[tuple[str, str]]  # (label, what it says)


class Grid:
    """A table that the page sorts and filters.

    Attributes:
        table: The document's.
        columns: Those that pages show.
        rows: One value for each column.
        details: What a row opens to, row by row; empty where rows do not open.
        ids: Names of rows for links, row by row; empty where there are none.
    """

    def __init__(self, table: doc.Table[Any], strings: Strings) -> None:
        self.table = table
        self.columns = table.shown(View.PAGE)
        self.rows: list[list[Any]] = []
        self.details: list[dict[str, Any]] = []
        self.ids: list[str] = []
        for row in table.rows(View.PAGE):
            self.rows.append(
                [_value(value, column) for value, column in zip(row, self.columns, strict=True)]
            )
            name = row[-1]
            if isinstance(name, Name) and name.id:
                self.ids.append(name.id)
            if isinstance(name, Name) and name.detail is not None:
                self.details.append(_detail(name.detail(), strings))

    def data(self) -> dict[str, Any]:
        """For the script."""
        titles = [column.title for column in self.columns]
        return {
            "id": self.table.id,
            "title": self.table.title,
            "note": self.table.note,
            "chosen": titles.index(self.table.choose) if self.table.choose else -1,
            "columns": [
                {
                    "title": column.title,
                    "unit": unit_of(column),
                    "hint": column.hint,
                    "minor": column.width is Width.WIDE,
                }
                for column in self.columns
            ],
            "rows": self.rows,
            "ids": self.ids,
        }


class Gauge(NamedTuple):
    """A share of memory that was walked.

    Attributes:
        label: Of which dump.
        share: 0 to 1; None where it is not known.
        text: The share as it is said, and the numbers.
        complete: Nothing is missing.
    """

    label: str
    share: float | None
    text: str
    complete: bool


class Strings:
    """Texts that many rows share, by number."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """The number of a name, which is cut and cleaned."""
        known = self._numbers.get(text)
        if known is None:
            known = self._numbers[text] = len(self.texts)
            self.texts.append(shown(text))
        return known


@dataclass
class Page:
    """One page.

    Attributes:
        document: What it shows.
        summary: The first screen.
        sources: One list of facts for each dump.
        gauges: Coverage of each dump.
        notes: Diagnostics as (severity, text), errors first.
        notes_left_out: How many more there are.
        grids: Tables, in order; the first is the main one.
        memory: Memory by use: {"labels", "uses", "values"}; empty where unknown.
        tree: The flame graph; empty where there is none.
        strings: Texts that rows and the flame graph share.
    """

    document: Document
    summary: doc.Summary
    sources: list[Facts] = field(default_factory=list)
    gauges: list[Gauge] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    notes_left_out: int = 0
    grids: list[Grid] = field(default_factory=list)
    memory: dict[str, Any] = field(default_factory=dict)
    tree: dict[str, Any] = field(default_factory=dict)
    strings: Strings = field(default_factory=Strings)

    @property
    def title(self) -> str:
        """Of the window."""
        return shown(self.document.title)

    @property
    def headline(self) -> str:
        """Of the summary."""
        return shown(self.summary.headline, MAX_TEXT)

    @property
    def facts(self) -> Facts:
        """Of the summary."""
        return [(label, shown(text, MAX_TEXT)) for label, text in self.summary.facts]

    def first_data(self) -> dict[str, Any]:
        """What the script needs for the first view."""
        return {
            "series": list(self.document.series),
            "members": self.document.members,
            "grids": [grid.data() for grid in self.grids],
            "memory": self.memory,
            "flame": bool(self.tree),
        }

    def more_data(self) -> dict[str, Any]:
        """What it needs once a site is opened, and for the flame graph."""
        return {
            "strings": self.strings.texts,
            "details": {grid.table.id: grid.details for grid in self.grids},
            "tree": self.tree,
        }


def page_of(document: Document) -> Page:
    """What the page shows; it has all rows, whatever a terminal shows."""
    page = Page(document, document.summary or doc.Summary(doc.Tone.GOOD, document.title))
    for part in document.parts:
        match part:
            case doc.Table() if part.views & View.PAGE:
                page.grids.append(Grid(part, page.strings))
            case doc.Source():
                page.sources.append(_source(part.label, part.source))
            case doc.Facts() if part.views & View.PAGE:
                page.sources[-1] += [(label, shown(text)) for label, text in part.rows]
            case doc.Meter() if part.views & View.PAGE:
                page.gauges.append(_gauge(part.label, part.coverage))
            case doc.Notes():
                page.notes = _notes(part.diagnostics)
                page.notes_left_out = len(part.diagnostics) - len(page.notes)
            case doc.MemoryMap():
                page.memory = _memory(part.dumps)
            case doc.Tree():
                page.tree = _tree(part, page.strings)
    return page


def shown(text: str, width: int = MAX_NAME) -> str:
    """A name fit for the page. Cut first: a hostile one may be huge."""
    return visible(cut_middle(text, width))


def _source(label: str, source: SourceInfo) -> Facts:
    """What is known of a dump; of a system there is no one process."""
    process = [("Process", shown(process_told(source, "unknown")))]
    return [
        (label, shown(source.file)),
        ("Taken", f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown"),
        *(process if source.subject is not Subject.SYSTEM else ()),
        ("System", shown(source.machine) or "unknown"),
        ("Kind", shown(source.kind)),
    ]


def _gauge(label: str, coverage: Coverage) -> Gauge:
    if coverage.never:
        return Gauge(label, None, coverage.never, complete=False)
    if isinstance(coverage, ListCovered):
        whole = coverage.is_complete
        return Gauge(label, 1.0 if whole else None, coverage.told(), complete=whole)
    text = f"{coverage.share_text}: {coverage.amounts}, {coverage.heaps_text}"
    return Gauge(label, coverage.shown_share or 0.0, text, coverage.is_complete)


def _notes(diagnostics: Sequence[Diagnostic]) -> list[tuple[str, str]]:
    """Errors first."""
    ranked = sorted(diagnostics, key=lambda item: _ORDER.index(item.severity))
    return [(str(item.severity), shown(note_told(item))) for item in ranked[:MAX_NOTES]]


def unit_of(column: Column) -> str:
    """How the script writes the values of a column; what begins with delta- is coloured by its sign."""
    unit = _UNITS.get(column.kind, "text")
    return f"delta-{unit}" if column.signed and unit in ("bytes", "count") else unit


def _value(value: Any, column: Column) -> Any:
    unit = unit_of(column)
    if value is None or isinstance(value, Absent):
        return None if unit != "text" or value is None else value.value
    if isinstance(value, Name | Said):
        return shown(value.text, ROW_NAME)
    if isinstance(value, Change | Share):
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


def _tree(tree: doc.Tree, strings: Strings) -> dict[str, Any]:
    """The flame graph as columns, parents before children."""
    columns: dict[str, list[int]] = {
        name: [] for name in ("names", "parents", "base", "current", "grew", "shrank", "counts")
    }
    stack = [(prune(tree.make(), MAX_NODES), -1)]
    while stack:
        node, parent = stack.pop()
        number = len(columns["names"])
        values = (
            strings.number(node.name),
            parent,
            node.base_bytes,
            node.current_bytes,
            node.grew_bytes,
            node.shrank_bytes,
            node.delta_count,
        )
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
        children = sorted(node.children.values(), key=lambda child: child.weight)
        stack.extend((child, number) for child in children)
    return {"single": tree.single, "levels": tree.levels or STACK_LEVELS, **columns}
