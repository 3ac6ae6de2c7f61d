"""`dumpleak snapshot`: what comparing commands need of a dump, in a small file."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

import click

from dumpleak.commands.options import DUMP, HOLDERS, HOLDERS_AUTO_BYTES, Options, options_with
from dumpleak.commands.output import output_to, progress_bar, require
from dumpleak.model.errors import CannotAnswerError, Progress
from dumpleak.model.populations import BLOCKS, POPULATIONS
from dumpleak.process.coverage import coverage
from dumpleak.process.session import Session
from dumpleak.survey.open import open_subject
from dumpleak.survey.recording import INCLUDABLE
from dumpleak.survey.umdh_log import write_log
from dumpleak.survey.wanted import Recording

FILE_FORMAT = "dlsnap"


def _write_umdh(session: Session, stream: IO[str], progress: Progress) -> None:
    if not write_log(session, stream, progress):
        raise CannotAnswerError(
            f"{session.dump.path}: no block has a recorded stack, and a UMDH log lists no others; "
            "stacks are recorded after `gflags /i app.exe +ust` and a new start of the program"
        )


# Besides the snapshot file, which is the default: writers of text.
FORMATS: dict[str, Callable[[Session, IO[str], Progress], None]] = {"umdh": _write_umdh}


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak snapshot testdata/10.0.19041.3324-x64/leak-pair-ust/before.dmp.gz -o before.dlsnap\n"
    "  dumpleak snapshot before.dmp --format umdh -o before.log\n"
    "  dumpleak diff before.dlsnap after.dmp"
)
@DUMP
@click.option(
    "--include",
    type=click.Choice(INCLUDABLE),
    multiple=True,
    help="Also write full paths of images and source files; they may hold the names of users.",
)
@click.option("--strip-names", is_flag=True, help="Hash the names of types, modules and functions.")
@click.option(
    "--keep-name",
    metavar="PATTERN",
    multiple=True,
    help="With --strip-names: a module or type whose name stays, ntdll.dll or app::*.",
)
@click.option(
    "--of",
    type=click.Choice(list(POPULATIONS)),
    help="Refuse a dump that does not tell of this. The file holds all that the dump tells of; of handles "
    "how many of each type.",
)
@HOLDERS
@options_with([FILE_FORMAT, *FORMATS])
def snapshot(
    *,
    dump: str,
    include: tuple[str, ...],
    strip_names: bool,
    keep_name: tuple[str, ...],
    of: str | None,
    holders: bool | None,
    options: Options,
) -> None:
    """What a comparison needs of a dump, in a small file without memory contents."""
    if options.format == FILE_FORMAT:
        if options.output is None:
            raise click.UsageError("-o FILE is needed: a snapshot file is not text")
        limit = HOLDERS_AUTO_BYTES if holders is None else holders
        asked = Recording(include, strip_names, keep_name, limit, of)
        opened = open_subject(dump, options.symbols, options.process)
        with progress_bar(options) as progress:
            shortfall = opened.record(options.output, asked, progress)
        require(shortfall)
        return
    if include or strip_names or keep_name or of not in (None, BLOCKS):
        raise click.UsageError(
            f"--include, --strip-names, --keep-name and --of are for --format {FILE_FORMAT} only"
        )
    with output_to(options) as stream, progress_bar(options) as progress:
        session = Session.open(dump, options.symbols, options.process)
        FORMATS[options.format](session, stream, progress)
    require(coverage(session).shortfall)
