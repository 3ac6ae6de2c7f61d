"""Circular lists, linked both ways: `std::list`, LIST_ENTRYs, and tables of hashes that are made of one.

Proven link by link: what a node leads to leads back to it, all around, and every node is in a used block but
for one that may be the head. A count beside the head has to be the number of nodes.

MSVC: the owner has {pointer to head, size}, the head is a node as the others, {next, previous, value}; debug
builds have a pointer to a proxy before, which leads back. libstdc++: the head {next, previous} is in the
owner, the size behind it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.pointers.patterns.container import (
    MIN_MEMBERS,
    Found,
    all_same,
    circles_of,
    largest_groups,
)
from dumpleak.pointers.patterns.pointer_table import PointerTable, found_in
from windumps.arrays import I64, U64

# Words from the pointer to the list's head: the vector of buckets, the mask, the number of buckets.
_HASH_LAYOUTS = ((2, 5, 6), (2, 6, 7))
_PER_BUCKET = 2  # pointers: its first node and its last


def find_rings(table: PointerTable) -> Iterator[Found]:
    """All circular lists with enough members."""
    place, value = _links(table)
    if len(place) <= MIN_MEMBERS:
        return
    for rows in largest_groups(circles_of(found_in(place, value))):
        if len(rows) > MIN_MEMBERS:
            found = _ring(table, place[rows])
            if found is not None:
                yield found


def _links(table: PointerTable) -> tuple[U64, U64]:
    """Links that lead back: where each stands, and where it leads to."""
    width = np.uint64(table.width)
    back = table.behind
    is_link = (back >= 0) & (table.value[back] == table.place)
    rows = np.flatnonzero(is_link)
    # A head outside blocks is no target of a pointer: the link to it is known from the head.
    heads = np.flatnonzero((table.source < 0) & (back < 0))
    behind, present = table.words(table.value[heads] + width)
    heads = heads[present & (behind == table.place[heads])]
    rows = np.append(rows, heads)
    outside = rows[table.source[rows] < 0]
    last = table.at(table.place[outside] + width)
    outside, last = outside[last >= 0], last[last >= 0]
    place, value = table.value[last], table.place[outside]
    right = table.word_is(place, value)
    place = np.concatenate((table.place[rows], place[right]))
    value = np.concatenate((table.value[rows], value[right]))
    place, first = np.unique(place, return_index=True)
    return place, value[first]


def _ring(table: PointerTable, places: U64) -> Found | None:
    """One circle, by the places of its links; None where its nodes are not alike."""
    blocks = table.index.find(places)
    offset = (places - table.index.address[np.maximum(blocks, 0)]).astype(np.int64)
    outside = np.flatnonzero(blocks < 0)
    if len(outside) > 1 or len(np.unique(blocks)) != len(blocks):
        return None
    if len(outside):
        return _with_head(table, places, blocks, offset, int(outside[0]))
    if not offset.any():
        of_msvc = _msvc(table, places, blocks)
        if of_msvc is not None:
            return of_msvc
    odd = np.flatnonzero(offset != np.median(offset))
    if len(odd) == 1:
        return _with_head(table, places, blocks, offset, int(odd[0]))
    if len(odd):
        return None
    return Found(
        _linked_at("ring of blocks", int(offset[0])), 0, blocks.astype(np.int32), len(blocks)
    )


def _with_head(
    table: PointerTable, places: U64, blocks: I64, offset: I64, head: int
) -> Found | None:
    rest = np.arange(len(places)) != head
    if not all_same(offset[rest]):
        return None
    at, count = places[head], len(places) - 1
    counted = table.word_is(at[None] + np.uint64(2 * table.width), np.uint64(count))[0]
    at_start = not offset[rest].any()
    name = "std::list (libstdc++)" if counted and at_start else ""
    return Found(
        name or _linked_at("list of LIST_ENTRYs", int(offset[rest][0])),
        int(at),
        blocks[rest].astype(np.int32),
        count,
        notes=("its own count agrees",) * bool(counted),
    )


def _linked_at(what: str, offset: int) -> str:
    return f"{what}, linked at +0x{offset:x}" if offset else what


def _msvc(table: PointerTable, places: U64, blocks: I64) -> Found | None:
    """A list whose owner has a pointer to its head, and the number of its other nodes."""
    width, count = np.uint64(table.width), len(places) - 1
    rows = table.into(blocks.astype(np.int32))
    rows = rows[found_in(places, table.value[rows]) >= 0]
    links = np.concatenate((places, places + width))
    links.sort()
    rows = rows[found_in(links, table.place[rows]) < 0]
    rows = rows[table.word_is(table.place[rows] + width, np.uint64(count))]
    if len(rows) != 1:
        return None
    owner, head = int(table.place[rows[0]]), table.value[rows[0]]
    rest = places != head
    notes = ["its own count agrees", *(["debug build"] * has_proxy(table, owner))]
    name, store = "std::list (MSVC)", blocks[~rest].astype(np.int32)
    buckets = _buckets(table, owner)
    if buckets is not None:
        name = "std::unordered_map or _set (MSVC)"
        store = np.append(store, buckets[1].astype(np.int32))
        notes.append(f"{buckets[0]:,} buckets, load {count / buckets[0]:.1f}")
    return Found(name, owner, blocks[rest].astype(np.int32), count, store, tuple(notes))


def has_proxy(table: PointerTable, owner: int) -> bool:
    """The word before a container leads to a block that leads back: builds with iterators checked."""
    row = int(table.at(np.array([owner - table.width], np.uint64))[0])
    if row < 0 or table.value[row] != table.start[row]:
        return False
    return bool(table.word_is(table.value[row : row + 1], np.uint64(owner - table.width))[0])


def _buckets(table: PointerTable, owner: int) -> tuple[int, I64] | None:
    """How many buckets stand behind a list, and their block; None where none do."""
    width = table.width
    for vector, mask, maximum in _HASH_LAYOUTS:
        at = np.array([vector, vector + 1, vector + 2, mask, maximum], np.uint64)
        words, present = table.words(np.uint64(owner) + at * np.uint64(width))
        first, last, end, mask_, buckets = words.tolist()
        block = table.index.find(words[:1])
        if (
            present.all()
            and block[0] >= 0
            and buckets == mask_ + 1
            and buckets & mask_ == 0
            and last - first == buckets * _PER_BUCKET * width
            and last <= end
        ):
            return buckets, block
    return None
