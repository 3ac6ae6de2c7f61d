"""Complete memory dumps (type 1): all pages of the header's runs, run after run."""

from __future__ import annotations

from windumps.arrays import U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps.kernel.header import KernelHeader
from windumps.dumps.kernel.pages import PageMap, from_runs
from windumps.errors import CorruptDumpError, UnsupportedDumpError

STRUCTURE = "_PHYSICAL_MEMORY_DESCRIPTOR"
_BLOCK_OFFSET = {True: 0x88, False: 0x64}


def read_pages(data: U8, header: KernelHeader, log: DiagnosticLog) -> PageMap:
    """Which physical pages a complete dump has, and where in the file they are.

    Raises:
        CorruptDumpError: the header has no list of runs.
        UnsupportedDumpError: the machine has more runs than the header can tell.
    """
    if header.runs is None:
        raise CorruptDumpError(
            STRUCTURE, _BLOCK_OFFSET[header.is_64bit], "a list of memory runs", "none"
        )
    told = sum(count for _, count in header.runs)
    if header.run_count > len(header.runs) and told != header.page_count:
        raise UnsupportedDumpError(
            f"a complete memory dump whose header says {header.run_count} memory runs and has room for "
            f"{len(header.runs)}: where the other pages belong is not in the file; take a bitmap dump "
            "(CrashDumpEnabled 2 or 7: kernel or automatic) or a dump of the virtual machine"
        )
    if told != header.page_count:
        log.add(
            "page-count",
            Severity.WARNING,
            STRUCTURE,
            None,
            f"the runs add up to {told} pages, the header says {header.page_count}",
        )
    ends = [base + count for base, count in header.runs]
    if any(base < end for (base, _), end in zip(header.runs[1:], ends, strict=False)):
        log.add(
            "overlapping-memory",
            Severity.WARNING,
            STRUCTURE,
            None,
            "memory runs overlap or are not in order: of two the one that starts first is used",
        )
    return from_runs(data, list(header.runs), header.size, STRUCTURE, log)
