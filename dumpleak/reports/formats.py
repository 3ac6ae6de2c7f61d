"""The formats, one row each: those that all answers have, then those that only some have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from dumpleak.reports.document import Document
from windumps.later import later

if TYPE_CHECKING:
    from dumpleak.compare.answers import Comparison
    from dumpleak.gate.gate import Judged
    from dumpleak.model.snapshot import Snapshot
    from dumpleak.reports.ci.findings import JudgedAnswer

Writer: TypeAlias = Callable[[Document, IO[str]], None]
# Of all answers; the first is the default. JSON has no writer of documents: its shape is a contract.
FORMATS: dict[str, Writer | None] = {
    "text": later("dumpleak.reports.text.writer", "write_text"),
    "json": None,
    "csv": later("dumpleak.reports.csv_writer", "write_csv"),
    "html": later("dumpleak.reports.page.writer", "write_page"),
    "markdown": later("dumpleak.reports.markdown_writer", "write_markdown"),
}
# Of other tools, which only some answers have: they are given an answer with all that is known of it.
GROWTH_FORMATS: dict[str, Callable[[JudgedAnswer, int | None, IO[str]], None]] = {
    "junit": later("dumpleak.reports.ci.junit", "write_junit"),
    "sarif": later("dumpleak.reports.ci.sarif", "write_sarif"),
}
DIFF_FORMATS: dict[str, Callable[[Judged[Comparison], int | None, IO[str]], None]] = {
    **GROWTH_FORMATS,
    "umdh": later("dumpleak.reports.profiles.umdh", "write_hexadecimal"),
    "umdh-d": later("dumpleak.reports.profiles.umdh", "write_decimal"),
    "pprof": later("dumpleak.reports.profiles.pprof", "write_diff"),
    "speedscope": later("dumpleak.reports.profiles.speedscope", "write_diff"),
    "collapsed": later("dumpleak.reports.profiles.collapsed", "write_diff"),
}
STAT_FORMATS: dict[str, Callable[[Snapshot, IO[str]], None]] = {
    "pprof": later("dumpleak.reports.profiles.pprof", "write_stat"),
    "speedscope": later("dumpleak.reports.profiles.speedscope", "write_stat"),
    "collapsed": later("dumpleak.reports.profiles.collapsed", "write_stat"),
}
# Those that show what `Snapshot.details` holds.
DETAILED = frozenset({"html"})
# Those in which rows with one cause are one row; others keep every group.
FOR_PEOPLE = frozenset({"text", "html", "markdown"})
# Those that judge growth.
OF_CI = frozenset({"markdown", *GROWTH_FORMATS})
# Those that other tools know for lists of blocks.
OF_BLOCKS = frozenset({"umdh", "umdh-d"})


@dataclass(frozen=True)
class Answer:
    """An answer, made only in the form that is asked for.

    Attributes:
        document: Makes what all formats but one write.
        json: Makes what scripts read, shaped by hand; of a list each document is a line.
        more: Formats that only this answer has.
    """

    document: Callable[[], Document]
    json: Callable[[], dict[str, Any] | list[dict[str, Any]]]
    more: Mapping[str, Callable[[IO[str]], None]] = field(default_factory=dict)


def formats_of(
    writers: Mapping[str, Callable[..., None]], *answer: object
) -> dict[str, Callable[[IO[str]], None]]:
    """Formats that only some answers have, for one of those: what its writers take before the stream."""
    return {name: partial(write, *answer) for name, write in writers.items()}


def write_answer(answer: Answer, format_: str, stream: IO[str]) -> None:
    """Writes an answer in a format that it has."""
    writer = FORMATS.get(format_)
    if writer is not None:
        writer(answer.document(), stream)
    elif format_ in answer.more:
        answer.more[format_](stream)
    else:
        made = answer.json()
        if isinstance(made, list):
            stream.writelines(f"{json.dumps(document)}\n" for document in made)
            return
        json.dump(made, stream, indent=1)
        stream.write("\n")
