"""What a page shows, computed before any template sees it, so that it can be tested without one.

Everything the browser gets is plain data: texts, numbers and grids. Names are cut and their control
characters made visible here, once; the template and the script only ever insert them as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.populations import BLOCKS
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_address, format_bytes
from dumpleak.reports.document import Summary
from dumpleak.reports.names import cut_middle, visible
from dumpleak.reports.profiles.stack_tree import Node, prune
from windumps.diagnostics import Diagnostic, Severity

MAX_NAME = 400  # characters of one name; ten thousand long ones would make the page too large
ROW_NAME = 140  # of a name in its row; the whole is among the row's details
MAX_FRAMES = 64
MAX_NODES = 2500  # of the flame graph; more cannot be told apart and draw slowly
MAX_DIAGNOSTICS = 200
STACK_LEVELS = "Outermost callers on top; sites without a stack by kind and name."

Row = list[Any]


@dataclass(frozen=True)
class Column:
    """One column of a grid.

    Attributes:
        title: Its head.
        unit: How the script writes values: "text", "name", "bytes", "count", "share", "rate", "spark";
            "delta-bytes" and "delta-count" are coloured by their sign.
        hint: A longer explanation; "" for none.
        minor: Left out on narrow screens.
    """

    title: str
    unit: str
    hint: str = ""
    minor: bool = False


@dataclass
class Grid:
    """A table that the page sorts and filters.

    Attributes:
        id: Name in the page.
        title: Its heading.
        columns: See `Column`.
        rows: One value for each column.
        details: What a row opens to, row by row; empty where rows do not open.
        ids: Names of rows for links, row by row; empty where there are none.
        note: A sentence below the heading.
        chosen: Column that can be chosen by value, or -1.
    """

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: list[Row] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    note: str = ""
    chosen: int = -1

    def data(self) -> dict[str, Any]:
        """For the script."""
        return {
            "id": self.id,
            "title": self.title,
            "note": self.note,
            "chosen": self.chosen,
            "columns": [asdict(column) for column in self.columns],
            "rows": self.rows,
            "ids": self.ids,
        }


@dataclass(frozen=True)
class Fact:
    """A label and what it says.

    Attributes:
        label: "Who".
        text: The answer.
        command: The answer is a command line.
    """

    label: str
    text: str
    command: bool = False


@dataclass(frozen=True)
class Meter:
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


@dataclass
class Page:
    """One page.

    Attributes:
        title: Of the window.
        summary: The first screen.
        sources: One list of facts for each dump.
        meters: Coverage of each dump.
        notes: Diagnostics as (severity, text), errors first.
        notes_left_out: How many more there are.
        grids: Tables, in order; the first is the main one.
        series: Names of the points in time, for trends.
        members: What is counted.
        memory: Memory by use: {"labels", "uses", "values"}; empty where unknown.
        tree: The flame graph; empty where there is none.
    """

    title: str
    summary: Summary
    sources: list[list[Fact]]
    meters: list[Meter]
    notes: list[tuple[str, str]] = field(default_factory=list)
    notes_left_out: int = 0
    grids: list[Grid] = field(default_factory=list)
    series: list[str] = field(default_factory=list)
    members: str = BLOCKS
    memory: dict[str, Any] = field(default_factory=dict)
    tree: dict[str, Any] = field(default_factory=dict)
    strings: Strings = field(default_factory=lambda: Strings())

    @property
    def headline(self) -> str:
        """Of the summary."""
        return shown(self.summary.headline, 4 * MAX_NAME)

    @property
    def facts(self) -> list[Fact]:
        """Of the summary."""
        return [Fact(label, shown(text, 4 * MAX_NAME)) for label, text in self.summary.facts]

    def first_data(self) -> dict[str, Any]:
        """What the script needs for the first view."""
        return {
            "series": self.series,
            "members": self.members,
            "grids": [grid.data() for grid in self.grids],
            "memory": self.memory,
            "flame": bool(self.tree),
        }

    def more_data(self) -> dict[str, Any]:
        """What it needs once a site is opened, and for the flame graph."""
        return {
            "strings": self.strings.texts,
            "details": {grid.id: grid.details for grid in self.grids},
            "tree": self.tree,
        }


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


def shown(text: str, width: int = MAX_NAME) -> str:
    """A name fit for the page. Cut first: a hostile one may be huge."""
    return visible(cut_middle(text, width))


def source_facts(label: str, source: SourceInfo) -> list[Fact]:
    """What is known of a dump; of a system there is no one process."""
    process = source.program or "unknown"
    if source.process_id is not None:
        process += f" (pid {source.process_id})"
    one = source.subject is not Subject.SYSTEM
    return [
        Fact(label, shown(source.file)),
        Fact("Taken", f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown"),
        *((Fact("Process", shown(process)),) if one else ()),
        Fact("System", shown(source.machine) or "unknown"),
        Fact("Kind", shown(source.kind)),
    ]


def meter(label: str, coverage: Coverage) -> Meter:
    """Coverage of one dump."""
    if coverage.never:
        return Meter(label, None, coverage.never, complete=False)
    if isinstance(coverage, ListCovered):
        return Meter(label, 1.0, coverage.told(), complete=True)
    return Meter(
        label,
        coverage.shown_share or 0.0,
        f"{coverage.share_text}: {coverage.never or f'{coverage.amounts}, {coverage.heaps_text}'}",
        coverage.is_complete,
    )


def notes(diagnostics: Sequence[Diagnostic]) -> tuple[list[tuple[str, str]], int]:
    """Diagnostics for the page, errors first, and how many more there are."""
    order = (Severity.ERROR, Severity.WARNING, Severity.INFO)
    ranked = sorted(diagnostics, key=lambda item: order.index(item.severity))
    lines = []
    for item in ranked[:MAX_DIAGNOSTICS]:
        place = "" if item.address is None else f" at {format_address(item.address)}"
        lost = f" ({format_bytes(item.bytes_affected)})" if item.bytes_affected else ""
        text = f"{item.message} [{item.structure}{place}]{lost}"
        lines.append((str(item.severity), shown(text)))
    return lines, max(len(ranked) - MAX_DIAGNOSTICS, 0)


def tree_data(
    root: Node, strings: Strings, single: bool = False, levels: str = STACK_LEVELS
) -> dict[str, Any]:
    """The flame graph as columns, parents before children.

    Args:
        root: The tree; it is pruned.
        strings: Of the page.
        single: There is one dump only, and so nothing to compare.
        levels: What stands above what, in a sentence.
    """
    prune(root, MAX_NODES)
    columns: dict[str, list[int]] = {
        name: [] for name in ("names", "parents", "base", "current", "grew", "shrank", "counts")
    }
    stack = [(root, -1)]
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
    return {"single": single, "levels": levels, **columns}
