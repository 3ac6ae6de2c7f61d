"""`dumpleak modules`: loaded and unloaded images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.model.errors import CannotAnswerError
from dumpleak.process.session import Session
from dumpleak.reports.answers.modules import modules_document, modules_json
from dumpleak.reports.formats import FORMATS, Answer
from windumps.diagnostics import Severity
from windumps.dumps.kernel.dump import KernelDump
from windumps.errors import BETTER_KERNEL_DUMP
from windumps.images.modules import Module

_DRIVER_LISTS = ("PsLoadedModuleList", "MmUnloadedDrivers")


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak modules testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak modules app.dmp --format json"
)
@DUMP
@options_with(FORMATS)
def modules(dump: str, options: Options) -> None:
    """Loaded and unloaded images with version, PDB name, GUID and age."""
    if is_snapshot_file(dump):
        about = snapshot_info(Path(dump))
        _write(dump, about.modules, about.unloaded_modules, options)
        return
    opened = Session.open(dump, process=options.process).dump
    if isinstance(opened, KernelDump) and not opened.modules:
        cut = "the file is cut: copy it again from where it was written"
        advice = cut if opened.missing_bytes else BETTER_KERNEL_DUMP
        why = opened.why_no_pool or f"the list of drivers is not in the dump; {advice}"
        raise CannotAnswerError(f"{opened.path}: {why}")
    _write(str(opened.path), opened.modules, opened.unloaded_modules, options)
    for item in opened.diagnostics:
        if item.severity is not Severity.INFO and item.structure in _DRIVER_LISTS:
            click.echo(f"{item.severity}: {item.message}", err=True)


def _write(
    file: str, loaded: Sequence[Module], unloaded: Sequence[Module], options: Options
) -> None:
    listed = file, loaded, unloaded
    answer_to(options, Answer(lambda: modules_document(*listed), lambda: modules_json(*listed)))
