"""The answer of `dumpleak processes` for two: which process grew."""

from __future__ import annotations

from typing import Any

from dumpleak.compare.answers import Verdict
from dumpleak.compare.process_growth import ProcessGrowth, ProgramDelta
from dumpleak.files.counter_log import KIND as PERFORMANCE_LOG
from dumpleak.model.account import BYTES
from dumpleak.model.account_rows import what_grew
from dumpleak.model.process_rows import FIGURES, RUNNING
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.diff import account_tables
from dumpleak.reports.answers.headline import rows_told
from dumpleak.reports.answers.next_steps import Step
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Notes,
    Row,
    Source,
    Summary,
    Table,
    Tone,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import account_json, diagnostics_json, source_json
from dumpleak.reports.values import Absent, Change, Name

_SHORT = {
    "private_commit_bytes": "commit +/-",
    "handle_count": "handles +/-",
    "thread_count": "threads +/-",
    "nonpaged_quota_bytes": "nonpaged +/-",
    "paged_quota_bytes": "paged +/-",
}
_SIDES = "base", "current", "delta", "same_processes_delta"
_DATA = "name state base_count current_count same_count " + " ".join(
    f"{side}_{name}" for name in FIGURES for side in _SIDES
)
_COLUMNS = (
    *(
        Column(title, Kind.BYTES if FIGURES[name].unit == BYTES else Kind.COUNT, signed=True)
        for name, title in _SHORT.items()
    ),
    Column("commit", Kind.BYTES, width=Width.WIDE, hint="in the current dump"),
    Column("base", Kind.COUNT, "base_count", hint="processes of that program in the base"),
    Column("current", Kind.COUNT, "current_count"),
    *data_columns(
        " ".join(
            name
            for name in _DATA.split()
            if not name.startswith(("name", "base_count", "current_count", "state"))
        )
    ),
    Column("state", Kind.VALUE, "state"),
    Column("program", Kind.NAME, "name"),
)
NAMED = 3


def process_growth_document(growth: ProcessGrowth, top: int | None) -> Document:
    """The verdict, what grew, the system as a whole."""
    comparison = growth.comparison
    views = View.ALL if growth.programs else View.PAGE | View.DATA
    table = Table(
        "processes", "Processes that changed", _COLUMNS, growth.programs, _cells, views, _DATA,
        noun="changed program", top=top,
    )  # fmt: skip
    return Document(
        "Processes: growth between two moments",
        _summary(growth),
        [
            table,
            *account_tables(comparison.account),
            Source("Base", comparison.base.source),
            Source("Current", comparison.current.source),
            Notes(comparison.diagnostics),
        ],
        members="processes",
    )


def _cells(_: int, program: ProgramDelta) -> Row:
    figures = [program.figures[name] for name in FIGURES]
    commit = figures[0].current
    share = 1.0 if program.grew else 0.0
    return (
        *(
            Absent.UNKNOWN
            if figure.delta is None
            else Change(figure.delta, share * (program.excess_of(name) > 1))
            for name, figure in program.figures.items()
        ),
        Absent.UNKNOWN if commit is None else commit,
        *(program.base_count, program.current_count, program.same),
        *(
            value
            for figure in figures
            for value in (figure.base, figure.current, figure.delta, figure.same)
        ),
        program.state,
        Name(program.name, lines=program.evidence),
    )


def _told(program: ProgramDelta) -> str:
    """A program and what it grew by: acmesvc.exe (+512 MiB private commit, +12,000 handles)."""
    parts = []
    for name, kind in FIGURES.items():
        delta = program.figures[name].delta
        if delta is not None and program.excess_of(name) > 1:
            value = (
                format_bytes(delta, signed=True)
                if kind.unit == BYTES
                else format_count(delta, signed=True)
            )
            parts.append(f"{value} {kind.label}")
    more = program.current_count - program.base_count
    if more > 0:
        parts.append(f"{more} more {'of them' if program.state == RUNNING else program.state}")
    return f"{program.name} ({', '.join(parts)})" if parts else program.name


def _summary(growth: ProcessGrowth) -> Summary:
    comparison, grown = growth.comparison, growth.grown
    if comparison.verdict is Verdict.NOT_COMPARABLE:
        why = comparison.doubts or comparison.reasons
        return Summary(
            Tone.CANNOT_TELL,
            "Cannot tell: the two are not comparable.",
            tuple(("Why", reason) for reason in why),
        )
    facts = []
    if grown:
        named = "; ".join(_told(program) for program in grown[:NAMED])
        more = f"; and {len(grown) - NAMED} more" if len(grown) > NAMED else ""
        facts.append(("Who", named + more))
        facts.append(("Which", f"of the first: {', '.join(grown[0].evidence)}"))
    rows = what_grew(comparison.account)
    if rows:
        facts.append(("Account", rows_told(rows)))
    unknown = growth.reasons
    if unknown:
        facts.append(("Unknown", "; ".join(unknown)))
    none_grew = growth.verdict is not Verdict.GROWTH
    sure = "as sure as the load between the two was real" if none_grew else "growth, not proof"
    facts.append(("How sure", f"{sure}; programs are told apart by name, restarts are said"))
    if none_grew:
        headline = "No process grew by more than is usual between these two."
        if unknown:
            headline = "No process is seen to grow by more than is usual, but not all is known."
        return Summary(Tone.CANNOT_TELL if unknown else Tone.GOOD, headline, tuple(facts))
    steps = []
    if grown and comparison.current.source.kind == PERFORMANCE_LOG:
        steps.append(
            Step("See how steadily a process grew:", "dumpleak trend LOG --process NAME"),
        )
    elif grown and grown[0].state == RUNNING:
        steps.append(
            Step(
                "Look into the process that grew most, in two dumps of it or of the system:",
                "dumpleak diff BASE CURRENT --process NAME",
            )
        )
    elif grown:
        steps.append(
            Step(
                "Ended processes stay while somebody has a handle of them; see who:",
                "dumpleak diff BASE CURRENT --of handles --by process",
            )
        )
    many = f"{len(grown)} program{'s' * (len(grown) != 1)} grew" if grown else rows_told(rows)
    first = f"{_told(grown[0])}; " if grown else ""
    return Summary(
        Tone.NOTICE,
        f"{first}{many}. Leaking? Two moments cannot tell.",
        tuple(facts),
        tuple(steps),
    )


def process_growth_json(growth: ProcessGrowth) -> dict[str, Any]:
    """Schema dumpleak/processes/1, with the keys of two; all programs that changed are written."""
    comparison = growth.comparison
    return {
        "schema": "dumpleak/processes/1",
        "base": source_json(comparison.base.source),
        "current": source_json(comparison.current.source),
        "verdict": growth.verdict,
        "reasons": list(growth.reasons),
        "processes": [
            _program_json(rank, program) for rank, program in enumerate(growth.programs, start=1)
        ],
        "account": [account_json(row) for row in comparison.account],
        "diagnostics": diagnostics_json(comparison.diagnostics),
    }


def _program_json(rank: int, program: ProgramDelta) -> dict[str, Any]:
    figures = {
        f"{side}_{name}": value
        for name, figure in program.figures.items()
        for side, value in zip(
            _SIDES, (figure.base, figure.current, figure.delta, figure.same), strict=True
        )
    }
    return {
        "rank": rank,
        "name": program.name,
        "state": program.state,
        "grew": program.grew,
        "base_count": program.base_count,
        "current_count": program.current_count,
        "same_count": program.same,
        **figures,
        "evidence": list(program.evidence),
    }
