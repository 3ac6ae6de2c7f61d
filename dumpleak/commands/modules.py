"""`dumpleak modules`: loaded and unloaded images."""

from __future__ import annotations

from typing import Any

import click

from dumpleak.commands.base import DUMP, common_options, report_to
from dumpleak.session import Session


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak modules testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak modules app.dmp --format json"
)
@DUMP
@common_options
def modules(dump: str, **options: Any) -> None:
    """Loaded and unloaded images with version, PDB name, GUID and age."""
    opened = Session.open(dump, process=options["process"]).dump
    with report_to(options) as report:
        report.modules(str(opened.path), opened.modules, opened.unloaded_modules)
