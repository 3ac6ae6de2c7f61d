"""Objects of .NET as members (`--of managed`), by type."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ManagedCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.holding import Holding
from dumpleak.model.managed import GARBAGE_KEY, HELD, HeldObjects
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Group, Groups, add_to, by_key
from dumpleak.pointers.managed_holders import NOBODY, SEVERAL, Kinds, holding_types
from dumpleak.pointers.managed_reach import ManagedGraph, reachable_objects
from dumpleak.pointers.pointer_graph import I32, PointerGraph
from dumpleak.pointers.retained import Retention
from dumpleak.process.managed import UNNAMED
from dumpleak.process.session import Session
from dumpleak.survey.populations.members import numbered
from windumps.arrays import I64, U32
from windumps.diagnostics import Diagnostic, Severity
from windumps.heaps.clr.method_tables import HAS_COMPONENTS
from windumps.heaps.clr.names import TypeName

FEWER = 2  # numbers below 0
SEVERAL_TYPES = "several types"
# Of a MethodTable without components: bits that tell values, which are only on the heap in boxes.
_CATEGORY, _VALUE = 0xC0000, 0x40000
CONTAINERS = "System.Collections."  # types that only keep what others put into them
NO_ROWS = np.empty(0, np.int64)
ROOTS_SAID = Diagnostic(
    *("managed-roots", Severity.INFO, "GC handle table", None),
    "what keeps objects alive is statics, stacks and handles; weak handles are not told from strong ones, "
    "and count as strong",
)
GARBAGE = Site(SiteKind.GROUP, "managed|garbage", "(garbage, which waits for a collection)")


def managed_objects(session: Session, by: str) -> StoredPopulation:
    """All objects of a .NET process.

    Args:
        session: The open dump.
        by: "type"; "reachable": by type those that something leads to, and all garbage together; "holder": by
            type and by the type of what holds them, garbage apart where that can be told.

    Raises:
        CannotAnswerError: the process has none, or they cannot be read.
    """
    managed = session.managed
    memory = managed.memory
    if memory is None:
        raise CannotAnswerError(f"{session.dump.path}: {managed.why}")
    groups: Groups = {}
    for site, totals in GROUPED[by](session):
        add_to(groups, site, totals)
    covered = ManagedCovered(
        *(memory.walked_bytes, memory.present_bytes, memory.committed_bytes),
        *(memory.segments, memory.segments),
    )
    return StoredPopulation(
        {by: list(groups.values())}, coverage=covered, notes={by: tuple(managed.diagnostics)}
    )


def _by_type(session: Session) -> Iterator[Group]:
    for name, totals in session.managed.groups:
        yield _site(name), totals


def _reachable(session: Session) -> Iterator[Group]:
    objects, reached = reachable_objects(session)
    heap = session.managed.heap
    names = heap.names if heap is not None else []
    numbers = np.where(reached, objects.table, len(names))
    sums = GroupSums()
    if len(numbers):
        sums.add(numbers, objects.size, objects.size)
    for number in np.unique(numbers).tolist():
        yield _site(names[number]) if number < len(names) else GARBAGE, sums.totals(number)


def held_objects(session: Session) -> HeldObjects:
    """All objects by type, by what holds them, and whether they are garbage.

    Raises:
        CannotAnswerError: they cannot be read.
    """
    graph = ManagedGraph(session)
    heap = session.managed.heap
    if heap is None or not len(graph.objects.address):
        return HeldObjects({}, not graph.why_not)
    sites, of_table = numbered(_site(name) for name in heap.names)
    number = of_table[graph.objects.table]
    live = np.ones(len(number), np.bool_) if graph.why_not else graph.reached
    # What garbage points to is not held by it.
    alike = live[graph.source] == live[graph.target]
    kinds = _kinds(heap.tables.flags, sites, of_table)
    pointers = graph.source[alike], graph.target[alike]
    holder = holding_types(number, kinds, *pointers, graph.held)
    # Three numbers in one: the type, the type that holds it, and whether it is garbage.
    many = len(sites) + FEWER
    triples = ((number * many) + holder + FEWER) * 2 + ~live
    distinct, group = np.unique(triples, return_inverse=True)
    sums = GroupSums()
    sums.add(group, graph.objects.size, graph.objects.size)
    groups: Groups = {}
    for row, triple in enumerate(distinct.tolist()):
        pair, garbage = divmod(triple, 2)
        own, held = divmod(pair, many)
        site = _held_site(sites, own, held - FEWER, garbage=bool(garbage))
        add_to(groups, site, sums.totals(row))
    return HeldObjects(groups, not graph.why_not)


def with_holders(session: Session, objects: Snapshot, *, retained: bool) -> Snapshot:
    """Objects by type, with what holds them when that is asked for.

    Args:
        session: The open dump.
        objects: Of it.
        retained: Also with what they keep alive.
    """
    held = cache(lambda: held_objects(session))
    holders = ManagedRetained(session) if retained else None
    said = [] if holders is None or holders.knows_handles else [ROOTS_SAID]
    found = [*objects.diagnostics, *said]
    return replace(objects, held_objects=held, holders=holders, diagnostics=found)


def with_stored_holders(objects: Snapshot, kept: StoredPopulation) -> Snapshot:
    """As `with_holders`, of what a snapshot file keeps; those written without keep nothing of it."""
    if "holder" not in kept.groups:
        return objects
    groups = by_key(kept.groups["holder"])
    # Files of before tell garbage apart in the other grouping only.
    apart = any(key.endswith(GARBAGE_KEY) for key in groups)
    told = GARBAGE.key in by_key(kept.groups.get("reachable", ()))
    held = HeldObjects(groups, "reachable" in kept.groups and apart == told)
    return replace(objects, held_objects=lambda: held)


class ManagedRetained:
    """Tells what types of objects keep alive.

    Args:
        session: The open dump.

    Attributes:
        unreferenced: Nothing is told of single objects.
    """

    unreferenced: NDArray[np.bool_] | None = None

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def knows_handles(self) -> bool:
        """Weak handles are told from strong ones."""
        return self._graph.knows_handles

    @cached_property
    def _sites(self) -> tuple[list[Site], I32]:
        """The types, and that of each object."""
        heap = self._session.managed.heap
        sites, of_table = numbered(_site(name) for name in heap.names) if heap else ([], NO_ROWS)
        return sites, of_table[self._graph.objects.table].astype(np.int32)

    @cached_property
    def _graph(self) -> ManagedGraph:
        return ManagedGraph(self._session)

    @cached_property
    def _retention(self) -> Retention:
        graph = self._graph
        pointers = PointerGraph(len(graph.objects.address), graph.source, graph.target, graph.held)
        return Retention(pointers, graph.reached, graph.objects.size)

    def __call__(self, keys: Collection[str]) -> dict[str, Holding]:
        """What types with these keys keep alive.

        Raises:
            CannotAnswerError: not all that may lead to objects is in the dump.
        """
        if why := self._graph.why_not:
            told = f"{self._session.dump.path}: what objects keep alive cannot be told: {why}"
            raise CannotAnswerError(told)
        sites, group = self._sites
        wanted = [number for number, site in enumerate(sites) if site.key in keys]
        kept = self._retention.of_groups(group, wanted)
        counts = np.bincount(group, minlength=len(sites))
        found = {}
        for number in wanted:
            size, count = kept[number] or (None, None)
            found[sites[number].key] = Holding(
                int(counts[number]), 0, retained_bytes=size, retained_count=count
            )
        return found

    def retained_of(self, keys: Collection[str]) -> tuple[int, int] | None:
        """What types with these keys keep alive together."""
        sites, group = self._sites
        wanted = np.array([site.key in keys for site in sites], np.bool_)
        return self._retention.of_blocks(np.flatnonzero(wanted[group]).astype(np.int32))


def _kinds(flags: U32, sites: list[Site], of_table: I64) -> Kinds:
    """Which types are only what holds them makes them."""
    plain = np.zeros(len(sites), np.bool_)
    # Strings, arrays, boxes of numbers and structures.
    plain[of_table] = ((flags & HAS_COMPONENTS) != 0) | ((flags & _CATEGORY) == _VALUE)
    listed = np.array([site.name.startswith(CONTAINERS) for site in sites], np.bool_)
    return Kinds(plain | listed, plain)


def _held_site(sites: list[Site], own: int, holder: int, *, garbage: bool) -> Site:
    """Of objects of one type that objects of one type hold."""
    site = sites[own]
    key, name = site.key, site.name
    if holder != NOBODY:
        by = SEVERAL_TYPES if holder == SEVERAL else sites[holder].name
        whose = "" if holder == SEVERAL else sites[holder].key
        key, name = f"{key}{HELD}{whose}", f"{name} held by {by}"
    if garbage:
        key, name = f"{key}{GARBAGE_KEY}", f"{name} (garbage)"
    return replace(site, key=key, name=name)


def _by_holder(session: Session) -> Iterator[Group]:
    yield from held_objects(session).groups.values()


def _site(name: TypeName) -> Site:
    """All objects of one type, whichever MethodTables they have: two load contexts have two."""
    text = name.name or UNNAMED
    key = f"managed|{name.assembly.lower()}|{name.name}"
    return Site(SiteKind.TYPE, key, text, type=name.name or None)


GROUPED: dict[str, Callable[[Session], Iterator[Group]]] = {
    "type": _by_type,
    "reachable": _reachable,
    "holder": _by_holder,
}
