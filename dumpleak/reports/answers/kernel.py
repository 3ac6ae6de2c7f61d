"""Answers about kernel dumps in each format; a row in `KERNEL_REPORTS` each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import IO, Any, Protocol

from dumpleak.kernel.info import KernelInfo
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.answers.kernel_rows import PROCESS_COLUMNS, process_row
from dumpleak.reports.csv_report import CsvReport
from dumpleak.reports.json_report import JsonReport, _diagnostics, _module, _source
from dumpleak.reports.page.kernel import KernelHtmlReport
from dumpleak.reports.text.report import TextReport
from dumpleak.reports.text.tables import clean as _clean
from dumpleak.reports.text.tables import plain_table as _table
from windumps.diagnostics import Diagnostic
from windumps.images.modules import Module
from windumps.kernel.bug_checks import BugCheck
from windumps.kernel.processes import KernelProcess

_COUNTS = frozenset({"system_ptes"})  # counters that are not bytes


class KernelReport(Protocol):
    """Writes answers about kernel dumps in one format; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def kernel_info(self, info: KernelInfo) -> None:
        """What a kernel dump is."""
        ...

    def processes(
        self,
        source: SourceInfo,
        processes: Sequence[KernelProcess],
        layout: str,
        diagnostics: Iterable[Diagnostic],
        top: int | None,
    ) -> None:
        """One row a process."""
        ...


class KernelTextReport(TextReport):
    """See `KernelReport`."""

    def kernel_info(self, info: KernelInfo) -> None:
        """Description, counters, what was left out, verdict on usability."""
        source = info.source
        when = f"{source.time:%Y-%m-%d %H:%M:%S} UTC" if source.time else "unknown time"
        up = f", up {_duration(info.up_time.total_seconds())}" if info.up_time else ""
        self._line(f"File: {source.file}", "bold")
        self._line(f"  {info.dump_type_name}, {source.machine}, {when}{up}")
        missing = f", {format_bytes(info.missing_bytes)} cut off" if info.missing_bytes else ""
        processes = "not in the dump" if info.processes is None else str(len(info.processes))
        self._facts(
            [
                ("Bug check", _bug_check(info.bug_check)),
                ("Build lab", info.build_lab or "unknown"),
                ("Kernel", _kernel(info)),
                ("KDBG", _kdbg(info)),
                ("Memory in file", f"{format_bytes(info.memory_bytes)}{missing}"),
                ("Page tables", info.paging or "none"),
                ("Processors", str(info.processor_count or "unknown")),
                ("Drivers", f"{len(info.drivers)} loaded, {len(info.unloaded)} unloaded"),
                ("Processes", processes),
                *(
                    ("Running", f"{p.name} (pid {p.process_id})")
                    for p in (info.current_process,)
                    if p is not None
                ),
                *(("Comment", comment) for comment in info.comments),
            ]
        )
        self._counters(info)
        self._diagnostics(info.diagnostics)
        self._line(
            f"Good enough to look for leaks? {info.advice}", "green" if info.usable else "red"
        )

    def _counters(self, info: KernelInfo) -> None:
        known = [counter for counter in info.counters if counter.bytes is not None]
        unknown = [counter.name for counter in info.counters if counter.bytes is None]
        if known:
            table = _table("value", "counter", "source", left={"counter"})
            for counter in known:
                value = counter.bytes or 0
                shown = format_count(value) if counter.name in _COUNTS else format_bytes(value)
                table.add_row(shown, counter.name.replace("_", " "), _clean(counter.source))
            self._console.print(table)
        if unknown:
            names = ", ".join(name.replace("_", " ") for name in unknown)
            self._line(f"Unknown: {names} (--format json says why).")

    def processes(
        self,
        source: SourceInfo,
        processes: Sequence[KernelProcess],
        layout: str,
        diagnostics: Iterable[Diagnostic],
        top: int | None,
    ) -> None:
        """One row a process, in the kernel's order."""
        self._line(f"File: {source.file}", "bold")
        table = _table(
            *("pid", "parent", "private commit", "handles", "created (UTC)", "WoW64", "name")
        )
        for process in processes[:top]:
            commit = process.private_commit_bytes
            table.add_row(
                str(process.process_id),
                str(process.parent_id),
                "unknown" if commit is None else format_bytes(commit),
                "unknown" if process.handle_count is None else format_count(process.handle_count),
                f"{process.create_time:%Y-%m-%d %H:%M:%S}" if process.create_time else "unknown",
                "yes" if process.is_wow64 else "",
                _clean(process.name),
            )
        self._console.print(table)
        self._left_out(len(processes) - (top or len(processes)), "process")
        self._line(f"Layout of _EPROCESS: {layout}")
        self._diagnostics(diagnostics)


