"""Open handles as groups of a snapshot, so that whatever compares blocks compares handles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dumpleak.files.reader import SnapshotFile
from dumpleak.model.account import CUT_HANDLES, NO_HANDLES, NOT_KEPT
from dumpleak.model.account_rows import account_of
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import HANDLES
from dumpleak.model.sites import Site, SiteKind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.totals import Totals
from dumpleak.process.session import Session
from dumpleak.survey.info import process_snapshot
from windumps.dumps.kernel.dump import KernelDump
from windumps.process.handles import Handles

BY_TYPE, BY_NAME = "type", "name"
KEYS = (BY_TYPE, BY_NAME)  # of `--by`, the default first


def take_handles(session: Session, by: str, progress: Progress = no_progress) -> Snapshot:
    """The open handles of a process, grouped; the account is that of the whole process.

    Args:
        session: The open dump.
        by: Of `KEYS`.
        progress: Told of each heap.

    Raises:
        CannotAnswerError: the dump does not list its handles, or not all of them.
    """
    handles = handles_of(session)
    texts = handles.types if by == BY_TYPE else handles.names
    return _of_handles(process_snapshot(session, progress), by, texts.counts())


def handles_of(session: Session) -> Handles:
    """The open handles that a dump lists, all of them.

    Raises:
        CannotAnswerError: it does not.
    """
    handles = session.dump.handles
    if isinstance(session.dump, KernelDump):
        raise CannotAnswerError("handles of a whole system are not told; name one with --process")
    if handles is None:
        raise CannotAnswerError(NO_HANDLES)
    if not handles.whole:
        raise CannotAnswerError(CUT_HANDLES)
    return handles


def stored_handles(path: Path | str, by: str) -> Snapshot:
    """The same of a snapshot file, which keeps types and no names.

    Raises:
        CannotAnswerError: the file does not know the handles, or their names.
        SnapshotFileError: the file cannot be used.
    """
    file = SnapshotFile(Path(path))
    snapshot, about = file.metadata.snapshot, file.metadata.about
    if about is None or about.handles is None:
        counted = next((f for f in account_of(snapshot) if f.name == "handles.count"), None)
        reason = counted.reason if counted is not None and counted.reason else NOT_KEPT
        raise CannotAnswerError(f"{path}: {reason}")
    if by != BY_TYPE:
        raise CannotAnswerError(f"{path}: a snapshot does not keep the names of handles")
    counted = next(figure for figure in account_of(snapshot) if figure.name == "handles.count")
    if counted.value is None:
        raise CannotAnswerError(f"{path}: {counted.reason}")
    return _of_handles(replace(snapshot, held_by={}, unreferenced=None), by, about.handles)


def _of_handles(snapshot: Snapshot, by: str, counts: Sequence[tuple[str, int]]) -> Snapshot:
    """The snapshot of a process made into one of its handles."""
    groups = {}
    for text, count in counts:
        name = text or f"(no {by} in the dump)"
        site = Site(SiteKind.GROUP, f"handle|{by}|{text}", name, type=text or None)
        if by != BY_TYPE:
            site = replace(site, type=None)
        groups[site.key] = site, Totals(count)
    return replace(
        snapshot,
        grouping=by,
        groups=groups,
        totals=Totals(sum(count for _, count in counts)),
        private={},
        private_unknown="",
        by_regions=True,
        in_file=None,
        outside=account_of(snapshot),  # as it was: the totals are other ones now
        coverage=ListCovered(0, 0, 0, 0, 0),
        limits=(),
        population=HANDLES,
    )
