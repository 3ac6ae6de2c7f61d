"""All pointers to used blocks, in order of where they stand: what recognisers look things up in."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.patterns.container import MIN_MEMBERS, MOST_FOUND
from dumpleak.pointers.pointer_graph import I32, edges_of
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.roots import Root
from windumps.arrays import I64, U64
from windumps.memory import AddressSpace


class PointerTable:
    """The pointers of one size.

    Args:
        memory: The process's memory.
        index: Its used blocks.
        edges: Pointers to them, in any order: place, value, source, target as below.
        width: The size of these pointers.

    Attributes:
        place: uint64, ascending: where each pointer stands.
        value: uint64, where it leads to.
        source: int32, the block it stands in; -1 where it stands in none.
        target: int32, the block it leads into.
        start: uint64, the first address of that.
    """

    def __init__(
        self,
        memory: AddressSpace,
        index: BlockIndex,
        edges: tuple[U64, U64, I32, I32],
        width: int,
    ) -> None:
        self.memory, self.index, self.width = memory, index, width
        place, value, source, target = edges
        first = np.arange(len(place))
        if len(place) and not (place[1:] > place[:-1]).all():
            first = np.argsort(place, kind="stable")  # two runs in order: one merge
            place = place[first]
            new = np.append(True, place[1:] != place[:-1])
            place, first = place[new], first[new]
        self.place: U64 = place
        self.value: U64 = value[first]
        self.source: I32 = source[first]
        self.target: I32 = target[first]
        self.start: U64 = index.address[self.target] if len(index) else self.value

    @cached_property
    def behind(self) -> I64:
        """The row of the pointer in the word behind where each leads to; -1 where none is there."""
        return self.at(self.value + np.uint64(self.width))

    @cached_property
    def leads(self) -> I64:
        """The rows of the pointers from one block to the start of another."""
        return np.flatnonzero(
            (self.value == self.start) & (self.source >= 0) & (self.source != self.target)
        )

    @cached_property
    def leads_from(self) -> I64:
        """By block, how many of these begin there."""
        return np.bincount(self.source[self.leads], minlength=len(self.index))

    @cached_property
    def many_leads(self) -> I64:
        """The blocks where enough begin for a container, those with most first."""
        blocks = np.flatnonzero(self.leads_from >= MIN_MEMBERS)
        return blocks[np.argsort(-self.leads_from[blocks], kind="stable")][:MOST_FOUND]

    def at(self, places: U64) -> I64:
        """The rows of the pointers that stand at some places; -1 where none does."""
        return found_in(self.place, places)

    def words(self, places: U64) -> tuple[U64, NDArray[np.bool_]]:
        """The words at some places, and which of them are in the dump."""
        raw, present = self.memory.gather(places, f"<u{self.width}")
        return raw.astype(np.uint64), present

    def word_is(self, places: U64, wanted: Any) -> NDArray[np.bool_]:
        """Whether the words at some places are in the dump, and are what is wanted."""
        words, present = self.words(places)
        same: NDArray[np.bool_] = present & (words == wanted)
        return same

    def leading_to(self, address: int) -> I64:
        """The rows of the pointers to an address in a block."""
        rows = self.into(self.index.find(np.array([address], np.uint64)).astype(np.int32))
        found: I64 = rows[self.value[rows] == np.uint64(address)]
        return found

    def into(self, blocks: I32) -> I64:
        """The rows of the pointers into some blocks."""
        order, first = self._by_target
        found: I64 = order[edges_of(first, blocks)]
        return found

    @cached_property
    def _by_target(self) -> tuple[I64, I64]:
        first = np.zeros(len(self.index) + 1, np.int64)
        np.cumsum(np.bincount(self.target, minlength=len(self.index)), out=first[1:])
        return np.argsort(self.target, kind="stable"), first


def found_in(ascending: NDArray[Any], wanted: NDArray[Any]) -> I64:
    """Where values stand in an ascending column without equal ones; -1 where they do not."""
    if not len(ascending):
        return np.full(len(wanted), -1, np.int64)
    row = np.searchsorted(ascending, wanted)
    row[row == len(ascending)] = 0
    return np.where(ascending[row] == wanted, row, -1).astype(np.int64)


class PointerCollector:
    """Keeps all pointers that a scan finds; see `PointerWatcher`.

    Args:
        index: The used blocks.
    """

    def __init__(self, index: BlockIndex) -> None:
        self._index = index
        self._pieces: list[tuple[U64, U64, I32, I32]] = []

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        self._add(edges)

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        self._add(edges)

    def _add(self, edges: Edges) -> None:
        place, value, source, target = edges
        self._pieces.append((place, value, source.astype(np.int32), target.astype(np.int32)))

    def add_registers(self, targets: I64) -> None:
        """Registers have no place."""

    def tables(self, memory: AddressSpace) -> Iterator[PointerTable]:
        """One for each size of pointers."""
        index, pieces = self._index, self._pieces
        if not pieces:
            return
        place, value, source, target = (
            np.concatenate(column) for column in zip(*pieces, strict=True)
        )
        for width in index.widths:
            kept: Any = slice(None)
            if len(index.widths) > 1:
                inside, safe = source >= 0, np.maximum(source, 0)
                kept = index.width[target] == width
                kept &= ~inside | (index.width[safe] == width)
            edges = place[kept], value[kept], source[kept], target[kept]
            yield PointerTable(memory, index, edges, width)


class Watchers:
    """Several that are shown every pointer of one scan; see `PointerWatcher`."""

    def __init__(self, *watchers: Any) -> None:
        self._watchers = watchers

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        for watcher in self._watchers:
            watcher.add_blocks(edges)

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        for watcher in self._watchers:
            watcher.add_root(root, edges)

    def add_registers(self, targets: I64) -> None:
        """Blocks that registers point to."""
        for watcher in self._watchers:
            watcher.add_registers(targets)
