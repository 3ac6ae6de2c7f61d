"""`dumpleak fleet`: thousands of dumps, and which leaks are out there, where, since when."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dumpleak.commands.options import Options
from dumpleak.commands.output import output_to, progress_bar
from dumpleak.commands.saying import say
from dumpleak.fleets.asked import TIMEOUT_SECONDS, Asked, Told
from dumpleak.fleets.places import NoSuchPlaceError
from dumpleak.model.optional_libraries import missing_extra
from dumpleak.model.populations import BLOCKS, POPULATIONS
from dumpleak.model.units import count_of, format_bytes, parse_size
from dumpleak.symbols.dump_symbols import given_elements
from windumps.symbols.errors import SymbolPathError

if TYPE_CHECKING:
    from dumpleak.fleets.run import FleetRun

_SHOWN = 200  # characters of a reason


def _bytes(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_size(value)
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


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak fleet testdata/10.0.26100.5074-x64/leak-pair-ust/before.dmp.gz"
    " testdata/10.0.26100.5074-x64/leak-pair-ust/after.dmp.gz -o fleet\n"
    "  dumpleak fleet s3://crashes/2026/ archive.zip 'logs/*.csv' -o fleet --workers 8\n"
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
    debug: bool,
    no_progress: bool,
) -> None:
    """Reads thousands of dumps, snapshots and logs on many workers, and tells which leaks are out there.

    INPUTS are files, folders, globs, archives with many dumps, and URLs (s3://, gs://, abfs://). FOLDER
    gets dumps.parquet, sites.parquet, growth.parquet and clusters.parquet.
    """
    if scheduler is not None and workers is not None:
        raise click.UsageError("--workers are of this machine, --scheduler has its own: give one")
    asked = Asked(
        inputs,
        output,
        scheduler,
        workers,
        timeout,
        memory_limit,
        by,
        symbols,
        retry_errors,
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
    with output_to(None) as stream:
        for line in _summary(ran):
            stream.write(f"{line}\n")


def _show(inputs: Iterable[tuple[str, int]]) -> None:
    with output_to(None) as stream:
        for url, size in inputs:
            stream.write(f"{format_bytes(size):>10}  {url}\n")


def _summary(ran: FleetRun) -> list[str]:
    """What came of it, in a few lines."""
    inputs = count_of(ran.read + ran.errors, "different input")
    lines = [f"{inputs}: {ran.read:,} read, {ran.errors:,} could not be read"]
    new = sum(state == "new" for state in ran.clusters["state"].to_pylist())
    lines.append(
        f"{count_of(ran.clusters.num_rows, 'leak')}, {new:,} new, in {ran.series:,} series"
    )
    if ran.not_compared:
        many = f"{len(ran.not_compared):,} of {ran.series:,} series"
        lines.append(f"{many} cannot be compared; the first: {ran.not_compared[0][1][:_SHOWN]}")
    lines.append(f"datasets in {ran.folder}")
    return lines
