"""Objects of .NET as members (`--of managed`), by type."""

from __future__ import annotations

from dumpleak.files.metadata import StoredPopulation
from dumpleak.model.coverage import ManagedCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.totals import Groups, add_to
from dumpleak.process.session import Session
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
    managed = session.managed
    memory = managed.memory
    if memory is None:
        raise CannotAnswerError(f"{session.dump.path}: {managed.why}")
    groups: Groups = {}
    for name, totals in managed.groups:
        add_to(groups, _site(name), totals)
    covered = ManagedCovered(
        *(memory.walked_bytes, memory.present_bytes, memory.committed_bytes),
        *(memory.segments, memory.segments),
    )
    return StoredPopulation(
        {by: list(groups.values())}, coverage=covered, notes={by: tuple(managed.diagnostics)}
    )


def _site(name: TypeName) -> Site:
    """All objects of one type, whichever MethodTables they have: two load contexts have two."""
    text = name.name or UNNAMED
    key = f"managed|{name.assembly.lower()}|{name.name}"
    return Site(SiteKind.TYPE, key, text, type=name.name or None)
