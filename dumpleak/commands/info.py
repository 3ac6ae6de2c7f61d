"""`dumpleak info`: what a dump is and holds."""

from __future__ import annotations

from typing import Any

import click

from dumpleak.commands.base import DUMP, common_options, progress_bar, report_to
from dumpleak.info import take_info
from dumpleak.session import Session


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak info testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak info app.dmp --format json"
)
@DUMP
@common_options
def info(dump: str, **options: Any) -> None:
    """What a dump is, what it holds and lacks, and whether leaks can be looked for in it."""
    with progress_bar(options) as progress:
        answer = take_info(Session.open(dump), progress)
    with report_to(options) as report:
        report.info(answer)
