"""`dumpleak symbols`: which PDBs a dump wants, which are there and which are missing."""

from __future__ import annotations

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar
from dumpleak.files.detect import read_snapshot
from dumpleak.model.errors import CannotAnswerError
from dumpleak.process.session import Session
from dumpleak.reports.answers.symbols import LISTS, symbols_document, symbols_json
from dumpleak.reports.formats import FORMATS, Answer, formats_of
from dumpleak.symbols.wanted_symbols import find_wanted


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak symbols testdata/10.0.19041.3324-x64/leak-pair-ust/after.dmp.gz\n"
    '  dumpleak symbols app.dmp --symbols "srv*cache*https://symbols.example.com"\n'
    "  dumpleak symbols app.dmp --format manifest -o wanted.txt"
)
@DUMP
@options_with([*FORMATS, *LISTS])
def symbols(dump: str, options: Options) -> None:
    """PDBs that a dump's images want: found, missing, and those as a list to fetch elsewhere.

    With a server in the symbol path what is missing is fetched into its cache.
    """
    held = read_snapshot(dump, "site")
    if held is not None:
        kind, modules = held.source.kind, list(held.modules)
    else:
        opened = Session.open(dump, process=options.process).dump
        kind, modules = opened.kind, [*opened.modules, *opened.unloaded_modules]
    if not modules:
        raise CannotAnswerError(f"{dump}: this {kind} lists no images")
    with progress_bar(options):
        answer = find_wanted(dump, modules, options.symbols)
    answer_to(
        options,
        Answer(
            lambda: symbols_document(answer),
            lambda: symbols_json(answer),
            formats_of(LISTS, answer),
        ),
    )
