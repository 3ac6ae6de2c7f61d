"""What the dump of a process is, what it holds and lacks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dumpleak.model.account import OF_ALLOCATOR, allocator_told
from dumpleak.model.info import Info
from dumpleak.model.memory import UNKNOWN
from dumpleak.model.units import format_bytes
from dumpleak.reports.answers.account_facts import system_told
from dumpleak.reports.answers.heaps import heap_table
from dumpleak.reports.answers.modules import module_table
from dumpleak.reports.answers.summary_dump import summarize_info
from dumpleak.reports.document import (
    Column,
    Document,
    Facts,
    Kind,
    Line,
    MemoryMap,
    Meter,
    Notes,
    Part,
    Source,
    Table,
    View,
    properties,
)
from dumpleak.reports.json_report import (
    diagnostics_json,
    figure_json,
    heap_json,
    module_json,
    source_json,
)
from dumpleak.reports.rows import process_facts
from dumpleak.reports.values import Style

_USES = (
    Column("committed", Kind.BYTES),
    Column("in the dump", Kind.BYTES),
    Column("regions", Kind.COUNT),
    Column("use", Kind.NAME),
)


def info_document(info: Info) -> Document:
    """Whether it is good for anything, description, memory by use, heaps."""
    program = info.source.program or info.source.file
    parts: list[Part] = [
        Source("File", info.source),
        Facts(_facts(info)),
        MemoryMap([(program, info.memory)]),
        *_memory(info),
    ]
    if info.heaps:
        parts += [
            heap_table(info.heaps, View.PEOPLE),
            Meter("Heap memory walked", info.coverage),
        ]
    parts += [
        Notes(info.diagnostics),
        module_table("Modules", info.modules, info.unloaded_modules, View.PAGE),
        properties(info.source, _properties(info)),
    ]
    return Document(f"{program}: dump", summarize_info(info), parts)


def _facts(info: Info) -> list[tuple[str, str]]:
    if info.is_system:
        return [
            ("Memory in file", format_bytes(info.memory_bytes)),
            ("Drivers", f"{len(info.modules)} loaded, {len(info.unloaded_modules)} unloaded"),
            *_system(info),
        ]
    kind = "full memory" if info.full_memory else "partial memory"
    return [
        ("Memory in file", f"{format_bytes(info.memory_bytes)} ({kind})"),
        *((("Threads", str(info.thread_count)),) if info.thread_count else ()),
        *process_facts(info),
        ("Modules", f"{len(info.modules)} loaded, {len(info.unloaded_modules)} unloaded"),
        *_allocators(info),
        *(("Comment", comment) for comment in info.comments),
    ]


def _system(info: Info) -> list[tuple[str, str]]:
    """Of a system's memory and processes what the account tells."""
    values = {figure.name: figure.value for figure in info.account}
    told = system_told(values)
    counts = [
        f"{value:,} {name.partition('.')[0]}"
        for name in ("processes.count", "threads.count", "handles.count")
        if (value := values.get(name)) is not None
    ]
    return [
        *((("System", told),) if told else ()),
        *((("Counts", ", ".join(counts)),) if counts else ()),
    ]


def _allocators(info: Info) -> list[tuple[str, str]]:
    """What the allocators that were recognised took from Windows, the most first."""
    rows = [
        (figure.value, allocator_told(figure.name))
        for figure in info.account
        if figure.name.startswith(OF_ALLOCATOR) and figure.value
    ]
    told = [f"{name} {format_bytes(size)}" for size, name in sorted(rows, reverse=True)]
    return [("Allocators", ", ".join(told))] if told else []


def _memory(info: Info) -> list[Part]:
    uses = info.memory.rows
    if not uses:
        return []
    parts: list[Part] = [
        Table(
            "uses",
            "Memory by use",
            _USES,
            uses,
            lambda _, row: (
                *(row.committed_bytes, row.present_bytes, row.regions),
                row.use.replace("-", " "),
            ),
            View.TEXT,
            folded=True,
        )
    ]
    if not info.memory.complete:
        said = "  The dump does not list the process's memory regions; this is what the file holds."
        parts.append(Line(said, Style.WARNING))
    return parts


def _properties(info: Info) -> list[tuple[str, object]]:
    """For machines; memory by use as `memory_by_use.<use>.<column>`."""
    source = info.source
    rows: list[tuple[str, object]] = [
        ("program", source.program),
        ("process_id", source.process_id),
        ("full_memory", info.full_memory),
        ("memory_bytes", info.memory_bytes),
        ("usable", info.usable),
        ("advice", info.advice),
        *((f"coverage.{name}", value) for name, value in asdict(info.coverage).items()),
    ]
    for use in info.memory.rows:
        rows.append((f"memory_by_use.{use.use}.committed_bytes", use.committed_bytes))
        rows.append((f"memory_by_use.{use.use}.present_bytes", use.present_bytes))
    rows += [(f"account.{figure.name}", figure.value) for figure in info.account]
    rows += [(f"handles.{name or UNKNOWN}", count) for name, count in info.handles or ()]
    return rows


def _mostly(info: Info) -> dict[str, Any] | None:
    """What has more memory than all native heaps: .NET, another language, another allocator."""
    if not info.is_mostly_other:
        return None
    if info.managed is not None:
        name, size = ".NET", info.managed.committed_bytes
    else:
        mostly = info.mostly
        name, size = (mostly.program.name, mostly.bytes) if mostly is not None else ("", 0)
    return {"name": name, "bytes": size, "private_bytes": info.private_bytes}


def info_json(info: Info) -> dict[str, Any]:
    """Schema dumpleak/info/1."""
    return {
        "schema": "dumpleak/info/1",
        **source_json(info.source),
        "full_memory": info.full_memory,
        "memory_bytes": info.memory_bytes,
        "threads": info.thread_count,
        "comments": list(info.comments),
        "nt_global_flag": info.nt_global_flag,
        "usable": info.usable,
        "advice": info.advice,
        "modules": [module_json(module) for module in info.modules],
        "unloaded_modules": [module_json(module) for module in info.unloaded_modules],
        "heaps": [heap_json(row) for row in info.heaps],
        "coverage": asdict(info.coverage),
        "memory_by_use": {
            row.use: {
                "committed_bytes": row.committed_bytes,
                "present_bytes": row.present_bytes,
                "regions": row.regions,
            }
            for row in info.memory.rows
        },
        "memory_by_use_complete": info.memory.complete,
        "account": [figure_json(figure) for figure in info.account],
        "handles_by_type": None
        if info.handles is None
        else [{"type": name or None, "count": count} for name, count in info.handles],
        "managed": None if info.managed is None else asdict(info.managed),
        "why_no_managed": info.why_no_managed or None,
        "mostly": _mostly(info),
        "diagnostics": diagnostics_json(info.diagnostics),
    }
