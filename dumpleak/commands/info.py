"""`dumpleak info`: what a dump is and holds."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import kernel_report_to, output_to, progress_bar
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.kernel.answerable import why_no_answer
from dumpleak.kernel.info import take_kernel_info
from dumpleak.process.session import Session
from dumpleak.reports import INFO_REPORTS
from dumpleak.survey.info import take_info
from dumpleak.symbols.kernel import use_symbols
from windumps.dumps.kernel.dump import KernelDump


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak info testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak info app.dmp --format json"
)
@DUMP
@options_with(INFO_REPORTS)
def info(dump: str, options: Options) -> None:
    """What a dump is, what it holds and lacks, and whether leaks can be looked for in it."""
    if is_snapshot_file(dump):
        with output_to(options) as stream:
            INFO_REPORTS[options.format](stream).info(snapshot_info(Path(dump)))
        return
    with progress_bar(options):
        session = Session.open(dump, options.symbols, options.process)
    if isinstance(session.dump, KernelDump):
        with progress_bar(options):
            use_symbols(session.dump, options.symbols)  # before anything is read with them
            answer_of_pools = why_no_answer(session.dump)
        with kernel_report_to(options) as kernel_report:
            kernel_report.kernel_info(
                take_kernel_info(session.dump, options.symbols, answer_of_pools)
            )
        return
    with progress_bar(options) as progress:
        answer = take_info(session, progress)
    with output_to(options) as stream:
        INFO_REPORTS[options.format](stream).info(answer)
