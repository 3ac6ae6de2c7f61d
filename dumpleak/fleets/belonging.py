"""Placeholder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Series:
    """Placeholder."""

    id: str
    kind: str
    ids: tuple[str, ...]


def series(dumps: Any) -> list[Series]:
    """Placeholder."""
    found: dict[str, list[str]] = {}
    for row in dumps.to_pylist():
        if row["status"] == "read":
            found.setdefault(f"{row['program']}|{row['build']}", []).append(row["id"])
    return [Series(name, "trend", tuple(ids)) for name, ids in found.items()]
