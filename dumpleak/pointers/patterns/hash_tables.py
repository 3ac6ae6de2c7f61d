"""Tables of hashes, as programs write them by hand: an array of pointers to short lists.

Proven link by link: every pointer in the array is null or leads to a node, the nodes are of one size and keep
the link to the next at one place, each list ends with a null, and no node is led to twice by any of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.pointers.patterns.container import MIN_MEMBERS, MOST_FOUND, Found
from dumpleak.pointers.patterns.pointer_table import PointerTable
from dumpleak.pointers.pointer_graph import I32
from windumps.arrays import I64

_LONGEST = 4096  # nodes of one bucket
_WORDS = 32  # at a node's start, of which one may be the link


def find_hash_tables(table: PointerTable) -> Iterator[Found]:
    """All tables with enough buckets in use."""
    leading = (table.source >= 0) & (table.value == table.start) & (table.source != table.target)
    counts = np.bincount(table.source[leading], minlength=len(table.index))
    blocks = np.flatnonzero(counts >= MIN_MEMBERS)
    blocks = blocks[np.argsort(-counts[blocks], kind="stable")][:MOST_FOUND]
    for block in blocks.tolist():
        found = _table(table, block)
        if found is not None:
            yield found


def _table(table: PointerTable, block: int) -> Found | None:
    index, width = table.index, table.width
    start, buckets = int(index.address[block]), int(index.size[block]) // width
    begin, behind = np.searchsorted(
        table.place, np.array([start, start + buckets * width], np.uint64)
    ).tolist()
    first = table.target[begin:behind]
    if not (table.value[begin:behind] == table.start[begin:behind]).all():
        return None
    if len(np.unique(first)) != len(first) or len(np.unique(index.size[first])) != 1:
        return None
    words, present = table.words(
        np.uint64(start) + np.arange(buckets, dtype=np.uint64) * np.uint64(width)
    )
    if not present.all() or np.count_nonzero(words) != len(first):
        return None
    for offset in range(0, min(int(index.size[first[0]]) // width, _WORDS) * width, width):
        members = _lists(table, first, offset)
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


def _lists(table: PointerTable, first: I32, offset: int) -> I32 | None:
    """All nodes of the lists that begin at some; None where they are no such lists."""
    index, size = table.index, table.index.size[first[0]]
    seen = np.zeros(len(index), np.bool_)
    seen[first] = True
    found, front = [first], first
    for _ in range(_LONGEST):
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
            return np.concatenate(found)
        if (index.size[front] != size).any() or seen[front].any():
            return None
        if len(np.unique(front)) != len(front):
            return None
        seen[front] = True
        found.append(front)
    return None
