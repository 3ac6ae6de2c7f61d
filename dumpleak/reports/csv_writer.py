"""Documents as CSV: the first table that machines read, with a header row; for spreadsheets and pandas."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import IO, Any

from dumpleak.model.units import format_address
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    View,
)
from dumpleak.reports.names import cell
from dumpleak.reports.values import Absent, Change, Name, Said, Share


def write_csv(document: Document, stream: IO[str]) -> None:
    """Writes the columns that have names; what is absent is empty."""
    table = document.tables(View.DATA)[0]
    columns = table.shown(View.DATA)
    write_table(
        stream,
        [column.name for column in columns],
        (
            [_value(value, column) for value, column in zip(row, columns, strict=True)]
            for row in table.rows(View.DATA, table.top)
        ),
    )


def write_table(stream: IO[str], columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Writes a header and rows.

    Names in dumps are anybody's: texts are made visible, and one that a spreadsheet would calculate gets an
    apostrophe in front. Numbers stay numbers.
    """
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(cell, row) for row in rows)


def _value(value: Any, column: Column) -> object:
    if value is None or isinstance(value, Absent):
        return ""
    if isinstance(value, Name | Said):
        return value.text
    if isinstance(value, Change | Share):
        return value.value
    match column.kind:
        case Kind.TIME:
            return value.isoformat()
        case Kind.ADDRESS:
            return format_address(value, column.digits // 2)
        case Kind.CLAUSES:
            return "; ".join(value)
        case Kind.RATE:
            return round(value, 3)
    return value
