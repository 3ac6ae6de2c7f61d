"""The answer about a kernel dump: what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dumpleak.kernel.info import KernelInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.balance import balance_json, balance_tables
from dumpleak.reports.answers.left_pool import left_blocks, left_json, left_steps
from dumpleak.reports.answers.modules import module_table
from dumpleak.reports.answers.processes import process_json, process_table, processes_told
from dumpleak.reports.answers.summary_kernel import summarize_kernel
from dumpleak.reports.document import (
    Column,
    Document,
    Facts,
    Kind,
    Line,
    Notes,
    Part,
    Row,
    Source,
    Summary,
    Table,
    Tone,
    View,
    properties,
)
from dumpleak.reports.json_report import diagnostics_json, figure_json, module_json, source_json
from dumpleak.reports.values import Style
from windumps.images.modules import Module
from windumps.kernel.bug_checks import BugCheck
from windumps.kernel.counters import Counter

_COUNTS = frozenset({"system_ptes"})  # counters that are not bytes


def kernel_document(info: KernelInfo) -> Document:
    """Whether it is good for anything, description, counters, drivers, processes."""
    source = info.source
    when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
    up = f", up {_duration(info.up_time.total_seconds())}" if info.up_time else ""
    parts: list[Part] = [
        Source("File", source, f"{info.dump_type_name}, {source.machine}, {when}{up}"),
        Facts([("Type", info.dump_type_name)], View.PAGE),
        Facts(_facts(info)),
        *_counters(info.counters),
        *balance_tables(info.account),
        Notes(info.diagnostics),
        module_table("Drivers", info.drivers, info.unloaded, View.PAGE),
    ]
    if info.processes is not None:
        parts.append(process_table(info.processes, views=View.PAGE))
    parts.append(properties(source, _properties(info)))
    advice = f"Good enough to look for leaks? {info.advice}"
    parts.append(Line(advice, Style.GOOD if info.usable else Style.BAD))
    summary = summarize_kernel(source, advice, usable=info.usable)
    left = info.left
    if left is not None:
        steps = left_steps(left, source)
        parts.append(Line(f"{left.told}: {left_blocks(left)}.", Style.BAD))
        parts += [Line(f"{step.text} {step.command}".rstrip()) for step in steps]
        summary = Summary(
            Tone.BAD,
            f"{left.told}.",
            (("Left", left_blocks(left)), ("Usable", info.advice)),
            steps,
        )
    return Document("Kernel dump", summary, parts, judged_in=View.PAGE)


def _facts(info: KernelInfo) -> list[tuple[str, str]]:
    missing = f", {format_bytes(info.missing_bytes)} cut off" if info.missing_bytes else ""
    running = info.current_process
    return [
        ("Bug check", _bug_check(info.bug_check)),
        ("Build lab", info.build_lab or "unknown"),
        ("Kernel", _kernel(info)),
        ("KDBG", _kdbg(info)),
        ("Memory in file", f"{format_bytes(info.memory_bytes)}{missing}"),
        ("Page tables", info.paging or "none"),
        ("Processors", str(info.processor_count or "unknown")),
        ("Drivers", f"{len(info.drivers)} loaded, {len(info.unloaded)} unloaded"),
        ("Processes", processes_told(info.processes)),
        *((("Running", f"{running.name} (pid {running.process_id})"),) if running else ()),
        *(("Comment", comment) for comment in info.comments),
    ]


def _counters(counters: Sequence[Counter]) -> list[Part]:
    """What is known; a page also says why the rest is not."""

    def row(_: int, counter: Counter) -> Row:
        value = counter.bytes
        shown = "unknown"
        if value is not None:
            shown = format_count(value) if counter.name in _COUNTS else format_bytes(value)
        return shown, counter.name.replace("_", " "), counter.source

    columns = Column("value", Kind.VALUE), Column("counter"), Column("source", Kind.NAME)
    known = [counter for counter in counters if counter.bytes is not None]
    unknown = [counter.name.replace("_", " ") for counter in counters if counter.bytes is None]
    parts: list[Part] = [
        Table("counters", "Memory counters", columns, counters, row, View.PAGE),
    ]
    if known:
        parts.append(Table("known", "", columns, known, row, View.TEXT, folded=True))
    if unknown:
        parts.append(Line(f"Unknown: {', '.join(unknown)} (--format json says why)."))
    return parts


def _properties(info: KernelInfo) -> list[tuple[str, object]]:
    """For machines; None where unknown."""
    check = info.bug_check
    return [
        ("dump_type", info.dump_type),
        ("dump_type_name", info.dump_type_name),
        ("full_memory", info.full_memory),
        ("memory_bytes", info.memory_bytes),
        ("missing_bytes", info.missing_bytes),
        ("bug_check", None if check is None else f"0x{check.code:x}"),
        ("bug_check_name", None if check is None else check.name),
        ("kernel_base", _hex(info.kernel_base)),
        ("kdbg", _hex(info.kdbg_address)),
        ("drivers", len(info.drivers)),
        ("processes", None if info.processes is None else len(info.processes)),
        ("usable", info.usable),
        ("advice", info.advice),
        *((f"counters.{counter.name}", counter.bytes) for counter in info.counters),
        *((f"account.{figure.name}", figure.value) for figure in info.account),
    ]


def kernel_json(info: KernelInfo) -> dict[str, Any]:
    """Schema dumpleak/info/1, with the keys of kernel dumps."""
    return {
        "schema": "dumpleak/info/1",
        **source_json(info.source),
        "full_memory": info.full_memory,
        "memory_bytes": info.memory_bytes,
        "dump_type": info.dump_type,
        "dump_type_name": info.dump_type_name,
        "paging": info.paging or None,
        "up_time_seconds": info.up_time.total_seconds() if info.up_time else None,
        "processors": info.processor_count,
        "comments": list(info.comments),
        **_found_json(info),
        "drivers": [module_json(module) for module in info.drivers],
        "modules": [module_json(module) for module in info.drivers],
        "unloaded_modules": [module_json(module) for module in info.unloaded],
        "processes": None
        if info.processes is None
        else [process_json(process) for process in info.processes],
        "process_layout": info.process_layout or None,
        "current_process": None
        if info.current_process is None
        else {
            "pid": info.current_process.process_id,
            "name": info.current_process.name,
        },
        "counters": {
            counter.name: {"value": counter.bytes, "source": counter.source}
            for counter in info.counters
        },
        "account": [figure_json(figure) for figure in info.account],
        "balance": balance_json(info.account),
        "pool": {"usable": info.usable},
        "usable": info.usable,
        "advice": info.advice,
        "secondary_data": [{"guid": guid, "bytes": size} for guid, size in info.secondary],
        **_memory_json(info),
        "diagnostics": diagnostics_json(info.diagnostics),
    }


def _found_json(info: KernelInfo) -> dict[str, Any]:
    """How the kernel was found."""
    return {
        "bug_check": _bug_check_row(info.bug_check),
        "left_by_unloaded_driver": left_json(info.left),
        "kernel_base": _hex(info.kernel_base),
        "kernel_pdb": info.kernel_image.pdb.key
        if info.kernel_image is not None and info.kernel_image.pdb is not None
        else None,
        "build_lab": info.build_lab or None,
        "kdbg": _kdbg_row(info),
        "symbols": {
            name: None
            if found is None
            else {
                "address": format_address(found.address),
                "source": found.source,
                "detail": found.detail,
            }
            for name, found in info.symbols
        },
    }


def _memory_json(info: KernelInfo) -> dict[str, Any]:
    images, present = info.image_bytes
    return {
        "coverage": {
            "present_bytes": info.memory_bytes,
            "committed_bytes": info.memory_bytes + info.missing_bytes,
            "missing_bytes": info.missing_bytes,
        },
        "memory_by_use": {
            "images": {"committed_bytes": images, "present_bytes": present},
            **{
                name.replace("_", "-"): {"committed_bytes": value, "present_bytes": None}
                for name, value in (
                    (counter.name, counter.bytes)
                    for counter in info.counters
                    if counter.name in ("nonpaged_pool", "paged_pool")
                )
            },
        },
        "memory_by_use_complete": False,
    }


def _hex(address: int | None) -> str | None:
    return None if address is None else format_address(address)


def _duration(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock


def _bug_check(check: BugCheck | None) -> str:
    if check is None:
        return "none: the system was running, or the dump does not say"
    parameters = ", ".join(
        f"0x{value:x}" + (f" ({name})" if name else "")
        for value, name in zip(check.parameters, check.parameter_names, strict=True)
    )
    meaning = f": {check.meaning}" if check.meaning else ""
    return f"0x{check.code:X} {check.name}{meaning}; {parameters}".replace("  ", " ")


def _bug_check_row(check: BugCheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    return {
        "code": f"0x{check.code:x}",
        "name": check.name or None,
        "meaning": check.meaning or None,
        "parameters": [format_address(value) for value in check.parameters],
        "parameter_names": [name or None for name in check.parameter_names],
    }


def _kernel(info: KernelInfo) -> str:
    if info.kernel_base is None:
        return "not found"
    return f"{_image(info.kernel_image)} at {format_address(info.kernel_base)}"


def _image(image: Module | None) -> str:
    if image is None:
        return "image"
    return f"{image.name}, {image.pdb.name} {image.pdb.key}" if image.pdb else image.name


def _kdbg(info: KernelInfo) -> str:
    if not info.kdbg_source:
        return "not found"
    place = "a copy" if info.kdbg_address is None else format_address(info.kdbg_address)
    return f"{place}, by {info.kdbg_source}"


def _kdbg_row(info: KernelInfo) -> dict[str, Any] | None:
    if not info.kdbg_source:
        return None
    return {
        "address": _hex(info.kdbg_address),
        "source": info.kdbg_source,
        "was_encoded": info.kdbg_encoded,
    }
