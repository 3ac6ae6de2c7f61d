"""Pool pages that were given back and still lie in memory as they were.

The pages of nonpaged pool stay mapped after their last block was freed, and what they held then
still reads as used blocks. Two things give such a page away. Its free blocks are on no list any
more: the links do not lead back. And the trackers count none of its blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.memory import AddressSpace
from windumps.pools.image_words import LOWEST

_TRUSTED = 0.9  # share of free blocks on lists from which on an odd one means something
_MIN_FREE = 16
_MAX_ROUNDS = 64


class FreeLinks(NamedTuple):
    """Of the pages of one chunk: how many free blocks are linked, and how many are not.

    Attributes:
        linked: int64, one a page.
        loose: int64, one a page.
    """

    linked: I64
    loose: I64


def free_links(
    memory: AddressSpace, pages: int, page: I64, body: U64, pointer_size: int
) -> FreeLinks:
    """Checks that the neighbours of free blocks point back to them.

    Args:
        memory: Where the pool lies.
        pages: Number of pages in the chunk.
        page: int64, row of the page of each free block large enough for links.
        body: uint64, address behind each one's header, where the links are.
        pointer_size: 4 or 8.
    """
    word = f"<u{pointer_size}"
    step = np.uint64(pointer_size)
    after, first = memory.gather(body, word)
    before, second = memory.gather(body + step, word)
    back, third = memory.gather(after.astype(np.uint64) + step, word)
    forth, fourth = memory.gather(before.astype(np.uint64), word)
    # A neighbour that is not in the dump says nothing, unless it could not be one at all.
    strange = _is_strange(after, pointer_size) | _is_strange(before, pointer_size)
    says = first & second & ((third & fourth) | strange)
    fits = says & ~strange & (back == body) & (forth == body)
    counts = [np.zeros(pages, np.int64) for _ in range(2)]
    np.add.at(counts[0], page[fits], 1)
    np.add.at(counts[1], page[says & ~fits], 1)
    return FreeLinks(*counts)


def _is_strange(pointers: NDArray[np.unsignedinteger], pointer_size: int) -> NDArray[np.bool_]:
    wide = pointers.astype(np.uint64)
    strange: NDArray[np.bool_] = wide < np.uint64(LOWEST[pointer_size])
    strange |= wide & np.uint64(pointer_size - 1) != 0
    return strange


def lists_are_kept(linked: int, loose: int) -> bool:
    """Free blocks of this kernel are on lists that can be checked, so a loose one means something."""
    return linked + loose >= _MIN_FREE and linked >= _TRUSTED * (linked + loose)


def uncounted_pages(
    page: U64, key: I64, count: I64, loose: set[int], excess: dict[int, int]
) -> set[int]:
    """Pages none of whose blocks the trackers count, where that follows from the numbers.

    Of each tag the walk may find more blocks than are counted. A page can be one given back only if
    every tag in it has at least as many blocks too many as the page holds. Of those, pages with
    free blocks on no list are. Where then all such pages of a tag together hold exactly what it has
    too many, they must be given back, too; that takes blocks off other tags, and so on. What stays
    ambiguous is left.

    Args:
        page: uint64, address of the page, a row for each tag in each page.
        key: int64, tag and pool of the row.
        count: int64, used blocks of it.
        loose: Pages whose free blocks are on no list.
        excess: Blocks walked less blocks counted, by key, where that is known.
    """
    left = dict(excess)
    contents: dict[int, list[tuple[int, int]]] = {}
    for number, tag, blocks in zip(page.tolist(), key.tolist(), count.tolist(), strict=True):
        contents.setdefault(number, []).append((tag, blocks))
    gone: set[int] = set()

    def possible(rows: list[tuple[int, int]]) -> bool:
        return all(left.get(tag, 0) >= blocks for tag, blocks in rows)

    def give_back(numbers: list[int]) -> None:
        for number in numbers:
            rows = contents.pop(number)
            if possible(rows):
                gone.add(number)
                for tag, blocks in rows:
                    left[tag] -= blocks

    give_back(sorted(number for number in contents if number in loose))
    for _ in range(_MAX_ROUNDS):
        contents = {number: rows for number, rows in contents.items() if possible(rows)}
        totals: dict[int, int] = {}
        for rows in contents.values():
            for tag, blocks in rows:
                totals[tag] = totals.get(tag, 0) + blocks
        forced = {tag for tag, blocks in totals.items() if blocks == left.get(tag, 0)}
        chosen = [n for n, rows in contents.items() if any(tag in forced for tag, _ in rows)]
        if not chosen:
            break
        give_back(chosen)
    return gone
