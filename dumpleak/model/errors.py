"""Questions that cannot be answered, and how long work tells where it is."""

from __future__ import annotations

from collections.abc import Callable

from windumps.errors import UnsupportedDumpError

BETTER_DUMP = "take a full dump: procdump -ma PID app.dmp"
# Called with a phase, bytes done and bytes in all.
Progress = Callable[[str, int, int], None]


class CannotAnswerError(UnsupportedDumpError):
    """The question cannot be answered from this input; the message says what is missing and what
    to do.
    """


def no_progress(phase: str, done: int, total: int) -> None:
    """A progress callback that shows nothing."""
