"""Objects of .NET as members (`--of managed`), by type."""

from __future__ import annotations

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ManagedCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.group_sums import GroupSums
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.totals import Groups, add_to
from dumpleak.process.session import Session
from windumps.heaps.clr.heap import ManagedHeap, find_managed_heap
from windumps.heaps.clr.names import TypeName

UNNAMED = "(type not named in the dump)"


def managed_objects(session: Session, by: str) -> StoredPopulation:
    """All objects of a .NET process.

    Args:
        session: The open dump.
        by: "type".

    Raises:
        CannotAnswerError: the process has none, or they cannot be read.
    """
    heap, why = find_managed_heap(session.dump)
    if heap is None:
        raise CannotAnswerError(why)
    sums = GroupSums()
    for number, piece in enumerate(heap.objects()):
        if len(piece.size):
            sums.add(piece.table, piece.size, piece.size)
        if number % 2:
            session.dump.release()
    groups: Groups = {}
    for number, name in enumerate(heap.names):
        totals = sums.totals(number) if number < sums.count else None
        if totals is not None and totals.count:
            add_to(groups, _site(name), totals)
    return StoredPopulation(
        {by: list(groups.values())},
        coverage=_covered(session, heap),
        diagnostics=tuple(heap.log.collect()),
    )


def _site(name: TypeName) -> Site:
    """All objects of one type, whichever MethodTables they have: two load contexts have two."""
    text = name.name or UNNAMED
    key = f"managed|{name.assembly.lower()}|{name.name}"
    return Site(SiteKind.TYPE, key, text, type=name.name or None)


def _covered(session: Session, heap: ManagedHeap) -> ManagedCovered:
    account = heap.account
    return ManagedCovered(
        walked_bytes=account.walked_bytes,
        present_bytes=account.committed_bytes - account.absent_bytes,
        committed_bytes=account.committed_bytes,
        heaps_listed=1,
        heaps_read=1,
    )
