"""One row a block. There may be millions: rows are written as they come, and no document holds them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from typing import IO

import numpy as np

from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.reports.names import cell, visible
from dumpleak.reports.rows import block_rows, nullable_block
from windumps.arrays import I64
from windumps.blocks import SIZE_UNKNOWN
from windumps.later import later

ROWS_AT_ONCE = 1 << 16
_TAIL = BLOCK_COLUMNS.index("state")  # of all columns from here on few rows differ

Pages = Iterable[BlockPage]


def _write_text(pages: Pages, top: int | None, stream: IO[str]) -> None:
    """Tab-separated: a table would need all rows first."""
    stream.write("\t".join(BLOCK_COLUMNS) + "\n")
    for row in block_rows(pages, top):
        stream.write("\t".join(visible(str(value)) for value in row) + "\n")


def _write_json(pages: Pages, top: int | None, stream: IO[str]) -> None:
    """JSON lines: one object a block."""
    for row in block_rows(pages, top):
        values = nullable_block(dict(zip(BLOCK_COLUMNS, row, strict=True)))
        stream.write(json.dumps(values) + "\n")


def _write_csv(pages: Pages, top: int | None, stream: IO[str]) -> None:
    """All that few rows differ in is put into text once, and only address and sizes for each row."""
    csv.writer(stream, lineterminator="\n").writerow(BLOCK_COLUMNS)
    left = top
    for page in pages:
        for start in range(0, len(page.blocks), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(page.blocks)))[:left]
            if len(rows):
                stream.write(_csv_rows(page, rows))
            if left is not None:
                left -= len(rows)


def _csv_rows(page: BlockPage, rows: I64) -> str:
    blocks, width = page.blocks, 2 * page.pointer_size
    sizes = blocks.size[rows]
    shown: list[object] = sizes.tolist()
    for row in np.flatnonzero(sizes == SIZE_UNKNOWN).tolist():
        shown[row] = ""
    columns = zip(
        blocks.address[rows].tolist(),
        shown,
        blocks.block_bytes[rows].tolist(),
        _tails(page, rows),
        strict=True,
    )
    return "".join([f"0x{a:0{width}x},{size},{taken},{tail}" for a, size, taken, tail in columns])


def _tails(page: BlockPage, rows: I64) -> list[str]:
    """What follows the sizes in each row, with its line's end."""
    _, first, number = np.unique(_alike(page, rows), return_index=True, return_inverse=True)
    order = np.argsort(first)
    one_of_each = np.zeros(len(page.blocks), np.bool_)
    one_of_each[rows[first]] = True
    told = io.StringIO()
    csv.writer(told, lineterminator="\n").writerows(
        [cell(value) for value in row[_TAIL:]]
        for row in block_rows([page.select(one_of_each)], None)
    )
    texts = np.empty(len(first), object)
    texts[order] = [f"{line}\n" for line in told.getvalue().split("\n")[:-1]]
    found: list[str] = texts[number].tolist()
    return found


def _alike(page: BlockPage, rows: I64) -> I64:
    """A number for each row; rows with one number differ in address and sizes only."""
    blocks = page.blocks
    code = page.sites.number[rows].astype(np.int64) + 1
    for column, count in (
        (page.types.number[rows].astype(np.int64) + 1, len(page.types.texts) + 1),
        (blocks.state[rows].astype(np.int64), 1 << 8),
        (blocks.kind[rows].astype(np.int64), 1 << 8),
    ):
        code = code * count + column
    for wide in (blocks.trace[rows], blocks.tag[rows]):
        if (wide != wide[0]).any():
            values, number = np.unique(wide, return_inverse=True)
            code = np.unique(code, return_inverse=True)[1]  # small again
            code = code * len(values) + number
    return code


# The first is the default.
BLOCK_WRITERS: dict[str, Callable[[Pages, int | None, IO[str]], None]] = {
    "text": _write_text,
    "json": _write_json,
    "csv": _write_csv,
    "parquet": later("dumpleak.reports.block_tables", "write_parquet"),
    "arrow": later("dumpleak.reports.block_tables", "write_arrow"),
}
