"""The bar that shows how far work is; loaded on a terminal only."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from dumpleak.model.units import format_bytes

SMALLEST_TOTAL = 0x10000  # totals below this are no bytes


class _Amount(ProgressColumn):
    """Bytes done, of bytes in all; nothing for phases that count something else."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        if task.total is None or task.total < SMALLEST_TOTAL:
            return Text("")
        return Text(f"{format_bytes(int(task.completed))} of {format_bytes(int(task.total))}")


def bar() -> Progress:
    """A bar on stderr, which goes away when the work is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
