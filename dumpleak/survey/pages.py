"""Blocks of a process or of the kernel's pools as rows of `allocations`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from dumpleak.attribution import SiteFinder, SiteTable
from dumpleak.attribution.type import TypeAttributor
from dumpleak.model.block_page import I32, BlockPage, Names
from dumpleak.model.pool_blocks import class_of
from dumpleak.model.pool_sites import site_name
from dumpleak.process.session import HeapSource, Session
from dumpleak.process.used_pieces import joined_used
from windumps.arrays import I64, U64
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
            sites = Names.of(names.get((tag, pool), "") for tag in blocks.tag.tolist())
            name = Pool(number).label if number < len(Pool) else Pool.UNKNOWN.label
            yield BlockPage(0, width, blocks, sites, Names.none(len(blocks)), name, name)


Walk = Iterable[tuple[HeapSource, Blocks]]


class WalkedSites:
    """A finished walk over the heaps of a process, with the site and the class of each used block.

    What sites are called is certain only at its end, and in every answer the same.

    Args:
        session: The process.
        walk: Over its heaps; with all used blocks.
        state: Of the blocks that are kept; None for all.
    """

    def __init__(self, session: Session, walk: Walk, state: State | None) -> None:
        finder = SiteFinder(session)
        # A block's class is shown also where better evidence, a stack, names its site.
        classes = SiteTable()
        class_finder = TypeAttributor(session, classes)
        self._kept: list[tuple[HeapSource, Blocks]] = []
        sites, types = [np.empty(0, np.int32)], [np.empty(0, np.int32)]
        for source, used in joined_used(self._keeping(walk, state)):
            sites.append(finder.assign(source, used).astype(np.int32))
            types.append(class_finder.assign(source, used).astype(np.int32))
        self._sites, self._types = np.concatenate(sites), np.concatenate(types)
        self._names = [site.name for site in finder.table.sites]
        self._classes = [site.type or "" for site in classes.sites]

    def _keeping(self, walk: Walk, state: State | None) -> Walk:
        for source, blocks in walk:
            shown = blocks if state is None else blocks.select(blocks.state == state)
            if len(shown):
                self._kept.append((source, shown))
            yield source, blocks

    @property
    def names(self) -> set[str]:
        """Of all sites."""
        return set(self._names)

    def pages(self, chosen: U64 | None = None) -> Iterator[BlockPage]:
        """The blocks that were kept, a page for each piece of the walk.

        Args:
            chosen: Addresses of the used blocks that are wanted; None for all blocks.
        """
        at = 0
        for source, blocks in self._kept:
            used = np.flatnonzero(blocks.state == State.USED)
            names = _names(self._names, len(blocks), used, self._sites[at : at + len(used)])
            types = _names(self._classes, len(blocks), used, self._types[at : at + len(used)])
            at += len(used)
            heap = source.entry.address
            page = BlockPage(
                *(heap, source.view.pointer_size, blocks, names, types), heap_label=source.label
            )
            yield page if chosen is None else page.select(np.isin(blocks.address, chosen))


def free_pages(walk: Walk) -> Iterator[BlockPage]:
    """The free blocks of a walk over the heaps of a process, as it goes on."""
    for source, blocks in walk:
        free = blocks.select(blocks.state == State.FREE)
        none = Names.none(len(free))
        heap = source.entry.address
        yield BlockPage(
            *(heap, source.view.pointer_size, free, none, none), heap_label=source.label
        )


def named_pages(
    session: Session,
    walk: Iterator[tuple[HeapSource, Blocks]],
    wanted: State | None,
    assign: Callable[[HeapSource, Blocks], I64],
    table: SiteTable,
) -> Iterator[BlockPage]:
    """All blocks of a walk, or those of one state, as it goes on, with sites by other evidence.

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
        used = np.flatnonzero(shown.state == State.USED)
        sites = assign(source, shown.used)
        numbers = class_finder.assign(source, shown.used)
        yield BlockPage(
            source.entry.address,
            source.view.pointer_size,
            shown,
            _names([site.name for site in table.sites], len(shown), used, sites),
            _names([site.type or "" for site in classes.sites], len(shown), used, numbers),
            heap_label=source.label,
        )


def _names(texts: list[str], rows: int, used: I64, number: I64 | I32) -> Names:
    """Names of the used blocks among some rows."""
    numbers = np.full(rows, -1, np.int32)
    numbers[used] = number
    return Names(texts, numbers)
