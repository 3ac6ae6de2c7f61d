"""`dumpleak heaps`: one row a heap."""

from __future__ import annotations

import click

from dumpleak.commands.opening import opened
from dumpleak.commands.options import DUMP, Options, common_options
from dumpleak.commands.output import report_to, require


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak heaps testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak heaps app.dmp --format csv -o heaps.csv"
)
@DUMP
@common_options
def heaps(dump: str, options: Options) -> None:
    """One row a heap: committed, used, free, overhead."""
    snapshot = opened(None, dump, "heap", options)
    with report_to(options) as report:
        report.heaps(snapshot)
    require(snapshot.coverage)
