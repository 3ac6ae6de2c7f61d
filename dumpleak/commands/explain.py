"""`dumpleak explain`: what lies at an address, and why it is alive."""

from __future__ import annotations

from dataclasses import replace

import click

from dumpleak.commands.options import DUMP, SKIP_FRAMES, TOP, Options, options_with, site_filter
from dumpleak.commands.output import answer_to, progress_bar, require
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.explanation import Explanation, What
from dumpleak.reports.answers.explain import explain_document, explain_json
from dumpleak.reports.answers.explain_sites import explain_sites_document, explain_sites_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.addresses import address_of, is_place
from dumpleak.survey.open import open_subject
from dumpleak.survey.wanted import Wanted

MOST_BYTES = 1 << 20


def _addresses(
    context: click.Context, argument: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Words that are addresses, whatever dump they are of."""
    for value in values:
        if address_of(value) is None and not is_place(value):
            told = f"{value!r} is no address; write 0x1a2b3c, 00000001`40001000, or app.exe+0x1234"
            raise click.BadParameter(told, context, argument)
    return values


def _with_hints(found: Explanation, words: tuple[str, ...]) -> Explanation:
    """With a word on numbers that may have been meant as decimal ones."""
    told = [
        replace(item, notes=(*item.notes, f"Read as hexadecimal; a decimal number is 0n{word}."))
        if item.what is What.NOT_MAPPED and word.isdecimal()
        else item
        for item, word in zip(found.found, words, strict=True)
    ]
    return replace(found, found=tuple(told))


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
    addresses: tuple[str, ...],
    count: int,
    only: BlockFilter,
    top: int | None,
    options: Options,
) -> None:
    """What lies at an address, who points to it, a way to it from a root, what it keeps alive.

    Addresses are hexadecimal, as debuggers write them (decimal: 0n1234), or places in images:
    app.exe+0x1234, app!name. Several may be asked for at once. With --site or --type in their place: what the
    blocks of such sites hang on, put together from the blocks to the roots.
    """
    if bool(addresses) == bool(only):
        raise click.UsageError("name addresses, or sites with --site or --type")
    with progress_bar(options) as progress:
        opened = open_subject(dump, options.symbols, options.process)
        wanted = Wanted(skip_frames=options.skip_frames, progress=progress, blocks=only)
        if only:
            held = opened.explain_sites(wanted)
        else:
            found = opened.explain(opened.addresses(addresses), count, wanted)
            found = _with_hints(found, addresses)
    if only:
        answer_to(
            options,
            Answer(lambda: explain_sites_document(held, top), lambda: explain_sites_json(held)),
        )
        require(held.shortfall)
        return
    answer_to(options, Answer(lambda: explain_document(found), lambda: explain_json(found)))
    require(found.shortfall)
