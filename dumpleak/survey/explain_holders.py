"""Who holds single blocks, a shortest way to each from a root, and what it keeps alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dumpleak.model.explanation import Explained, Pointer
from dumpleak.model.sites import Site
from dumpleak.pointers.paths import REGISTER, PointerLog, WayFinder
from dumpleak.pointers.patterns.naming import ContainerFinder
from dumpleak.pointers.patterns.pointer_table import PointerCollector, Watchers
from dumpleak.pointers.reachability import reachability_of, scan_pointers
from dumpleak.pointers.references import BlockIndex
from dumpleak.pointers.retained import Retention
from dumpleak.pointers.roots import find_roots, lost_share, missing_roots, share_told
from dumpleak.process.places import Places
from dumpleak.process.session import Session

MOST_HOLDERS = 1000  # of one block; how many there are is told in any case
MOST_STEPS = 200  # of one way, half of them at each end


class BlockNames:
    """What single blocks are called.

    Args:
        index: The used blocks; groups number `sites`.
        sites: Who allocated them.
    """

    def __init__(self, index: BlockIndex, sites: Sequence[Site]) -> None:
        self.index, self._sites = index, sites

    def of(self, block: int) -> str:
        """The class of a block, or its size."""
        site = self._sites[int(self.index.group[block])]
        return site.type or f"block of {int(self.index.size[block]):,} bytes"


class Holding:
    """Scans all memory that may hold pointers, once.

    Args:
        session: The dump, walked.
        index: Its used blocks; groups number `sites`.
        sites: Who allocated them.
        places: What is at other addresses.
        starts: Addresses of the blocks that will be asked for.
    """

    def __init__(
        self,
        session: Session,
        index: BlockIndex,
        sites: Sequence[Site],
        places: Places,
        starts: Sequence[int],
    ) -> None:
        self._session, self._index, self._places = session, index, places
        self._names = BlockNames(index, sites)
        memory, roots = session.dump.memory, find_roots(session)
        wanted = np.zeros(len(index), np.bool_)
        wanted[index.find(np.array(starts, np.uint64))] = True
        self._log = PointerLog(wanted)
        collector = PointerCollector(index)
        watchers = Watchers(self._log, collector)
        graph = scan_pointers(memory, roots, index, watchers, session.dump.release)
        self._containers = ContainerFinder(session, collector, self._names.of)
        self._ways = WayFinder(graph, self._log)
        amounts = roots.amounts(memory)
        self._why_not = missing_roots(session, amounts)
        self._lost = lost_share(session, amounts)
        reachable = reachability_of(graph).reachable
        self._retention = None if self._why_not else Retention(graph, reachable, index.size)

    def explained(self, told: Explained) -> Explained:
        """The same with what was found of its block."""
        start = told.address - told.offset
        block = int(self._index.find(np.array([start], np.uint64))[0])
        places, sources = self._log.holders(block)
        order = np.lexsort((places, sources >= 0))[:MOST_HOLDERS]  # roots first
        holders = [
            self._pointer(place, source)
            for place, source in zip(places[order].tolist(), sources[order].tolist(), strict=True)
        ]
        in_registers = self._places.registers_with(range(start, start + max(told.held_bytes, 1)))
        holders = [Pointer(None, 0, f"register {name}") for name in in_registers] + holders
        path, count = self._path(block, told.offset)
        retained = self._retention
        return replace(
            told,
            holders=tuple(holders[:MOST_HOLDERS]),
            holder_count=len(places) + len(in_registers),
            path=path,
            path_count=count,
            retained_bytes=int(retained.bytes[block]) if retained else None,
            retained_count=int(retained.count[block]) if retained else None,
            notes=(*filter(None, [self._containers.told(block)]), *self._notes(count)),
        )

    def _notes(self, steps: int) -> list[str]:
        if self._why_not:
            return [f"What it keeps alive cannot be told: this is {self._why_not}."]
        notes = []
        if steps > MOST_STEPS:
            notes.append(f"{steps - MOST_STEPS:,} blocks in the middle of the path are left out.")
        if self._lost != 0:
            share = share_told(self._lost) if self._lost is not None else "An unknown share"
            notes.append(
                f"{share} of the memory that may hold pointers is not in the dump; something there may "
                "hold it, too."
            )
        return notes

    def _pointer(self, place: int, source: int) -> Pointer:
        if source < 0:
            return Pointer(place, 0, self._places.root_at(place))
        return Pointer(place, place - int(self._index.address[source]), self._names.of(source))

    def _path(self, block: int, offset: int) -> tuple[tuple[Pointer, ...], int]:
        """The way from a root to a block, and how many steps it has with all that are left out."""
        way = self._ways.way(block)
        if not way:
            return (), 0
        place = int(self._log.place[way[0]])
        if self._log.rank[way[0]] < REGISTER:
            steps = [Pointer(place, 0, self._places.root_at(place))]
        else:
            first = int(self._index.address[way[0]])
            values = range(first, first + max(int(self._index.size[way[0]]), 1))
            names = self._places.registers_with(values)
            steps = [Pointer(None, 0, f"register {name}") for name in names[:1]]
        half = MOST_STEPS // 2
        for number, (here, after) in enumerate(zip(way, [*way[1:], -1], strict=True)):
            if half <= number < len(way) - half:
                continue
            start = int(self._index.address[here])
            at = offset
            if after >= 0:
                at = self._index.place_of_pointer(self._session.dump.memory, here, after) - start
            steps.append(Pointer(start, at, self._names.of(here)))
        return tuple(steps), len(way) + 1
