"""`dumpleak info`: what a dump is and holds."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.kernel.system_info import describe
from dumpleak.model.info import Info
from dumpleak.process.session import Session
from dumpleak.reports.answers.info import info_document, info_json
from dumpleak.reports.answers.kernel import kernel_document, kernel_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.info import take_info
from windumps.dumps.kernel.dump import KernelDump


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak info testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak info app.dmp --format json"
)
@DUMP
@options_with(FORMATS)
def info(dump: str, options: Options) -> None:
    """What a dump is, what it holds and lacks, and whether leaks can be looked for in it."""
    if is_snapshot_file(dump):
        _write(snapshot_info(Path(dump)), options)
        return
    with progress_bar(options):
        session = Session.open(dump, options.symbols, options.process)
    if isinstance(session.dump, KernelDump):
        with progress_bar(options):
            taken = describe(session.dump, options.symbols)
        answer_to(options, Answer(lambda: kernel_document(taken), lambda: kernel_json(taken)))
        return
    with progress_bar(options) as progress:
        answer = take_info(session, progress)
    _write(answer, options)


def _write(answer: Info, options: Options) -> None:
    answer_to(options, Answer(lambda: info_document(answer), lambda: info_json(answer)))
