"""`dumpleak heaps`: one row a heap."""

from __future__ import annotations

import click

from dumpleak.commands.opening import opened
from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to, require
from dumpleak.reports.answers.heaps import heaps_document, heaps_json
from dumpleak.reports.formats import FORMATS, Answer


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak heaps testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak heaps app.dmp --format csv -o heaps.csv"
)
@DUMP
@options_with(FORMATS)
def heaps(dump: str, options: Options) -> None:
    """One row a heap: committed, used, free, overhead."""
    snapshot = opened(None, dump, "heap", options)
    answer_to(options, Answer(lambda: heaps_document(snapshot), lambda: heaps_json(snapshot)))
    require(snapshot.shortfall)
