"""`dumpleak info`: what a dump is and holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dumpleak.commands.options import DUMP, Options, options_with
from dumpleak.commands.output import answer_to, progress_bar
from dumpleak.files.detect import is_snapshot_file
from dumpleak.files.reader import snapshot_info
from dumpleak.model.info import Info
from dumpleak.reports.answers.info import info_document, info_json
from dumpleak.reports.document import Document
from dumpleak.reports.formats import FORMATS, Answer
from dumpleak.survey.open import open_subject
from windumps.later import later

if TYPE_CHECKING:
    from dumpleak.kernel.info import KernelInfo

_SYSTEM_DOCUMENT = later("dumpleak.reports.answers.kernel", "kernel_document")
_SYSTEM_JSON = later("dumpleak.reports.answers.kernel", "kernel_json")


@click.command(
    epilog="\b\nExamples:\n"
    "  dumpleak info testdata/10.0.19041.3324-x64/mixed/dump.dmp.gz\n"
    "  dumpleak info app.dmp --format json"
)
@DUMP
@options_with(FORMATS)
def info(dump: str, options: Options) -> None:
    """What a dump is, what it holds and lacks, and whether leaks can be looked for in it."""
    answer: Info | KernelInfo
    if is_snapshot_file(dump):
        answer = snapshot_info(Path(dump))
    else:
        with progress_bar(options) as progress:
            answer = open_subject(dump, options.symbols, options.process).info(progress)
    document: Callable[[Any], Document] = info_document
    json: Callable[[Any], dict[str, Any]] = info_json
    if not isinstance(answer, Info):
        document, json = _SYSTEM_DOCUMENT, _SYSTEM_JSON
    answer_to(options, Answer(lambda: document(answer), lambda: json(answer)))
