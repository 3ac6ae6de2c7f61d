"""What drivers that are gone left behind, in words."""

from __future__ import annotations

from dumpleak.compare.left_behind import left_behind
from dumpleak.model.snapshot import Snapshot
from dumpleak.model.units import count_of, format_bytes

NAMED = 3
CANNOT_TELL_A_CACHE = "Leaking? Two dumps cannot tell it from a cache that fills."


def left_told(base: Snapshot, current: Snapshot) -> str:
    """A sentence for the headline, "AcGb is leaked: …"; "" where no driver left anything."""
    found = left_behind(base, current)
    if not found:
        return ""
    first = found[0]
    more = f"; {count_of(len(found) - 1, 'tag')} more" if len(found) > 1 else ""
    what = f"{format_bytes(first.bytes)} in {count_of(first.blocks, 'block')}"
    return f"{first.tag} is leaked: {first.driver} was unloaded and left {what}{more}."


def left_facts(base: Snapshot, current: Snapshot) -> list[tuple[str, str]]:
    """The tags that drivers left, one by one."""
    found = left_behind(base, current)
    told = ", ".join(
        f"{left.tag} of {left.driver} ({format_bytes(left.bytes)} in {count_of(left.blocks, 'block')})"
        for left in found[:NAMED]
    )
    more = f", and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
    what = "drivers that are no longer loaded left, and nothing will free:"
    return [("Left", f"{what} {told}{more}")] if found else []
