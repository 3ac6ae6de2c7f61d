"""`dumpleak allocations`: one row a block."""

from __future__ import annotations

import click

from dumpleak.commands.options import DUMP, SKIP_FRAMES, TOP, Options, block_filter, options_with
from dumpleak.commands.output import output_to, progress_bar, require
from dumpleak.model.block_filter import BlockFilter
from dumpleak.model.populations import ARENAS, BLOCKS, POOL
from dumpleak.reports.answers.allocations import BLOCK_WRITERS
from dumpleak.survey.open import open_subject
from dumpleak.survey.wanted import Wanted
from windumps.blocks import State

_STATES = {"used": State.USED, "free": State.FREE}


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak allocations testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz\n"
    "  dumpleak allocations app.dmp --type Session --unreferenced --top 10\n"
    "  dumpleak allocations after.dmp --new-since before.dmp --size 1K-64K\n"
    "  dumpleak allocations game.dmp --of arenas --size 32\n"
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
@click.option(
    "--of",
    "population",
    type=click.Choice([BLOCKS, POOL, ARENAS]),
    help="Blocks of what: of a process's heaps, of a system's pools (the defaults), or of other allocators "
    "(mimalloc, rpmalloc).",
)
@block_filter
@SKIP_FRAMES
@TOP
@options_with(BLOCK_WRITERS)
def allocations(
    *,
    dump: str,
    state: str,
    population: str | None,
    asked: BlockFilter,
    top: int | None,
    options: Options,
) -> None:
    """One row a block, with the site it belongs to."""
    if state == "free" and (asked.unreferenced or asked.new_since):
        raise click.UsageError(
            "--unreferenced and --new-since are of used blocks; leave --state out"
        )
    with progress_bar(options):
        opened = open_subject(dump, options.symbols, options.process)
    with progress_bar(options) as progress:
        wanted = Wanted(
            of=population, skip_frames=options.skip_frames, progress=progress, blocks=asked
        )
        pages = opened.pages(_STATES.get(state), wanted)
        with output_to(options) as stream:
            BLOCK_WRITERS[options.format](pages, top, stream)
        shortfall, left_out = opened.shortfall(), opened.left_out()
    for item in opened.diagnostics:
        if item.severity != "info":
            click.echo(f"{item.severity}: {item.message}", err=True)
    if left_out:
        click.echo(f"info: {left_out}", err=True)
    require(shortfall)
