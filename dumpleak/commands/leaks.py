"""`dumpleak leaks`: blocks of one dump that nothing points to."""

from __future__ import annotations

import click

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.commands.options import DUMP, SKIP_FRAMES, TOP, Options, options_with
from dumpleak.commands.output import output_to, progress_bar, require
from dumpleak.process.session import Session
from dumpleak.reports.answers.leaks import LEAKS_REPORTS
from dumpleak.survey.leaks import find_leaks


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak leaks testdata/10.0.19041.3324-x64/leak-pair-aslr/after.dmp.gz\n"
    "  dumpleak leaks app.dmp --by type --format json"
)
@DUMP
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="site", show_default=True)
@SKIP_FRAMES
@TOP
@options_with(LEAKS_REPORTS)
def leaks(dump: str, by: str, top: int | None, options: Options) -> None:
    """Used blocks that no pointer leads to, from globals, stacks, registers or other such blocks.

    They are called unreferenced, not leaked: a scan sees pointers, not intentions.
    """
    with progress_bar(options) as progress:
        session = Session.open(dump, options.symbols, options.process)
        session.skip_frames = options.skip_frames
        found = find_leaks(session, by, progress)
    with output_to(options) as stream:
        LEAKS_REPORTS[options.format](stream).leaks(found, top)
    require(found.coverage)
