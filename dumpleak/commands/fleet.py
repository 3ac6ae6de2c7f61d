"""`dumpleak fleet`: thousands of dumps, and which leaks are out there, where, since when."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dumpleak.commands.exit_codes import EXIT_CANNOT_ANSWER, EXIT_GATE
from dumpleak.commands.options import TOP, Options
from dumpleak.commands.output import output_to, progress_bar
from dumpleak.commands.saying import say
from dumpleak.fleets.asked import TIMEOUT_SECONDS, Asked, Told
from dumpleak.fleets.known import Known, read_known
from dumpleak.fleets.places import NoSuchPlaceError
from dumpleak.model.optional_libraries import missing_extra
from dumpleak.model.populations import BLOCKS, POPULATIONS
from dumpleak.model.units import format_bytes, parse_size
from dumpleak.reports.formats import Answer, write_answer
from dumpleak.symbols.dump_symbols import given_elements
from windumps.symbols.errors import SymbolPathError

if TYPE_CHECKING:
    from dumpleak.fleets.run import FleetRun
    from dumpleak.gate.conditions import Condition

FORMATS = ("text", "json", "csv", "markdown")
PAGE = "report.html"


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def _known(context: click.Context, option: click.Parameter, value: str | None) -> Known | None:
    try:
        return None if value is None else read_known(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def _conditions(
    context: click.Context, option: click.Parameter, value: str | None
) -> list[Condition] | None:
    from dumpleak.fleets.gate import parse_fleet_gate

    try:
        return None if value is None else parse_fleet_gate(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def _symbols(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    try:
        given_elements(values)
    except SymbolPathError as error:
        raise click.BadParameter(str(error), context, option) from error
    return values


def _pattern(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        groups = re.compile(value).groups
    except re.error as error:
        raise click.BadParameter(f"no pattern: {error}", context, option) from error
    if value and not groups:
        raise click.BadParameter("has no group: put what names the machine in ( )", context, option)
    return value


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak fleet testdata/10.0.26100.5074-x64/leak-pair-ust/before.dmp.gz"
    " testdata/10.0.26100.5074-x64/leak-pair-ust/after.dmp.gz -o fleet\n"
    '  dumpleak fleet /mnt/dumps -o fleet --known known.toml --fail-on "new-clusters>=1"\n'
    '  dumpleak fleet s3://crashes/2026/ archive.zip "logs/*.csv" -o fleet --workers 8\n'
    "  dumpleak fleet /mnt/dumps -o fleet --scheduler tcp://10.0.0.5:8786 --dry-run"
)
@click.argument("inputs", nargs=-1, required=True)
@click.option(
    *("-o", "--output"),
    required=True,
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the datasets and snapshots go. Run again with the same folder: only new inputs are read.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Use the workers of a Dask cluster that is there: tcp://HOST:8786.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Workers on this machine; as many as cores and memory allow unless given.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="What takes longer to read is an error.",
)
@click.option(
    "--memory-limit",
    metavar="BYTES",
    callback=_bytes,
    help="What takes more memory to read is an error: 4G. A worker's share of this machine unless given; "
    "a dump that is mapped is not counted.",
)
@click.option("--retry-errors", is_flag=True, help="Also read again what could not be read before.")
@click.option("--dry-run", is_flag=True, help="Say what would be read, and do nothing.")
@click.option(
    "--by",
    type=click.Choice(list(POPULATIONS[BLOCKS].groupings)),
    default="site",
    show_default=True,
    help="What a leak is told by.",
)
@click.option(
    "--symbols",
    multiple=True,
    metavar="PATH",
    callback=_symbols,
    help="Where PDBs are, as in _NT_SYMBOL_PATH, which is read too; workers must see them. May be given "
    "more than once.",
)
@click.option(
    "--machine-from",
    metavar="REGEX",
    default="",
    callback=_pattern,
    help="Names the machine of inputs that do not tell theirs: what the group of this pattern matches in the "
    "place of the input, 'dumps/([^/]+)/'.",
)
@click.option(
    "--known",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    callback=_known,
    help="A TOML file of leaks that are known: named, and muted until a day.",
)
@click.option(
    "--fail-on",
    "conditions",
    metavar="CONDITIONS",
    callback=_conditions,
    help="Exit with 1 when one holds: new-clusters>=N, clusters>=N, machines>=N or series>=N of one leak, "
    "bytes-per-hour>=N, errors>=N. Separated by commas. Muted leaks do not count.",
)
@click.option("--format", "format_", type=click.Choice(FORMATS), default="text", show_default=True)
@TOP
@click.option("--debug", is_flag=True, help="Show tracebacks, and what the workers say.")
@click.option(
    *("-q", "--quiet", "--no-progress", "no_progress"),
    is_flag=True,
    help="No progress bar on a terminal.",
)
def fleet(
    *,
    inputs: tuple[str, ...],
    output: Path,
    scheduler: str | None,
    workers: int | None,
    timeout: float,
    memory_limit: int | None,
    retry_errors: bool,
    dry_run: bool,
    by: str,
    symbols: tuple[str, ...],
    machine_from: str,
    known: Known | None,
    conditions: list[Condition] | None,
    format_: str,
    top: int | None,
    debug: bool,
    no_progress: bool,
) -> None:
    """Reads thousands of dumps, snapshots and logs on many workers, and tells which leaks are out there.

    INPUTS are files, folders, globs, archives with many dumps, and URLs (s3://, gs://, abfs://). FOLDER
    gets dumps.parquet, sites.parquet, growth.parquet, clusters.parquet and report.html.
    """
    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers are of this machine, --scheduler has its own: give one")
    asked = Asked(
        *(inputs, output, scheduler, workers, timeout, memory_limit, by, symbols, retry_errors),
        known=known,
        machine_from=machine_from,
        debug=debug,
    )
    try:
        from dumpleak.fleets import run as runner  # takes a second, and libraries of an extra
    except ImportError as error:
        raise missing_extra("fleets", error.name or "dask", "fleet") from error
    try:
        if dry_run:
            _show(runner.dry_run(asked, Told(say=say)))
            return
        with progress_bar(Options(no_progress=no_progress)) as progress:
            ran = runner.run(asked, Told(progress, say))
    except NoSuchPlaceError as error:
        raise click.UsageError(str(error)) from error
    finish(ran, conditions, format_, top)


def _show(inputs: Iterable[tuple[str, int]]) -> None:
    with output_to(None) as stream:
        for url, size in inputs:
            stream.write(f"{format_bytes(size):>10}  {url}\n")


def finish(
    ran: FleetRun, conditions: list[Condition] | None, format_: str, top: int | None
) -> None:
    """Writes the page and the answer, and ends with the exit code for what the gate says."""
    from dumpleak.fleets.gate import fleet_gate
    from dumpleak.fleets.summary import summarised
    from dumpleak.reports.answers.fleet import fleet_document
    from dumpleak.reports.answers.fleet_json import fleet_json
    from dumpleak.reports.fleet_page import fleet_page

    summary = summarised(ran.folder, ran.clusters, ran.not_compared)
    gate = fleet_gate(conditions, summary) if conditions else None
    page = ran.folder / PAGE
    with output_to(str(page)) as stream:
        stream.write(fleet_page(summary))
    with output_to(None) as stream:
        document = fleet_document(summary, gate, top)
        write_answer(Answer(lambda: document, lambda: fleet_json(summary, gate)), format_, stream)
    say(f"datasets and {PAGE} in {ran.folder}")
    if gate is not None:
        click.echo(gate.summary, err=True)
        if gate.verdict != "pass":
            raise SystemExit(EXIT_GATE if gate.verdict == "fail" else EXIT_CANNOT_ANSWER)
