"""Blocks of a process or of the kernel's pools as rows of `allocations`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from dumpleak.attribution import SiteFinder, SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.block_page import BlockPage
from dumpleak.model.pool_blocks import class_of
from dumpleak.model.pool_sites import site_name
from dumpleak.process.session import HeapSource, Session
from windumps.arrays import I64
from windumps.blocks import Blocks, State
from windumps.pool_tags import Pool

if TYPE_CHECKING:
    from dumpleak.kernel.pools import PoolReader


def pool_pages(reader: PoolReader, wanted: State | None) -> Iterator[BlockPage]:
    """All blocks, or those of one state, a page for each pool in each piece of the walk."""
    names: dict[tuple[int, int], str] = {}
    width = reader.dump.kernel.pointer_size
    for piece in reader.walk():
        shown = piece if wanted is None else piece.select(piece.state == wanted)
        for number in np.unique(shown.heap).tolist():
            blocks = shown.select(shown.heap == number)
            pool = class_of(number)
            for tag in set(blocks.tag.tolist()):
                if tag and (tag, pool) not in names:
                    names[tag, pool] = site_name(tag, pool, reader.owner(tag).named)
            sites = [names.get((tag, pool), "") for tag in blocks.tag.tolist()]
            name = Pool(number).label if number < len(Pool) else Pool.UNKNOWN.label
            yield BlockPage(0, width, blocks, sites, [""] * len(blocks), name, name)


def process_pages(
    session: Session, walk: Iterator[tuple[HeapSource, Blocks]], wanted: State | None
) -> Iterator[BlockPage]:
    """All blocks of a walk over the heaps, or those of one state, a page for each of its pieces."""
    finder = SiteFinder(session)
    return named_pages(session, walk, wanted, finder.assign, finder.table)


def named_pages(
    session: Session,
    walk: Iterator[tuple[HeapSource, Blocks]],
    wanted: State | None,
    assign: Callable[[HeapSource, Blocks], I64],
    table: SiteTable,
) -> Iterator[BlockPage]:
    """The same with sites by other evidence.

    Args:
        session: The process.
        walk: Over blocks of it.
        wanted: Their state; None for all.
        assign: Gives the numbers of the sites of used blocks.
        table: The sites.
    """
    # A block's class is shown also where better evidence, a stack, names its site.
    classes = SiteTable()
    class_finder = TypeAttributor(session, classes)
    for source, blocks in walk:
        shown = blocks if wanted is None else blocks.select(blocks.state == wanted)
        names, types = [""] * len(shown), [""] * len(shown)
        used = (shown.state == State.USED).nonzero()[0]
        sites = assign(source, shown.used).tolist()
        numbers = class_finder.assign(source, shown.used).tolist()
        for row, site, number in zip(used.tolist(), sites, numbers, strict=True):
            names[row] = table.sites[site].name
            types[row] = (classes.sites[number].type or "") if number >= 0 else ""
        yield BlockPage(
            source.entry.address,
            source.view.pointer_size,
            shown,
            names,
            types,
            heap_label=source.label,
        )
