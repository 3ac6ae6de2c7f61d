"""All pointers to used blocks, in order of where they stand: what recognisers look things up in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dumpleak.pointers.pointer_graph import I32
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.roots import Root
from windumps.arrays import I64, U64
from windumps.memory import AddressSpace


class PointerTable:
    """The pointers of one size.

    Args:
        memory: The process's memory.
        index: Its used blocks.
        edges: Pointers to them, in any order.
        width: The size of these pointers.

    Attributes:
        place: uint64, ascending: where each pointer stands.
        value: uint64, where it leads to.
        source: int32, the block it stands in; -1 where it stands in none.
        target: int32, the block it leads into.
        start: uint64, the first address of that.
    """

    def __init__(self, memory: AddressSpace, index: BlockIndex, edges: Edges, width: int) -> None:
        self.memory, self.index, self.width = memory, index, width
        place, first = edges.place, np.arange(len(edges.place))
        if len(place) and not (place[1:] > place[:-1]).all():
            place, first = np.unique(place, return_index=True)
        self.place: U64 = place
        self.value: U64 = edges.value[first]
        self.source: I32 = edges.source[first].astype(np.int32)
        self.target: I32 = edges.target[first].astype(np.int32)
        self.start: U64 = index.address[self.target] if len(index) else self.value

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
        """The rows of the pointers to an address."""
        return np.flatnonzero(self.value == np.uint64(address))


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
        self._pieces: list[Edges] = []

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in used blocks."""
        self._pieces.append(edges)

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in a root."""
        self._pieces.append(edges)

    def add_registers(self, targets: I64) -> None:
        """Registers have no place."""

    def tables(self, memory: AddressSpace) -> Iterator[PointerTable]:
        """One for each size of pointers."""
        index, pieces = self._index, self._pieces
        if not pieces:
            return
        edges = Edges(*(np.concatenate(column) for column in zip(*pieces, strict=True)))
        for width in index.widths:
            kept: Any = slice(None)
            if len(index.widths) > 1:
                inside, safe = edges.source >= 0, np.maximum(edges.source, 0)
                kept = index.width[edges.target] == width
                kept &= ~inside | (index.width[safe] == width)
            yield PointerTable(memory, index, Edges(*(column[kept] for column in edges)), width)


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
