"""Blocks of the kernel's pools as rows of `allocations`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.kernel.pools import PoolReader
from dumpleak.model.block_page import BlockPage
from dumpleak.model.pool_blocks import class_of
from dumpleak.model.pool_sites import site_name
from windumps.blocks import State
from windumps.pool_tags import Pool


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
            yield BlockPage(0, width, blocks, sites, [""] * len(blocks), name)
