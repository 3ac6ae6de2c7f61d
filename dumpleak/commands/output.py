"""Where answers go, how long work tells where it is, and how commands end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import IO

from rich.console import Console

from dumpleak.commands.exit_codes import EXIT_CANNOT_ANSWER
from dumpleak.commands.options import Options
from dumpleak.commands.saying import say
from dumpleak.model.errors import Progress as ProgressCallback
from dumpleak.model.errors import no_progress
from dumpleak.reports.formats import Answer, write_answer
from windumps.files import DISK_FULL, whole_file


def require(shortfall: str) -> None:
    """Ends with exit code 3 when what was shown says too little to count as an answer; "" is enough."""
    if shortfall:
        say(f"dumpleak: {shortfall}")
        raise SystemExit(EXIT_CANNOT_ANSWER)


def answer_to(options: Options, answer: Answer) -> None:
    """Writes an answer in the chosen format; it goes where `output_to` says."""
    with output_to(options) as stream:
        write_answer(answer, options.format, stream)


@contextmanager
def output_to(place: Options | str | None) -> Iterator[IO[str]]:
    """Text on stdout, or in a file that is complete or not there at all.

    Args:
        place: The options that say where, or a file's name, or None for stdout.
    """
    output = place.output if isinstance(place, Options) else place
    if output is None:
        if isinstance(sys.stdout, TextIOWrapper):
            # Names from dumps have characters that old consoles lack: shown as escapes, not as an error.
            sys.stdout.reconfigure(errors="backslashreplace")
        with _standard_output():
            yield sys.stdout
            sys.stdout.flush()
        return
    with whole_file(output) as file:
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


@contextmanager
def progress_bar(options: Options) -> Iterator[ProgressCallback]:
    """A bar on stderr, only on a terminal."""
    if options.no_progress or not Console(stderr=True).is_terminal:
        yield no_progress
        return
    from dumpleak.commands import progress  # not needed where nobody looks

    with progress.bar() as bar:
        task = bar.add_task("opening", total=None)

        def show(phase: str, done: int, total: int) -> None:
            bar.update(task, description=phase, completed=done, total=total)

        def show_download(url: str, received: int, total: int | None) -> None:
            name = url.rpartition("/")[2]
            bar.update(task, description=f"downloading {name}", completed=received, total=total)

        symbols = options.symbols
        if symbols is not None:
            symbols.show_progress(show_download)
        try:
            yield show
        finally:
            if symbols is not None:
                symbols.show_progress(None)
