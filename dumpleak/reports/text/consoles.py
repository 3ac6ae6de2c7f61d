"""The console that reports are written to."""

from __future__ import annotations

from rich.console import Console


class ReportConsole(Console):
    """A console whose reader may go away.

    Rich ends the program with 1 then, which in this program says that a gate failed.
    """

    def on_broken_pipe(self) -> None:
        """Called by rich where it handles the error; passes it on."""
        raise BrokenPipeError
