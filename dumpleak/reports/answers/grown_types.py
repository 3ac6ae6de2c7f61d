"""Types of .NET objects with what they hold, in comparisons."""

from __future__ import annotations

from typing import Any

from dumpleak.compare.answers import SiteDelta
from dumpleak.reports.json_report import both_json


def held_json(delta: SiteDelta) -> dict[str, Any]:
    """What a type of objects is ranked by, and what of it is others' that it holds."""
    if delta.weight is None:
        return {}
    return {
        "weight_bytes": delta.weight,
        "held": [
            {
                "name": part.site.name,
                "delta_bytes": part.delta_bytes,
                "delta_count": part.delta_count,
                **both_json(part.base, part.current),
            }
            for part in delta.held
        ],
    }
