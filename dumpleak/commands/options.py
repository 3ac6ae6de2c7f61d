"""Options that mean the same in every command."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumpleak.attribution.skip_list import skip_patterns
from dumpleak.commands.saying import say
from dumpleak.model.block_filter import BlockFilter, parse_sizes
from dumpleak.model.units import format_bytes
from dumpleak.reports.shown import CALLERS, Shown
from windumps.symbols.paths import ENVIRONMENT

if TYPE_CHECKING:
    from windumps.symbols.provider import Symbols

_READ = "dumpleak.read"  # what options of a command line name besides patterns
HOLDERS_AUTO_BYTES = 1 << 30
# Groups that are a whole heap, or most of one: who points to some block of them says nothing.
COARSE = frozenset({"heap", "kind"})
HOLDERS_TOP = 20  # sites whose holders are looked for unless --top says more or less


@dataclass(frozen=True)
class Options:
    """What the user asked for besides what a command is about.

    Attributes:
        format: Of the answer, one that the command has.
        output: Where the answer goes; None for stdout.
        no_progress: No progress bar on a terminal.
        symbols: Where names come from; None for none.
        process: A process of a kernel dump, by id or by the name of its program.
        skip_frames: Patterns of frames that name no site, besides the built-in ones.
    """

    format: str = "text"
    output: str | None = None
    no_progress: bool = False
    symbols: Symbols | None = None
    process: str | None = None
    skip_frames: tuple[str, ...] = ()


def _symbols(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> Symbols | None:
    """The symbols to use; None when no path is given. Unpacked files go when the command ends."""
    if not values and not os.environ.get(ENVIRONMENT):
        return None
    from dumpleak.symbols.dump_symbols import environment_elements, given_elements
    from windumps.symbols.errors import SymbolPathError
    from windumps.symbols.provider import Symbols

    try:
        elements = given_elements(values)
    except SymbolPathError as error:
        raise click.BadParameter(str(error), context, option) from error
    try:
        elements += environment_elements()
    except SymbolPathError as error:
        say(f"dumpleak: {ENVIRONMENT} is not used: {error}")
    if not elements:
        return None
    symbols = Symbols.along(list(dict.fromkeys(elements)))
    context.call_on_close(symbols.close)
    return symbols


def _common(formats: list[str]) -> tuple[Callable[[Any], Any], ...]:
    """The options themselves."""
    return (
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
            type=click.Choice(formats),
            default=formats[0],
            show_default=True,
        ),
    )


def options_with(formats: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that mean the same everywhere, with a choice of formats; the first is the default.

    The command gets them as one `Options`, its parameter `options`.
    """
    options = _common(list(formats))

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def checked(**given: Any) -> Any:
            _refuse_more(click.get_current_context())
            _keep_inputs(given)
            del given["debug"]  # who catches errors asks the context
            common = Options(
                format=given.pop("format_"),
                output=given.pop("output"),
                no_progress=given.pop("no_progress"),
                symbols=given.pop("symbols"),
                process=given.pop("process"),
                skip_frames=given.pop("skip_frames", ()),
            )
            return command(options=common, **given)

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
    f"on by default up to {format_bytes(HOLDERS_AUTO_BYTES)} of used blocks, "
    f"but not --by {' or '.join(sorted(COARSE))}.",
)
RETAINED = click.option(
    "--retained",
    is_flag=True,
    help="Also tell what each site keeps alive: what would become unreachable, at least, if only its "
    "blocks were released.",
)
CONTENTS = click.option(
    "--contents",
    is_flag=True,
    help="Also show a few of the texts that the blocks of each site hold. They may be secrets: nothing "
    "shows them unless asked, and no snapshot file has them.",
)


def _sizes(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    try:
        return None if value is None else parse_sizes(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from error


def block_filter(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of which blocks to show; the command gets them as one `BlockFilter`, its parameter `asked`."""

    @wraps(command)
    def filtered(**given: Any) -> Any:
        names = given.keys() & {field.name for field in fields(BlockFilter)}
        return command(asked=BlockFilter(**{name: given.pop(name) for name in names}), **given)

    for option in reversed(_FILTERS):
        filtered = option(filtered)
    return filtered


_FILTERS = (
    click.option(
        "--site",
        metavar="PATTERN",
        help="Only blocks of sites with this in their name, or like a*b.",
    ),
    click.option("--type", metavar="PATTERN", help="Only classes with such names."),
    click.option(
        "--heap", metavar="LABEL", help='Only of one heap: its label ("heap 1"), number or handle.'
    ),
    click.option(
        "--size",
        "sizes",
        metavar="N|N-M",
        callback=_sizes,
        help="Only of this many bytes, as asked for: 48, 4K, 64-128.",
    ),
    click.option("--tag", metavar="PATTERN", help="Only with such pool tags; case matters."),
    click.option("--unreferenced", is_flag=True, help="Only blocks that no root leads to."),
    click.option(
        "--new-since",
        metavar="BASE",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Only blocks that an earlier dump of the same run does not have.",
    ),
)


def _callers(context: click.Context, option: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isdecimal():
        raise click.BadParameter(f"{value!r} is neither a number nor all", context, option)
    return int(value)


def site_filter(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--site` and `--type`; the command gets them as one `BlockFilter`, its parameter `only`."""

    @wraps(command)
    def choosing(**given: Any) -> Any:
        only = BlockFilter(site=given.pop("site"), type=given.pop("type"))
        return command(only=only, **given)

    for option in reversed(_FILTERS[:2]):
        choosing = option(choosing)
    return choosing


def shown_sites(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of which sites to list, and how much of each; the command gets them as `shown`."""

    @wraps(command)
    def choosing(only: BlockFilter, **given: Any) -> Any:
        return command(shown=Shown(given.pop("frames"), only), **given)

    return site_filter(_FRAMES(choosing))


_FRAMES = click.option(
    "--frames",
    metavar="N|all",
    default=str(CALLERS),
    show_default=True,
    callback=_callers,
    help="How many callers to show under a site whose stack was recorded.",
)


class _RowCount(click.IntRange):
    name = "number of rows"  # as messages call it


TOP = click.option("--top", type=_RowCount(min=1), metavar="N", help="Show only the first N rows.")
DUMP = click.argument("dump", type=click.Path(exists=True, dir_okay=False))
