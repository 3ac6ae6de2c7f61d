"""The blocks of the tags that were asked for, in one dump, and what they point to."""

from __future__ import annotations

from typing import Any

from dumpleak.model.listed_blocks import BlockList, ListedBlock, Pointed
from dumpleak.model.units import format_address, format_bytes
from dumpleak.reports.document import (
    DEFAULT_TOP,
    Column,
    Kind,
    Line,
    Part,
    Row,
    Table,
    View,
    left_out,
)
from dumpleak.reports.values import Absent, Name, Style

NAMED = 4  # things a terminal names of what one block points to
_SAID = {
    "code": "{}",
    "device": "device of {}",
    "driver": "driver object of {}",
    "block": "{} block",
}
_USED = "used"  # freed blocks keep no tag that could be trusted


def listed_parts(found: BlockList | None, top: int | None, pointer_size: int) -> list[Part]:
    """The table of a terminal or a page; none where no single tag was asked for.

    Args:
        found: The blocks.
        top: Rows the reader asked for; None for what is usual.
        pointer_size: Of the system.
    """
    if found is None:
        return []
    digits = 2 * pointer_size
    limit = DEFAULT_TOP if top is None else top
    columns = (
        Column("Address", Kind.ADDRESS, digits=digits),
        Column("Size", Kind.COUNT),
        Column("Pool"),
        Column("State"),
        Column("Tag"),
        Column("Points to", Kind.NAME),
    )

    def row(_: int, block: ListedBlock) -> Row:
        pointed = block.points_to
        return (
            *(block.address, block.bytes, block.pool, _USED, block.tag),
            Name(Absent.UNKNOWN.value if pointed is None else pointed_told(pointed)),
        )

    said = f"{found.count:,} blocks, {format_bytes(found.bytes)}"
    said += f"; what they point to is unknown: {found.contents_unknown}" * bool(
        found.contents_unknown
    )
    more = left_out(found.count - min(limit, len(found.blocks)), "block")
    return [
        Line(f"{said}:", Style.HEADING),
        Table("listed", "Blocks", columns, found.blocks[:limit], row, View.PEOPLE),
        *([Line(more)] if more else []),
    ]


def pointed_told(pointed: tuple[Pointed, ...]) -> str:
    """What a block points to: "acmenet.sys+0x1011, 2 AcNb blocks"."""
    told = [
        _SAID[each.kind].format(each.name) + f" x{each.count}" * (each.count > 1)
        for each in pointed[:NAMED]
    ]
    more = len(pointed) - NAMED
    return ", ".join(told) + (f", and {more} more" if more > 0 else "")


def listed_json(found: BlockList | None) -> dict[str, Any] | None:
    """What is known of the blocks; None where no single tag was asked for."""
    if found is None:
        return None
    return {
        "count": found.count,
        "bytes": found.bytes,
        "contents_unknown": found.contents_unknown or None,
        "listed": [
            {
                "address": format_address(block.address),
                "block_bytes": block.bytes,
                "pool": block.pool,
                "state": _USED,
                "tag": block.tag,
                "points_to": None
                if block.points_to is None
                else [
                    {"kind": each.kind, "name": each.name, "count": each.count}
                    for each in block.points_to
                ],
            }
            for block in found.blocks
        ],
    }
