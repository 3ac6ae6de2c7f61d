"""What containers are called: their pattern, who keeps them, and the size of their members."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.containment import Contained, Container
from dumpleak.pointers.patterns.container import Found
from dumpleak.pointers.patterns.find import find_containers, holders_of
from dumpleak.pointers.patterns.pointer_table import PointerCollector, PointerTable
from dumpleak.pointers.pointer_graph import I32
from dumpleak.process.places import Places
from dumpleak.process.session import Session

_STEPS = 3  # of the way from a root to a container
_UNKNOWN = "an unknown place"


class ContainerFinder:
    """Finds all containers, once a scan has shown all pointers.

    Args:
        session: The dump, walked.
        collector: What saw the scan.
        block_name: What a block is called, by number.
    """

    def __init__(
        self, session: Session, collector: PointerCollector, block_name: Callable[[int], str]
    ) -> None:
        self._places = Places(session)
        self._block_name = block_name
        self._found: list[tuple[PointerTable, Found]] = []
        self._held: I32 | None = None
        for table in collector.tables(session.dump.memory):
            found = find_containers(table)
            held = holders_of(table, found)
            held[held >= 0] += len(self._found)
            self._found += [(table, container) for container in found]
            self._held = held if self._held is None else np.where(held >= 0, held, self._held)

    def contained(
        self, unreferenced: NDArray[np.bool_], asked: NDArray[np.bool_]
    ) -> Contained | None:
        """Which of them holds each block, of those that something leads to.

        Args:
            unreferenced: bool, by block: nothing leads to it.
            asked: bool, by block: it is counted among the blocks that are asked about.
        """
        if self._held is None:
            return None
        of_block = np.where(unreferenced, -1, self._held)[asked].astype(np.int32)
        number = (np.cumsum(asked) - 1).astype(np.int32)

        def members(container: int) -> I32:
            every = self._found[container][1].members
            return number[every[asked[every]]]

        return Contained(of_block, members, lru_cache(None)(self._tell))

    def told(self, block: int) -> str:
        """A sentence on the container that a block is in; "" where it is in none."""
        number = -1 if self._held is None else int(self._held[block])
        if number < 0:
            return ""
        found = self._found[number][1]
        told = self._tell(number).told
        if block in found.members:
            return f"It is a member of a container: {told}."
        if block in found.store:
            return f"It is part of a container itself: {told}."
        return f"A member of a container holds it: {told}."

    def _tell(self, number: int) -> Container:
        table, found = self._found[number]
        sizes = table.index.size[found.members]
        same = bool(len(sizes)) and bool((sizes == sizes[0]).all())
        place = self._place(table, found.place) if found.place else _UNKNOWN
        return Container(
            found.pattern,
            place,
            found.count,
            int(sizes[0]) if same else None,
            found.place or int(table.index.address[found.members[0]]),
            found.notes,
        )

    def _place(self, table: PointerTable, place: int) -> str:
        """The way from a root to a place, as far as it is short."""
        way: list[str] = []
        seen: set[int] = set()
        for _ in range(_STEPS):
            block = int(table.index.find(np.array([place], np.uint64))[0])
            if block < 0:
                return " -> ".join([self._places.root_at(place), *way])
            offset = place - int(table.index.address[block])
            way.insert(0, f"{self._block_name(block)} +0x{offset:x}")
            seen.add(block)
            rows = np.flatnonzero(table.target == block)
            rows = rows[~np.isin(table.source[rows], list(seen))]
            if not len(rows):
                break
            # A root says most.
            place = int(table.place[rows[int(np.argmin(table.source[rows]))]])
        return " -> ".join(way)
