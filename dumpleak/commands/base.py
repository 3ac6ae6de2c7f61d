"""What commands share: options, progress, where reports go, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from io import TextIOWrapper
from typing import IO, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dumpleak.attribution.late_symbols import with_symbols
from dumpleak.attribution.skip_list import skip_patterns
from dumpleak.files.detect import read_snapshot
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.coverage import Coverage
from dumpleak.model.errors import Progress as ProgressCallback
from dumpleak.model.errors import no_progress
from dumpleak.model.holding import StoredHolders
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import format_bytes
from dumpleak.pointers.holders import HolderFinder
from dumpleak.process.session import Session
from dumpleak.reports import DETAILED_REPORTS, REPORTS, Report
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.pools import take_pool_snapshot
from dumpleak.symbols.dump_symbols import ENVIRONMENT, environment_elements, given_elements
from windumps.dumps.kernel.dump import KernelDump
from windumps.files import DISK_FULL, whole_file
from windumps.symbols.errors import SymbolPathError
from windumps.symbols.provider import Symbols

_READ = "dumpleak.read"  # what options of a command line name besides patterns
SMALLEST_TOTAL = 0x10000  # totals below this are no bytes
EXIT_GATE = 1
EXIT_CANNOT_ANSWER = 3
HOLDERS_AUTO_BYTES = 1 << 30
HOLDERS_TOP = 20  # sites whose holders are looked for unless --top says more or less


def _symbols(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> Symbols | None:
    """The symbols to use; None when no path is given. Unpacked files go when the command ends."""
    try:
        elements = given_elements(values)
    except SymbolPathError as error:
        raise click.BadParameter(str(error), context, option) from error
    try:
        elements += environment_elements()
    except SymbolPathError as error:
        click.echo(f"dumpleak: {ENVIRONMENT} is not used: {error}", err=True)
    if not elements:
        return None
    symbols = Symbols.along(list(dict.fromkeys(elements)))
    context.call_on_close(symbols.close)
    return symbols


def options_with(formats: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that mean the same everywhere, with a choice of formats; the first is the default."""
    choice = list(formats)
    options = (
        click.option(
            "--process",
            metavar="PID|NAME",
            help="A process of a kernel dump, by its id or the name of its program.",
        ),
        click.option(
            "--symbols",
            multiple=True,
            metavar="PATH",
            callback=_symbols,
            help="Where PDBs are, as in _NT_SYMBOL_PATH, which is read too: folders, symbol stores, "
            "srv*CACHE*URL. May be given more than once. Only servers named here or there are asked.",
        ),
        click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
        click.option(
            *("-q", "--quiet", "--no-progress", "no_progress"),
            is_flag=True,
            help="No progress bar on a terminal.",
        ),
        click.option(
            *("-o", "--output"),
            type=click.Path(dir_okay=False, readable=False),
            callback=output_place,
            help="Write there and not to stdout.",
        ),
        click.option(
            "--format",
            "format_",
            type=click.Choice(choice),
            default=choice[0],
            show_default=True,
        ),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def checked(**given: Any) -> Any:
            _refuse_more(click.get_current_context())
            _keep_inputs(given)
            return command(**given)

        for option in options:
            checked = option(checked)
        return checked

    return add


def output_place(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Where to write; None for "-", which stands for stdout, as everywhere.

    Raises:
        BadParameter: there is no such folder; told before any work is done.
    """
    if value is None or value == "-":
        return None
    if not value:
        raise click.BadParameter("the name of a file is needed", context, option)
    folder = os.path.dirname(value)
    if folder and not os.path.isdir(folder):
        what = "is no folder" if os.path.exists(folder) else "there is no such folder"
        raise click.BadParameter(f"{value}: {folder}: {what}", context, option)
    return value


def _refuse_more(context: click.Context) -> None:
    """Refuses files that a command on fewer cannot use."""
    if context.args:
        takes = sum(isinstance(param, click.Argument) for param in context.command.params)
        raise click.UsageError(
            f"{context.info_name} takes {'one file' if takes == 1 else 'two files'}, and "
            f"{context.args[0]!r} is one more; two dumps are compared by diff, three and more by trend"
        )


def _keep_inputs(given: dict[str, Any]) -> None:
    """Refuses to write the answer over a file it is about."""
    output = given["output"]
    if output is None or not os.path.isfile(output):
        return
    words = [
        word
        for name, value in given.items()
        if name != "output"
        for word in (value if isinstance(value, tuple) else (value,))
    ]
    for word in (*words, *click.get_current_context().meta.get(_READ, ())):
        is_input = isinstance(word, (str, os.PathLike)) and os.path.isfile(word)
        if is_input and os.path.samefile(word, output):
            raise click.UsageError(f"-o {output} would overwrite a file that is read")


common_options = options_with(REPORTS)


def _skip_frames(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    context.meta[_READ] = values
    try:
        return skip_patterns(values)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


SKIP_FRAMES = click.option(
    "--skip-frames",
    multiple=True,
    metavar="PATTERN|FILE",
    callback=_skip_frames,
    help="Also leave these frames out of the names of stacks: module!function with wildcards, "
    "or a file with one pattern a line. May be given more than once.",
)
HOLDERS = click.option(
    "--holders/--no-holders",
    default=None,
    help="Look for who points to the blocks of the sites shown (all memory is read once more); "
    f"on by default up to {format_bytes(HOLDERS_AUTO_BYTES)} of used blocks.",
)


class _RowCount(click.IntRange):
    name = "number of rows"  # as messages call it


TOP = click.option("--top", type=_RowCount(min=1), metavar="N", help="Show only the first N rows.")
DUMP = click.argument("dump", type=click.Path(exists=True, dir_okay=False))


def open_snapshot(
    dump: str,
    by: str,
    options: dict[str, Any],
    holders: bool = False,
    keep_blocks: bool = False,
) -> Snapshot:
    """Reads a snapshot file, or opens and walks a dump.

    Args:
        dump: Its name.
        by: The grouping.
        options: The command's.
        holders: As `take_snapshot` takes it.
        keep_blocks: As `take_snapshot` takes it.

    Raises:
        WindumpsError: as `Session.open`, `take_snapshot` and `read_snapshot`.
    """
    with progress_bar(options) as progress:
        skip_frames = options.get("skip_frames", ())
        held = read_snapshot(dump, by, skip_frames)
        if held is not None:
            return with_symbols(held, options.get("symbols"), skip_frames)
        session = Session.open(dump, options.get("symbols"), options.get("process"))
        session.skip_frames = skip_frames
        details = options.get("format_") in DETAILED_REPORTS
        if isinstance(session.dump, KernelDump):
            reader = PoolReader(session.dump, options.get("symbols"), progress=progress)
            return take_pool_snapshot(reader, by, details)
        return take_snapshot(session, by, progress, details, keep_blocks, holders)


def look_for_holders(
    snapshot: Snapshot, keys: Iterable[str], wanted: bool | None, options: dict[str, Any]
) -> None:
    """Fills `Snapshot.held_by` for some groups, when that is wanted or does not take long."""
    if snapshot.holders is None or wanted is False:
        return
    if wanted is None and snapshot.totals.bytes > HOLDERS_AUTO_BYTES:
        return
    with progress_bar(options) as progress:
        progress("looking for holders", 0, 1)
        snapshot.held_by = snapshot.holders(set(keys))
        if isinstance(snapshot.holders, HolderFinder | StoredHolders):
            snapshot.unreferenced = snapshot.holders.unreferenced


def require(covered: Coverage) -> None:
    """Ends with exit code 3 when what was shown covers too little to count as an answer."""
    if covered.shortfall:
        click.echo(f"dumpleak: {covered.shortfall}", err=True)
        raise SystemExit(EXIT_CANNOT_ANSWER)


@contextmanager
def report_to(options: dict[str, Any]) -> Iterator[Report]:
    """The report in the chosen format; goes where `output_to` says."""
    with output_to(options) as stream:
        yield REPORTS[options["format_"]](stream)


@contextmanager
def output_to(options: dict[str, Any]) -> Iterator[IO[str]]:
    """Text on stdout, or in a file that is complete or not there at all."""
    if options["output"] is None:
        if isinstance(sys.stdout, TextIOWrapper):
            # Names from dumps have characters that old consoles lack: shown as escapes, not as an error.
            sys.stdout.reconfigure(errors="backslashreplace")
        with _standard_output():
            yield sys.stdout
            sys.stdout.flush()
        return
    with whole_file(options["output"]) as file:
        stream = TextIOWrapper(file, encoding="utf-8", newline="")
        yield stream
        stream.flush()
        stream.detach()


@contextmanager
def _standard_output() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # The reader went away (`| head`); the command goes on to the exit code it owes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None and error.errno in DISK_FULL:
            raise OSError(error.errno, error.strerror, "standard output") from error
        raise


class _Amount(ProgressColumn):
    """Bytes done, of bytes in all; nothing for phases that count something else."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        if task.total is None or task.total < SMALLEST_TOTAL:
            return Text("")
        return Text(f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total))}")


@contextmanager
def progress_bar(options: dict[str, Any]) -> Iterator[ProgressCallback]:
    """A bar on stderr, only on a terminal."""
    console = Console(stderr=True)
    if options["no_progress"] or not console.is_terminal:
        yield no_progress
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("opening", total=None)

        def show(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase, completed=done, total=total)

        def show_download(url: str, received: int, total: int | None) -> None:
            name = url.rpartition("/")[2]
            bar.update(task, description=f"downloading {name}", completed=received, total=total)

        symbols: Symbols | None = options.get("symbols")
        if symbols is not None:
            symbols.show_progress(show_download)
        try:
            yield show
        finally:
            if symbols is not None:
                symbols.show_progress(None)
