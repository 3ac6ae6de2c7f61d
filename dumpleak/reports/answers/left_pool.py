"""What is said of pool that an unloaded driver left, where the system stopped for it."""

from __future__ import annotations

from typing import Any

from dumpleak.model.left_pool import LeftPool
from dumpleak.model.snapshot import SourceInfo
from dumpleak.model.units import format_bytes, format_count
from dumpleak.reports.answers.next_steps import PLAIN_NAME, Step, better_dump_steps

_SHOWN = 3  # tags


def left_steps(left: LeftPool, source: SourceInfo, dump: str = "DUMP") -> tuple[Step, ...]:
    """How to see the blocks; how to get a better dump where Verifier's records are not in this one."""
    if not left.tags:
        return better_dump_steps(source)
    named = f" {left.driver}" if PLAIN_NAME.fullmatch(left.driver) else ""
    text = "See the blocks, and who allocated them from where:"
    return (Step(text, f"dumpleak verifier {dump}{named}"),)


def left_blocks(left: LeftPool) -> str:
    """Its blocks by tag, by Verifier's records."""
    if not left.tags:
        return "Verifier's records of these blocks are not in the dump"
    told = ", ".join(
        f"{format_count(tag.count)} of {tag.tag.rstrip()} ({format_bytes(tag.bytes)})"
        for tag in left.tags[:_SHOWN]
    )
    more = len(left.tags) - _SHOWN
    return told + (f" and {more} more tags" if more > 0 else "") + ", by Verifier's records"


def left_json(left: LeftPool | None) -> dict[str, Any] | None:
    """The same for scripts; None where the system did not stop for that."""
    if left is None:
        return None
    return {
        "reason": left.reason,
        "driver": left.driver or None,
        "count": left.blocks,
        "paged_bytes": left.paged_bytes,
        "nonpaged_bytes": left.nonpaged_bytes,
        "tags": [{"tag": tag.tag, "count": tag.count, "bytes": tag.bytes} for tag in left.tags],
    }
