"""Which process grew between two dumps of a system, or two lists of its processes.

Rows are programs: ids are used again, services restart. Where both sides name a process by id and time of
creation it is followed, and what only such processes grew by is told apart from what came with new ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dumpleak.compare.answers import Comparison, Verdict
from dumpleak.compare.comparable import why_no_pair
from dumpleak.compare.diff import compare
from dumpleak.compare.order import is_older
from dumpleak.model.account_rows import what_grew
from dumpleak.model.process_rows import FIGURES, RUNNING, ProcessRow, ProcessTable
from dumpleak.model.sites import process_key
from dumpleak.model.subject import Subject

MAX_CLAUSES = 3
NAMED = 3  # programs of which a figure is not known
_Life = tuple[str, int, datetime]


@dataclass(frozen=True)
class FigureDelta:
    """One figure of all processes of a program; None where that of one is not known.

    Attributes:
        base: Before.
        current: After.
        same: How much the processes that are on both sides grew by; None where that is not known.
    """

    base: int | None
    current: int | None
    same: int | None

    @property
    def delta(self) -> int | None:
        """After less before."""
        if self.base is None or self.current is None:
            return None
        return self.current - self.base


@dataclass(frozen=True)
class ProgramDelta:
    """The processes of one program on both sides.

    Attributes:
        name: Of the program.
        state: Of the processes: ended ones stand apart.
        base_count: How many there were.
        current_count: How many there are.
        same: How many are on both sides; None where nothing tells processes apart.
        figures: By the keys of `FIGURES`.
        held_by: Clauses on who keeps those of the current side alive; of ended ones.
    """

    name: str
    state: str
    base_count: int
    current_count: int
    same: int | None
    figures: dict[str, FigureDelta]
    held_by: tuple[str, ...] = ()

    @property
    def excess(self) -> float:
        """How many times what is usual it grew by, in the figure that grew most."""
        found = [self.excess_of(name) for name in FIGURES]
        if self.state != RUNNING and self.current_count > self.base_count:
            found.append(float(self.current_count - self.base_count))
        return max(found)

    def excess_of(self, name: str) -> float:
        """The same of one figure."""
        delta = self.figures[name].delta or 0
        return delta / FIGURES[name].threshold

    @property
    def grew(self) -> bool:
        """By more than is usual; an ended process that is kept alive is nothing usual."""
        return self.excess > 1 or (self.state != RUNNING and self.excess >= 1)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Clauses on which processes these are."""
        if not self.base_count:
            return ("not in the base", *self.held_by)
        if not self.current_count:
            return ("gone in the current dump",)
        if self.same is None:
            return ("whether these are the same processes is not known: their start is not told",)
        if self.same == self.base_count == self.current_count:
            return ("the same processes" if self.same > 1 else "the same process",)
        gone, came = self.base_count - self.same, self.current_count - self.same
        told = f"{self.same} the same, {gone} gone, {came} new: restarted, or others of that name"
        return (told, *self.held_by)


