"""Lists of processes at one moment, read: `Get-Process | Export-Csv FILE`.

#TYPE System.Diagnostics.Process
"Name","SI","Handles","VM","WS","PM","NPM",...,"Id",...
"ApplicationFrameHost","4","507","2203595001856","35139584","20934656","29504",...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dumpleak.files.live_text import decoded, fields_of, lines_of
from dumpleak.files.process_log import (
    PRIVATE,
    LogFile,
    check_grouping,
    listed,
    of_all,
    of_one,
    plain_name,
)
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.snapshot import Snapshot

KIND = "process list"
MAX_ROWS = 1 << 17
_TYPE = re.compile(r'"?#TYPE (?:Selected\.)?System\.Diagnostics\.Process\b')
_NUMBER = re.compile(r"\d{1,18}")
_DELIMITERS = ",;\t"
_NAMES = ("name", "processname")
# By row of the account, the columns that tell it, the widest first: short ones are aliases, and those without
# 64 wrapped in old versions.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "counters.private_bytes": ("privatememorysize64", "pm", "pagedmemorysize64"),
    "counters.virtual_bytes": ("virtualmemorysize64", "vm"),
    "counters.working_set_bytes": ("workingset64", "ws"),
    "handles.count": ("handlecount", "handles"),
    "counters.pool_paged_bytes": ("pagedsystemmemorysize64",),
    "counters.pool_nonpaged_bytes": ("nonpagedsystemmemorysize64", "npm"),
}
_ENOUGH = 2  # figures that a list must have to be one


class Row(NamedTuple):
    """One process: its name, its id (None where it is not there), its figures (None where unknown)."""

    name: str
    id: int | None
    values: dict[str, int | None]


def is_log(head: bytes) -> bool:
    """True when the beginning of a file looks like such a list."""
    lines = (line for line in decoded(head, "utf-8").splitlines() if line.strip())
    first = next(lines, "")
    if _TYPE.match(first):
        return True
    return _heading(first) is not None


def read_log(path: Path | str, by: str = "site", process: str | None = None) -> Snapshot:
    """All processes of a list, by name; or one of them.

    Args:
        path: The list.
        by: See `check_grouping`.
        process: See `of_process`; None for all.

    Raises:
        CannotAnswerError: it is cut, or lists nothing.
        OSError: it cannot be read.
    """
    if process is not None:
        return of_process(path, process)
    check_grouping(str(path), by)
    rows, file = _read(path)
    if len(rows) == 1:
        return _one(file, rows[0])
    return _all(rows, file)


def read_all(path: Path | str) -> tuple[Snapshot, list[Row]]:
    """All processes of a list, added up by name and one by one; errors as `read_log`."""
    rows, file = _read(path)
    return _all(rows, file), rows


def _all(rows: list[Row], file: LogFile) -> Snapshot:
    private: dict[str, tuple[int, int | None]] = {}
    for row in rows:
        count, size = private.get(row.name, (0, 0))
        more = row.values.get(PRIVATE)
        private[row.name] = count + 1, None if size is None or more is None else size + more
    return of_all(file, private)


def of_process(path: Path | str, process: str) -> Snapshot:
    """One process of a list.

    Args:
        path: The list.
        process: Its id, or its name with or without ".exe".

    Raises:
        CannotAnswerError: it is not there, or several have that name.
        OSError: the list cannot be read.
    """
    rows, file = _read(path)
    found = [row for row in rows if process.isdigit() and row.id == int(process)]
    found = found or [row for row in rows if plain_name(row.name) == plain_name(process)]
    if not found:
        raise CannotAnswerError(
            f"{path}: the list has no process {process}; it has {listed({row.name for row in rows})}"
        )
    if len(found) > 1:
        ids = listed(str(row.id) for row in found if row.id is not None)
        how = f"give its id: {ids}" if ids else "and does not tell them apart"
        raise CannotAnswerError(f"{path}: the list has {len(found)} processes {process}; {how}")
    return _one(file, found[0])


def _one(file: LogFile, row: Row) -> Snapshot:
    return of_one(file, row.name, row.values, process_id=row.id)


def _read(path: Path | str) -> tuple[list[Row], LogFile]:
    lines = (line for line in lines_of(path, "utf-8") if line.strip())
    first = next(lines, "")
    heading = _heading(next(lines, "") if _TYPE.match(first) else first)
    if heading is None:
        raise CannotAnswerError(
            f"{path}: the list lacks columns that are needed, Name, Id, Handles and one of memory; write it "
            "with Get-Process | Export-Csv FILE"
        )
    rows, damaged = _rows(path, lines, *heading)
    if not rows:
        raise CannotAnswerError(f"{path}: the list has no process in it: it is cut")
    notes = []
    if damaged:
        message = f"{damaged} lines or figures of the list are damaged and were left out"
        notes.append(("counters-damaged", message))
    return rows, LogFile(str(path), KIND, tuple(notes))


def _heading(line: str) -> tuple[str, list[str]] | None:
    """Which character parts the columns, and their names in small letters; None for no list of processes."""
    for delimiter in _DELIMITERS:
        names = [name.strip().lower() for name in fields_of(line, delimiter) or ()]
        told = sum(any(name in names for name in columns) for columns in _COLUMNS.values())
        if told >= _ENOUGH and any(name in names for name in _NAMES):
            return delimiter, names
    return None


def _rows(
    path: Path | str, lines: Iterator[str], delimiter: str, names: list[str]
) -> tuple[list[Row], int]:
    places = {
        row: next((names.index(name) for name in columns if name in names), None)
        for row, columns in _COLUMNS.items()
    }
    called = next(names.index(name) for name in _NAMES if name in names)
    id_place = names.index("id") if "id" in names else None
    rows: list[Row] = []
    damaged = 0
    for line in lines:
        fields = fields_of(line, delimiter)
        if fields is None or len(fields) != len(names) or not fields[called]:
            damaged += 1
            continue
        if len(rows) == MAX_ROWS:
            raise CannotAnswerError(f"{path}: more than {MAX_ROWS} processes, no list has so many")
        values = {row: _number(fields[at]) for row, at in places.items() if at is not None}
        damaged += sum(
            values[row] is None and bool(fields[at]) for row, at in places.items() if at is not None
        )
        number = _number(fields[id_place]) if id_place is not None else None
        rows.append(Row(fields[called], number, values))
    return rows, damaged


def _number(text: str) -> int | None:
    """A figure; None for none, and for what is no figure."""
    return int(text) if _NUMBER.fullmatch(text) else None
