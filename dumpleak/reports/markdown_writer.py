"""Documents as Markdown, for comments on pull requests. Names are hostile, and shown as code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

from dumpleak.reports.document import (
    DEFAULT_TOP,
    Column,
    Document,
    Facts,
    Line,
    Meter,
    Notes,
    Part,
    Remarks,
    Source,
    Summary,
    Table,
    View,
    Width,
    left_out,
)
from dumpleak.reports.names import visible
from dumpleak.reports.sentences import meter_told, notes_told, source_told
from dumpleak.reports.text.cells import is_left, text_of
from dumpleak.reports.values import Name, Said, Style

_MARKUP = {Style.HEADING: "### {}", Style.STRONG: "**{}**"}


def write_markdown(document: Document, stream: IO[str]) -> None:
    """Writes what a document has for reviews; where it has nothing, what terminals show."""
    for_reviews = [part for part in document.parts if _is_for_reviews(part)]
    if for_reviews:
        blocks = [block for part in for_reviews for block in _part(part, View.REVIEW)]
    else:
        blocks = [f"### {_text(document.title)}\n"]
        if document.summary is not None and document.judged_in & View.TEXT:
            blocks += _summary(document.summary)
        blocks += [block for part in document.parts for block in _part(part, View.TEXT)]
    stream.write("\n".join(blocks))


def _is_for_reviews(part: Part) -> bool:
    return isinstance(part, Remarks) or (isinstance(part, Table) and bool(part.views & View.REVIEW))


def _summary(summary: Summary) -> Iterator[str]:
    yield f"**{_text(summary.headline)}**\n"
    points = [f"{_text(label)}: {_text(text)}" for label, text in summary.facts]
    for step in summary.steps:
        points.append(f"What next: {_text(step.text)} {_code(step.command) * bool(step.command)}")
    yield from [_listed(points)] * bool(points)


def _part(part: Part, view: View) -> Iterator[str]:
    """Blocks, each with its line breaks; what Markdown cannot show is left out."""
    match part:
        case Remarks():
            said = ["".join(map(_piece, pieces)) for pieces in part.sentences]
            yield _listed(said) if part.listed else "".join(f"{text}\n" for text in said)
        case Table() if part.views & view:
            yield from _table(part, view)
        case Source() if part.views & view:
            told = source_told(part)
            yield f"{_text(part.label)}: {_code(part.source.file)}{', ' * bool(told)}{_text(told)}\n"
        case Facts() if part.views & view:
            yield _listed([f"{_text(label)}: {_text(text)}" for label, text in part.rows])
        case Line() if part.width is not Width.NARROW:
            yield f"{_text(part.text.strip())}\n"
        case Meter() if part.views & view:
            told, _ = meter_told(part)
            if told:
                yield f"{_text(told)}\n"
        case Notes():
            notes = [_text(told) for _, told in notes_told(part.diagnostics)]
            yield from [_listed(notes)] * bool(notes)


def _table(table: Table[Any], view: View) -> Iterator[str]:
    shown = table.shown(view)
    columns = [column for column in shown if column.width is not Width.NARROW]
    limit = DEFAULT_TOP if table.noun and table.top is None else table.top
    lines = [
        " | ".join(_text(column.title) for column in columns),
        " | ".join("---" if is_left(column) else "---:" for column in columns),
    ]
    for row in table.rows(view, limit):
        cells = [
            _cell(value, column)
            for value, column in zip(row, shown, strict=True)
            if column.width is not Width.NARROW
        ]
        lines.append(" | ".join(cells))
    if table.title and view is View.TEXT:
        yield f"**{_text(table.title)}**\n"
    yield "".join(f"| {line} |\n" for line in lines)
    if more := left_out(len(table.items) - len(lines) + 2, table.noun):
        yield f"{_text(more)}\n"


def _cell(value: Any, column: Column) -> str:
    lines = [line.plain.strip() for line in text_of(value, column, "utf-8")]
    if isinstance(value, Name):
        return "<br>".join([_code(value.told or value.text), *map(_text, lines[1:])])
    return _text(lines[0])


def _listed(points: Sequence[str]) -> str:
    return "".join(f"- {point.rstrip()}\n" for point in points)


def _piece(piece: str | Said) -> str:
    if isinstance(piece, str):
        return _text(piece)
    if piece.style is Style.CODE:
        return _code(piece.text)
    return _MARKUP[piece.style].format(_text(piece.text))


def _text(text: str) -> str:
    """Text without the characters that Markdown or HTML read something into."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~@])", r"\\\1", visible(text))


def _code(text: str) -> str:
    """Text as code in a table: nothing in it is markup, not even a bar or a backtick."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{space}{visible(text).replace('|', chr(92) + '|')}{space}{fence}"
