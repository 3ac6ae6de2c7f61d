"""`dumpleak demo`: the whole product in one command, on two dumps that come with it."""

from __future__ import annotations

import webbrowser
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from dumpleak.commands.opening import look_for_holders, opened
from dumpleak.commands.options import HOLDERS_TOP, Options, output_place
from dumpleak.commands.output import output_to
from dumpleak.compare.diff import compare
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.optional_libraries import MissingExtraError, in_quotes
from dumpleak.model.snapshot import Snapshot
from dumpleak.reports.answers.diff import diff_document
from dumpleak.reports.page.writer import write_page
from dumpleak.reports.text.writer import write_text

SHOWN = 5  # sites in the terminal; the page has all
NAMES = ("before.dmp.gz", "after.dmp.gz")
# Where the dumps are: beside the installed package, or in the source tree.
_PLACES: tuple[Traversable, ...] = (
    resources.files("dumpleak") / "demo_dumps",
    Path(__file__).resolve().parents[2] / "testdata" / "10.0.26100.5074-x64" / "leak-pair-ust",
)


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak demo --open\n"
    "  dumpleak diff testdata/10.0.26100.5074-x64/leak-pair-ust/before.dmp.gz"
    " testdata/10.0.26100.5074-x64/leak-pair-ust/after.dmp.gz --format html -o page.html"
)
@click.option("--open", "show", is_flag=True, help="Show the page in a browser.")
@click.option(
    *("-o", "--output"),
    type=click.Path(dir_okay=False),
    callback=output_place,
    default="dumpleak-demo.html",
    show_default=True,
    help="Where to write the page.",
)
@click.option(
    *("-q", "--quiet", "--no-progress", "no_progress"),
    is_flag=True,
    help="No progress bar on a terminal.",
)
@click.option("--debug", is_flag=True, help="Show a traceback when something fails.")
def demo(*, show: bool, output: str | None, no_progress: bool, debug: bool) -> None:
    """Compares two dumps that come with dumpleak, and writes the page about them.

    They are of a program that leaks, Windows 11 24H2 with recorded call stacks, made for tests.
    """
    if output is None:
        raise click.UsageError(
            "-o FILE is needed: the page goes there, the answer as text to stdout"
        )
    options = Options("html", output, no_progress)
    base, current = (_snapshot(name, options) for name in NAMES)
    comparison = compare(base, current)
    grown = [delta.site.key for delta in comparison.sites if delta.delta_bytes > 0]
    look_for_holders(comparison.current, grown[:HOLDERS_TOP], True, options)
    missing: MissingExtraError | None = None
    try:
        with output_to(options) as stream:
            write_page(diff_document(comparison, None), stream)
    except MissingExtraError as error:
        missing = error  # there is still the answer as text
    with output_to(None) as stream:
        write_text(diff_document(comparison, SHOWN), stream)
    if missing is not None:
        raise missing
    page = Path(output).resolve()
    click.echo(f"\nThe same as a page: {page}")
    click.echo(
        f"With your own dumps: dumpleak diff before.dmp after.dmp --format html -o {in_quotes(output)}"
    )
    if show:
        webbrowser.open(page.as_uri())


def _snapshot(name: str, options: Options) -> Snapshot:
    for place in _PLACES:
        file = place / name
        if file.is_file():
            with resources.as_file(file) as path:
                snapshot = opened(None, str(path), "site", options, holders=True, keep_blocks=True)
            snapshot.source = replace(snapshot.source, file=f"{name} (comes with dumpleak)")
            return snapshot
    raise CannotAnswerError("the demonstration dumps are not installed; use your own: dumpleak A B")
