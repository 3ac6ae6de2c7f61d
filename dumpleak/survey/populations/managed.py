"""Objects of .NET as members (`--of managed`), by type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ManagedCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.totals import Group, Groups, add_to
from dumpleak.pointers.managed_reach import NOBODY, SEVERAL, holders_of, reachable_objects
from dumpleak.process.session import Session
from windumps.heaps.clr.method_tables import HAS_COMPONENTS
from windumps.heaps.clr.names import TypeName

UNNAMED = "(type not named in the dump)"
OWN, FEWER = -3, 3  # in place of a holder; how many numbers are below 0
_TOLD = {NOBODY: "no object", SEVERAL: "several types"}
GARBAGE = Site(SiteKind.GROUP, "managed|garbage", "(garbage, which waits for a collection)")


def managed_objects(session: Session, by: str) -> StoredPopulation:
    """All objects of a .NET process.

    Args:
        session: The open dump.
        by: "type"; "reachable": by type those that something leads to, and all garbage together; "holder": by
            type, strings and arrays also by the type of what holds them.

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


def _by_holder(session: Session) -> Iterator[Group]:
    heap = session.managed.heap
    if heap is None:
        return
    objects, holder = holders_of(heap)
    shapeless = (heap.tables.flags[objects.table] & HAS_COMPONENTS) != 0
    # Two numbers in one: the type, and that of the holder; the type itself where it says enough.
    many = len(heap.tables.address) + FEWER
    pairs = objects.table * many + np.where(shapeless, holder, OWN) + FEWER
    distinct, number = np.unique(pairs, return_inverse=True)
    sums = GroupSums()
    if len(number):
        sums.add(number, objects.size, objects.size)
    for row, pair in enumerate(distinct.tolist()):
        table, held = divmod(pair, many)
        yield _held_site(heap.names, table, held - FEWER), sums.totals(row)


def _held_site(names: list[TypeName], table: int, holder: int) -> Site:
    """Of strings and arrays that objects of one type hold."""
    site = _site(names[table])
    if holder == OWN:
        return site
    by = _TOLD.get(holder) or names[holder].name or UNNAMED
    whose = names[holder].assembly.lower() if holder >= 0 else ""
    return replace(site, key=f"{site.key}|held|{whose}|{by}", name=f"{site.name} held by {by}")


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