class KernelJsonReport(JsonReport):
    """See `KernelReport`."""

    def kernel_info(self, info: KernelInfo) -> None:
        """Schema dumpleak/info/1, with the keys of kernel dumps."""
        images, present = info.image_bytes
        self._write(
            {
                "schema": "dumpleak/info/1",
                **_source(info.source),
                "full_memory": info.full_memory,
                "memory_bytes": info.memory_bytes,
                "dump_type": info.dump_type,
                "dump_type_name": info.dump_type_name,
                "paging": info.paging or None,
                "up_time_seconds": info.up_time.total_seconds() if info.up_time else None,
                "processors": info.processor_count,
                "comments": list(info.comments),
                "bug_check": _bug_check_row(info.bug_check),
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
                "drivers": [_module(module) for module in info.drivers],
                "modules": [_module(module) for module in info.drivers],
                "unloaded_modules": [_module(module) for module in info.unloaded],
                "processes": None
                if info.processes is None
                else [process_row(process) for process in info.processes],
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
                "pool": {"usable": info.usable},
                "usable": info.usable,
                "advice": info.advice,
                "secondary_data": [{"guid": guid, "bytes": size} for guid, size in info.secondary],
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
                "diagnostics": _diagnostics(info.diagnostics),
            }
        )

    def processes(
        self,
        source: SourceInfo,
        processes: Sequence[KernelProcess],
        layout: str,
        diagnostics: Iterable[Diagnostic],
        top: int | None,
    ) -> None:
        """Schema dumpleak/processes/1; `top` is for people, all processes are written."""
        self._write(
            {
                "schema": "dumpleak/processes/1",
                **_source(source),
                "layout": layout,
                "processes": [process_row(process) for process in processes],
                "diagnostics": _diagnostics(diagnostics),
            }
        )


class KernelCsvReport(CsvReport):
    """See `KernelReport`."""

    def kernel_info(self, info: KernelInfo) -> None:
        """Property and value; counters as `counters.<name>`, empty where unknown."""
        source, check = info.source, info.bug_check
        self._table(
            ("property", "value"),
            [
                ("file", source.file),
                ("kind", source.kind),
                ("machine", source.machine),
                ("architecture", source.architecture),
                ("build", source.build or ""),
                ("time", source.time.isoformat() if source.time else ""),
                ("dump_type", "" if info.dump_type is None else info.dump_type),
                ("dump_type_name", info.dump_type_name),
                ("full_memory", info.full_memory),
                ("memory_bytes", info.memory_bytes),
                ("missing_bytes", info.missing_bytes),
                ("bug_check", "" if check is None else f"0x{check.code:x}"),
                ("bug_check_name", "" if check is None else check.name),
                ("kernel_base", _hex(info.kernel_base) or ""),
                ("kdbg", _hex(info.kdbg_address) or ""),
                ("drivers", len(info.drivers)),
                ("processes", "" if info.processes is None else len(info.processes)),
                ("usable", info.usable),
                ("advice", info.advice),
                *(
                    (f"counters.{counter.name}", "" if counter.bytes is None else counter.bytes)
                    for counter in info.counters
                ),
            ],
        )

    def processes(
        self,
        source: SourceInfo,
        processes: Sequence[KernelProcess],
        layout: str,
        diagnostics: Iterable[Diagnostic],
        top: int | None,
    ) -> None:
        """One row a process."""
        rows = (process_row(process) for process in processes[:top])
        self._table(
            PROCESS_COLUMNS,
            (["" if row[name] is None else row[name] for name in PROCESS_COLUMNS] for row in rows),
        )


# The first is the default; the same names as in `REPORTS`.
KERNEL_REPORTS: dict[str, type[KernelReport]] = {
    "text": KernelTextReport,
    "json": KernelJsonReport,
    "csv": KernelCsvReport,
    "html": KernelHtmlReport,
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
