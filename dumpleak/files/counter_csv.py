r"""CSV of performance counters, read: Performance Monitor, `typeperf`, `Get-Counter | Export-Counter`.

    "(PDH-CSV 4.0) (Romance Standard Time)(-60)","\\HOST\Process(app)\Private Bytes",...
    "11/30/2026 09:00:00.123","20934656.000000",...

A blank, or -1, is a sample that could not be taken. Nothing of it is trusted: a line that is no whole row is
left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from dumpleak.files.live_text import decoded, fields_of, lines_of
from dumpleak.model.errors import CannotAnswerError

LINE_LIMIT = 1 << 23
MAX_ROWS = 1 << 20
MAX_KEPT = 1 << 22  # values of what was asked for
_MARKS = {"(PDH-CSV 4.0)": ",", "(PDH-TSV 4.0)": "\t"}
_HEADING = re.compile(
    r"\(PDH-[CT]SV 4\.0\)\s*(?:\((?P<zone>[^()]*)\)\s*\((?P<bias>-?\d{1,4})\))?.*"
)
_PATH = re.compile(
    r"(?:\\\\(?P<host>[^\\]+))?\\(?P<object>[^\\(]+)(?:\((?P<instance>.*)\))?\\(?P<counter>[^\\]+)"
)
_TIME = re.compile(r"(\d\d)/(\d\d)/(\d{4}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,3}))?")
_VALUE = re.compile(r"\d{1,20}(?:\.\d{1,20})?(?:[Ee]\+?\d{1,2})?")
_POSSIBLE = 1 << 62
MEMORY = "Memory"
PROCESS_ID = "process id"
# Names of objects and counters, and their numbers, which are the same in every language.
_OBJECTS = {"process": "process", "230": "process", "memory": "memory", "4": "memory"}
_COUNTERS = {
    "process": {
        "private bytes": "counters.private_bytes",
        "186": "counters.private_bytes",
        "virtual bytes": "counters.virtual_bytes",
        "174": "counters.virtual_bytes",
        "working set": "counters.working_set_bytes",
        "180": "counters.working_set_bytes",
        "handle count": "handles.count",
        "952": "handles.count",
        "thread count": "threads.count",
        "680": "threads.count",
        "pool paged bytes": "counters.pool_paged_bytes",
        "56": "counters.pool_paged_bytes",
        "pool nonpaged bytes": "counters.pool_nonpaged_bytes",
        "58": "counters.pool_nonpaged_bytes",
        "id process": PROCESS_ID,
        "784": PROCESS_ID,
    },
    "memory": {
        "pool paged bytes": "pool.paged_bytes",
        "56": "pool.paged_bytes",
        "pool nonpaged bytes": "pool.nonpaged_bytes",
        "58": "pool.nonpaged_bytes",
        "available bytes": "memory.available_bytes",
        "24": "memory.available_bytes",
        "committed bytes": "memory.committed_bytes",
        "26": "memory.committed_bytes",
        "commit limit": "memory.commit_limit_bytes",
        "30": "memory.commit_limit_bytes",
    },
}


class Instance(NamedTuple):
    """A process of one machine, as its counters name it; `MEMORY` for the machine itself."""

    host: str
    name: str


@dataclass
class CounterFile:
    """What the heading of a file tells.

    Attributes:
        columns: How many fields a row has.
        bias: Minutes from its time to UTC; None when it does not say.
        instances: By what is counted, the fields that do.
        twice: Those of which a counter is there more than once: they cannot be told apart.
        unknown: Names of counters that nothing is known of.
        delimiter: Between fields.
    """

    columns: int
    bias: int | None
    instances: dict[Instance, dict[str, int]] = field(default_factory=dict)
    twice: set[Instance] = field(default_factory=set)
    unknown: list[str] = field(default_factory=list)
    delimiter: str = ","


class Sample(NamedTuple):
    """One row: when, and the values asked for by name, None where there is none."""

    time: datetime
    values: dict[str, int | None]


@dataclass
class Samples:
    """The rows of one file.

    Attributes:
        rows: In order of time.
        damaged: Lines that are no whole rows, and values that are no numbers.
        backwards: Rows that are not later than the one before.
    """

    rows: list[Sample] = field(default_factory=list)
    damaged: int = 0
    backwards: int = 0


def is_log(head: bytes) -> bool:
    """True when the beginning of a file looks like such a CSV."""
    text = decoded(head, "utf-8").lstrip("\r\n ")
    return text.lstrip('"').startswith(tuple(_MARKS))


def read_heading(path: Path | str) -> CounterFile:
    """Reads the heading.

    Raises:
        CannotAnswerError: it is cut.
        OSError: the file cannot be read.
    """
    first = next(_lines(path), "")
    delimiter = next(
        (_MARKS[mark] for mark in _MARKS if first[:20].lstrip('"').startswith(mark)), ","
    )
    fields = fields_of(first, delimiter)
    if fields is None or len(fields) < 2:
        raise CannotAnswerError(
            f"{path}: the first line, which names the counters, is cut or damaged"
        )
    match = _HEADING.fullmatch(fields[0])
    bias = int(match["bias"]) if match and match["bias"] else None
    found = CounterFile(len(fields), bias, delimiter=delimiter)
    for number, text in enumerate(fields[1:], 1):
        take_path(found, text, number)
    return found


def take_path(found: CounterFile, text: str, number: int) -> None:
    r"""Takes in what one field counts, `\\HOST\Process(app)\Private Bytes`."""
    parts = _PATH.fullmatch(text.strip())
    kind = _OBJECTS.get(parts["object"].strip().lower()) if parts else None
    name = _COUNTERS[kind].get(parts["counter"].strip().lower()) if kind and parts else None
    if name is None or parts is None:
        found.unknown.append(text)
        return
    called = parts["instance"] or ""
    called += ".exe" * (
        called.lower() == MEMORY.lower()
    )  # a process of that name is none the less one
    instance = Instance(parts["host"] or "", called if kind == "process" else MEMORY)
    counters = found.instances.setdefault(instance, {})
    if name in counters:
        found.twice.add(instance)
    counters[name] = number


def read_samples(
    path: Path | str, heading: CounterFile, instances: list[Instance], *, ends_only: bool = False
) -> dict[Instance, Samples]:
    """Reads the rows, of some instances.

    Args:
        path: The file.
        heading: Of it.
        instances: Of the heading.
        ends_only: Keep the first row that has a value, and the last one.

    Raises:
        CannotAnswerError: there are more rows than can be kept.
        OSError: the file cannot be read.
    """
    found = {instance: Samples() for instance in instances}
    columns = sum(len(heading.instances[instance]) for instance in instances) or 1
    damaged = backwards = kept = 0
    row: tuple[datetime, list[str]] | None = None
    is_kept = False
    lines = _lines(path)
    next(lines, None)
    for line in lines:
        if not line.startswith('"') and not line[:1].isdigit():
            continue  # typeperf says how it ended
        fields = fields_of(line, heading.delimiter)
        time = _time(fields[0], heading.bias) if fields and len(fields) == heading.columns else None
        if fields is None or time is None:
            damaged += 1
            continue
        if row is not None and time <= row[0]:
            backwards += 1
            continue
        kept += 1
        if kept > MAX_ROWS or (kept * columns > MAX_KEPT and not ends_only):
            raise CannotAnswerError(
                f"{path}: too long: choose a process, or thin it out with `relog -t`"
            )
        row = time, fields
        is_kept = not ends_only or not has_values(found)
        if is_kept:
            _add(found, heading, row)
    if row is not None and not is_kept:
        _add(found, heading, row)
    for samples in found.values():
        samples.damaged += damaged
        samples.backwards = backwards
    return found


def has_values(found: dict[Instance, Samples]) -> bool:
    """A row with a value was taken in; those before it are dropped."""
    if any(
        v is not None
        for samples in found.values()
        for row in samples.rows[:1]
        for v in row[1].values()
    ):
        return True
    for samples in found.values():
        samples.rows.clear()
    return False


def _add(
    found: dict[Instance, Samples], heading: CounterFile, row: tuple[datetime, list[str]]
) -> None:
    """Takes one row in."""
    time, fields = row
    for instance, samples in found.items():
        values = {}
        for name, number in heading.instances[instance].items():
            values[name], is_whole = _value(fields[number])
            samples.damaged += not is_whole
        samples.rows.append(Sample(time, values))


def _lines(path: Path | str) -> Iterator[str]:
    return (line.strip("\r ") for line in lines_of(path, "utf-8", LINE_LIMIT) if line.strip())


def _value(text: str) -> tuple[int | None, bool]:
    """A value; None for a sample that could not be taken, and whether that is what it says."""
    text = text.strip()
    if text in ("", "-1", "-1.000000"):
        return None, True
    if not _VALUE.fullmatch(text):
        return None, False
    value = float(text)
    return (round(value), True) if value < _POSSIBLE else (None, False)


def _time(text: str, bias: int | None) -> datetime | None:
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    month, day, year, hour, minute, second = (int(match[number]) for number in range(1, 7))
    try:
        local = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return local + timedelta(
            minutes=bias or 0, milliseconds=int((match[7] or "0").ljust(3, "0"))
        )
    except (ValueError, OverflowError):
        return None
