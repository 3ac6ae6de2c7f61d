"""Documents as text for people: on terminals with colours and cut names, in pipes whole.

Names come from the dump and are hostile: they are shown as plain text, control characters made visible.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import IO, Any

from rich.text import Text

from dumpleak.reports.document import (
    DEFAULT_TOP,
    Document,
    Facts,
    Line,
    Meter,
    Notes,
    Source,
    Summary,
    Table,
    Tone,
    View,
    Width,
    left_out,
)
from dumpleak.reports.names import visible
from dumpleak.reports.sentences import meter_told, notes_told, source_told
from dumpleak.reports.text.cells import STYLES, is_left, text_of
from dumpleak.reports.text.consoles import ReportConsole
from dumpleak.reports.text.tables import (
    WIDE,
    TextColumn,
    plain_table,
    print_table,
)
from windumps.diagnostics import Severity

PIPE_WIDTH = 140  # a pipe has no width; wide enough that names stay whole
LABEL = 13  # columns of the summary's labels

_SEVERITIES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.ERROR: "red"}
_TONES = {
    Tone.GOOD: "bold green",
    Tone.NOTICE: "bold yellow",
    Tone.BAD: "bold red",
    Tone.CANNOT_TELL: "bold red",
}


def write_text(document: Document, stream: IO[str]) -> None:
    """Writes a document in the order of its parts."""
    writer = TextWriter(stream)
    if document.summary is not None and document.judged_in & View.TEXT:
        writer.summary(document.summary)
    for part in document.parts:
        writer.part(part)


class TextWriter:
    """Writes parts of documents."""

    def __init__(self, stream: IO[str]) -> None:
        self._console = ReportConsole(file=stream, highlight=False, emoji=False, markup=False)
        if not self._console.is_terminal:
            self._console = ReportConsole(
                file=stream, highlight=False, emoji=False, markup=False, width=PIPE_WIDTH
            )

    def part(self, part: Any) -> None:
        """One part; what a terminal cannot show is left out."""
        match part:
            case Table() if part.views & View.TEXT:
                self._table(part)
            case Source() if part.views & View.TEXT:
                self._line(f"{part.label}: {part.source.file}", "bold")
                if told := source_told(part):
                    self._line(f"  {told}")
            case Facts() if part.views & View.TEXT:
                self._facts(part.rows)
            case Line():
                if not _is_hidden(part.width, self._console.width):
                    self._line(part.text, STYLES[part.style])
            case Meter() if part.views & View.TEXT:
                told, is_whole = meter_told(part)
                if told:
                    self._line(told, "" if is_whole else "yellow")
            case Notes():
                for severity, told in notes_told(part.diagnostics):
                    self._line(told, _SEVERITIES[severity] if severity else "")

    def summary(self, summary: Summary) -> None:
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

    def _table(self, table: Table[Any]) -> None:
        columns = table.shown(View.TEXT)
        limit = None
        if table.noun:
            limit = DEFAULT_TOP if table.top is None else table.top
        rows = list(table.rows(View.TEXT, limit))
        heads = [TextColumn(column.title, is_left(column), column.width) for column in columns]
        cells = [
            [
                text_of(value, column, self._console.encoding)
                for value, column in zip(row, columns, strict=True)
            ]
            for row in rows
        ]
        if table.folded:
            folded = plain_table(heads)
            for made in cells:
                folded.add_row(*(lines[0] for lines in made))
            self._console.print(folded)
        else:
            named = [([lines[0] for lines in made[:-1]], made[-1]) for made in cells]
            print_table(self._console, heads[:-1], heads[-1].title, named)
        if more := left_out(len(table.items) - len(rows), table.noun):
            self._line(more)

    def _facts(self, facts: Sequence[tuple[str, str]]) -> None:
        width = max(len(name) for name, _ in facts)
        for name, value in facts:
            self._line(f"  {name:<{width}}  {value}")

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


def _is_hidden(width: Width, columns: int) -> bool:
    return width is (Width.NARROW if columns >= WIDE else Width.WIDE)
