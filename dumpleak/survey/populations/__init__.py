"""Populations of a process that are no blocks: who takes their members out of a dump, one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

from dumpleak.files.metadata import StoredPopulation
from dumpleak.files.reader import SnapshotFile
from dumpleak.model.account import NOT_KEPT
from dumpleak.model.coverage import ArenasCovered, Coverage, ManagedCovered
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import (
    ARENAS,
    BLOCKS,
    HANDLES,
    HEAPS,
    MANAGED,
    MODULES,
    POOL,
    POPULATIONS,
    REGIONS,
    THREADS,
)
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.survey.heaps import take_snapshot
from dumpleak.survey.info import process_snapshot
from dumpleak.survey.populations.handles import BY_TYPE, handle_members, handle_site
from dumpleak.survey.populations.heap_rows import heap_members
from dumpleak.survey.populations.members import Members, added_up, members_snapshot, stored
from dumpleak.survey.populations.modules import module_members
from dumpleak.survey.populations.regions import OWNER, region_members
from dumpleak.survey.populations.threads import thread_members
from windumps.later import later

_arenas: Callable[..., StoredPopulation] = later(
    "dumpleak.survey.populations.arenas", "arena_members"
)
_managed: Callable[..., StoredPopulation] = later(
    "dumpleak.survey.populations.managed", "managed_objects"
)
_with_holders: Callable[..., Snapshot] = later(
    "dumpleak.survey.populations.managed", "with_holders"
)
_with_stored_holders: Callable[..., Snapshot] = later(
    "dumpleak.survey.populations.managed", "with_stored_holders"
)
# From a session, the snapshot of its process with all heaps walked, and a key of `--by`. Raises
# `CannotAnswerError` where the dump does not tell of the members, or not of all; members that are found by a
# walk come added up, with how much of their memory was walked.
Producer = Callable[[Session, Snapshot, str], Members | StoredPopulation]
PRODUCERS: dict[str, Producer] = {
    REGIONS: lambda session, process, by: region_members(session, process, by),
    HEAPS: lambda session, process, by: heap_members(process),
    HANDLES: lambda session, process, by: handle_members(session, by),
    THREADS: lambda session, process, by: thread_members(session, by),
    MODULES: lambda session, process, by: module_members(session),
    MANAGED: lambda session, process, by: _managed(session, by),
    ARENAS: lambda session, process, by: _arenas(session, by),
}
# How much of their memory was walked, of members that are found by a walk.
COVERED: dict[str, type[Coverage]] = {MANAGED: ManagedCovered, ARENAS: ArenasCovered}
# What snapshot files of processes leave out: names of objects tell what files and keys somebody had open; by
# process only systems are told.
LEFT_OUT = {(HANDLES, "name"), (HANDLES, "process"), (THREADS, "process")}


def is_produced(of: str | None) -> bool:
    """A population of a process or of a system, and not blocks of either."""
    return of not in (None, BLOCKS, POOL)


def take_population(
    session: Session,
    of: str,
    by: str,
    progress: Progress = no_progress,
    *,
    retained: bool = False,
) -> Snapshot:
    """A population of a process, grouped; the account is that of the whole process.

    Args:
        session: The open dump.
        of: A key of `PRODUCERS`.
        by: One of its groupings.
        progress: Told of each heap.
        retained: Objects of .NET by type also tell what they keep alive.

    Raises:
        CannotAnswerError: the dump does not tell of it, or not of all members.
    """
    if of not in PRODUCERS:
        raise CannotAnswerError(f"{session.dump.path}: one process; a system has {of}")
    if by == OWNER and session.readable_heaps:  # which block holds a pointer
        process = take_snapshot(session, progress=progress, holders=True)
    else:
        process = process_snapshot(session, progress)
    found = members_snapshot(process, of, by, _produced(session, process, of, by))
    if of == MANAGED and by == BY_TYPE:
        return _with_holders(session, found, retained=retained)
    return found


def _produced(session: Session, process: Snapshot, of: str, by: str) -> StoredPopulation:
    members = PRODUCERS[of](session, process, by)
    return stored(by, members) if isinstance(members, Members) else members


def stored_population(path: Path | str, of: str, by: str) -> Snapshot:
    """A population as a snapshot file of a process keeps it.

    Raises:
        CannotAnswerError: the dump did not tell of it, or the file does not keep it.
        SnapshotFileError: the file cannot be used.
    """
    file = SnapshotFile(Path(path))
    kept = file.metadata.populations.get(of) or _of_older_file(file, of)
    if kept is None:
        raise CannotAnswerError(f"{path}: {NOT_KEPT}; make it anew from the dump")
    if by not in kept.groups:
        why = kept.reason or f"a snapshot file keeps no {of} by {by}; ask the dump itself"
        raise CannotAnswerError(f"{path}: {why}")
    if kept.coverage is not None and of in COVERED:
        kept = replace(kept, coverage=COVERED[of](*astuple(kept.coverage)))
    found = members_snapshot(file.metadata.snapshot, of, by, kept)
    if of == MANAGED and by == BY_TYPE:
        return _with_stored_holders(found, kept)
    return found


def _of_older_file(file: SnapshotFile, of: str) -> StoredPopulation | None:
    """What files tell that were written before they kept populations: handles by type, heaps."""
    if of == HEAPS:
        return StoredPopulation({"kind": added_up(heap_members(file.metadata.snapshot))})
    about = file.metadata.about
    if of != HANDLES or about is None or about.handles is None:
        return None
    groups = [(handle_site(BY_TYPE, text), Totals(count)) for text, count in about.handles]
    return StoredPopulation({BY_TYPE: groups}, sized=False)


def all_populations(session: Session, process: Snapshot) -> dict[str, StoredPopulation]:
    """Every population with its groupings, as a snapshot file keeps them, or why the dump lacks it."""
    found = {}
    for of in PRODUCERS:
        keys = [by for by in POPULATIONS[of].groupings if (of, by) not in LEFT_OUT]
        kept, reason = StoredPopulation(), ""
        for by in keys:
            try:
                told = _produced(session, process, of, by)
            except CannotAnswerError as error:
                reason = reason or str(error)
                continue
            kept = replace(
                told,
                groups=kept.groups | told.groups,
                notes=kept.notes | told.notes,
                sized=kept.sized and told.sized,
            )
        found[of] = replace(kept, reason=reason)
    return found
