"""`dumpleak processes`: the processes of a kernel dump."""

from __future__ import annotations

import click

from dumpleak.commands.options import DUMP, TOP, Options, options_with
from dumpleak.commands.output import answer_to
from dumpleak.kernel.info import kernel_source, listed_processes
from dumpleak.model.errors import CannotAnswerError
from dumpleak.reports.answers.kernel import processes_document, processes_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from dumpleak.symbols.kernel import use_symbols


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak processes testdata/kernel/22621-x64/tiny-pair/after.dmp.xz\n"
    "  dumpleak processes MEMORY.DMP --format csv -o processes.csv"
)
@DUMP
@TOP
@options_with(FORMATS)
def processes(dump: str, top: int | None, options: Options) -> None:
    """Processes of a kernel dump: id, parent, name, start, private commit, handles."""
    opened = open_subject(dump).system("only kernel dumps list processes")
    said = use_symbols(opened, options.symbols)
    if opened.process_layout is None:
        raise CannotAnswerError(f"{dump}: {opened.why_no_processes}")
    listed = (
        kernel_source(opened),
        listed_processes(opened),
        str(opened.process_layout),
        [*opened.diagnostics, *said],
    )
    answer_to(
        options, Answer(lambda: processes_document(*listed, top), lambda: processes_json(*listed))
    )
