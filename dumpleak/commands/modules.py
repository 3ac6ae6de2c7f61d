"""`dumpleak modules`: loaded and unloaded images."""

from __future__ import annotations

from pathlib import Path

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.model.errors import CannotAnswerError
from dumpleak.reports.answers.modules import modules_document, modules_json
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from windumps.diagnostics import Severity

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
        file, said = dump, []
        listed = about.modules, about.unloaded_modules
    else:
        opened = open_subject(dump, process=options.process)
        if opened.why_no_images:
            raise CannotAnswerError(f"{opened.dump.path}: {opened.why_no_images}")
        file, said = str(opened.dump.path), opened.dump.diagnostics
        listed = tuple(opened.dump.modules), tuple(opened.dump.unloaded_modules)
    answer_to(
        options,
        Answer(lambda: modules_document(file, *listed), lambda: modules_json(file, *listed)),
    )
    for item in said:
        if item.severity is not Severity.INFO and item.structure in _DRIVER_LISTS:
            click.echo(f"{item.severity}: {item.message}", err=True)
