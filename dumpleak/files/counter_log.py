"""A file of performance counters as a series of snapshots."""

from __future__ import annotations

from pathlib import Path

from dumpleak.files import counter_csv, counter_objects
from dumpleak.files.counter_csv import (
    MEMORY,
    PROCESS_ID,
    CounterFile,
    Instance,
    Sample,
    Samples,
    read_heading,
    read_samples,
)
from dumpleak.files.process_log import (
    PRIVATE,
    LogFile,
    check_grouping,
    choose,
    listed,
    of_all,
    of_one,
)
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.snapshot import Snapshot
from windumps.files import read_head

KIND = "performance log"
HEAD_BYTES = 0x1000
MAX_SNAPSHOTS = 48  # of a series: as many as a line of a table shows
_SUMS = ("_total", "idle")  # instances that are no process


def read_series(path: Path | str, process: str | None = None) -> list[Snapshot]:
    """One process at the moments of a log, at most `MAX_SNAPSHOTS` spread evenly over it.

    Args:
        path: The log.
        process: As its counters name it; None where the log is of one. `MEMORY` for the machine itself.

    Raises:
        CannotAnswerError: the log has several processes, or nothing that is known.
        OSError: it cannot be read.
    """
    heading = heading_of(path)
    instance = _chosen(path, heading, process)
    samples = samples_of(path, heading, [instance])[instance]
    known = [row for row in samples.rows if any(v is not None for v in _figures(row).values())]
    if not known:
        raise CannotAnswerError(f"{path}: the log has no sample of {instance.name}")
    file = file_of(path, heading, samples, len(known))
    last = len(known) - 1
    count = min(len(known), MAX_SNAPSHOTS)
    shown = sorted({round(number * last / max(count - 1, 1)) for number in range(count)})
    return [_snapshot(file, instance, known[number], number + 1) for number in shown]


def read_log(path: Path | str, by: str = "site", process: str | None = None) -> Snapshot:
    """The last moment of a log: its process, or all of them by name.

    Args:
        path: The log.
        by: See `check_grouping`.
        process: As `read_series` has it; None for all.

    Raises:
        CannotAnswerError: as `read_series`.
        OSError: it cannot be read.
    """
    if process is not None:
        return read_series(path, process)[-1]
    check_grouping(str(path), by)
    heading = heading_of(path)
    processes = processes_of(heading)
    if len(processes) < 2:
        return read_series(path)[-1]
    all_samples = samples_of(path, heading, processes, ends_only=True)
    rows = {instance: samples.rows[-1] for instance, samples in all_samples.items() if samples.rows}
    # A process that is gone has no values any more.
    there = {i: row for i, row in rows.items() if any(v is not None for v in row.values.values())}
    if not there:
        raise CannotAnswerError(f"{path}: the log has no sample at its end")
    worst = max(all_samples.values(), key=lambda samples: samples.damaged)
    names = names_of(heading, list(there))
    private = {name: (1, there[i].values.get(PRIVATE)) for name, i in names.items()}
    time = next(iter(there.values())).time
    return of_all(file_of(path, heading, worst, len(worst.rows)), private, time)


def heading_of(path: Path | str) -> CounterFile:
    """What counters a log has.

    Raises:
        CannotAnswerError: none that is known.
        OSError: it cannot be read.
    """
    of_objects = counter_objects.is_log(read_head(path, HEAD_BYTES))
    heading = counter_objects.read_heading(path) if of_objects else read_heading(path)
    if not heading.instances:
        names = listed({text[:100] for text in heading.unknown}) or "it has none"
        place = "in the file" if of_objects else "in the first line"
        raise CannotAnswerError(
            f"{path}: none of its counters is known by its English name: {names}. On a system of another "
            rf"language write the names {place} in English, \\HOST\Process(app)\Private Bytes, "
            "Virtual Bytes, Working Set, Handle Count, Thread Count, or log such counters"
        )
    return heading


def samples_of(
    path: Path | str, heading: CounterFile, instances: list[Instance], *, ends_only: bool = False
) -> dict[Instance, Samples]:
    """As `counter_csv.read_samples`, of either form."""
    if isinstance(heading, counter_objects.ObjectsFile):
        return counter_objects.read_samples(path, heading, instances, ends_only=ends_only)
    return read_samples(path, heading, instances, ends_only=ends_only)


def is_log(head: bytes) -> bool:
    """True when the beginning of a file looks like counters of many moments, in one form or the other."""
    return counter_csv.is_log(head) or counter_objects.is_log(head)


def _chosen(path: Path | str, heading: CounterFile, process: str | None) -> Instance:
    processes = processes_of(heading)
    if process is None:
        found = processes or list(heading.instances)
        if len(found) != 1:
            names = listed(names_of(heading, found))
            raise CannotAnswerError(
                f"{path}: the log is of several processes; choose one with --process NAME: {names}"
            )
        instance = found[0]
    else:
        known = names_of(heading, list(heading.instances))
        instance = known[choose(str(path), known, process)]
    if instance in heading.twice:
        raise CannotAnswerError(
            f"{path}: several processes are called {instance.name}, and the log does not tell them apart"
        )
    return instance


def processes_of(heading: CounterFile) -> list[Instance]:
    """Those that are processes."""
    return [i for i in heading.instances if i.name != MEMORY and i.name.lower() not in _SUMS]


def names_of(heading: CounterFile, instances: list[Instance]) -> dict[str, Instance]:
    """What processes are called: with their machine where a log is of several."""
    several = len({instance.host.lower() for instance in heading.instances}) > 1
    return {f"{i.host}\\{i.name}" if several else i.name: i for i in instances}


def _figures(row: Sample) -> dict[str, int | None]:
    return {name: value for name, value in row.values.items() if name != PROCESS_ID}


def _snapshot(file: LogFile, instance: Instance, row: Sample, number: int) -> Snapshot:
    return of_one(
        file,
        instance.name,
        _figures(row),
        label=f", sample {number}",
        host=instance.host,
        time=row.time,
        process_id=row.values.get(PROCESS_ID),
    )


def file_of(path: Path | str, heading: CounterFile, samples: Samples, count: int) -> LogFile:
    """The log, with what must be said of it.

    Args:
        path: It.
        heading: Its counters.
        samples: The worst of what was read.
        count: How many of these have values.
    """
    notes = []
    if samples.damaged:
        message = f"{samples.damaged} lines or values of the log are damaged and were left out"
        notes.append(("counters-damaged", message))
    if samples.backwards:
        message = f"{samples.backwards} samples were left out: the clock ran back before them"
        notes.append(("counters-clock", message))
    if heading.bias is None:
        message = "the log does not say its time zone: times are those of its machine"
        notes.append(("counters-local-time", message))
    if isinstance(heading, counter_objects.ObjectsFile) and heading.doubtful_dates:
        order = "day/month" if heading.day_first else "month/day"
        message = f"dates of the log can be read in two ways; they were taken for {order}"
        notes.append(("counters-dates", message))
    if count > MAX_SNAPSHOTS:
        message = f"{MAX_SNAPSHOTS} of {count} samples are shown, spread evenly from the first to the last"
        notes.append(("counters-thinned", message))
    gaps = len(samples.rows) - count
    if gaps > 0:
        message = f"{gaps} samples have no values: the process was not there, or could not be read"
        notes.append(("counters-gaps", message))
    return LogFile(str(path), KIND, tuple(notes))
