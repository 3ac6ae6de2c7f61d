"""`dumpleak verifier`: what Driver Verifier tracks of drivers, and the stacks it logged."""

from __future__ import annotations

import click

from dumpleak.commands.options import DUMP, TOP, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar, require
from dumpleak.kernel.pools import PoolReader
from dumpleak.reports.answers.verifier import verifier_document, verifier_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from dumpleak.survey.verifier import UnknownDriverError, take_verifier


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak verifier testdata/kernel-verifier/14393-x64/pair/after.dmp.xz\n"
    "  dumpleak verifier testdata/kernel-verifier/14393-x64/pair/after.dmp.xz acmeflt --top 5\n"
    "  dumpleak verifier MEMORY.DMP mydriver.sys --format csv -o blocks.csv"
)
@DUMP
@click.argument("driver", required=False)
@click.option(
    "--log",
    "logged",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also list the newest N records of the log of allocations and frees, as !verifier 80 N.",
)
@TOP
@options_with(FORMATS)
def verifier(
    dump: str, driver: str | None, logged: int | None, top: int | None, options: Options
) -> None:
    """What Driver Verifier tracks of a kernel dump: flags, the pool of its drivers, their stacks.

    As !verifier 3 and !verifier 80 tell. DRIVER, with or without .sys, shows one driver alone.
    """
    if options.process is not None:
        raise click.UsageError("--process is for heaps; drivers belong to the whole system")
    opened = open_subject(dump).system("only kernel dumps know of Driver Verifier")
    with progress_bar(options) as progress:
        reader = PoolReader(opened, options.symbols, progress=progress)
        try:
            answer = take_verifier(reader, driver, logged or 0)
        except UnknownDriverError as error:
            raise click.UsageError(str(error)) from error
    answer_to(
        options, Answer(lambda: verifier_document(answer, top), lambda: verifier_json(answer))
    )
    require(answer.shortfall)
