"""`dumpleak explain`: what lies at an address, and why it is alive."""

from __future__ import annotations

import re

import click

from dumpleak.commands.options import DUMP, SKIP_FRAMES, TOP, Options, options_with, site_filter
from dumpleak.commands.output import answer_to, progress_bar, require
from dumpleak.model.block_filter import BlockFilter
from dumpleak.reports.answers.explain import explain_document, explain_json
from dumpleak.reports.answers.explain_sites import explain_sites_document, explain_sites_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from dumpleak.survey.wanted import Wanted

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
    "  dumpleak explain app.dmp --type Session\n"
    "  dumpleak explain app.dmp 1f42a6c0b10 1f42a6c0b40 --bytes 64"
)
@DUMP
@click.argument("addresses", metavar="[ADDRESS]...", nargs=-1, callback=_addresses)
@click.option(
    "--bytes",
    "count",
    type=click.IntRange(0, MOST_BYTES),
    default=0,
    metavar="N",
    help="Also show so many bytes of contents; none are shown without.",
)
@site_filter
@SKIP_FRAMES
@TOP
@options_with(FORMATS)
def explain(
    dump: str,
    addresses: tuple[int, ...],
    count: int,
    only: BlockFilter,
    top: int | None,
    options: Options,
) -> None:
    """What lies at an address, who points to it, a way to it from a root, what it keeps alive.

    Addresses are hexadecimal, as debuggers write them; several may be asked for at once. With --site or
    --type in their place: what the blocks of such sites hang on, put together from the blocks to the roots.
    """
    if bool(addresses) == bool(only):
        raise click.UsageError("name addresses, or sites with --site or --type")
    with progress_bar(options) as progress:
        opened = open_subject(dump, options.symbols, options.process)
        wanted = Wanted(skip_frames=options.skip_frames, progress=progress, blocks=only)
        if only:
            held = opened.explain_sites(wanted)
        else:
            found = opened.explain(addresses, count, wanted)
    if only:
        answer_to(
            options,
            Answer(lambda: explain_sites_document(held, top), lambda: explain_sites_json(held)),
        )
        require(held.shortfall)
        return
    answer_to(options, Answer(lambda: explain_document(found), lambda: explain_json(found)))
    require(found.shortfall)
