"""Arrays of pointers to blocks: `std::vector`, and arrays whose owner knows their end or their count.

Proven by every word of them: each is null or leads to a block's start, hardly any is null, and no two lead to
one block. What the owner keeps beside its pointer names them.

MSVC and libstdc++ keep a vector as {first, end of the elements, end of the room}; MSVC aligns large ones, and
keeps the block's own address in the word before the first element.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dumpleak.pointers.patterns.container import MIN_MEMBERS, NONE, Found, distinct
from dumpleak.pointers.patterns.pointer_table import PointerTable
from dumpleak.pointers.patterns.rings import has_proxy
from dumpleak.pointers.pointer_graph import I32
from windumps.arrays import I64, U64

_FILLED = 0.9  # share of the elements that lead to blocks
_LARGE = 0x1000  # bytes from which MSVC aligns vectors
_ALIGNED = 0x20


class _Kept(NamedTuple):
    """What an owner keeps of an array."""

    pattern: str
    place: int
    first: int
    room: int
    notes: tuple[str, ...] = ()


def find_arrays(table: PointerTable) -> Iterator[Found]:
    """All arrays with enough pointers to blocks."""
    owners = _owners(table, table.many_leads)
    for block in table.many_leads.tolist():
        found = _array(table, block, owners.get(block, NONE.astype(np.int64)))
        if found is not None:
            yield found


def _owners(table: PointerTable, blocks: I64) -> dict[int, I64]:
    """The rows of the pointers to some blocks' starts, or to an aligned place near."""
    wanted = np.zeros(len(table.index), np.bool_)
    wanted[blocks] = True
    rows = np.flatnonzero(wanted[table.target])
    rows = rows[table.value[rows] - table.start[rows] <= np.uint64(2 * table.width + _ALIGNED)]
    rows = rows[np.argsort(table.target[rows], kind="stable")]
    first = np.flatnonzero(np.diff(table.target[rows], prepend=-1))
    pieces = np.split(rows, first[1:]) if len(first) else []
    return {int(table.target[piece[0]]): piece for piece in pieces}


def _array(table: PointerTable, block: int, owners: I64) -> Found | None:
    start, size, width = (
        int(table.index.address[block]),
        int(table.index.size[block]),
        table.width,
    )
    own = np.array([block], np.int32)
    for row in owners[table.source[owners] != block].tolist():
        kept = _kept(table, int(table.place[row]), int(table.value[row]), start, size)
        members = None if kept is None else _members(table, block, kept.first, kept.room)
        if kept is not None and members is not None:
            return Found(kept.pattern, kept.place, members, len(members), own, kept.notes)
    members = _members(table, block, start, size // width)
    if members is None:
        return None
    place = int(table.place[owners[0]]) if len(owners) else 0
    return Found("array of pointers", place, members, len(members), own)


def _kept(table: PointerTable, place: int, first: int, start: int, size: int) -> _Kept | None:
    """What the words behind a pointer to an array say of it; None where they say nothing."""
    width = table.width
    behind = np.uint64(place) + np.array([1, 2], np.uint64) * np.uint64(width)
    words, present = table.words(behind)
    last, end = words.tolist()
    if not present.all() or not first <= start + size:
        return None
    if first < last <= end <= start + size and _fits(table, first, end, start, size):
        notes = ("debug build",) * has_proxy(table, place)
        return _Kept("std::vector of pointers", place, first, (last - first) // width, notes)
    if first != start:
        return None
    if last == start + size:
        return _Kept("array of pointers", place, first, size // width, ("its owner keeps its end",))
    for count in (last, last & 0xFFFFFFFF, last >> 32):
        if MIN_MEMBERS <= count <= size // width and size // width in (
            end,
            count,
            *(last >> 32, end & 0xFFFFFFFF),
        ):
            return _Kept("array of pointers", place, first, count, ("its own count agrees",))
    return None


def _fits(table: PointerTable, first: int, end: int, start: int, size: int) -> bool:
    """Whether a vector's room is what its block was asked for."""
    if end - first == size and first == start:
        return True
    large = end - first >= _LARGE and first % _ALIGNED == 0 and first > start
    if not large or not size - (end - first) <= 2 * table.width + _ALIGNED:
        return False
    before = np.array([first - table.width], np.uint64)
    return bool(table.word_is(before, np.uint64(start))[0])


def _members(table: PointerTable, block: int, first: int, count: int) -> I32 | None:
    """The blocks that some words lead to; None where not nearly all of them do, each to another."""
    if count < MIN_MEMBERS:
        return None
    width = np.uint64(table.width)
    begin, behind = np.searchsorted(
        table.place, np.array([first, first + count * table.width], np.uint64)
    ).tolist()
    rows = np.arange(begin, behind)
    leads = table.value[rows] == table.start[rows]
    rows = rows[leads & (table.target[rows] != block)]
    if len(rows) < max(_FILLED * count, MIN_MEMBERS):
        return None
    places: U64 = np.uint64(first) + np.arange(count, dtype=np.uint64) * width
    words, present = table.words(places)
    members = distinct(table.target[rows])
    whole = present.all() and np.count_nonzero(words) == len(rows) == len(members)
    return members if whole else None
