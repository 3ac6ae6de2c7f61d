"""The formats of all answers: one row each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from dumpleak.reports.csv_writer import write_csv
from dumpleak.reports.document import Document
from dumpleak.reports.page.writer import write_page
from dumpleak.reports.text.writer import write_text


@dataclass(frozen=True)
class Answer:
    """An answer, made only in the form that is asked for.

    Attributes:
        document: Makes what all formats but one write.
        json: Makes what scripts read, shaped by hand.
    """

    document: Callable[[], Document]
    json: Callable[[], dict[str, Any]]


Writer = Callable[[Document, IO[str]], None]
# The first is the default. JSON has no writer of documents: its shape is a contract.
FORMATS: dict[str, Writer | None] = {
    "text": write_text,
    "json": None,
    "csv": write_csv,
    "html": write_page,
}
# Those that show what `Snapshot.details` holds.
DETAILED = frozenset({"html"})


def write_answer(answer: Answer, format_: str, stream: IO[str]) -> None:
    """Writes an answer in one of `FORMATS`."""
    writer = FORMATS[format_]
    if writer is not None:
        writer(answer.document(), stream)
        return
    json.dump(answer.json(), stream, indent=1)
    stream.write("\n")
