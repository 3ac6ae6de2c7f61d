r"""What `Get-Counter … | Export-Csv` writes, read: sets of samples, or single ones.

    "Readings","Timestamp","CounterSamples"
    "\\host\process(app)\handle count :
    1234

    ","11/30/2026 9:00:00 AM","Microsoft.PowerShell.Commands.GetCounter.PerformanceCounterSample[]"

    "Path","InstanceName","CookedValue",…,"Timestamp","Timestamp100NSec","Status",…
    "\\host\process(app)\handle count","app","1234",…

Dates and fractions are written as the user's settings have them. Nothing is trusted: what is no whole record
is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from dumpleak.files.counter_csv import (
    MAX_KEPT,
    MAX_ROWS,
    CounterFile,
    Instance,
    Sample,
    Samples,
    has_values,
    take_path,
)
from dumpleak.files.live_text import decoded, fields_of, lines_of
from dumpleak.model.errors import CannotAnswerError

RECORD_LIMIT = 1 << 23  # characters
MAX_PATHS, MAX_NAME = 1 << 16, 1 << 11
_MARK = " :"  # behind the path of a reading
_TYPE = re.compile(
    r'"?#TYPE (?:Selected\.)?Microsoft\.PowerShell\.Commands\.GetCounter\.PerformanceCounterSample'
)
_DELIMITERS = ",;\t"
_SETS, _SINGLE = {"readings", "timestamp"}, {"path", "cookedvalue"}
# Doubles as .NET writes them; never with separators of thousands.
_VALUE = re.compile(r"\d{1,20}(?:[.,]\d{1,20})?(?:[Ee]\+?\d{1,2})?")
_TIME = re.compile(
    r"(\d{1,4})([./-])\s?(\d{1,2})\2\s?(\d{1,4})\.?[ T]+(\d{1,2})[:.](\d\d)(?:[:.](\d\d))?"
    r"(?:\s*([AaPp])\.?\s?[Mm]\.?)?"
)
_POSSIBLE = 1 << 62
_VALID = ("", "0", "1")  # PDH_CSTATUS_VALID_DATA, PDH_CSTATUS_NEW_DATA
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_LATEST = 10**7 * 86400 * 365 * 1000


@dataclass
class ObjectsFile(CounterFile):
    """What a file tells before its values are looked at; `columns` numbers its paths.

    Attributes:
        names: Of the fields, in small letters.
        paths: The number of each path that occurs.
        day_first: Dates are written so.
        doubtful_dates: They might as well be the other way round.
    """

    names: list[str] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)
    day_first: bool = False
    doubtful_dates: bool = False


class _Set(NamedTuple):
    """Samples of one moment: when, and each path with its value, as texts; None where it is damaged."""

    time: str
    values: dict[str, str] | None


def is_log(head: bytes) -> bool:
    """True when the beginning of a file looks like such a CSV."""
    lines = [line for line in decoded(head, "utf-8").splitlines() if line.strip()][:2]
    return bool(lines) and (bool(_TYPE.match(lines[0])) or _heading(lines[0]) is not None)


def read_heading(path: Path | str) -> ObjectsFile:
    """Reads which counters a file has, all through it.

    Raises:
        CannotAnswerError: it has no readings, or too many.
        OSError: it cannot be read.
    """
    lines = (line for line in lines_of(path, "utf-8", RECORD_LIMIT) if line.strip())
    first = next(lines, "")
    heading = _heading(next(lines, "") if _TYPE.match(first) else first)
    if heading is None:
        raise CannotAnswerError(
            f"{path}: the file has no readings in it; write it with "
            "(Get-Counter …).CounterSamples | Export-Csv FILE"
        )
    found = ObjectsFile(0, None, delimiter=heading[0], names=heading[1])
    times: list[str] = []
    for one in _sets(path, found):
        times.append(one.time)
        for name in one.values or ():
            if name.lower() not in found.paths:
                number = found.paths[name.lower()] = len(found.paths)
                take_path(found, name, number)
        if len(times) > MAX_ROWS or len(found.paths) > MAX_PATHS:
            raise CannotAnswerError(f"{path}: too long: log fewer counters or fewer samples")
    found.columns = len(found.paths)
    found.day_first, found.doubtful_dates = _order_of(times)
    return found


def read_samples(
    path: Path | str, heading: ObjectsFile, instances: list[Instance], *, ends_only: bool = False
) -> dict[Instance, Samples]:
    """As `counter_csv.read_samples`."""
    found = {instance: Samples() for instance in instances}
    columns = sum(len(heading.instances[instance]) for instance in instances) or 1
    damaged = backwards = kept = 0
    last: datetime | None = None
    for one in _sets(path, heading):
        time = _time(one.time, day_first=heading.day_first)
        if one.values is None or time is None:
            damaged += 1
            continue
        if last is not None and time <= last:
            backwards += 1
            continue
        last, kept = time, kept + 1
        if kept * columns > MAX_KEPT and not ends_only:
            raise CannotAnswerError(f"{path}: too long: choose a process, or log fewer samples")
        drop_from = int(has_values(found)) if ends_only else None
        numbered = {heading.paths[name.lower()]: text for name, text in one.values.items()}
        for instance, samples in found.items():
            values = {}
            for name, number in heading.instances[instance].items():
                values[name], is_whole = _value(numbered.get(number, ""))
                samples.damaged += not is_whole
            if drop_from is not None:
                del samples.rows[drop_from:]  # the first one stays, the last one follows
            samples.rows.append(Sample(time, values))
    for samples in found.values():
        samples.damaged += damaged
        samples.backwards = backwards
    return found


def _heading(line: str) -> tuple[str, list[str]] | None:
    """Which character parts the fields, and their names in small letters; None for other files."""
    for delimiter in _DELIMITERS:
        names = [name.strip().lower() for name in fields_of(line, delimiter) or ()]
        if set(names) >= _SETS or set(names) >= _SINGLE:
            return delimiter, names
    return None


def _sets(path: Path | str, heading: ObjectsFile) -> Iterator[_Set]:
    """The samples of each moment, in order."""
    if "readings" in heading.names:
        yield from _of_readings(path, heading)
        return
    moment, shown, values = "", "", dict[str, str]()
    for row in _records(path, heading):
        if row is None or len(row["path"]) > MAX_NAME:
            yield _Set("", None)
            continue
        name, second = row["path"].strip(), row.get("timestamp", "")
        if values and (second != shown or name.lower() in values):
            yield _Set(moment, values)
            values = {}
        if not values:
            moment, shown = _moment(row), second
        valid = row.get("status", "") in _VALID
        values[name.lower()] = row["cookedvalue"] if valid else ""
    if values:
        yield _Set(moment, values)


def _of_readings(path: Path | str, heading: ObjectsFile) -> Iterator[_Set]:
    for row in _records(path, heading):
        if row is None:
            yield _Set("", None)
            continue
        lines = [line.strip() for line in row["readings"].splitlines()]
        found = {
            name.removesuffix(_MARK): value
            for name, value in pairwise(lines)
            if name.startswith("\\") and name.endswith(_MARK) and len(name) <= MAX_NAME
        }
        yield _Set(_moment(row), found or None)


def _moment(row: dict[str, str]) -> str:
    """When, best as a number of 100 ns of the machine's own time, which is the same in every language."""
    return row.get("timestamp100nsec") or row.get("timestamp", "")


