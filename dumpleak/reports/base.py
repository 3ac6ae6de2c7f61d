"""What formats of other tools are given: an answer with all that is known of it, and no document."""

from __future__ import annotations

from typing import IO, Protocol

from dumpleak.compare.answers import Comparison
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.snapshot import Snapshot


class StatReport(Protocol):
    """Writes grouped totals of one dump.

    Args of all methods here: the answer, and `top`, the number of rows people want to see (None for all).
    """

    def __init__(self, stream: IO[str]) -> None: ...

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Writes it."""
        ...


class DiffReport(Protocol):
    """Writes growth between two dumps."""

    def __init__(self, stream: IO[str]) -> None: ...

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Writes it."""
        ...


class TrendReport(Protocol):
    """Writes growth over three dumps and more."""

    def __init__(self, stream: IO[str]) -> None: ...

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Writes it."""
        ...
