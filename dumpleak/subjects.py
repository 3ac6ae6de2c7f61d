"""What open dumps tell of, and snapshot files that do not say it themselves."""

from __future__ import annotations

from dumpleak.model.subject import Subject
from windumps.dump import Dump
from windumps.dumps import kinds

# By format; all others are of a process.
OF_KIND = {
    **dict.fromkeys(kinds.OF_SYSTEMS, Subject.SYSTEM),
    kinds.PROCESS_OF_KERNEL: Subject.PROCESS_OF_SYSTEM,
}


def subject_of(dump: Dump) -> Subject:
    """What an open dump tells of."""
    if dump.platform != "Windows":
        return Subject.OTHER_PLATFORM
    return OF_KIND.get(dump.kind, Subject.PROCESS)
