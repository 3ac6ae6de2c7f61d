"""`dumpleak modules`: loaded and unloaded images."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.commands.options import DUMP, Options, common_options
from dumpleak.commands.output import report_to
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.model.errors import CannotAnswerError
from dumpleak.process.session import Session
from windumps.diagnostics import Severity
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import BETTER_KERNEL_DUMP

_DRIVER_LISTS = ("PsLoadedModuleList", "MmUnloadedDrivers")


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak modules testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak modules app.dmp --format json"
)
@DUMP
@common_options
def modules(dump: str, options: Options) -> None:
    """Loaded and unloaded images with version, PDB name, GUID and age."""
    if is_snapshot_file(dump):
        about = snapshot_info(Path(dump))
        with report_to(options) as report:
            report.modules(dump, list(about.modules), list(about.unloaded_modules))
        return
    opened = Session.open(dump, process=options.process).dump
    if isinstance(opened, KernelDump) and not opened.modules:
        cut = "the file is cut: copy it again from where it was written"
        advice = cut if opened.missing_bytes else BETTER_KERNEL_DUMP
        why = opened.why_no_pool or f"the list of drivers is not in the dump; {advice}"
        raise CannotAnswerError(f"{opened.path}: {why}")
    with report_to(options) as report:
        report.modules(str(opened.path), opened.modules, opened.unloaded_modules)
    for item in opened.diagnostics:
        if item.severity is not Severity.INFO and item.structure in _DRIVER_LISTS:
            click.echo(f"{item.severity}: {item.message}", err=True)
