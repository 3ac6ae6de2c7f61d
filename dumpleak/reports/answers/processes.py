"""The answer of `dumpleak processes` for one dump: the processes of a system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from dumpleak.kernel.processes import SystemProcesses, is_running, state_of
from dumpleak.model.held_objects import HeldObjects
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address
from dumpleak.reports.answers.held_objects import pointers_json
from dumpleak.reports.answers.summary_kernel import summarize_kernel
from dumpleak.reports.document import (
    Column,
    Document,
    Kind,
    Line,
    Notes,
    Row,
    Source,
    Table,
    View,
    Width,
    data_columns,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.values import Absent
from windumps.diagnostics import Diagnostic
from windumps.kernel.processes import KernelProcess

MOST_CLAUSES, MOST_PROGRAMS = 5, 3
_ADDRESSES = "eprocess", "directory_table_base", "peb"
_PROCESS_COLUMNS = (
    Column("pid", Kind.COUNT, "pid", View.PAGE),
    Column("parent", Kind.COUNT, "parent_pid", View.PAGE, width=Width.WIDE),
    # Ids are no numbers to read: no thousands.
    Column("pid", Kind.VALUE, views=View.TEXT),
    Column("parent", Kind.VALUE, views=View.TEXT),
    Column("private commit", Kind.BYTES, "private_commit_bytes"),
    Column("handles", Kind.COUNT, "handle_count"),
    Column("threads", Kind.COUNT, "thread_count"),
    Column("nonpaged quota", Kind.BYTES, "nonpaged_quota_bytes", width=Width.WIDE),
    Column("paged quota", Kind.BYTES, "paged_quota_bytes", width=Width.WIDE),
    Column("state", Kind.VALUE, "state"),
    Column("ended (UTC)", Kind.TIME, "exit_time", View.PAGE),
    Column("created (UTC)", Kind.TIME, "create_time", width=Width.WIDE),
    Column("WoW64", Kind.FLAG, "is_wow64", View.TEXT),
    *data_columns("eprocess directory_table_base peb", **dict.fromkeys(_ADDRESSES, Kind.ADDRESS)),
    Column("name", Kind.NAME, "name"),
)
_PROCESS_DATA = (
    "pid parent_pid name create_time is_wow64 private_commit_bytes handle_count eprocess "
    "directory_table_base peb state exit_time thread_count nonpaged_quota_bytes paged_quota_bytes"
)


def processes_document(
    source: SourceInfo,
    found: SystemProcesses,
    layout: str,
    diagnostics: Sequence[Diagnostic],
    held: HeldObjects | None,
    top: int | None,
) -> Document:
    """One row a process, in the kernel's order; who keeps the ended ones alive."""
    told = processes_told(found.all)
    return Document(
        "Processes",
        summarize_kernel(source, told, usable=True),
        (
            Source("File", source, told=""),
            process_table(found.all, len(found.all) if top is None else top),
            Line(f"{told}."),
            *_kept_alive(found),
            *_pointed_to(held),
            Line(f"Layout of _EPROCESS: {layout}"),
            Notes(diagnostics),
        ),
        judged_in=View.PAGE,
    )


def processes_told(processes: Sequence[KernelProcess] | None) -> str:
    """How many run, and how many ended and are still there: "7, and 5 that ended and are kept alive"."""
    if processes is None:
        return "not in the dump"
    running = sum(is_running(process) for process in processes)
    ended = sum(process.exit_time is not None for process in processes)
    unlisted = len(processes) - running - ended
    text = f"{running} running"
    if ended:
        text += f", {ended} ended and kept alive: something still refers to them"
    return text + (f", {unlisted} in no list of the kernel" if unlisted else "")


def _pointed_to(held: HeldObjects | None) -> list[Line]:
    """Whose pool blocks point to processes that ended and that no handle leads to."""
    told = held.pointers_told if held is not None else ""
    return [Line(f"  {told[:1].upper()}{told[1:]}.")] if told else []


def _kept_alive(found: SystemProcesses) -> list[Line]:
    """Who keeps ended processes alive: the clauses that hold for most of them."""
    names: dict[str, Counter[str]] = {}
    for process in found.ended:
        for clause in found.held_by(process):
            names.setdefault(clause, Counter())[process.name] += 1
    ranked = sorted(names.items(), key=lambda item: -item[1].total())
    lines = []
    for clause, programs in ranked[:MOST_CLAUSES]:
        first = programs.most_common(MOST_PROGRAMS)
        whose = ", ".join(f"{name} x{many}" if many > 1 else name for name, many in first)
        more = ", …" * (len(programs) > MOST_PROGRAMS)
        lines.append(Line(f"  {whose}{more}: {clause}."))
    if len(ranked) > MOST_CLAUSES:
        lines.append(Line("  … and others; --format json has all of them."))
    return lines


def process_table(
    processes: Sequence[KernelProcess], top: int | None = None, views: View = View.ALL
) -> Table[KernelProcess]:
    """One row a process."""
    return Table(
        "processes", "Processes", _PROCESS_COLUMNS, processes, _process_cells, views, _PROCESS_DATA,
        noun="process", top=top, folded=True,
    )  # fmt: skip


def _process_cells(_: int, process: KernelProcess) -> Row:
    known = (
        *(process.private_commit_bytes, process.handle_count, process.thread_count),
        *(process.nonpaged_quota_bytes, process.paged_quota_bytes),
    )
    return (
        *(process.process_id, process.parent_id) * 2,
        *(Absent.UNKNOWN if value is None else value for value in known),
        *(state_of(process), process.exit_time),
        Absent.UNKNOWN if process.create_time is None else process.create_time,
        *(process.is_wow64, process.address, process.directory_table_base, process.peb or None),
        process.name,
    )


def process_json(process: KernelProcess) -> dict[str, Any]:
    """One process; None for what is unknown."""
    return {
        "pid": process.process_id,
        "parent_pid": process.parent_id,
        "name": process.name,
        "create_time": process.create_time.isoformat() if process.create_time else None,
        "is_wow64": process.is_wow64,
        "private_commit_bytes": process.private_commit_bytes,
        "handle_count": process.handle_count,
        "eprocess": format_address(process.address),
        "directory_table_base": format_address(process.directory_table_base),
        "peb": format_address(process.peb) if process.peb else None,
        "state": state_of(process),
        "exit_time": process.exit_time.isoformat() if process.exit_time else None,
        "thread_count": process.thread_count,
        "nonpaged_quota_bytes": process.nonpaged_quota_bytes,
        "paged_quota_bytes": process.paged_quota_bytes,
    }


def _held_json(found: SystemProcesses, process: KernelProcess) -> dict[str, Any]:
    """An ended process, and who keeps it alive."""
    return {
        "pid": process.process_id,
        "name": process.name,
        "eprocess": format_address(process.address),
        "open_handles": found.open_handles.get(process.address),
        "holders": [
            {"pid": holder.process_id, "name": holder.name, "handles": holder.handles}
            for holder in found.holders.get(process.address, ())
        ],
        "evidence": list(found.held_by(process)),
    }


def processes_json(
    source: SourceInfo,
    found: SystemProcesses,
    layout: str,
    diagnostics: Sequence[Diagnostic],
    held: HeldObjects | None,
) -> dict[str, Any]:
    """Schema dumpleak/processes/1; all processes are written."""
    return {
        "schema": "dumpleak/processes/1",
        **source_json(source),
        "layout": layout,
        "processes": [process_json(process) for process in found.all],
        "kept_alive": [_held_json(found, process) for process in found.ended],
        "pointers": pointers_json(held),
        "diagnostics": diagnostics_json(diagnostics),
    }
