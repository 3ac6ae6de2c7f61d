"""What a file tells of: advice goes by this, and never by a word in a text."""

from __future__ import annotations

from enum import StrEnum


class Subject(StrEnum):
    """What a dump, a log or a snapshot of one tells of."""

    PROCESS = "process"
    PROCESS_OF_SYSTEM = "process-of-system"  # one process of a dump of the whole system
    SYSTEM = "system"
    OTHER_PLATFORM = "other-platform"  # no Windows: nothing of its memory is read
    LOG = "log"
