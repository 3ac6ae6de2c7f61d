"""One row a block. There may be millions: rows are written as they come, and no document holds them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from typing import IO

from dumpleak.model.block_page import BLOCK_COLUMNS, BlockPage
from dumpleak.reports.names import cell, visible
from dumpleak.reports.rows import block_rows, nullable_block

_MOST_KNOWN = 1 << 16

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
    known = _KnownCells()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(BLOCK_COLUMNS)
    # Few names in many rows, so `write_table` would look at the same ones again and again.
    writer.writerows(
        (*row[:4], known[row[4]], row[5], known[row[6]], known[row[7]], known[row[8]], *row[9:])
        for row in block_rows(pages, top)
    )


class _KnownCells(dict[object, object]):
    """What `cell` makes of texts that come again."""

    def __missing__(self, text: object) -> object:
        if len(self) == _MOST_KNOWN:
            self.clear()
        made = self[text] = cell(text)
        return made


# The first is the default.
BLOCK_WRITERS: dict[str, Callable[[Pages, int | None, IO[str]], None]] = {
    "text": _write_text,
    "json": _write_json,
    "csv": _write_csv,
}
