"""Kernel objects and who holds them, as JSON."""

from __future__ import annotations

from typing import Any

from dumpleak.model.held_objects import HeldObjects


def objects_json(held: HeldObjects | None) -> dict[str, Any] | None:
    """Who holds the objects of a tag; None where that was not looked at."""
    if held is None:
        return None
    return {
        "type": held.type,
        "count": held.count,
        "with_handles": held.opened,
        "holders": [
            {"pid": holder.process_id, "name": holder.name, "objects": holder.objects}
            for holder in held.holders
        ],
        "unknown": held.why_unknown or None,
        "headers_read": held.headers,
        "headers_without_handles": held.unopened,
        "held_by_pointer": held.held_by_pointer,
        "pointers": pointers_json(held),
        "whole_pool_searched": not held.sampled,
        "ended": None
        if held.ended is None
        else [
            {
                "pid": row.process_id,
                "name": row.name,
                "objects": row.objects,
                "last_exit": row.last.isoformat(),
            }
            for row in held.ended
        ],
        "evidence": [*held.holders_told, *held.clauses],
    }


def pointers_json(held: HeldObjects | None) -> list[dict[str, Any]]:
    """Whose pool blocks point to objects that no handle leads to."""
    rows = held.pointers if held is not None else ()
    return [{"tag": row.tag, "driver": row.driver, "objects": row.objects} for row in rows]
