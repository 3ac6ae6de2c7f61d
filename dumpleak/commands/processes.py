"""`dumpleak processes`: the processes of a system, of one dump or of two."""

from __future__ import annotations

import click

from dumpleak.commands.exit_codes import EXIT_CANNOT_ANSWER
from dumpleak.commands.options import TOP, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar
from dumpleak.commands.saying import say
from dumpleak.compare.answers import Verdict
from dumpleak.compare.process_growth import compare_processes
from dumpleak.kernel.answerable import pools_of
from dumpleak.kernel.held_objects import ended_processes
from dumpleak.kernel.info import kernel_source
from dumpleak.kernel.processes import read_processes
from dumpleak.model.errors import CannotAnswerError
from dumpleak.reports.answers.process_growth import process_growth_document, process_growth_json
from dumpleak.reports.answers.processes import processes_document, processes_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from dumpleak.survey.processes import open_processes, processes_over
from dumpleak.symbols.kernel import use_symbols

_FILE = click.Path(exists=True, dir_okay=False)


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak processes testdata/kernel/22621-x64/tiny-pair/after.dmp.xz\n"
    "  dumpleak processes testdata/kernel/22621-x64/tiny-pair/before.dmp.xz"
    " testdata/kernel/22621-x64/tiny-pair/after.dmp.xz\n"
    "  dumpleak processes MEMORY.DMP --format csv -o processes.csv\n"
    "  dumpleak processes monday.csv tuesday.csv\n"
    "  dumpleak processes counters.csv"
)
@click.argument("dump", type=_FILE)
@click.argument("current", required=False, type=_FILE)
@TOP
@options_with(FORMATS)
def processes(dump: str, current: str | None, top: int | None, options: Options) -> None:
    """Processes of a kernel dump: id, parent, name, start, private commit, handles; of two, which grew.

    Two may also be snapshots of systems, performance logs (their last samples), or lists that
    Get-Process | Export-Csv wrote. One performance log is compared with itself, its end with its beginning.
    """
    over = processes_over(dump) if current is None else None
    if current is None and over is None:
        _list(dump, top, options)
        return
    with progress_bar(options) as progress:
        base, later = over or (
            open_processes(name, options.symbols, progress) for name in (dump, current or "")
        )
    growth = compare_processes(base, later)
    answer_to(
        options,
        Answer(lambda: process_growth_document(growth, top), lambda: process_growth_json(growth)),
    )
    if growth.verdict is Verdict.NOT_COMPARABLE:
        said = "the dumps are not comparable"
        if growth.comparison.verdict is not Verdict.NOT_COMPARABLE:
            said = "whether a process grew cannot be told"
        say(f"dumpleak: {said}: {'; '.join(growth.reasons)}")
        raise SystemExit(EXIT_CANNOT_ANSWER)


def _list(dump: str, top: int | None, options: Options) -> None:
    """The processes of one dump."""
    opened = open_subject(dump).system("only kernel dumps list processes")
    said = use_symbols(opened, options.symbols)
    if opened.process_layout is None:
        raise CannotAnswerError(f"{dump}: {opened.why_no_processes}")
    with progress_bar(options):
        pools = pools_of(opened, options.symbols)
        found = read_processes(opened, pools)
        held = ended_processes(opened, pools, found)
    listed = (
        kernel_source(opened),
        found,
        str(opened.process_layout),
        [*opened.diagnostics, *said],
        held,
    )
    answer_to(
        options, Answer(lambda: processes_document(*listed, top), lambda: processes_json(*listed))
    )