@dataclass(frozen=True)
class ProcessGrowth:
    """The answer.

    Attributes:
        comparison: Of the population, with verdict, account and what was left out.
        programs: What grew most first; those without change are left out.
        unknown: By figure that a side does not tell of all, the programs of which it does not; empty for
            all of them.
    """

    comparison: Comparison
    programs: tuple[ProgramDelta, ...]
    unknown: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def grown(self) -> tuple[ProgramDelta, ...]:
        """Those that grew by more than is usual."""
        return tuple(program for program in self.programs if program.grew)

    @property
    def verdict(self) -> Verdict:
        """By the programs and by the account; small changes of a process are usual.

        Where nothing grew and not all figures are known there is no telling.
        """
        if self.comparison.verdict is Verdict.NOT_COMPARABLE:
            return Verdict.NOT_COMPARABLE
        if self.grown or what_grew(self.comparison.account):
            return Verdict.GROWTH
        return Verdict.NOT_COMPARABLE if self.unknown else Verdict.NO_GROWTH

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why there is no telling; what a side does not tell of figures is among them."""
        told = []
        for figure, names in self.unknown.items():
            more = f" and {len(names) - NAMED} more" * (len(names) > NAMED)
            whose = f"{', '.join(names[:NAMED])}{more}" if names else "all programs"
            told.append(f"{FIGURES[figure].label} of {whose}: a side does not tell")
        return (*self.comparison.reasons, *self.comparison.doubts, *told)


def compare_processes(base: ProcessTable, current: ProcessTable) -> ProcessGrowth:
    """Compares the processes of two moments."""
    comparison = compare(base.snapshot, current.snapshot)
    source = comparison.current.source
    if source.subject is Subject.LOG and is_older(comparison.base.source, source):
        # Nothing but their times tells that logs belong together.
        reasons = tuple(why_no_pair(comparison.base, comparison.current))
        comparison = replace(comparison, verdict=Verdict.NOT_COMPARABLE, reasons=reasons)
    if comparison.refused:
        return ProcessGrowth(comparison, ())
    sides = _by_program(base.rows), _by_program(current.rows)
    found = [
        _delta(sides[0].get(key, []), sides[1].get(key, []))
        for key in dict.fromkeys((*sides[1], *sides[0]))
    ]
    changed = [program for program in found if _is_changed(program)]
    changed.sort(key=lambda program: (-program.excess, program.name.lower(), program.state))
    return ProcessGrowth(comparison, tuple(changed), _unknown(found))


def _unknown(programs: Sequence[ProgramDelta]) -> dict[str, tuple[str, ...]]:
    found = {}
    for figure in FIGURES:
        names = tuple(each.name for each in programs if each.figures[figure].delta is None)
        if names:
            found[figure] = names if len(names) < len(programs) else ()
    return found


def _by_program(rows: Iterable[ProcessRow]) -> dict[tuple[str, str], list[ProcessRow]]:
    found: dict[tuple[str, str], list[ProcessRow]] = {}
    for row in rows:
        found.setdefault((process_key(row.name), row.state), []).append(row)
    return found


def _delta(base: Sequence[ProcessRow], current: Sequence[ProcessRow]) -> ProgramDelta:
    shown = (current or base)[0]
    before, after = _lives(base), _lives(current)
    same = None if before is None or after is None else before.keys() & after.keys()
    kept = [[side[life] for life in same or ()] for side in (before or {}, after or {})]
    columns = zip(FIGURES, *(_columns(rows) for rows in (base, current, *kept)), strict=True)
    figures = {
        name: FigureDelta(_sum(older), _sum(newer), _grown(first, last) if same else None)
        for name, older, newer, first, last in columns
    }
    count = None if same is None else len(same)
    held = Counter(clause for row in current for clause in row.held_by)
    clauses = tuple(
        f"{many} of them: {clause}" if len(current) > 1 else clause
        for clause, many in held.most_common(MAX_CLAUSES)
    )
    sizes = len(base), len(current)
    return ProgramDelta(shown.name, shown.state, *sizes, count, figures, clauses)


def _columns(rows: Sequence[ProcessRow]) -> list[list[int | None]]:
    values = [list(row.figures()) for row in rows]
    return [[row[number] for row in values] for number in range(len(FIGURES))]


def _sum(values: Sequence[int | None]) -> int | None:
    """Over all; None where one is not known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _grown(base: Sequence[int | None], current: Sequence[int | None]) -> int | None:
    before, after = _sum(base), _sum(current)
    return None if before is None or after is None else after - before


def _lives(rows: Sequence[ProcessRow]) -> dict[_Life, ProcessRow] | None:
    """Processes by id and start: an id alone is used again. None where one has neither."""
    found = {
        (process_key(row.name), row.process_id, row.created): row
        for row in rows
        if row.process_id is not None and row.created is not None
    }
    return found if len(found) == len(rows) else None


def _is_changed(program: ProgramDelta) -> bool:
    if program.base_count != program.current_count:
        return True
    return any(figure.delta != 0 for figure in program.figures.values() if figure.delta is not None)
