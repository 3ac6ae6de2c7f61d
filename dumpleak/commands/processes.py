"""`dumpleak processes`: the processes of a kernel dump."""

from __future__ import annotations

import click

from dumpleak.commands.options import DUMP, TOP, Options, options_with
from dumpleak.commands.output import kernel_report_to
from dumpleak.kernel.info import kernel_source, listed_processes
from dumpleak.model.errors import CannotAnswerError
from dumpleak.reports.answers.kernel import KERNEL_REPORTS
from dumpleak.symbols.kernel import use_symbols
from windumps import open_dump
from windumps.dumps.kernel.dump import KernelDump


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak processes testdata/kernel/22621-x64/tiny-pair/after.dmp.xz\n"
    "  dumpleak processes MEMORY.DMP --format csv -o processes.csv"
)
@DUMP
@TOP
@options_with(KERNEL_REPORTS)
def processes(dump: str, top: int | None, options: Options) -> None:
    """Processes of a kernel dump: id, parent, name, start, private commit, handles."""
    opened = open_dump(dump)
    if not isinstance(opened, KernelDump):
        raise CannotAnswerError(
            f"{dump}: a {opened.kind} of one process; only kernel dumps list processes"
        )
    said = use_symbols(opened, options.symbols)
    if opened.process_layout is None:
        raise CannotAnswerError(f"{dump}: {opened.why_no_processes}")
    found = listed_processes(opened)
    with kernel_report_to(options) as report:
        report.processes(
            kernel_source(opened),
            found,
            str(opened.process_layout),
            [*opened.diagnostics, *said],
            top,
        )
