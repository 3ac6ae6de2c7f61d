"""What lies at some addresses, and why it is alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dumpleak.model.block_page import BLOCK_COLUMNS
from dumpleak.model.explanation import Explained, Explanation, Pointer, What
from dumpleak.model.units import format_address, format_bytes
from dumpleak.reports.document import (
    Column,
    Document,
    Facts,
    Kind,
    Line,
    Notes,
    Part,
    Row,
    Source,
    Table,
    View,
    data_columns,
)
from dumpleak.reports.json_report import diagnostics_json, source_json
from dumpleak.reports.rows import block_rows, nullable_block
from dumpleak.reports.values import Style

SHOWN_HOLDERS = 5
SHOWN_STEPS = 12  # of a path; the rest of it is left out in the middle
_DUMPED = 16  # bytes in a line
_COLUMNS = (
    Column("address", Kind.ADDRESS, "address"),
    Column("what", name="what"),
    Column("held by", Kind.COUNT, "holder_count", hint="pointers to the block"),
    Column("keeps alive", Kind.BYTES, "retained_bytes"),
    Column("blocks", Kind.COUNT, "retained_count", hint="that it keeps alive"),
    Column("path", name="path", hint="a shortest way from a root"),
    *data_columns("block_address size heap type site"),
    Column("what lies there", Kind.NAME, "told"),
)


def explain_document(explanation: Explanation) -> Document:
    """The dump, then each address."""
    parts: list[Part] = [Source("File", explanation.source)]
    for found in explanation.found:
        address = format_address(found.address, found.pointer_size)
        parts.append(Line(f"{address}  {found.told}", Style.HEADING))
        facts = list(_facts(found))
        if facts:
            parts.append(Facts(facts, View.TEXT))
        parts += [Line(f"  {line}") for line in _dumped(found)]
    parts += [
        Notes(explanation.diagnostics),
        Table(
            *("addresses", "Addresses", _COLUMNS, explanation.found, _row),
            View.PAGE | View.DATA,
        ),
    ]
    return Document(
        f"{explanation.source.program or explanation.source.file}: what lies at some addresses",
        None,
        parts,
    )


def _facts(found: Explained) -> Iterator[tuple[str, str]]:
    """For terminals."""
    width = found.pointer_size
    if found.block is not None:
        start = format_address(found.address - found.offset, width)
        place = f"+0x{found.offset:x} in the block at {start}" if found.offset else "its first byte"
        yield "address", place
        if site := found.block.sites.rows()[0]:
            yield "site", site
    if len(found.frames) > 1:
        yield "stack", " < ".join(found.frames)
    if found.holder_count is not None:
        yield "held by", _holders_told(found)
        yield "path", path_told(found)
    if found.retained_bytes is not None and found.retained_count is not None:
        held = format_bytes(found.retained_bytes)
        told = f"only itself, {held}"
        if found.retained_count > 1:
            many = "objects" if found.what is What.OBJECT else "blocks"
            told = f"at least {held} in {found.retained_count:,} {many}, itself included"
        yield "keeps alive", told
    if found.points_to is not None:
        yield "points to", _pointer_told(found.points_to)
    region = found.region
    if region is not None:
        access = ", ".join(filter(None, (region.type, region.state, region.protection)))
        start = format_address(region.base_address, width)
        yield "region", f"{format_bytes(region.bytes)} at {start}: {access}"
    for note in found.notes:
        yield "note", note


def _holders_told(found: Explained) -> str:
    count = found.holder_count or 0
    if not count:
        return "nothing: no pointer to it was found"
    shown = [_pointer_told(holder) for holder in found.holders[:SHOWN_HOLDERS]]
    more = f", and {count - len(shown):,} more" if count > len(shown) else ""
    return f"{count:,} pointer{'s' * (count != 1)}: {', '.join(shown)}{more}"


def _pointer_told(pointer: Pointer) -> str:
    return f"{pointer.what} at +0x{pointer.offset:x}" if pointer.offset else pointer.what


def path_told(found: Explained) -> str:
    """The way from a root, in one line."""
    if not found.path:
        return (
            "none: no root leads to it (unreferenced)" if found.retained_bytes is not None else ""
        )
    root, *blocks = found.path
    steps = [root.what, *(_step_told(step) for step in blocks[:-1]), blocks[-1].what]
    if found.path_count > SHOWN_STEPS:
        half = SHOWN_STEPS // 2
        left = found.path_count - 2 * half
        steps[half:-half] = [f"… {left:,} more …"]
    return " → ".join(steps)


def _step_told(step: Pointer) -> str:
    return f"{step.what} +0x{step.offset:x}"


def _dumped(found: Explained) -> Iterator[str]:
    """Contents as hexadecimal digits and ASCII."""
    for at in range(0, len(found.contents), _DUMPED):
        line = found.contents[at : at + _DUMPED]
        digits = " ".join(f"{byte:02x}" for byte in line)
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in line)
        yield f"{format_address(found.address + at, found.pointer_size)}  {digits:<47}  {text}"


def _row(_: int, found: Explained) -> Row:
    block = block_json(found)
    of_block = (
        [block[name] for name in ("address", "size", "heap", "type", "site")] if block else []
    )
    return (
        *(found.address, found.what, found.holder_count),
        *(found.retained_bytes, found.retained_count, path_told(found)),
        *(of_block or [None] * 5),
        found.told,
    )


def block_json(found: Explained) -> dict[str, Any] | None:
    """The row of `allocations`, as JSON has it."""
    if found.block is None:
        return None
    (row,) = block_rows([found.block], 1)
    return nullable_block(dict(zip(BLOCK_COLUMNS, row, strict=True)))


def explain_json(explanation: Explanation) -> list[dict[str, Any]]:
    """Schema dumpleak/explain/1: one document an address."""
    return [_explained_json(explanation, found) for found in explanation.found]


def _explained_json(explanation: Explanation, found: Explained) -> dict[str, Any]:
    def hexed(address: int | None) -> str | None:
        return None if address is None else format_address(address, found.pointer_size)

    def pointers(items: tuple[Pointer, ...]) -> list[dict[str, Any]]:
        return [{"address": hexed(p.address), "offset": p.offset, "what": p.what} for p in items]

    region = asdict(found.region) if found.region else None
    if region:
        region |= {name: hexed(region[name]) for name in ("base_address", "allocation_base")}
    return {
        "schema": "dumpleak/explain/1",
        **source_json(explanation.source),
        "address": hexed(found.address),
        "what": found.what,
        "told": found.told,
        "region": region,
        "block": block_json(found),
        "offset": found.offset,
        "frames": list(found.frames),
        "holders": pointers(found.holders),
        "holder_count": found.holder_count,
        "path": pointers(found.path),
        "path_count": found.path_count,
        "retained_bytes": found.retained_bytes,
        "retained_count": found.retained_count,
        "points_to": pointers((found.points_to,))[0] if found.points_to else None,
        "contents": found.contents.hex(),
        "notes": list(found.notes),
        "diagnostics": diagnostics_json(explanation.diagnostics),
    }
