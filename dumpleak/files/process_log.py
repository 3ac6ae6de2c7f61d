"""Figures of live processes as snapshots: what Windows counts of a process, and no more.

A snapshot is of one process, then its figures are the account; or of all that a log lists, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from dumpleak.model.account import Figure
from dumpleak.model.coverage import ListCovered
from dumpleak.model.errors import CannotAnswerError
from dumpleak.model.populations import PROCESSES
from dumpleak.model.sites import Site, SiteKind, process_key
from dumpleak.model.snapshot import Snapshot, SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.totals import Totals, by_key, sum_of
from windumps.diagnostics import Diagnostic, Severity

GROUPINGS = ("site", "name")  # the first is what is asked for when nobody asks
PRIVATE = "counters.private_bytes"
NO_SAMPLE = "the log has no sample of it"
NAMED = 20  # processes that a refusal lists
_NEVER = "a log of counters shows how much a process has and never of what: no blocks, no handles one by one"


class CountersCovered(ListCovered):
    """Coverage of a log: it counts, and shows nothing of what it counts."""

    never: ClassVar[str] = _NEVER


@dataclass(frozen=True)
class LogFile:
    """What is the same for all snapshots of one file.

    Attributes:
        path: As the user named it.
        kind: "performance log", …
        notes: What must be said of it, code and message each.
    """

    path: str
    kind: str
    notes: tuple[tuple[str, str], ...] = ()


def check_grouping(path: str, by: str) -> None:
    """Refuses what nobody counts.

    Raises:
        CannotAnswerError: `by` is none of `GROUPINGS`.
    """
    if by not in GROUPINGS:
        raise CannotAnswerError(
            f"{path}: a log of counters tells of processes, by name, and knows no {by}"
        )


def choose(path: str, names: Iterable[str], wanted: str) -> str:
    """The process a user means, by its name with or without ".exe".

    Raises:
        CannotAnswerError: there is none, or more than one.
    """
    known = list(names)
    plain = plain_name(wanted)
    found = [name for name in known if wanted.lower() == name.lower() or plain == plain_name(name)]
    if len(found) != 1:
        why = "has several of that name" if found else f"has no process {wanted}"
        raise CannotAnswerError(f"{path}: the log {why}; it has {listed(known)}")
    return found[0]


def listed(names: Iterable[str]) -> str:
    """Names for a refusal."""
    known = sorted(names, key=str.lower)
    more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return f"{', '.join(known[:NAMED])}{more}"


def of_one(
    file: LogFile,
    name: str,
    values: Mapping[str, int | None],
    *,
    label: str = "",
    host: str = "",
    time: datetime | None = None,
    process_id: int | None = None,
) -> Snapshot:
    """One process at one moment: its figures are the account."""
    figures = tuple(
        Figure(row, value, "" if value is not None else NO_SAMPLE) for row, value in values.items()
    )
    groups = _groups({name: Totals(1)})
    return _snapshot(file, groups, label, host, time, name, process_id, figures, sized=False)


def of_all(
    file: LogFile,
    private: Mapping[str, tuple[int, int | None]],
    time: datetime | None = None,
    label: str = "",
) -> Snapshot:
    """All processes of a log at one moment, by name: how many of each, and their private bytes."""
    sized = all(size is not None for _, size in private.values())
    groups = _groups(
        {
            name: Totals(count, size or 0 if sized else 0, size or 0 if sized else 0)
            for name, (count, size) in private.items()
        }
    )
    return _snapshot(file, groups, label, "", time, "", None, (), sized=sized)


def one_process(snapshots: tuple[Snapshot, ...]) -> tuple[Snapshot, ...]:
    """Refuses to compare logs of many processes.

    Raises:
        CannotAnswerError: no process was chosen, and a log has several.
    """
    for side in snapshots:
        if isinstance(side.coverage, CountersCovered) and not side.source.program:
            names = listed(site.name for site, _ in side.groups.values())
            raise CannotAnswerError(
                f"{side.source.file}: the log is of several processes; choose one with --process NAME: "
                + names
            )
    return snapshots


def plain_name(name: str) -> str:
    """A process's name as lists and users write it, for comparing."""
    return name.lower().removesuffix(".exe")


def _groups(totals: Mapping[str, Totals]) -> dict[str, tuple[Site, Totals]]:
    return by_key(
        (Site(SiteKind.GROUP, process_key(name), name), each) for name, each in totals.items()
    )


def _snapshot(
    file: LogFile,
    groups: dict[str, tuple[Site, Totals]],
    label: str,
    host: str,
    time: datetime | None,
    program: str,
    process_id: int | None,
    figures: tuple[Figure, ...],
    *,
    sized: bool,
) -> Snapshot:
    notes = [Diagnostic("counters-log", Severity.INFO, file.kind, None, _NEVER)]
    notes += [
        Diagnostic(code, Severity.WARNING, file.kind, None, text) for code, text in file.notes
    ]
    totals = sum_of(totals for _, totals in groups.values())
    return Snapshot(
        SourceInfo(
            file=f"{file.path}{label}",
            kind=file.kind,
            machine=f"Windows, {host}" if host else "Windows",
            architecture="",
            build=0,
            time=time,
            process_id=process_id,
            program=program,
            process_created=None,
            subject=Subject.LOG,
        ),
        "name",
        groups,
        totals,
        {},
        [],
        CountersCovered(0, 0, 0, 0, 0),
        notes,
        outside=figures,
        population=PROCESSES,
        sized=sized,
    )
