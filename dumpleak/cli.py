"""The command line: options, exit codes, error texts; no analysis.

Exit codes are a contract: 0 done, 1 a gate failed, 2 wrong usage, 3 the question cannot be
answered.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dumpleak import __version__
from dumpleak.attribution import SiteFinder
from dumpleak.comparison import Verdict, compare
from dumpleak.gate import Condition, parse_gate
from dumpleak.grouping import GROUPINGS
from dumpleak.info import take_info
from dumpleak.reports import REPORTS, Report
from dumpleak.reports.base import BlockPage
from dumpleak.session import Progress as ProgressCallback
from dumpleak.session import Session, no_progress
from dumpleak.snapshot import Coverage, Snapshot, coverage, take_snapshot
from windumps.blocks import State
from windumps.errors import WindumpsError

EXIT_GATE = 1
EXIT_CANNOT_ANSWER = 3


class DumpleakGroup(click.Group):
    """A group whose first word may be a file: one is `info`, two are `diff`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Puts the command in front when the files speak for themselves."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            files = [arg for arg in args if Path(arg).is_file()]
            if files and args[0] == files[0]:
                name = {1: "info", 2: "diff"}.get(len(files))
                if name is None:
                    raise click.UsageError(
                        f"{len(files)} files given: info takes one, diff two", ctx=ctx
                    )
                return name, self.commands[name], args
            if not args[0].isidentifier():
                raise click.UsageError(f"no such file: {args[0]}", ctx=ctx)
        return super().resolve_command(ctx, args)


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=DumpleakGroup, context_settings=CONTEXT)
@click.version_option(__version__)
def main_group() -> None:
    r"""Finds memory leaks in Windows dump files, offline.

    One file alone is described (info), two are compared (diff).

    \b
    Examples:
      dumpleak before.dmp after.dmp
      dumpleak info app.dmp
    """


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that mean the same everywhere."""
    for option in (
        click.option("--debug", is_flag=True, help="Show a traceback when something fails."),
        click.option("--no-progress", is_flag=True, help="No progress bar on a terminal."),
        click.option(
            "-o", "--output", type=click.Path(dir_okay=False), help="Write there and not to stdout."
        ),
        click.option(
            "--format",
            "format_",
            type=click.Choice(list(REPORTS)),
            default="text",
            show_default=True,
        ),
    ):
        command = option(command)
    return command


TOP = click.option("--top", type=click.IntRange(min=1), help="Show only the first N rows.")
DUMP = click.argument("dump", type=click.Path(exists=True, dir_okay=False))


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak info testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak info app.dmp --format json"
)
@DUMP
@common_options
def info(dump: str, **options: Any) -> None:
    """What a dump is, what it holds and lacks, and whether leaks can be looked for in it."""
    with _progress(options) as progress:
        answer = take_info(Session.open(dump), progress)
    with _report(options) as report:
        report.info(answer)


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak heaps testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak heaps app.dmp --format csv -o heaps.csv"
)
@DUMP
@common_options
def heaps(dump: str, **options: Any) -> None:
    """One row a heap: committed, used, free, overhead."""
    snapshot = _snapshot(dump, "heap", options)
    with _report(options) as report:
        report.heaps(snapshot)
    _require(snapshot.coverage)


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak allocations testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz\n"
    "  dumpleak allocations app.dmp --state all --format csv -o blocks.csv"
)
@DUMP
@click.option(
    "--state",
    type=click.Choice(["used", "free", "all"]),
    default="used",
    show_default=True,
    help="Which blocks to list.",
)
@TOP
@common_options
def allocations(dump: str, state: str, top: int | None, **options: Any) -> None:
    """One row a block, with the site it belongs to."""
    session = Session.open(dump)
    session.require_heaps()
    with _progress(options) as progress, _report(options) as report:
        report.allocations(_pages(session, state, progress), top)
    for item in session.diagnostics:
        if item.severity != "info":
            click.echo(f"{item.severity}: {item.message}", err=True)
    _require(coverage(session))


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak stat testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz --by size\n"
    "  dumpleak stat app.dmp --by heap --format json"
)
@DUMP
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="site", show_default=True)
@TOP
@common_options
def stat(dump: str, by: str, top: int | None, **options: Any) -> None:
    """Used blocks of one dump, added up by site, size, heap, module or kind."""
    snapshot = _snapshot(dump, by, options)
    with _report(options) as report:
        report.stat(snapshot, top)
    _require(snapshot.coverage)


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak modules testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak modules app.dmp --format json"
)
@DUMP
@common_options
def modules(dump: str, **options: Any) -> None:
    """Loaded and unloaded images with version, PDB name, GUID and age."""
    opened = Session.open(dump).dump
    with _report(options) as report:
        report.modules(str(opened.path), opened.modules, opened.unloaded_modules)


@main_group.command(
    epilog="\b\nExamples:\n"
    "  dumpleak diff testdata/10.0.19041.3324-x64/leak-pair-aslr/before.dmp.gz"
    " testdata/10.0.19041.3324-x64/leak-pair-aslr/after.dmp.gz\n"
    "  dumpleak diff before.dmp after.dmp --fail-on bytes>=1M"
)
@click.argument("base", type=click.Path(exists=True, dir_okay=False))
@click.argument("current", type=click.Path(exists=True, dir_okay=False))
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="site", show_default=True)
@click.option(
    "--fail-on",
    metavar="CONDITIONS",
    help="Exit with 1 when all sites together grew by bytes>=N, count>=N or percent>=N.",
)
@click.option("--force", is_flag=True, help="Compare dumps that are not really comparable.")
@TOP
@common_options
def diff(
    base: str,
    current: str,
    by: str,
    fail_on: str | None,
    force: bool,
    top: int | None,
    **options: Any,
) -> None:
    """Which allocation sites grew from BASE to CURRENT, ranked by bytes."""
    gate = _gate(fail_on)
    comparison = compare(_snapshot(base, by, options), _snapshot(current, by, options), force=force)
    with _report(options) as report:
        report.diff(comparison, top)
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        click.echo(
            f"dumpleak: the dumps are not comparable: {'; '.join(comparison.reasons)}", err=True
        )
        raise SystemExit(EXIT_CANNOT_ANSWER)
    failed = [condition.text for condition in gate if condition.fails(comparison)]
    if failed:
        click.echo(f"dumpleak: the gate failed: {', '.join(failed)}", err=True)
        raise SystemExit(EXIT_GATE)


# -- helpers
# ---------------------------------------------------------------------------------------------


def _snapshot(dump: str, by: str, options: dict[str, Any]) -> Snapshot:
    with _progress(options) as progress:
        return take_snapshot(Session.open(dump), by, progress)


def _require(covered: Coverage) -> None:
    """Ends with exit code 3 when what was shown covers too little to count as an answer."""
    if covered.shortfall:
        click.echo(f"dumpleak: {covered.shortfall}", err=True)
        raise SystemExit(EXIT_CANNOT_ANSWER)


def _gate(text: str | None) -> list[Condition]:
    try:
        return parse_gate(text) if text is not None else []
    except ValueError as error:
        raise click.UsageError(f"--fail-on: {error}") from error


def _pages(session: Session, state: str, progress: ProgressCallback) -> Iterator[BlockPage]:
    wanted = {"used": State.USED, "free": State.FREE}.get(state)
    finder = SiteFinder(session)
    for source, blocks in session.blocks(progress):
        shown = blocks if wanted is None else blocks.select(blocks.state == wanted)
        names, types = [""] * len(shown), [""] * len(shown)
        used = (shown.state == State.USED).nonzero()[0]
        sites = finder.assign(source, shown.used)
        for row, number in zip(used.tolist(), sites.tolist(), strict=True):
            site = finder.table.sites[number]
            names[row], types[row] = site.name, site.type or ""
        yield BlockPage(source.entry.address, source.view.pointer_size, shown, names, types)


@contextmanager
def _report(options: dict[str, Any]) -> Iterator[Report]:
    """The report in the chosen format, on stdout or in a file that is complete or not there at
    all.
    """
    make = REPORTS[options["format_"]]
    if options["output"] is None:
        yield make(sys.stdout)
        return
    path = Path(options["output"])
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as stream:
            yield make(stream)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _progress(options: dict[str, Any]) -> Iterator[ProgressCallback]:
    """A bar on stderr, only on a terminal."""
    console = Console(stderr=True)
    if options["no_progress"] or not console.is_terminal:
        yield no_progress
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("opening", total=None)

        def show(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase, completed=done, total=total)

        yield show


def main(args: list[str] | None = None) -> None:
    """Entry point: turns every failure into one line on stderr and an exit code."""
    arguments = sys.argv[1:] if args is None else args
    debug = "--debug" in arguments
    try:
        code = main_group.main(arguments, prog_name="dumpleak", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except BrokenPipeError:
        # The reader went away (`| head`): not an error; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except WindumpsError as error:
        code = _fail(str(error), debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{place}{error.strerror or error}", debug)
    except Exception as error:  # the one place: a traceback helps nobody at two in the morning
        code = _fail(
            f"internal error ({type(error).__name__}: {error}); please report it with --debug",
            debug,
        )
    sys.exit(code or 0)


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"dumpleak: {message}", err=True)
    return EXIT_CANNOT_ANSWER
