"""A fleet as a document: which leaks are out there, on how many machines, since which version."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from dumpleak.fleets.gate import FleetGate
from dumpleak.fleets.summary import FailedInput, FleetLeak, FleetSummary, VersionRow
from dumpleak.model.totals import Totals
from dumpleak.model.units import count_of, format_bytes, format_share
from dumpleak.reports.answers.next_steps import Step
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Part,
    Row,
    Summary,
    Table,
    Tone,
    View,
    data_columns,
)
from dumpleak.reports.values import Absent, Name, Style

_DATA = [
    "fingerprint",
    "name",
    "known",
    "state",
    "kind",
    "dumps",
    "series",
    "machines",
    "appeared_in",
    "disappeared_in",
    "delta_bytes",
    "delta_count",
    "bytes_per_hour",
    "bytes_per_hour_p10",
    "bytes_per_hour_p90",
    "confidence",
]
_STATES = {
    "new": "new",
    "seen": "seen in the run before",
    "known": "known",
    "muted": "muted, which do not count",
}
_SHOWN_ERRORS = 5
# Types of errors in words; of the others, the words they are made of.
_KINDS = {
    "ContainerError": "damaged or unsafe archive",
    "CorruptDumpError": "damaged dump",
    "Crash": "internal error",
    "FileNotFoundError": "not there",
    "Killed": "reading process killed",
    "MemoryLimit": "too much memory",
    "NotAFileError": "no file",
    "OSError": "cannot be opened",
    "PermissionError": "no permission",
    "PlaceError": "store not reached",
    "TimeLimit": "too slow",
    "UnsupportedFormatError": "not supported",
    "WorkerDied": "workers died",
}
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PLAIN_PLACE = re.compile(r"[A-Za-z0-9_./:\\!-]{1,300}")


def fleet_document(
    summary: FleetSummary, gate: FleetGate | None = None, top: int | None = None
) -> Document:
    """The document of a fleet.

    Args:
        summary: What its datasets come to.
        gate: What the gate says of it.
        top: Rows that were asked for.
    """
    headed: list[tuple[str, Table[Any]]] = []
    if len(summary.versions) > 1:
        headed.append(("By version:", _versions_table(summary, top)))
    if summary.failed:
        said = "Could not be read:"
        if summary.errors > _SHOWN_ERRORS:
            said = (
                f"Could not be read, {_SHOWN_ERRORS} of {summary.errors:,}; dumps.parquet has all:"
            )
        headed.append((said, _failed_table(summary)))
    if summary.not_compared:
        headed.append(("Could not be compared:", _not_compared_table(summary)))
    parts: list[Part] = [_leaks_table(summary, top)]
    for number, (said, table) in enumerate(headed):
        if number or summary.leaks:
            parts.append(Line(""))
        parts += [Line(said), table]
    if gate is not None:
        style = {"pass": Style.GOOD, "fail": Style.BAD}.get(gate.verdict, Style.WARNING)
        parts += [Line(""), Line(gate.summary, style)]
    first = Summary(
        _tone(summary), headline(summary), tuple(_facts(summary)), tuple(steps(summary))
    )
    return Document("Fleet", first, parts)


def headline(summary: FleetSummary) -> str:
    """One sentence: how many leaks, on how many machines, and the worst."""
    leaks = summary.counted
    compared = summary.series.get("trend", 0) + summary.series.get("pair", 0)
    if not leaks:
        if summary.errors == summary.inputs:
            return f"none of {count_of(summary.inputs, 'input')} could be read"
        if not compared:
            return "only single dumps, which show no growth: give two and more of one process, or one boot"
        if len(summary.not_compared) >= compared:
            return "no series could be compared: nothing is known of leaks"
        of = count_of(compared - len(summary.not_compared), "series")
        muted = len(summary.leaks)
        said = f" besides {count_of(muted, 'muted one')}" if muted else ""
        return f"no leak is seen in {of.replace('serieses', 'series')}{said}"
    count = count_of(len(leaks), "leak")
    machines = "" if not summary.leaking else f" on {summary.leaking:,} of {_machines(summary)}"
    return f"{count}{machines}; worst: {worst_told(leaks[0])}"


def worst_told(leak: FleetLeak) -> str:
    """A leak in half a sentence."""
    rate = "" if leak.bytes_per_hour is None else f", {format_bytes(round(leak.bytes_per_hour))}/h"
    since = f", since {leak.appeared_in}" if leak.appeared_in else ""
    return f"{leak.shown}{rate}{since}"


def _machines(summary: FleetSummary) -> str:
    return count_of(summary.machines, "machine")


def _tone(summary: FleetSummary) -> Tone:
    if summary.counted:
        return Tone.BAD
    compared = summary.series.get("trend", 0) + summary.series.get("pair", 0)
    return Tone.GOOD if compared > len(summary.not_compared) else Tone.CANNOT_TELL


def _facts(summary: FleetSummary) -> list[tuple[str, str]]:
    read = summary.inputs - summary.errors
    copies = ""
    if summary.copies:
        copies = f", besides {summary.copies:,} {'copy' if summary.copies == 1 else 'copies'}"
    told = f"{read:,} of {count_of(summary.inputs, 'input')}{copies}{_failures(summary)}"
    facts = [("Read", told)]
    if summary.first is not None and summary.last is not None:
        facts.append(("From", f"{summary.first:%Y-%m-%d %H:%M} to {summary.last:%Y-%m-%d %H:%M}"))
    kinds = [f"{n:,} {kind}{'s' * (n != 1)}" for kind, n in summary.series.items() if n]
    unknown = len(summary.not_compared)
    left = f"; {unknown:,} could not be compared" if unknown else ""
    facts.append(("Compared", f"{', '.join(kinds) or 'nothing'}{left}"))
    if summary.leaks:
        states = Counter(leak.state for leak in summary.leaks)
        said = [f"{states[state]:,} {told}" for state, told in _STATES.items() if states[state]]
        facts.append(("Leaks", ", ".join(said)))
    if summary.committed_bytes:
        share = format_share(summary.walked_bytes, summary.committed_bytes)
        facts.append(
            ("Walked", f"{share} of {format_bytes(summary.committed_bytes)} in heaps and pools")
        )
    return facts


def _failures(summary: FleetSummary) -> str:
    if not summary.errors:
        return ""
    kinds = [f"{count:,} {kind_told(kind)}" for kind, count in summary.error_kinds[:3]]
    more = summary.errors - sum(count for _, count in summary.error_kinds[:3])
    return f"; failed: {', '.join([*kinds, *([f'{more:,} more'] if more else [])])}"


def steps(summary: FleetSummary) -> list[Step]:
    """What next: the best example of the worst leak."""
    found = []
    places = summary.counted[0].examples if summary.counted else ()
    place = next((url for url in places if _PLAIN_PLACE.fullmatch(url)), "")
    if place and "!" not in place and ("://" not in place or place.startswith("file://")):
        answer = "pool" if summary.counted[0].kind == "tag" else "stat"
        command = f"dumpleak {answer} {place.removeprefix('file://')}"
        found.append(Step("Look at a dump with the worst leak:", command))
    if summary.leaks:
        found.append(Step(f"All of it, to drill down: {summary.folder}/report.html"))
    return found


def _leaks_table(summary: FleetSummary, top: int | None) -> Table[FleetLeak]:
    kinds = {"bytes_per_hour": Kind.RATE} | {f"bytes_per_hour_p{n}": Kind.RATE for n in (10, 90)}
    columns = (
        *data_columns(" ".join(_DATA), **kinds),
        Column("machines", Kind.COUNT),
        Column("series", Kind.COUNT, views=View.PEOPLE),
        Column("an hour", Kind.BYTES, signed=True),
        Column("growth", Kind.TOTALS),
        Column("state"),
        Column("leak", Kind.NAME),
    )
    views = View.ALL if summary.leaks else View.DATA
    table = Table("leaks", "Leaks", columns, summary.leaks, _leak_row, views, noun="leak", top=top)
    return table


def _leak_row(_: int, leak: FleetLeak) -> Row:
    rate = Absent.UNKNOWN if leak.bytes_per_hour is None else round(leak.bytes_per_hour)
    return (
        *(getattr(leak, name) for name in _DATA),
        leak.machines,
        leak.series,
        rate,
        Totals(leak.delta_count, leak.delta_bytes),
        leak.state,
        Name(leak.shown, lines=tuple(leak_lines(leak)), id=leak.fingerprint),
    )


def leak_lines(leak: FleetLeak) -> list[str]:
    """What else is said of a leak."""
    lines = []
    where = ", ".join(leak.programs)
    if leak.versions:
        span = leak.versions[0]
        if len(leak.versions) > 1:
            span += f" to {leak.versions[-1]}"
        where = f"{where} {span}".strip()
    if leak.appeared_in:
        where += f"; not before {leak.appeared_in}"
    if leak.disappeared_in:
        where += f"; gone in {leak.disappeared_in}"
    if where:
        lines.append(where)
    if leak.known and leak.known != leak.name:
        lines.append(leak.name)
    if leak.parts:
        shown = ", ".join(leak.parts[:3])
        more = len(leak.parts) - 3
        lines.append(f"with what it holds: {shown}" + (f" and {more} more" if more > 0 else ""))
    return lines


def _versions_table(summary: FleetSummary, top: int | None) -> Table[VersionRow]:
    columns = (
        Column("machines", Kind.COUNT),
        Column("dumps", Kind.COUNT),
        Column("compared", Kind.COUNT),
        Column("leaks", Kind.COUNT),
        Column("version"),
        Column("program", Kind.NAME),
    )

    def row(_: int, each: VersionRow) -> Row:
        leaks: Any = leaks_in(summary, each) if each.compared or leaks_in(summary, each) else None
        shown = Absent.UNKNOWN if leaks is None else leaks
        version = each.version or Absent.UNKNOWN
        program = Name(each.program or "(system)")
        machines = each.machines or Absent.UNKNOWN
        return (machines, each.dumps, each.compared, shown, version, program)

    return Table(
        *("versions", "By version", columns, summary.versions, row),
        views=View.PEOPLE,
        noun="version",
        top=top,
    )


def leaks_in(summary: FleetSummary, each: VersionRow) -> int:
    """How many leaks that are not muted grew in a version of a program."""
    return len(leaks_of_version(summary, each))


def leaks_of_version(summary: FleetSummary, each: VersionRow) -> list[FleetLeak]:
    """Leaks that are not muted and grew in a version of a program; systems have neither."""
    return [
        leak
        for leak in summary.counted
        if each.version in (leak.versions or ("",)) and each.program in (leak.programs or ("",))
    ]


def _failed_table(summary: FleetSummary) -> Table[Any]:
    columns = (Column("why"), Column("input", Kind.NAME))
    return Table(
        *("failed", "Could not be read", columns, summary.failed[:_SHOWN_ERRORS]),
        lambda _, each: (kind_told(each.kind), Name(each.url, lines=(error_told(each),))),
        views=View.PEOPLE,
    )


def kind_told(kind: str) -> str:
    """The type of an error in words."""
    return _KINDS.get(kind) or _WORDS.sub(" ", kind.removesuffix("Error")).lower()


def error_told(each: FailedInput) -> str:
    """Why an input could not be read, without its place, which stands beside it."""
    return each.error.removeprefix(f"{each.url}: ")


def _not_compared_table(summary: FleetSummary) -> Table[tuple[str, str]]:
    columns = (Column("series"), Column("why", Kind.NAME))
    return Table(
        *("not-compared", "Could not be compared", columns, summary.not_compared),
        lambda _, each: (each[0], Name(each[1])),
        views=View.PEOPLE,
        noun="series",
        top=_SHOWN_ERRORS,
    )
