"""`dumpleak leaks`: blocks of one dump that nothing points to."""

from __future__ import annotations

import click

from dumpleak.attribution.grouping import GROUPINGS
from dumpleak.commands.options import (
    CONTENTS,
    DUMP,
    SKIP_FRAMES,
    TOP,
    Options,
    options_with,
    shown_sites,
)
from dumpleak.commands.output import answer_to, progress_bar, require
from dumpleak.process.session import Session
from dumpleak.reports.answers.leaks import leaks_document, leaks_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.reports.shown import Shown
from dumpleak.survey.leaks import find_leaks


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak leaks testdata/10.0.19041.3324-x64/leak-pair-aslr/after.dmp.gz\n"
    "  dumpleak leaks app.dmp --by type --format json"
)
@DUMP
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="site", show_default=True)
@CONTENTS
@shown_sites
@SKIP_FRAMES
@TOP
@options_with(FORMATS)
def leaks(
    dump: str, by: str, contents: bool, top: int | None, shown: Shown, options: Options
) -> None:
    """Used blocks that no pointer leads to, from globals, stacks, registers or other such blocks.

    They are called unreferenced, not leaked: a scan sees pointers, not intentions.
    """
    with progress_bar(options) as progress:
        session = Session.open(dump, options.symbols, options.process)
        session.skip_frames = options.skip_frames
        found = find_leaks(session, by, progress, contents=contents)
    answer_to(
        options, Answer(lambda: leaks_document(found, top, shown), lambda: leaks_json(found, shown))
    )
    require(found.coverage.shortfall)
