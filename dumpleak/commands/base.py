"""What commands share: options, progress, where reports go, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dumpleak.reports import REPORTS, Report
from dumpleak.session import Progress as ProgressCallback
from dumpleak.session import Session, no_progress
from dumpleak.snapshot import Coverage, Snapshot, take_snapshot

EXIT_GATE = 1
EXIT_CANNOT_ANSWER = 3


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


def open_snapshot(dump: str, by: str, options: dict[str, Any]) -> Snapshot:
    """Opens and walks a dump; raises as `Session.open` and `take_snapshot`."""
    with progress_bar(options) as progress:
        return take_snapshot(Session.open(dump), by, progress)


def require(covered: Coverage) -> None:
    """Ends with exit code 3 when what was shown covers too little to count as an answer."""
    if covered.shortfall:
        click.echo(f"dumpleak: {covered.shortfall}", err=True)
        raise SystemExit(EXIT_CANNOT_ANSWER)


@contextmanager
def report_to(options: dict[str, Any]) -> Iterator[Report]:
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
def progress_bar(options: dict[str, Any]) -> Iterator[ProgressCallback]:
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
