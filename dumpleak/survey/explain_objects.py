"""Objects of .NET at some addresses: who holds them, a way to them from a root, what they keep alive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dumpleak.model.explanation import Explained, Pointer, What
from dumpleak.model.units import format_bytes
from dumpleak.pointers.managed_reach import ManagedGraph
from dumpleak.pointers.paths import REGISTER, PointerLog, WayFinder
from dumpleak.pointers.pointer_graph import PointerGraph
from dumpleak.pointers.retained import Retention
from dumpleak.process.places import Places
from dumpleak.process.session import Session
from dumpleak.survey.explain_holders import MOST_HOLDERS, MOST_STEPS

GARBAGE = "Garbage: nothing leads to it, and it waits for a collection."
WEAK = "Weak handles are not told from strong ones, and count as holders."


def with_objects(session: Session, places: Places, told: Sequence[Explained]) -> list[Explained]:
    """The same, with what is known of those addresses that lie in objects."""
    found = _Objects(session, places)
    return [found.explained(item) if item.what is What.OBJECT else item for item in told]


class _Objects:
    def __init__(self, session: Session, places: Places) -> None:
        self._session, self._places = session, places
        graph = ManagedGraph(session)
        self._graph, self._objects = graph, graph.objects
        self._roots = graph.roots
        count = len(graph.objects.address)
        log = PointerLog(np.zeros(count, np.bool_))
        log.rank[graph.held] = REGISTER
        # Backwards, so that of several places the first one stays.
        log.place[self._roots.target[::-1]] = self._roots.place[::-1]
        log.rank[self._roots.target] = 0
        self._log = log
        pointers = PointerGraph(count, graph.source, graph.target, graph.held)
        self._ways = WayFinder(pointers, log)
        self._retention = (
            None if graph.why_not else Retention(pointers, graph.reached, graph.objects.size)
        )

    def explained(self, told: Explained) -> Explained:
        number = int(self._session.managed.at(np.array([told.address], np.uint64))[0])
        start, size = self._start(number), int(self._objects.size[number])
        far = told.address - start
        kind = self._kind(start)
        what = f".NET object {self._name(number)}, {format_bytes(size)} among {kind} objects"
        if far:
            what = f"+0x{far:x} in the {what} at 0x{start:x}"
        holders = self._holders(number)
        path, steps = self._path(number, far)
        kept = self._retention
        return replace(
            told,
            told=what,
            offset=far,
            held_bytes=size,
            holders=tuple(holders[:MOST_HOLDERS]),
            holder_count=len(holders),
            path=path,
            path_count=steps,
            retained_bytes=int(kept.bytes[number]) if kept else None,
            retained_count=int(kept.count[number]) if kept else None,
            notes=(*told.notes, *self._notes(number)),
        )

    def _start(self, number: int) -> int:
        return int(self._objects.address[number])

    def _name(self, number: int) -> str:
        return self._session.managed.name_of(number)

    def _kind(self, address: int) -> str:
        heap = self._session.managed.heap
        segments = heap.segments if heap is not None else []
        return next((s.kind for s in segments if s.start <= address < s.committed), "small")

    def _notes(self, number: int) -> list[str]:
        if self._graph.why_not:
            why = self._graph.why_not
            return [f"Whether it is garbage, and what it keeps alive, cannot be told: {why}."]
        if not self._graph.reached[number]:
            return [GARBAGE]
        return [] if self._graph.knows_handles else [WEAK]

    def _holders(self, number: int) -> list[Pointer]:
        """Roots first."""
        start = self._start(number)
        names = self._places.registers_with(range(start, start + 1))
        found = [Pointer(None, 0, f"register {name}") for name in names]
        mine = np.sort(self._roots.place[self._roots.target == number]).tolist()
        found += [Pointer(place, 0, self._places.root_at(place)) for place in mine[:MOST_HOLDERS]]
        sources = np.unique(self._graph.source[self._graph.target == number])
        for source in sources[:MOST_HOLDERS].tolist():
            at = self._offset(source, start)
            found.append(Pointer(self._start(source) + at, at, self._name(source)))
        return found

    def _offset(self, holder: int, value: int) -> int:
        """Where in an object the first pointer to an address stands."""
        memory, start = self._session.dump.memory, self._start(holder)
        width = self._graph.pointer_size
        raw = memory.read_available(start, int(self._objects.size[holder]))
        words = np.frombuffer(raw[: len(raw) // width * width], f"<u{width}")
        found = np.flatnonzero(words == value)
        return int(found[0]) * width if len(found) else 0

    def _path(self, number: int, offset: int) -> tuple[tuple[Pointer, ...], int]:
        way = self._ways.way(number)
        if not way:
            return (), 0
        first = self._start(way[0])
        if self._log.rank[way[0]] == REGISTER:
            names = self._places.registers_with(range(first, first + 1))
            steps = [Pointer(None, 0, f"register {name}") for name in names[:1]]
        else:
            place = int(self._log.place[way[0]])
            steps = [Pointer(place, 0, self._places.root_at(place))]
        half = MOST_STEPS // 2
        for row, (here, after) in enumerate(zip(way, [*way[1:], -1], strict=True)):
            if half <= row < len(way) - half:
                continue
            at = self._offset(here, self._start(after)) if after >= 0 else offset
            steps.append(Pointer(self._start(here), at, self._name(here)))
        return tuple(steps), len(way) + 1
