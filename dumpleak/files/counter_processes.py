"""All processes of a log of performance counters, at its beginning and at its end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dumpleak.files.counter_csv import PROCESS_ID
from dumpleak.files.counter_log import file_of, heading_of, names_of, processes_of, samples_of
from dumpleak.files.counter_objects import ObjectsFile
from dumpleak.files.process_log import PRIVATE, LogFile, listed, of_all
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.process_rows import ProcessRow, ProcessTable

_NUMBERED = re.compile(r"#\d{1,5}$")  # of further processes of one program
_Values = dict[str, int | None]


def read_processes(path: Path | str) -> tuple[ProcessTable, ProcessTable]:
    """All processes of a log at its first moment and at its last; of one moment it is the same twice.

    Raises:
        CannotAnswerError: it has none, or no sample of any.
        OSError: it cannot be read.
    """
    heading = heading_of(path)
    processes = processes_of(heading)
    if not processes:
        raise CannotAnswerError(f"{path}: the log has counters of the machine, and of no process")
    found = samples_of(path, heading, processes, ends_only=True)
    worst = max(found.values(), key=lambda samples: samples.damaged)
    if not worst.rows:
        raise CannotAnswerError(f"{path}: the log has no sample")
    file = file_of(path, heading, worst, len(worst.rows))
    shared = [instance.name for instance in processes if instance in heading.twice]
    if shared:
        message = (
            f"several processes are called {listed(shared)}, and the log does not tell them apart"
        )
        file = _noted(file, "counters-shared", message)
    if not isinstance(heading, ObjectsFile):
        message = (
            "a log of this form follows the processes that were there when it began, no later ones"
        )
        file = _noted(file, "counters-began", message)
    names = {instance: name for name, instance in names_of(heading, processes).items()}
    moments = []
    for at, label in ((0, ", first sample"), (-1, ", last sample")):
        rows = {instance: samples.rows[at].values for instance, samples in found.items()}
        # A process that is not there has no values; of those that share a name nobody knows.
        known = {
            one: {} if one in heading.twice else row
            for one, row in rows.items()
            if one in heading.twice or any(value is not None for value in row.values())
        }
        told = {_NUMBERED.sub("", names[one]): list[_Values]() for one in known}
        for one, row in known.items():
            told[_NUMBERED.sub("", names[one])].append(row)
        moments.append(_table(file, label, worst.rows[at].time, told))
    return moments[0], moments[1]


def _noted(file: LogFile, code: str, message: str) -> LogFile:
    return replace(file, notes=(*file.notes, (code, message)))


def _table(
    file: LogFile, label: str, time: datetime, programs: Mapping[str, list[_Values]]
) -> ProcessTable:
    """The processes of one moment, by program."""
    private: dict[str, tuple[int, int | None]] = {}
    for name, rows in programs.items():
        sizes = [row.get(PRIVATE) for row in rows]
        known = [size for size in sizes if size is not None]
        private[name] = len(rows), sum(known) if len(known) == len(sizes) else None
    told = (_row(name, row) for name, rows in programs.items() for row in rows)
    return ProcessTable(of_all(file, private, time, label), tuple(told))


def _row(name: str, values: _Values) -> ProcessRow:
    return ProcessRow(
        name=name,
        process_id=values.get(PROCESS_ID),
        created=None,
        private_commit_bytes=values.get(PRIVATE),
        handle_count=values.get("handles.count"),
        thread_count=values.get("threads.count"),
        nonpaged_quota_bytes=values.get("counters.pool_nonpaged_bytes"),
        paged_quota_bytes=values.get("counters.pool_paged_bytes"),
    )
