"""The command line: which command a line means, and what its failures look like.

Exit codes are a contract: 0 done, 1 a gate failed, 2 wrong usage, 3 the question cannot be
answered.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dumpleak import __version__
from dumpleak.commands import COMMANDS
from dumpleak.commands.base import EXIT_CANNOT_ANSWER
from dumpleak.files.detect import why_no_dump
from windumps.errors import NotADumpError, WindumpsError


class DumpleakGroup(click.Group):
    """A group whose first word may be a file: one is `info`, two are `diff`, more are `trend`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Puts the command in front when the files speak for themselves."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            words = [
                arg
                for before, arg in zip(["", *args], args, strict=False)
                if before not in self._value_options() and not arg.startswith("-")
            ]
            # Pipes and devices too: what the command says of them is better than "no such file".
            files = [word for word in words if os.path.exists(word) and not os.path.isdir(word)]
            is_place = words[0] in files or os.path.isdir(words[0])
            if is_place or not words[0].isidentifier():  # else a misspelt command
                for word in words:
                    if word not in files:
                        what = "is a folder, not a dump" if os.path.isdir(word) else "no such file"
                        raise click.UsageError(f"{word}: {what}", ctx=ctx)
                name = {1: "info", 2: "diff"}.get(len(files), "trend")
                return name, self.commands[name], args
        return super().resolve_command(ctx, args)

    def _value_options(self) -> set[str]:
        """Options whose value may be a file that is no dump to look at."""
        return {
            name
            for command in self.commands.values()
            for option in command.params
            if isinstance(option, click.Option) and not option.is_flag and not option.count
            for name in option.opts
        } - {"--after-idle"}


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=DumpleakGroup, context_settings=CONTEXT)
@click.version_option(__version__)
def main_group() -> None:
    r"""Finds memory leaks in Windows dump files, offline.

    One file alone is described (info), two are compared (diff), three and more are a series (trend).

    \b
    Examples:
      dumpleak before.dmp after.dmp
      dumpleak info app.dmp
    """


for _command in COMMANDS:
    main_group.add_command(_command)


def main(args: list[str] | None = None) -> None:
    """Entry point: turns every failure into one line on stderr and an exit code."""
    arguments = sys.argv[1:] if args is None else args
    with _ending_on_signals():
        code = _run(arguments)
    sys.exit(code or 0)


def _run(arguments: list[str]) -> Any:
    debug = "--debug" in arguments
    try:
        return main_group.main(arguments, prog_name="dumpleak", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 130
    except SystemExit as error:
        # When the reader of something else than an answer goes away (`--help | head`), click ends
        # with 1, which means something else here.
        # It leaves a wrapper behind, whose class is not public.
        return 0 if type(sys.stdout).__name__.endswith("PacifyFlushWrapper") else error.code
    except NotADumpError as error:
        about = (why_no_dump(word) for word in arguments if str(error).startswith(f"{word}: "))
        return _fail(next(filter(None, about), str(error)), debug)
    except WindumpsError as error:
        return _fail(str(error), debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", debug)
    except Exception as error:  # the one place: a traceback helps nobody at two in the morning
        return _fail(
            f"internal error ({type(error).__name__}: {error}); please report it with --debug",
            debug,
        )


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Lets a run that is told to end take its temporary files with it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # others may not set handlers
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    kept = {n: signal.signal(n, end) for n in numbers if signal.getsignal(n) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    click.echo(f"dumpleak: {message}", err=True)
    return EXIT_CANNOT_ANSWER
