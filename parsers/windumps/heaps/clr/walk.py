"""A walk over the objects of one segment, in pieces, with what could not be walked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64, U64
from windumps.heaps.clr.chain import Window
from windumps.heaps.clr.method_tables import MethodTables

WINDOW = 1 << 25  # bytes walked in one go


class Objects(NamedTuple):
    """Objects of one heap, as columns in the order of addresses.

    Attributes:
        address: uint64.
        table: int64, number of the MethodTable.
        size: int64, bytes.
    """

    address: U64
    table: I64
    size: I64

    def select(self, keep: NDArray[np.bool_]) -> Objects:
        """Those where `keep` is true."""
        return Objects(self.address[keep], self.table[keep], self.size[keep])


@dataclass
class Span:
    """What is to be walked.

    Attributes:
        start: Where the first object is.
        end: Where objects end.
        align: Objects are multiples of so many bytes.
        jumps: Where objects stop and go on elsewhere: what a thread has of the heap and not used yet.
    """

    start: int
    end: int
    align: int
    jumps: Mapping[int, int]


@dataclass
class Walk:
    """A walk, and how it went.

    Attributes:
        tables: The MethodTables.
        span: What is walked.
        lost: (start, end) of what could not be walked, complete at the end.
        marked: Objects with marks of a collection that was going on.
        reached: Where the chain came to.
        stops: Where it broke.
    """

    tables: MethodTables
    span: Span
    lost: list[tuple[int, int]] = field(default_factory=list)
    marked: int = 0
    reached: int = 0
    stops: list[int] = field(default_factory=list)

    def pieces(self) -> Iterator[Objects]:
        """The objects, free stretches among them."""
        self.reached = self.span.start
        for address, size in self._windows():
            if self.reached >= address + size:
                continue  # inside one object
            window = self._open(address, size)
            self._through(window, address)
            starts = window.starts
            if len(starts):
                self.marked += window.marked(starts)
                yield Objects(*window.objects(starts))
            if size >= WINDOW:
                self.tables.release()
        if self.reached < self.span.end:
            self.lost.append((self.reached, self.span.end))

    def _windows(self) -> Iterator[tuple[int, int]]:
        """(address, bytes) of what is in the dump."""
        width = self.tables.pointer_size
        for address, size in _joined(self.tables, self.span):
            first = address + -address % width
            for at in range(first, address + size - width + 1, WINDOW):
                yield at, min(WINDOW, address + size - at) // width * width

    def _open(self, address: int, size: int) -> Window:
        memory, width = self.tables.memory, self.tables.pointer_size
        there = memory.bytes_from(address, size + width) // width * width
        words = memory.view(address, there).view(f"<u{width}") if there else np.empty(0, np.uint64)
        span = self.span
        return Window(self.tables, address, words, size // width, span.end, span.align, span.jumps)

    def _through(self, window: Window, address: int) -> None:
        """Follows the chain through a window, again and again where it breaks."""
        width = self.tables.pointer_size
        position: int | None = (self.reached - address) // width
        if self.reached < address:  # what lies before is not in the dump
            position = window.again(-1)
            if position is None:
                return
            self.lost.append((self.reached, address + position * width))
        while position is not None:
            stop = window.follow(position)
            self.reached = address + stop.position * width
            if not stop.broken:
                return
            self.stops.append(self.reached)
            self.reached -= window.drop_last(stop.position)
            position = window.again(stop.position)
            if position is not None:
                self.lost.append((self.reached, address + position * width))


def _joined(tables: MethodTables, span: Span) -> list[tuple[int, int]]:
    """(address, bytes) of the pieces of a span that are in the dump, neighbours joined."""
    pieces: list[tuple[int, int]] = []
    extents = tables.memory.extents(span.start, span.end)
    for address, size in zip(extents.address.tolist(), extents.size.tolist(), strict=True):
        if pieces and sum(pieces[-1]) == address:
            pieces[-1] = (pieces[-1][0], pieces[-1][1] + size)
        else:
            pieces.append((address, size))
    return pieces
