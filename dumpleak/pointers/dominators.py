"""Which block everything that leads to a block has to pass: immediate dominators.

Most blocks have one block that points to them, which then is the one. Only where several do, and for what
leads there, is an algorithm needed. Where the graph is deep, or does not settle soon, that is SEMI-NCA
(Georgiadis, Linear-Time Algorithms for Dominators and Related Problems, 2005; its last step climbs by jump
pointers, so that no graph takes quadratic time).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32, closure, distinct, leads_of, ordered
from dumpleak.pointers.shallow_dominators import shallow_dominators


def immediate_dominators(count: int, source: I32, target: I32, held: I32) -> I32:
    """The immediate dominator of each node of a graph.

    Args:
        count: Nodes, all of which can be reached from those that are held.
        source: Where edges begin, in any order; may repeat.
        target: Where they lead to.
        held: Nodes that the root leads to directly.

    Returns:
        int32, shape (count,); `count` stands for the root.
    """
    found = np.full(count, count, np.int32)
    is_held = np.zeros(count, np.bool_)
    is_held[held] = True
    # The root is a shorter way to what it holds, so no other way to that matters.
    kept = ~is_held[target] & (source != target)
    source, target = source[kept], target[kept]
    if not len(source):
        return found
    order = ordered(target)
    source, target = source[order], target[order]
    starts = np.flatnonzero(np.diff(target, prepend=-1))
    lowest, highest = np.minimum.reduceat(source, starts), np.maximum.reduceat(source, starts)
    found[target[starts]] = lowest
    several = np.zeros(count, np.bool_)
    several[target[starts[lowest != highest]]] = True
    if not several.any():
        return found
    # What leads to no node with several sources says nothing about those.
    core = closure(count, target, source, distinct(count, source[several[target]]))
    core |= several
    nodes = np.flatnonzero(core).astype(np.int32)
    number = np.full(count, -1, np.int32)
    number[nodes] = np.arange(1, len(nodes) + 1)
    kept = core[target]
    first_ones = number[nodes[is_held[nodes]]]
    edges = (
        np.concatenate((np.zeros(len(first_ones), np.int32), number[source[kept]])),
        np.concatenate((first_ones, number[target[kept]])),
    )
    local = shallow_dominators(len(nodes) + 1, *edges)
    if local is None:
        local = _semi_nca(len(nodes) + 1, *edges)
    found[nodes] = np.append(np.int32(count), nodes)[local[1:]]
    return found


def _semi_nca(count: int, source: I32, target: I32) -> I32:
    """Immediate dominators of nodes that can all be reached from node 0."""
    order, parent = _depth_first(count, source, target)
    number = np.empty(count, np.int32)
    number[order] = np.arange(count, dtype=np.int32)
    source, target = number[source], number[target]
    semi = parent.copy()
    np.minimum.at(semi, target, np.where(source < target, source, target))
    behind = source > target  # all others are their own semidominators when it is their turn
    semis = _semidominators(semi, parent, source[behind], target[behind])
    dominator = np.empty(count, np.int32)
    dominator[order] = order[_nearest(semis, parent.tolist())]
    return dominator


def _depth_first(count: int, source: I32, target: I32) -> tuple[I32, I32]:
    """The nodes in depth-first order, and by place in it the place of each one's parent."""
    first, leads = leads_of(count, source, target)
    begins, ends = first[:-1].tolist(), first[1:].tolist()
    all_leads = leads.tolist()
    places = [-1] * count
    places[0] = 0
    order, parent = [0], [0]
    path = [0]
    while path:
        node = path[-1]
        at, end = begins[node], ends[node]
        while at < end:
            there = all_leads[at]
            at += 1
            if places[there] < 0:
                begins[node] = at
                places[there] = len(order)
                order.append(there)
                parent.append(places[node])
                path.append(there)
                break
        else:
            path.pop()
    return np.array(order, np.int32), np.array(parent, np.int32)


def _semidominators(semi: I32, parent: I32, source: I32, target: I32) -> list[int]:
    """Semidominators by place in depth-first order.

    Args:
        semi: What edges from places before a node's own say.
        parent: In the tree of the search.
        source: Edges from places behind the node's own.
        target: Where they lead to.
    """
    order = ordered(len(semi) - target)
    semis: list[int] = semi.tolist()
    best = list(range(len(semi)))
    above = parent.tolist()
    for now, place in zip(target[order].tolist(), source[order].tolist(), strict=True):
        # The smallest semidominator on the way up from `place` to what is behind `now`.
        path = []
        node = place
        while above[node] > now:
            path.append(node)
            node = above[node]
        top = above[node]
        while path:
            low, node = node, path.pop()
            if semis[best[low]] < semis[best[node]]:
                best[node] = best[low]
            above[node] = top
        found = semis[best[place]]
        if found < semis[now]:
            semis[now] = found
    return semis


def _nearest(semis: list[int], parent: list[int]) -> NDArray[np.int64]:
    """Immediate dominators by place: the nearest ancestor that is not behind the semidominator."""
    count = len(semis)
    dominator, jump, depth = [0] * count, [0] * count, [0] * count
    for node in range(1, count):
        found, limit = parent[node], semis[node]
        while found > limit:
            far = jump[found]
            found = far if far > limit else dominator[found]
        dominator[node] = found
        depth[node] = depth[found] + 1
        far = jump[found]
        further = jump[far]
        even = depth[found] - depth[far] == depth[far] - depth[further]
        jump[node] = further if even else found
    return np.array(dominator, np.int64)
