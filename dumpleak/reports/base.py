"""What a report format gives: one method for each answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Protocol

from dumpleak.compare.answers import Comparison
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import Judged
from dumpleak.model.block_page import BlockPage
from dumpleak.model.snapshot import Snapshot


class StatReport(Protocol):
    """Writes grouped totals, and perhaps nothing else; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Grouped totals of one dump."""
        ...


class TrendReport(Protocol):
    """Writes a trend, and perhaps nothing else; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Growth over three dumps and more."""
        ...


class DiffReport(Protocol):
    """Writes a comparison, and perhaps nothing else; see `Report`."""

    def __init__(self, stream: IO[str]) -> None: ...

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Growth between two dumps."""
        ...


class Report(Protocol):
    """Writes answers in one format.

    Args of all methods: the answer, and where they apply `top`, the number of rows people want to
    see (None for all).
    """

    def __init__(self, stream: IO[str]) -> None: ...

    def allocations(self, pages: Iterable[BlockPage], top: int | None) -> None:
        """One row a block."""
        ...

    def stat(self, snapshot: Snapshot, top: int | None) -> None:
        """Grouped totals of one dump."""
        ...

    def diff(self, judged: Judged[Comparison], top: int | None) -> None:
        """Growth between two dumps."""
        ...

    def trend(self, judged: Judged[Trend], top: int | None) -> None:
        """Growth over three dumps and more."""
        ...
