"""The processes of a dump, a snapshot file of one, or a list of a live system."""

from __future__ import annotations

from pathlib import Path

from dumpleak.files import counter_processes, process_list
from dumpleak.files.detect import HEAD_BYTES, is_series, is_snapshot_file, read_snapshot
from dumpleak.files.reader import SnapshotFile
from dumpleak.kernel.processes import SystemProcesses, state_of
from dumpleak.model.account import NOT_KEPT
from dumpleak.model.errors import CannotAnswerError, Progress, no_progress
from dumpleak.model.populations import PROCESSES
from dumpleak.model.process_rows import ProcessRow, ProcessTable
from dumpleak.survey.populations import stored_population
from dumpleak.survey.populations.system import System, system_snapshot
from dumpleak.symbols.kernel import use_symbols
from windumps import open_dump
from windumps.dumps.kinds import is_system
from windumps.files import read_head
from windumps.symbols.provider import Symbols

_BY = "name"


def open_processes(
    path: Path | str, symbols: Symbols | None = None, progress: Progress = no_progress
) -> ProcessTable:
    """The processes that a file tells of.

    Args:
        path: A dump of a system, a snapshot file of one, what Get-Process | Export-Csv wrote, or a
            performance log, of which the last sample counts.
        symbols: Where names come from.
        progress: Told of a walk.

    Raises:
        CannotAnswerError: it tells of no processes, or not of all.
        WindumpsError: it cannot be used.
    """
    if is_snapshot_file(path):
        return _stored(path)
    if process_list.is_log(read_head(path, HEAD_BYTES)):
        snapshot, rows = process_list.read_all(path)
        return ProcessTable(snapshot, tuple(_listed(row) for row in rows))
    if is_series(path):
        return counter_processes.read_processes(path)[-1]
    if read_snapshot(path, _BY) is not None:
        raise CannotAnswerError(
            f"{path}: this log does not list processes one by one; dumps of a system, performance logs and "
            "lists that Get-Process | Export-Csv FILE wrote do"
        )
    dump = open_dump(path)
    if not is_system(dump):
        raise CannotAnswerError(
            f"{path}: a {dump.kind} of one process; only kernel dumps list processes"
        )
    use_symbols(dump, symbols)
    system = System.of(dump, symbols, progress)
    return ProcessTable(system_snapshot(system, PROCESSES, _BY), process_rows(system.processes))


def processes_over(path: Path | str) -> tuple[ProcessTable, ProcessTable] | None:
    """The processes of a performance log at its beginning and at its end; None for other files.

    Raises:
        CannotAnswerError: it is of one moment, or tells of no processes.
        OSError: it cannot be read.
    """
    if not is_series(path):
        return None
    first, last = counter_processes.read_processes(path)
    if first.snapshot.source.time == last.snapshot.source.time:
        raise CannotAnswerError(f"{path}: the log is of one moment, name a later one")
    return first, last


def process_rows(processes: SystemProcesses) -> tuple[ProcessRow, ...]:
    """All processes of a system, ended ones included."""
    return tuple(
        ProcessRow(
            name=process.name,
            process_id=process.process_id,
            created=process.create_time,
            state=state_of(process),
            private_commit_bytes=process.private_commit_bytes,
            handle_count=process.handle_count,
            thread_count=process.thread_count,
            nonpaged_quota_bytes=process.nonpaged_quota_bytes,
            paged_quota_bytes=process.paged_quota_bytes,
            held_by=processes.held_by(process),
        )
        for process in processes.all
    )


def _stored(path: Path | str) -> ProcessTable:
    rows = SnapshotFile(Path(path)).metadata.processes
    if rows is None:
        raise CannotAnswerError(
            f"{path}: {NOT_KEPT} which processes there were; make it anew from a dump of a system"
        )
    return ProcessTable(stored_population(path, PROCESSES, _BY), rows)


def _listed(row: process_list.Row) -> ProcessRow:
    return ProcessRow(
        name=row.name,
        process_id=row.id,
        created=None,
        private_commit_bytes=row.values.get("counters.private_bytes"),
        handle_count=row.values.get("handles.count"),
        nonpaged_quota_bytes=row.values.get("counters.pool_nonpaged_bytes"),
        paged_quota_bytes=row.values.get("counters.pool_paged_bytes"),
    )
