"""A comparison in UMDH's shape, for scripts and eyes made for that tool: a group of lines a site."""

from __future__ import annotations

from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.gate.gate import Judged
from dumpleak.survey.umdh_log import write_comparison


def write_hexadecimal(judged: Judged[Comparison], top: int | None, stream: IO[str]) -> None:
    """As UMDH writes numbers unless it is told otherwise."""
    write_comparison(judged.answer, stream, False, top)


def write_decimal(judged: Judged[Comparison], top: int | None, stream: IO[str]) -> None:
    """As `umdh -d` writes them."""
    write_comparison(judged.answer, stream, True, top)
