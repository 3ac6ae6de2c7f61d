"""Objects of .NET as members (`--of managed`), by type."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ManagedCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.totals import Group, Groups, add_to
from dumpleak.pointers.managed_reach import reachable_objects
from dumpleak.process.session import Session
from windumps.heaps.clr.names import TypeName

UNNAMED = "(type not named in the dump)"
REACHABLE = "reachable"
GARBAGE = Site(SiteKind.GROUP, "managed|garbage", "(garbage, which waits for a collection)")


def managed_objects(session: Session, by: str) -> StoredPopulation:
    """All objects of a .NET process.

    Args:
        session: The open dump.
        by: "type", or "reachable": by type those that something leads to, and all garbage together.

    Raises:
        CannotAnswerError: the process has none, or they cannot be read.
    """
    managed = session.managed
    memory = managed.memory
    if memory is None:
        raise CannotAnswerError(f"{session.dump.path}: {managed.why}")
    groups: Groups = {}
    for site, totals in _reachable(session) if by == REACHABLE else _by_type(session):
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


def _site(name: TypeName) -> Site:
    """All objects of one type, whichever MethodTables they have: two load contexts have two."""
    text = name.name or UNNAMED
    key = f"managed|{name.assembly.lower()}|{name.name}"
    return Site(SiteKind.TYPE, key, text, type=name.name or None)
