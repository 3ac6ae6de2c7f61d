"""What commands on kernel dumps share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dumpleak.commands.base import output_to
from dumpleak.reports.answers.kernel import KERNEL_REPORTS, KernelReport


@contextmanager
def kernel_report_to(options: dict[str, Any]) -> Iterator[KernelReport]:
    """The report in the chosen format, as `report_to`."""
    report = KERNEL_REPORTS.get(options["format_"])
    if report is None:
        raise click.UsageError(
            f"kernel dumps are described as {', '.join(KERNEL_REPORTS)}, not as {options['format_']}"
        )
    with output_to(options) as stream:
        yield report(stream)
