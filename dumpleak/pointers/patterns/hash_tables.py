"""Tables of hashes, as programs write them by hand: an array of pointers to short lists.

Proven link by link: every pointer in the array is null or leads to a node, the nodes are of one size and keep
the link to the next at one place, each list ends with a null, and no node is led to twice by any of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.pointers.patterns.container import Found, all_same, distinct
from dumpleak.pointers.patterns.pointer_table import PointerTable
from dumpleak.pointers.pointer_graph import I32
from windumps.arrays import I64

_LONGEST = 4096  # nodes of one bucket
_MOST_STEPS = 20_000  # in one dump, some seconds at most
_WORDS = 32  # at a node's start, of which one may be the link


class _Steps:
    """How many more levels of lists are followed; no tables are told beyond."""

    left = _MOST_STEPS


def find_hash_tables(table: PointerTable) -> Iterator[Found]:
    """All tables with enough buckets in use."""
    steps = _Steps()
    for block in table.many_leads.tolist():
        if steps.left < 0:
            return
        found = _table(table, block, steps)
        if found is not None:
            yield found


def _table(table: PointerTable, block: int, steps: _Steps) -> Found | None:
    index, width = table.index, table.width
    start, buckets = int(index.address[block]), int(index.size[block]) // width
    begin, behind = np.searchsorted(
        table.place, np.array([start, start + buckets * width], np.uint64)
    ).tolist()
    first = table.target[begin:behind]
    if not (table.value[begin:behind] == table.start[begin:behind]).all():
        return None
    if not all_same(index.size[first]) or len(distinct(first)) != len(first):
        return None
    words, present = table.words(
        np.uint64(start) + np.arange(buckets, dtype=np.uint64) * np.uint64(width)
    )
    if not present.all() or np.count_nonzero(words) != len(first):
        return None
    for offset in range(0, min(int(index.size[first[0]]) // width, _WORDS) * width, width):
        members = _lists(table, first, offset, steps)
        if members is not None and len(members) > len(first):
            return _found(table, block, members, buckets, offset)
    return None


def _found(table: PointerTable, block: int, members: I32, buckets: int, offset: int) -> Found:
    owners = table.leading_to(int(table.index.address[block]))
    return Found(
        f"hash table of lists linked at +0x{offset:x}",
        int(table.place[owners[0]]) if len(owners) else 0,
        members,
        len(members),
        np.array([block], np.int32),
        (f"{buckets:,} buckets, load {len(members) / buckets:.1f}",),
    )


def _lists(table: PointerTable, first: I32, offset: int, steps: _Steps) -> I32 | None:
    """All nodes of the lists that begin at some; None where they are no such lists."""
    index, size = table.index, table.index.size[first[0]]
    found, front, count = [first], first, len(first)
    for _ in range(_LONGEST):
        steps.left -= 1
        places = index.address[front] + np.uint64(offset)
        words, present = table.words(places)
        if not present.all():
            return None
        going = words != 0
        rows: I64 = table.at(places[going])
        if (rows < 0).any() or (table.value[rows] != table.start[rows]).any():
            return None
        front = table.target[rows]
        if not len(front):
            every = np.concatenate(found)
            return every if len(distinct(every)) == len(every) else None
        count += len(front)
        if (index.size[front] != size).any() or count > len(index) or steps.left < 0:
            return None
        found.append(front)
    return None
