"""`dumpleak stat`: used blocks of one dump, added up."""

from __future__ import annotations

from typing import Any

import click

from dumpleak.commands.base import DUMP, TOP, common_options, open_snapshot, report_to, require
from dumpleak.grouping import GROUPINGS


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak stat testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz --by size\n"
    "  dumpleak stat app.dmp --by heap --format json"
)
@DUMP
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="site", show_default=True)
@TOP
@common_options
def stat(dump: str, by: str, top: int | None, **options: Any) -> None:
    """Used blocks of one dump, added up by site, size, heap, module or kind."""
    snapshot = open_snapshot(dump, by, options)
    with report_to(options) as report:
        report.stat(snapshot, top)
    require(snapshot.coverage)
