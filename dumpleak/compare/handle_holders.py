"""Who holds kernel objects: the process whose handle table leads to most of the blocks that came.

The pool block of an object holds its header, so a handle belongs to the tag of the block it points into. That
needs no layout of objects or types. Objects that only other objects or drivers refer to have no handle; then
nobody is named.
"""

from __future__ import annotations

import numpy as np

from dumpleak.model.object_tags import OBJECT_TAGS
from dumpleak.model.pools import Pools
from windumps.pool_tags import tag_text

MAX_HOLDERS = 2


def held_by_process(pools: Pools, tag: int) -> dict[tuple[int, str], int]:
    """How many handles of each process, by (id, name), lead to blocks of a tag."""
    addresses, sizes = pools.blocks().of(tag)
    order = np.argsort(addresses)
    start, end = addresses[order], (addresses + sizes.astype(np.uint64))[order]
    held = {}
    for table in pools.handles() or ():
        if not len(start) or not len(table.objects):
            continue
        row = np.searchsorted(start, table.objects, "right").astype(np.int64) - 1
        inside = (row >= 0) & (table.objects < end[np.maximum(row, 0)])
        count = len(np.unique(row[inside]))  # an object that is open twice is one block
        if count:
            held[table.process_id, table.name] = count
    return held


def holder_clauses(base: Pools, current: Pools, tag: int) -> tuple[str, ...]:
    """Who holds most of a tag's growth; empty for tags of other things than objects."""
    if tag_text(tag) not in OBJECT_TAGS:
        return ()
    old, found = base.handles(), current.held(tag)
    if old is None or found is None:
        return ("kernel objects: who holds them is unknown, a snapshot keeps no handle tables",)
    before = held_by_process(base, tag)
    after = {(who.process_id, who.name): who.objects for who in found.holders}
    grown = [(count - before.get(who, 0), count, who) for who, count in after.items()]
    grown = sorted((row for row in grown if row[0] > 0), key=lambda row: (-row[0], row[2]))
    clauses = [
        f"{name} (pid {number}) has handles of {count} of these objects, {more} more than before"
        for more, count, (number, name) in grown[:MAX_HOLDERS]
    ]
    absent = sum(1 for table in old if table.absent_pages or table.blank_pages)
    if grown and absent:
        clauses.append(
            f"before it may have been more: {absent} handle tables are not whole in the base"
        )
    if not grown and not found.why_unknown:
        clauses.append("no process has more handles of them than before")
    return (*clauses, *found.clauses)