def _records(path: Path | str, heading: ObjectsFile) -> Iterator[dict[str, str] | None]:
    """The records behind the heading by the names of their fields; None for one that is damaged."""
    pending: list[str] = []
    quotes = size = 0
    behind = False
    for line in lines_of(path, "utf-8", RECORD_LIMIT):
        if not behind:
            behind = _heading(line) is not None
            continue
        if not pending and not line.strip("\r "):
            continue
        pending.append(line)
        quotes, size = quotes + line.count('"'), size + len(line)
        if quotes % 2 and size < RECORD_LIMIT:
            continue  # inside a text of several lines
        yield _fields("\n".join(pending).rstrip("\r"), heading)
        pending, quotes, size = [], 0, 0
    if pending:
        yield None


def _fields(record: str, heading: ObjectsFile) -> dict[str, str] | None:
    mark = re.escape(heading.delimiter)
    texts = []
    at = 0
    one = re.compile(rf'"([^"]*(?:""[^"]*)*)"(?={mark}|$)|([^"{mark}\r\n]*)(?={mark}|$)')
    while match := one.match(record, at):
        texts.append(match[1].replace('""', '"') if match[1] is not None else match[2] or "")
        at = match.end() + 1
        if match.end() >= len(record):
            break
    whole = at > len(record) and len(texts) == len(heading.names)
    return dict(zip(heading.names, texts, strict=True)) if whole else None


def _value(text: str) -> tuple[int | None, bool]:
    """A value; None for a sample that is not there, and whether that is what it says."""
    text = text.strip()
    if not text:
        return None, True
    if not _VALUE.fullmatch(text):
        return None, False
    value = float(text.replace(",", "."))
    return (round(value), True) if value < _POSSIBLE else (None, False)


def _order_of(times: list[str]) -> tuple[bool, bool]:
    """Whether dates have their day first, and whether that is a guess: the order of the shorter time."""
    spans = {}
    for day_first in (False, True):
        read = [_time(text, day_first=day_first) for text in times if text]
        known = [time for time in read if time is not None]
        if known and len(known) == len(read):
            spans[day_first] = abs(known[-1] - known[0]), known
    if len(spans) < len((False, True)):
        return True in spans, False
    if spans[False][1] == spans[True][1]:
        return False, False
    dotted = all("." in text.partition(":")[0] for text in times)
    return (True, False) if dotted else (spans[True][0] < spans[False][0], True)


def _time(text: str, *, day_first: bool) -> datetime | None:
    text = text.strip()
    if text.isascii() and text.isdigit():
        ticks = int(text)
        return _EPOCH + timedelta(microseconds=ticks // 10) if ticks < _LATEST else None
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    first, second, third = int(match[1]), int(match[3]), int(match[4])
    year, month, day = (third, second, first) if day_first else (third, first, second)
    if len(match[1]) == len("2026"):
        year, month, day = first, second, third
    hour = int(match[5])
    if match[8]:
        hour = hour % 12 + 12 * (match[8].lower() == "p")
    try:
        return datetime(year, month, day, hour, int(match[6]), int(match[7] or 0), tzinfo=UTC)
    except ValueError:
        return None
