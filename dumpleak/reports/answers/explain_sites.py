"""Why the blocks of some sites are alive: a tree of what they hang on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from dumpleak.model.explanation import HolderNode, SitesExplained
from dumpleak.model.units import format_bytes
from dumpleak.reports.document import (
    Column,
    Document,
    Facts,
    Kind,
    Notes,
    Row,
    Source,
    Table,
    data_columns,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.values import Name, Share

SHOWN_SITES = 3
_COLUMNS = (
    Column("blocks", Kind.COUNT, "count"),
    Column("bytes", Kind.BYTES, "bytes"),
    Column("of all", Kind.SHARE),
    *data_columns("depth offset"),
    Column("held by", Kind.NAME, "what"),
)


@dataclass(frozen=True)
class _Line:
    """One row of the tree: a holder, or how many blocks hang on others."""

    depth: int
    what: str
    count: int
    bytes: int
    offset: int | None = None


def explain_sites_document(found: SitesExplained, top: int | None) -> Document:
    """What was asked for, and the tree."""
    lines = list(_lines(found.holders, 0, *_referenced(found)))

    def row(_: int, line: _Line) -> Row:
        indent = "  " * line.depth
        name = Name(line.what, told=f"{indent}{'← ' * bool(line.depth)}{line.what}")
        share = Share(line.count, found.count)
        return line.count, line.bytes, share, line.depth, line.offset, name

    return Document(
        f"{found.source.program or found.source.file}: what blocks hang on",
        None,
        (
            Source("File", found.source),
            Facts(list(_facts(found))),
            Table("holders", "Holders", _COLUMNS, lines, row, noun="holder", top=top),
            Notes(found.diagnostics),
        ),
    )


def _referenced(found: SitesExplained) -> tuple[int, int]:
    return found.count - found.unreferenced_count, found.bytes - found.unreferenced_bytes


def _facts(found: SitesExplained) -> Iterator[tuple[str, str]]:
    names = ", ".join(found.sites[:SHOWN_SITES])
    more = len(found.sites) - SHOWN_SITES
    yield "sites", f"{names}, and {more:,} more" if more > 0 else names
    yield "blocks", f"{found.count:,} with {format_bytes(found.bytes)}"
    if found.unreferenced_count:
        held = format_bytes(found.unreferenced_bytes)
        yield "unreferenced", f"{found.unreferenced_count:,} with {held}: no root leads to them"
    if found.retained_bytes is not None:
        held = format_bytes(found.retained_bytes)
        yield (
            "keep alive",
            f"at least {held} in {found.retained_count:,} blocks, themselves included",
        )


def _lines(holders: tuple[HolderNode, ...], depth: int, count: int, bytes_: int) -> Iterator[_Line]:
    """The tree from the blocks up to the roots.

    Args:
        holders: What holds.
        depth: How far from the blocks.
        count: Blocks that hang on all of them together.
        bytes_: Bytes of these.
    """
    for holder in holders:
        place = "" if holder.offset is None else f" +0x{holder.offset:x}"
        chain = ", one behind the other" * holder.is_chain
        yield _Line(
            depth, f"{holder.what}{place}{chain}", holder.count, holder.bytes, holder.offset
        )
        yield from _lines(holder.holders, depth + 1, holder.count, holder.bytes)
    left = count - sum(holder.count for holder in holders)
    if left and (holders or not depth):
        rest = bytes_ - sum(holder.bytes for holder in holders)
        yield _Line(depth, "others", left, rest)


def explain_sites_json(found: SitesExplained) -> list[dict[str, Any]]:
    """Schema dumpleak/explain/1: one document."""
    made = asdict(found)
    made["sites"] = list(found.sites)
    made["holders"] = [_holder_json(holder) for holder in found.holders]
    for name in ("source", "diagnostics", "shortfall"):
        del made[name]
    return [
        {
            "schema": "dumpleak/explain/1",
            **source_json(found.source),
            **made,
            "diagnostics": diagnostics_json(found.diagnostics),
        }
    ]


def _holder_json(holder: HolderNode) -> dict[str, Any]:
    return asdict(holder) | {"holders": [_holder_json(above) for above in holder.holders]}
