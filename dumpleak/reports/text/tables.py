"""Tables for terminals: numbers never wrap, names get the room that is left and are cut in the middle.

A pipe has no width: names stay whole there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dumpleak.reports.document import Width
from dumpleak.reports.names import cut_middle

WIDE = 110  # columns from which a console shows what is good to have
MIN_NAME = 24  # columns for names, also where the numbers leave less
PADDING = 2


@dataclass(frozen=True)
class TextColumn:
    """One column.

    Attributes:
        title: Its head.
        left: Texts, not numbers.
        width: Where it is shown.
    """

    title: str
    left: bool = False
    width: Width = Width.ANY


NameLines = list[Text]  # a name and, under it, more about it


def print_table(
    console: Console,
    columns: Sequence[TextColumn],
    heading: str,
    rows: Sequence[tuple[Sequence[Text], NameLines]],
) -> None:
    """Prints a table with a last column of names.

    Args:
        console: Where to; its width decides what is shown, and whether names are cut.
        columns: All but the last.
        heading: Of the last.
        rows: A cell for each column, and the name with what else is known of it.
    """
    wide = console.width >= WIDE
    hidden = Width.NARROW if wide else Width.WIDE
    shown = [at for at, column in enumerate(columns) if column.width is not hidden]
    cells = [[row[0][at] for at in shown] for row in rows]
    widths = [
        max([cell_len(columns[at].title), *(row[number].cell_len for row in cells)])
        for number, at in enumerate(shown)
    ]
    before = sum(widths) + PADDING * len(widths)
    room = max(console.width - before, MIN_NAME) if console.is_terminal else None
    # Under a name there is room for more about it on wide consoles only; else it gets lines of its own.
    indent, more_room = before, room
    if not wide and room is not None:
        indent, more_room = 4, console.width - 4

    def line(values: Sequence[Text], name: Text) -> Text:
        made = Text()
        for at, width, value in zip(shown, widths, values, strict=True):
            space = " " * (width - value.cell_len)
            parts = (value, space) if columns[at].left else (space, value)
            made = Text.assemble(made, *parts, " " * PADDING)
        return made + name

    def write(text: Text) -> None:
        text.rstrip()
        console.print(text, soft_wrap=True)

    titles = [Text(columns[at].title, "bold") for at in shown]
    write(line(titles, Text(heading, "bold")))
    for values, (_, lines) in zip(cells, rows, strict=True):
        write(line(values, _cut(lines[0], room)))
        for more in lines[1:]:
            write(Text(" " * indent) + _cut(more, more_room))


def plain_table(columns: Sequence[TextColumn]) -> Table:
    """A table without frame; the last column is folded."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, PADDING, 0, 0))
    for number, column in enumerate(columns, start=1):
        last = number == len(columns)
        table.add_column(
            column.title,
            justify="left" if last or column.left else "right",
            no_wrap=not last,
            overflow="fold",
        )
    return table


def _cut(line: Text, room: int | None) -> Text:
    """The line, at most `room` columns wide."""
    if room is None or line.cell_len <= room:
        return line
    width = room
    while cell_len(cut_middle(line.plain, width)) > room:  # characters that take two columns
        width -= 1
    return Text(cut_middle(line.plain, width), line.style)
