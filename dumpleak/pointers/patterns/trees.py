"""Search trees of the C++ libraries: `std::map` and `std::set`.

Proven node by node: each is the left or the right child of its parent, children lead back, all come to one
head, and the owner's count is their number.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.patterns.container import Found, ends_of, largest_groups
from dumpleak.pointers.patterns.pointer_table import PointerTable, found_in
from dumpleak.pointers.patterns.rings import has_proxy
from windumps.arrays import I64, U64

_BLACK, _IS_HEAD = 0x0001, 0x0100  # bytes _Color and _Isnil of MSVC, as one word


def _nodes(table: PointerTable, parent: int, behind: int) -> U64:
    """Addresses of blocks with room for a node, and a pointer to a block where nodes keep their parent."""
    rows = table.leads
    start = table.index.address[table.source[rows]]
    there = table.place[rows] - start == np.uint64(parent)
    there &= table.index.size[table.source[rows]] >= behind
    found: U64 = start[there]
    return found


def find_msvc_trees(table: PointerTable) -> Iterator[Found]:
    """Trees with a head as their own node: {left, parent, right, colour, is head}."""
    width = np.uint64(table.width)
    node = _nodes(table, table.width, 3 * table.width + 2)
    left, right = table.at(node), table.at(node + width + width)
    flags, present = table.memory.gather(node + np.uint64(3 * table.width), "<u2")
    kept = (left >= 0) & (right >= 0) & present & ((flags & ~np.uint16(_BLACK | _IS_HEAD)) == 0)
    node, flags = node[kept], flags[kept]
    if not len(node):
        return
    is_head = (flags & _IS_HEAD) != 0
    left, parent, right = (
        found_in(node, table.value[table.at(node + offset)])
        for offset in (np.uint64(0), width, width + width)
    )
    number = np.arange(len(node))
    # A head leads to the root, and nothing is known to follow it; who leads nowhere is no node.
    following = np.where(is_head | (parent < 0), number, parent)
    head = ends_of(following)
    good = (left >= 0) & (right >= 0) & (parent >= 0) & (head >= 0)
    good &= is_head[np.maximum(head, 0)]
    up = np.where(is_head[parent], parent[parent] == number, True)
    up &= is_head[parent] | (left[parent] == number) | (right[parent] == number)
    good &= is_head | up
    for child in (left, right):
        down = np.where(is_head[child], child == head, parent[child] == number)
        good &= is_head | down
    # The head's own children are the first node and the last.
    good &= ~is_head | (is_head[left[left]] & is_head[right[right]] & (head[left] == number))
    yield from _whole(table, node, np.where(is_head, -1, head), good, head)


def _whole(
    table: PointerTable, node: U64, tree: I64, good: NDArray[np.bool_], head: I64
) -> Iterator[Found]:
    """Of trees with a head of their own, those that are right in all nodes, and whose count agrees."""
    spoiled = np.zeros(len(node), np.bool_)
    spoiled[head[~good & (head >= 0)]] = True
    for rows in largest_groups(tree):
        top = int(tree[rows[0]])
        if spoiled[top]:
            continue
        owners = table.leading_to(int(node[top]))
        behind = table.place[owners] + np.uint64(table.width)
        owners = owners[table.word_is(behind, np.uint64(len(rows)))]
        if len(owners) != 1:
            continue
        owner = int(table.place[owners[0]])
        yield Found(
            "std::map or std::set (MSVC)",
            owner,
            table.index.find(node[rows]).astype(np.int32),
            len(rows),
            table.index.find(node[top : top + 1]).astype(np.int32),
            ("its own count agrees", *(["debug build"] * has_proxy(table, owner))),
        )


def find_gnu_trees(table: PointerTable) -> Iterator[Found]:
    """Trees with their head in the owner: {colour, parent, left, right}, then the count."""
    width = np.uint64(table.width)
    # Heads lead to a root that leads back, of which alone no other node is the parent.
    back = table.behind
    inside = (back >= 0) & (table.value[back] == table.place - width)
    heads = np.flatnonzero(inside & (table.value == table.start))
    # What leads to a head outside blocks is no pointer to a block.
    others = np.flatnonzero((table.source < 0) & (back < 0) & (table.value == table.start))
    others = others[table.word_is(table.value[others] + width, table.place[others] - width)]
    heads = np.sort(np.append(heads, others))
    top = table.place[heads] - width
    counts, present = table.words(top + np.uint64(4 * table.width))
    heads, top, counts = heads[present], top[present], counts[present]
    node = np.union1d(_nodes(table, table.width, 4 * table.width), table.value[heads])
    if not len(heads):
        return
    number = np.arange(len(node))
    parent = found_in(node, table.words(node + width)[0])
    colour, present = table.memory.gather(node, "<u4")
    good = present & (colour <= 1)
    own = np.full(len(node), -1, np.int64)
    for offset in (2, 3):
        words, there = table.words(node + np.uint64(offset * table.width))
        child = found_in(node, words)
        good &= there & ((words == 0) | ((child >= 0) & (parent[child] == number)))
        known = (child >= 0) & (parent[child] == number)
        own[child[known]] = number[known]
    root = ends_of(np.where(own < 0, number, own))
    spoiled = np.zeros(len(node), np.bool_)
    spoiled[root[~good & (root >= 0)]] = True
    by_root = dict(zip(found_in(node, table.value[heads]).tolist(), range(len(heads)), strict=True))
    for rows in largest_groups(root):
        start = int(root[rows[0]])
        at = by_root.get(start, -1)
        if spoiled[start] or at < 0 or int(counts[at]) != len(rows):
            continue
        yield Found(
            "std::map or std::set (libstdc++)",
            int(top[at]),
            table.index.find(node[rows]).astype(np.int32),
            len(rows),
            notes=("its own count agrees",),
        )
