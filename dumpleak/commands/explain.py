"""`dumpleak explain`: what lies at an address, and why it is alive."""

from __future__ import annotations

import re

import click

from dumpleak.commands.options import DUMP, SKIP_FRAMES, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar, require
from dumpleak.reports.answers.explain import explain_document, explain_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject

# Hexadecimal, as debuggers write it: 1a2b, 0x1a2b, 00000001`40001000.
_ADDRESS = re.compile(r"(?:0x)?([0-9a-f]+(?:`[0-9a-f]{8})?)", re.IGNORECASE)
MOST_BYTES = 1 << 20


def _addresses(
    context: click.Context, argument: click.Parameter, values: tuple[str, ...]
) -> tuple[int, ...]:
    """Addresses out of what debuggers write."""
    numbers = []
    for value in values:
        found = _ADDRESS.fullmatch(value.strip())
        numbers.append(int(found[1].replace("`", ""), 16) if found else -1)
        if not 0 <= numbers[-1] < 1 << 64:
            told = f"{value!r} is no address; write 0x1a2b3c, or 00000001`40001000"
            raise click.BadParameter(told, context, argument)
    return tuple(numbers)


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak explain testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz 0x7ff600001000\n"
    "  dumpleak explain app.dmp 1f42a6c0b10 1f42a6c0b40 --bytes 64"
)
@DUMP
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True, callback=_addresses)
@click.option(
    "--bytes",
    "count",
    type=click.IntRange(0, MOST_BYTES),
    default=0,
    metavar="N",
    help="Also show so many bytes of contents; none are shown without.",
)
@SKIP_FRAMES
@options_with(FORMATS)
def explain(dump: str, addresses: tuple[int, ...], count: int, options: Options) -> None:
    """What lies at an address, who points to it, a way to it from a root, what it keeps alive.

    Addresses are hexadecimal, as debuggers write them; several may be asked for at once.
    """
    with progress_bar(options) as progress:
        opened = open_subject(dump, options.symbols, options.process)
        found = opened.explain(addresses, count, options.skip_frames, progress)
    answer_to(options, Answer(lambda: explain_document(found), lambda: explain_json(found)))
    require(found.shortfall)
