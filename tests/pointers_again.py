"""Questions about pointers answered by following them one by one, in plain Python."""

from __future__ import annotations

from collections import defaultdict

from dumpleak.pointers.pointer_graph import PointerGraph


def reached(leads: dict[int, set[int]], start: set[int], gone: set[int]) -> set[int]:
    left = list(start - gone)
    seen = set(left)
    while left:
        new = leads[left.pop()] - seen - gone
        seen |= new
        left += new
    return seen


class Again:
    """The same question answered by taking blocks out and following all pointers again."""

    def __init__(self, graph: PointerGraph) -> None:
        self.all = set(range(graph.count))
        self.held = set(graph.held.tolist())
        self.leads: dict[int, set[int]] = defaultdict(set)
        self.back: dict[int, set[int]] = defaultdict(set)
        for source, target in zip(graph.source.tolist(), graph.target.tolist(), strict=True):
            self.leads[source].add(target)
            self.back[target].add(source)
        lost = self.all - reached(self.leads, self.held, set())
        self.circle: dict[int, set[int]] = {}  # by block of an entry, the blocks of its circle
        known: set[int] = set()
        for block in sorted(lost):
            if block not in known:
                before = reached(self.back, {block}, set())
                if before <= reached(self.leads, {block}, set()):
                    self.circle.update(dict.fromkeys(before, before))
                    known |= before

    def lost_with(self, blocks: set[int]) -> set[int]:
        gone = set().union(blocks, *(self.circle.get(block, set()) for block in blocks))
        return self.all - reached(self.leads, self.held | self.circle.keys(), gone)
