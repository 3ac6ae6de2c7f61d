"""Lists linked one way, as programs write them by hand.

Proven link by link: all nodes are blocks of one size that keep the link at one place, no two lead to one, and
the last one's link is null.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.pointers.patterns.container import MIN_MEMBERS, Found, ends_of, largest_groups
from dumpleak.pointers.patterns.pointer_table import PointerTable, found_in
from windumps.arrays import I64

_FURTHEST = 1 << 10  # bytes from a node's start to its link


def find_chains(table: PointerTable) -> Iterator[Found]:
    """All chains with enough members."""
    rows, offset = _links(table)
    if not len(rows):
        return
    kind = np.unique(
        table.index.size[table.source[rows]] * _FURTHEST + offset, return_inverse=True
    )[1]
    blocks = np.int64(len(table.index))
    own, to = kind * blocks + table.source[rows], kind * blocks + table.target[rows]
    # Who is led to twice is in no chain, and neither is who leads there.
    many = np.bincount(np.unique(to, return_inverse=True)[1])
    alone = many[np.unique(to, return_inverse=True)[1]] == 1
    rows, offset, own, to = (column[alone] for column in (rows, offset, own, to))
    order = np.argsort(own)
    rows, offset, own, to = (column[order] for column in (rows, offset, own, to))
    following = found_in(own, to)
    end = ends_of(np.where(following < 0, np.arange(len(rows)), following))
    link = table.start[rows] + offset.astype(np.uint64)
    null = table.word_is(link[end], np.uint64(0))
    for chain in largest_groups(np.where(null & (end >= 0), end, -1)):
        members = np.union1d(table.source[rows[chain]], table.target[rows[chain]])
        if len(members) != len(chain) + 1:
            continue
        first = np.setdiff1d(table.source[rows[chain]], table.target[rows[chain]])
        yield Found(
            f"list linked at +0x{int(offset[chain[0]]):x}",
            _owner(table, int(first[0]), members),
            members.astype(np.int32),
            len(members),
        )


def _links(table: PointerTable) -> tuple[I64, I64]:
    """Pointers from a block to the start of another of the same size, and where in it they stand."""
    index = table.index
    rows = table.leads
    source, target = table.source[rows], table.target[rows]
    rows = rows[index.size[source] == index.size[target]]
    offset = (table.place[rows] - index.address[table.source[rows]]).astype(np.int64)
    near = offset < _FURTHEST
    rows, offset = rows[near], offset[near]
    codes = index.size[table.source[rows]] * _FURTHEST + offset
    _, kind, counts = np.unique(codes, return_inverse=True, return_counts=True)
    enough = counts[kind] >= MIN_MEMBERS
    return rows[enough], offset[enough]


def _owner(table: PointerTable, first: int, members: I64) -> int:
    """Where a pointer to the first node stands, outside the list; 0 where none does."""
    rows = table.leading_to(int(table.index.address[first]))
    rows = rows[~np.isin(table.source[rows], members)]
    return int(table.place[rows[0]]) if len(rows) else 0
