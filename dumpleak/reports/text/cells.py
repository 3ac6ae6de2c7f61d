"""What a terminal shows of a value, by the kind of its column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.text import Text

from dumpleak.model.units import format_address, format_bytes, format_count
from dumpleak.reports.document import Column, Kind
from dumpleak.reports.names import visible
from dumpleak.reports.values import Absent, Change, Name, Said, Style

STYLES = {
    Style.PLAIN: "",
    Style.HEADING: "bold",
    Style.GOOD: "green",
    Style.WARNING: "yellow",
    Style.BAD: "red",
    Style.STRONG: "bold red",
}
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = ".:-=+*#@"
# Share of all growth from which a site's growth is shown hotter.
_HEAT = ((0.25, "bold red"), (0.05, "red"), (0.0, "dark_orange"))
_LEFT = frozenset({Kind.TEXT, Kind.NAME, Kind.SERIES})


def is_left(column: Column) -> bool:
    """Texts begin at one place, numbers end at one."""
    return column.kind in _LEFT


def text_of(value: Any, column: Column, encoding: str) -> list[Text]:
    """A cell, and the lines under it.

    Args:
        value: Of the kind of its column.
        column: It.
        encoding: Of the terminal; not all have bars.
    """
    if value is None or isinstance(value, Absent):
        return [Text("" if value is None else value.value)]
    if isinstance(value, Name):
        name = Text(visible(value.told or value.text), STYLES[value.style])
        if value.more:
            name.append(f" {visible(value.more)}", "dim")
        return [name, *(Text(f"  {visible(line)}", "dim") for line in value.lines)]
    if isinstance(value, Said):
        return [Text(visible(value.text), STYLES[value.style])]
    if isinstance(value, Change):
        if value.value is None:
            return [Text(Absent.UNKNOWN.value)]
        return [Text(_number(value.value, column), delta_style(value.value, value.share))]
    return [Text(_plain(value, column, encoding))]


def _plain(value: Any, column: Column, encoding: str) -> str:
    match column.kind:
        case Kind.BYTES | Kind.COUNT | Kind.RATE:
            return _number(value, column)
        case Kind.SHARE:
            return str(value.text)
        case Kind.TOTALS:
            return f"{format_bytes(value.bytes)} in {format_count(value.count)}"
        case Kind.TIME:
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case Kind.ADDRESS:
            return format_address(value, column.digits // 2) if column.digits else f"0x{value:x}"
        case Kind.FLAG:
            return "yes" if value else ""
        case Kind.SERIES:
            return sparkline(value, encoding)
        case Kind.CLAUSES:
            return visible("; ".join(value))
    return visible(str(value))


def _number(value: Any, column: Column) -> str:
    if column.kind is Kind.RATE:
        return f"{value:+.1f}"
    form = format_bytes if column.kind is Kind.BYTES else format_count
    return form(value, column.signed)


def delta_style(delta: int, share: float) -> str:
    """The style of a change: hotter the larger its share (0 to 1) of all growth."""
    if delta <= 0:
        return "green" if delta else ""
    return next(style for least, style in _HEAT if share >= least)


def sparkline(values: Sequence[int], encoding: str) -> str:
    """A series as a line of bars, the largest value the highest; plain characters where the
    encoding has no bars.
    """
    bars = _BARS if encoding.lower().replace("-", "").startswith("utf") else _ASCII_BARS
    most = max([*values, 1])
    return "".join(bars[min(value * len(bars) // (most + 1), len(bars) - 1)] for value in values)
