"""Parts of documents as sentences, for formats without meters and columns of their own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from dumpleak.model.coverage import Coverage, ListCovered
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.subject import Subject
from dumpleak.model.units import format_address, format_bytes
from dumpleak.reports.document import Meter, Source
from windumps.diagnostics import Diagnostic, Severity

MAX_NOTES = 8


def source_told(part: Source) -> str:
    """What is said of a dump below its name."""
    if part.told is not None:
        return part.told
    source = part.source
    when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
    facts = [source.kind, source.machine or "unknown system"]
    if source.subject is not Subject.SYSTEM:
        facts.append(process_told(source))
    return ", ".join([*facts, when])


def process_told(source: SourceInfo, unknown: str = "unknown program") -> str:
    """The program and its id."""
    pid = f" (pid {source.process_id})" if source.process_id is not None else ""
    return (source.program or unknown) + pid


def meter_told(meter: Meter) -> tuple[str, bool]:
    """How much was walked, and whether that is all; "" where nothing is to be said."""
    label, coverage = meter.label, meter.coverage
    if isinstance(coverage, ListCovered):
        # Of a comparison the summary says it.
        return ("" if ": " in label else coverage.never.capitalize()), False
    label = label.replace(Coverage.memory, coverage.memory)
    memory = coverage.memory[:1].upper() + coverage.memory[1:]
    label = label.replace(Coverage.memory.capitalize(), memory)
    if coverage.never:
        return f"{label}: {coverage.share_text}; {coverage.never}", False
    if coverage.shown_share is None:
        whose = label.partition(": ")[0] if ": " in label else "Coverage"
        return f"{whose}: {coverage.told()}", False
    share = f"{coverage.amounts} ({coverage.share_text})"
    return f"{label}: {share}, {coverage.heaps_text}", coverage.is_complete


def note_told(note: Diagnostic) -> str:
    """What was left out, where, and how much that is."""
    place = "" if note.address is None else f" at {format_address(note.address)}"
    lost = f" ({format_bytes(note.bytes_affected)})" if note.bytes_affected else ""
    return f"{note.message} [{note.structure}{place}]{lost}"


def notes_told(notes: Iterable[Diagnostic]) -> list[tuple[Severity | None, str]]:
    """The first that matter, and how many more there are."""
    serious = [note for note in notes if note.severity is not Severity.INFO]
    told: list[tuple[Severity | None, str]] = [
        (note.severity, f"{note.severity}: {note_told(note)}")
        for note in islice(serious, MAX_NOTES)
    ]
    more = len(serious) - MAX_NOTES
    return told + [(None, f"… and {more} more; --format json has all of them.")] * (more > 0)
