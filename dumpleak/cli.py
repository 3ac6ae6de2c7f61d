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
from collections.abc import Iterator, Set
from contextlib import contextmanager
from difflib import get_close_matches
from glob import glob
from typing import Any

import click

from dumpleak import __version__
from dumpleak.commands import COMMANDS, Commands
from dumpleak.commands.exit_codes import EXIT_CANNOT_ANSWER
from dumpleak.commands.saying import say
from dumpleak.interrupts import INTERRUPTED, start_is_over
from dumpleak.model.optional_libraries import in_quotes
from windumps.errors import NotADumpError, WindumpsError

_WILDCARDS = set("*?[")
_OF_FILES = {1: "info", 2: "diff"}  # and more are `trend`


class DumpleakGroup(click.Group):
    """A group whose first word may be a file: one is `info`, two are `diff`, more are `trend`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Says what each command is for, without loading it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Puts the command in front when the files speak for themselves."""
        if not args or args[0] in self.commands or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        words = self._words(args)
        if words[0] == "help" and not os.path.exists("help"):
            return self._help(ctx, words[1:])
        for word in words:
            # Pipes and devices too: what the command says of them is better than "no such file".
            if not os.path.exists(word) or os.path.isdir(word):
                raise click.UsageError(self._why_no_dump(word, words), ctx=ctx)
        name = _OF_FILES.get(len(words), "trend")
        return name, self.commands[name], args

    def spread(self, args: list[str]) -> list[str]:
        """The line with wildcards in place of files spread out, which shells of Windows leave to programs."""
        # A fleet spreads them itself: folders in folders, and stores elsewhere.
        if args[:1] == ["fleet"] or not any(_WILDCARDS & set(word) for word in args):
            return args
        files = set(self._words(args, self._value_options(args[0])))
        found: list[str] = []
        for word in args:
            is_pattern = word in files and not os.path.exists(word)
            found += (sorted(glob(word)) if is_pattern else []) or [word]
        return found

    def _help(
        self, ctx: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """`dumpleak help diff` is `dumpleak diff --help`."""
        if not words:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().resolve_command(ctx, [words[0], "--help"])

    def _why_no_dump(self, word: str, words: list[str]) -> str:
        """One line about a word that is no file, where dumps stand without a command."""
        if os.path.isdir(word):
            return f"{word}: is a folder, not a dump"
        if word in self.commands:
            files = " ".join(in_quotes(other) for other in words if other != word)
            return f"the command comes first: dumpleak {word} {files}"
        if word != words[0] or not word.isidentifier():
            return f"{word}: no such file"
        near = get_close_matches(word, self.commands, 1)
        mean = f". Did you mean {near[0]!r}?" if near else ""
        return f"{word}: no such file, and no such command{mean}"

    def _words(self, args: list[str], options: Set[str] = frozenset()) -> list[str]:
        """The words that are neither options nor their values.

        Args:
            args: The line.
            options: Those with a value; by default those whose value is no dump.
        """
        options = options or self._value_options("") - {"--after-idle"}
        return [
            arg
            for before, arg in zip(["", *args], args, strict=False)
            if before not in options and not arg.startswith("-")
        ]

    def _value_options(self, first: str) -> set[str]:
        """Options with a value, of the command that a line begins with, or of those that files stand for."""
        names = [first] if first in self.commands else [*_OF_FILES.values(), "trend"]
        return {
            name
            for command in map(self.commands.__getitem__, names)
            for option in command.params
            if isinstance(option, click.Option) and not option.is_flag and not option.count
            for name in option.opts
        }


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=DumpleakGroup,
    commands=Commands(),
    context_settings=CONTEXT,
    epilog="\b\nExamples:\n  dumpleak before.dmp after.dmp\n  dumpleak info app.dmp",
)
@click.version_option(__version__, "-V", "--version")
def main_group() -> None:
    """Finds memory leaks in Windows dump files, offline.

    One file alone is described (info), two are compared (diff), three and more are a series (trend).
    """


def main(args: list[str] | None = None) -> None:
    """Entry point: turns every failure into one line on stderr and an exit code."""
    arguments = sys.argv[1:] if args is None else args
    if arguments:
        main_group.commands.get(arguments[0])  # its imports are part of the start
    start_is_over()
    try:
        with _ending_on_signals():
            code = _run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code or 0)


def _run(arguments: list[str]) -> Any:
    debug = "--debug" in arguments
    arguments = main_group.spread(arguments)
    try:
        return main_group.main(arguments, prog_name="dumpleak", standalone_mode=False)
    except click.NoSuchOption as error:
        meant = _meant(error)
        told = f"{error.message} Did you mean {meant!r}?"
        (click.UsageError(told, error.ctx) if meant else error).show()
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except SystemExit as error:
        # When the reader of something else than an answer goes away (`--help | head`), click ends
        # with 1, which means something else here.
        # It leaves a wrapper behind, whose class is not public.
        return 0 if type(sys.stdout).__name__.endswith("PacifyFlushWrapper") else error.code
    except NotADumpError as error:
        from dumpleak.files.detect import why_no_dump  # not needed to start

        about = (why_no_dump(word) for word in arguments if str(error).startswith(f"{word}: "))
        return _fail(next(filter(None, about), str(error)), debug=debug)
    except WindumpsError as error:
        return _fail(str(error), debug=debug)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror or error}", debug=debug)
    except Exception as error:  # the one place: a traceback helps nobody at two in the morning
        return _fail(
            f"internal error ({type(error).__name__}: {error}); please report it with --debug",
            debug=debug,
        )


def _meant(error: click.NoSuchOption) -> str:
    """What people mean who write `--json` or `-f json`; "" for all else."""
    params = error.ctx.command.params if error.ctx is not None else []
    formats = [c for p in params if p.name == "format_" for c in getattr(p.type, "choices", ())]
    word = error.option_name.lstrip("-")
    if word in formats:
        return f"--format {word}"
    return "--format" if word == "f" and formats else ""


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


def _fail(message: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    say(f"dumpleak: {message}")
    return EXIT_CANNOT_ANSWER
