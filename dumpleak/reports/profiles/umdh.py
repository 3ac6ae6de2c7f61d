"""A comparison in UMDH's shape, for scripts and eyes made for that tool."""

from __future__ import annotations

from typing import IO

from dumpleak.compare.answers import Comparison
from dumpleak.gate.gate import Judged
from dumpleak.survey.umdh_log import write_comparison


class UmdhReport:
    """See `DiffReport`. Numbers are hexadecimal, as UMDH writes them unless told otherwise."""

    decimal = False

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """One group of lines a site, largest growth first."""
        comparison = judged.answer
        write_comparison(comparison, self._stream, self.decimal, top)


class UmdhDecimalReport(UmdhReport):
    """The same with decimal numbers, as `umdh -d`."""

    decimal = True
