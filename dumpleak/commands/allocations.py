"""`dumpleak allocations`: one row a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from dumpleak.attribution import SiteFinder
from dumpleak.commands.base import DUMP, TOP, common_options, progress_bar, report_to, require
from dumpleak.reports.base import BlockPage
from dumpleak.session import Progress, Session
from dumpleak.snapshot import coverage
from windumps.blocks import State


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
@TOP
@common_options
def allocations(dump: str, state: str, top: int | None, **options: Any) -> None:
    """One row a block, with the site it belongs to."""
    session = Session.open(dump)
    session.require_heaps()
    with progress_bar(options) as progress, report_to(options) as report:
        report.allocations(_pages(session, state, progress), top)
    for item in session.diagnostics:
        if item.severity != "info":
            click.echo(f"{item.severity}: {item.message}", err=True)
    require(coverage(session))


def _pages(session: Session, state: str, progress: Progress) -> Iterator[BlockPage]:
    wanted = {"used": State.USED, "free": State.FREE}.get(state)
    finder = SiteFinder(session)
    for source, blocks in session.blocks(progress):
        shown = blocks if wanted is None else blocks.select(blocks.state == wanted)
        names, types = [""] * len(shown), [""] * len(shown)
        used = (shown.state == State.USED).nonzero()[0]
        sites = finder.assign(source, shown.used)
        for row, number in zip(used.tolist(), sites.tolist(), strict=True):
            site = finder.table.sites[number]
            names[row], types[row] = site.name, site.type or ""
        yield BlockPage(source.entry.address, source.view.pointer_size, shown, names, types)
