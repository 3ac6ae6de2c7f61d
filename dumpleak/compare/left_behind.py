"""Blocks of drivers that are gone: nothing will free them, which is the surest sign of a leak there is."""

from __future__ import annotations

from typing import NamedTuple

from dumpleak.model.pool import TagRow, owner_of_both
from dumpleak.model.snapshot import Snapshot


class LeftBehind(NamedTuple):
    """What a driver left.

    Attributes:
        tag: Its tag.
        driver: Who allocated it, "a.sys", or all that may have.
        blocks: How many are still there.
        bytes: Theirs.
    """

    tag: str
    driver: str
    blocks: int
    bytes: int


def left_behind(base: Snapshot, current: Snapshot) -> list[LeftBehind]:
    """Tags of drivers that were unloaded between two dumps, with blocks in the later one; the most first."""
    if base.pool is None or current.pool is None:
        return []
    before = {row.number: row for row in base.pool.rows}
    found = [
        LeftBehind(row.tag.rstrip(), " and ".join(gone), count, row.total("bytes") or 0)
        for row in current.pool.rows
        if (gone := _gone(before.get(row.number), row)) and (count := row.total("count") or 0) > 0
    ]
    return sorted(found, key=lambda left: (-left.bytes, left.tag))


def _gone(base: TagRow | None, current: TagRow) -> tuple[str, ...]:
    """The drivers of a tag that only the earlier dump has; none while one of them may still free it."""
    if base is None or current.owner.driver is not None or base.owner.driver is None:
        return ()
    gone = owner_of_both(base.owner, current.owner).unloaded
    return gone if len(gone) == len(base.owner.drivers) else ()
