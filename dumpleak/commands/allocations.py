"""`dumpleak allocations`: one row a block."""

from __future__ import annotations

from collections.abc import Iterator

import click

from dumpleak.attribution import SiteFinder, SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.commands.options import DUMP, SKIP_FRAMES, TOP, Options, options_with
from dumpleak.commands.output import output_to, progress_bar, require
from dumpleak.kernel.pools import PoolReader
from dumpleak.model.block_page import BlockPage
from dumpleak.model.errors import CannotAnswerError
from dumpleak.process.coverage import coverage
from dumpleak.process.session import HeapSource, Session
from dumpleak.reports.answers.allocations import BLOCK_WRITERS
from dumpleak.survey.pool_pages import pool_pages
from windumps.blocks import Blocks, State
from windumps.dumps.kernel.dump import KernelDump

_STATES = {"used": State.USED, "free": State.FREE}


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak allocations testdata/10.0.19041.3324-x64/tiny/dump.dmp.gz\n"
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
@SKIP_FRAMES
@TOP
@options_with(BLOCK_WRITERS)
def allocations(dump: str, state: str, top: int | None, options: Options) -> None:
    """One row a block, with the site it belongs to."""
    with progress_bar(options):
        session = Session.open(dump, options.symbols, options.process)
    if isinstance(session.dump, KernelDump):
        _pool_allocations(session.dump, state, top, options)
        return
    session.skip_frames = options.skip_frames
    session.require_heaps()
    with progress_bar(options) as progress:
        walk = session.blocks(progress)
        with output_to(options) as stream:
            BLOCK_WRITERS[options.format](_pages(session, walk, state), top, stream)
        for _ in walk:
            pass  # after --top rows the rest still tells how much of the heaps can be read
    for item in session.diagnostics:
        if item.severity != "info":
            click.echo(f"{item.severity}: {item.message}", err=True)
    require(coverage(session).shortfall)


def _pool_allocations(dump: KernelDump, state: str, top: int | None, options: Options) -> None:
    with progress_bar(options) as progress, output_to(options) as stream:
        reader = PoolReader(dump, options.symbols, progress=progress)
        pages = pool_pages(reader, _STATES.get(state))
        BLOCK_WRITERS[options.format](pages, top, stream)
    for item in reader.diagnostics:
        if item.severity != "info":
            click.echo(f"{item.severity}: {item.message}", err=True)
    if dump.missing_bytes:
        raise CannotAnswerError(
            f"{dump.path}: the file is cut: {dump.missing_bytes} bytes of memory are missing, and blocks in "
            "them; copy it again from where it was written"
        )


def _pages(
    session: Session, walk: Iterator[tuple[HeapSource, Blocks]], state: str
) -> Iterator[BlockPage]:
    wanted = _STATES.get(state)
    finder = SiteFinder(session)
    # A block's class is shown also where better evidence, a stack, names its site.
    classes = SiteTable()
    class_finder = TypeAttributor(session, classes)
    for source, blocks in walk:
        shown = blocks if wanted is None else blocks.select(blocks.state == wanted)
        names, types = [""] * len(shown), [""] * len(shown)
        used = (shown.state == State.USED).nonzero()[0]
        sites = finder.assign(source, shown.used).tolist()
        numbers = class_finder.assign(source, shown.used).tolist()
        for row, site, number in zip(used.tolist(), sites, numbers, strict=True):
            names[row] = finder.table.sites[site].name
            types[row] = (classes.sites[number].type or "") if number >= 0 else ""
        yield BlockPage(source.entry.address, source.view.pointer_size, shown, names, types)
