"""`dumpleak heaps`: one row a heap."""

from __future__ import annotations

from typing import Any

import click

from dumpleak.commands.base import DUMP, common_options, open_snapshot, report_to, require


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak heaps testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak heaps app.dmp --format csv -o heaps.csv"
)
@DUMP
@common_options
def heaps(dump: str, **options: Any) -> None:
    """One row a heap: committed, used, free, overhead."""
    snapshot = open_snapshot(dump, "heap", options)
    with report_to(options) as report:
        report.heaps(snapshot)
    require(snapshot.coverage)
