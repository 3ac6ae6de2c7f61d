"""Placeholder."""

from __future__ import annotations

from typing import Any

from dumpleak.files.columns import arrow
from dumpleak.fleets.belonging import Series


def grown(series: Series, folder: str) -> Any:
    """Placeholder."""
    pa = arrow()
    return pa.table({"series": [series.id], "dumps": [list(series.ids)]})
