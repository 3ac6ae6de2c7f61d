"""What open dumps tell of, and snapshot files that do not say it themselves."""

from __future__ import annotations

from dumpleak.model.subject import Subject
from windumps.dump import Dump
from windumps.dumps.image import reader as memory_image
from windumps.dumps.kernel import process as kernel_process
from windumps.dumps.kernel import reader as kernel_open
from windumps.dumps.kernel.dump import KernelDump

# By format; all others are of a process.
OF_KIND = {
    kernel_open.NAME: Subject.SYSTEM,
    memory_image.ELF_NAME: Subject.SYSTEM,
    memory_image.XEN_NAME: Subject.SYSTEM,
    memory_image.RAW_NAME: Subject.SYSTEM,
    kernel_process.KIND: Subject.PROCESS_OF_SYSTEM,
}


def subject_of(dump: Dump) -> Subject:
    """What an open dump tells of."""
    if dump.platform != "Windows":
        return Subject.OTHER_PLATFORM
    if isinstance(dump, KernelDump):
        return Subject.SYSTEM
    return OF_KIND.get(dump.kind, Subject.PROCESS)
