"""Dumps a debugger writes (types 8 to 10, `.dump /k`, `/ka`, `/f`): ranges of pages, packed.

Source: kdmp-parser, which reads all three; no other is known to.
"""

from __future__ import annotations

from windumps.arrays import U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps.kernel import structures as c
from windumps.dumps.kernel.header import KernelHeader
from windumps.dumps.kernel.pages import PageMap, from_runs
from windumps.errors import CorruptDumpError

_UNKNOWN_BYTES = 16  # before the ranges of types 8 and 9


def read_pages(data: U8, header: KernelHeader, log: DiagnosticLog) -> PageMap:
    """Which physical pages a dump of ranges has, and where in the file they are.

    Raises:
        TruncatedDumpError: the file ends inside the header of the ranges.
        CorruptDumpError: it is none.
    """
    layout = c.RANGES_DUMP
    head = layout.record(data, header.size)
    metadata = head.MetadataSize - layout.size
    if (
        head.Marker != c.RANGES_MARKER
        or head.Signature + head.ValidDump != b"RDMPDUMP"
        or head.FirstPageOffset - (header.size + 0x40) != metadata
    ):
        raise CorruptDumpError(
            layout.name,
            header.size,
            "RDMPDUMP with the first page behind the ranges",
            f"{(head.Signature + head.ValidDump)!r}, first page at 0x{head.FirstPageOffset:x}",
        )
    at = header.size + layout.size
    total = None
    if header.dump_type == c.DumpType.FULL_RANGES:
        full = c.RANGES_FULL.record(data, at)
        at, total = at + c.RANGES_FULL.size, full.TotalNumberOfPages
    else:
        at += _UNKNOWN_BYTES
    count = max(head.FirstPageOffset - at, 0) // c.PAGE_RANGE.size
    rows = c.PAGE_RANGE.records(data, min(at, len(data)), min(count, c.MAX_RANGES))
    runs, pages = [], 0
    for pfn, size in zip(rows["Pfn"].tolist(), rows["PageCount"].tolist(), strict=True):
        if pages >= total if total is not None else pfn == 0:
            break
        runs.append((pfn, size))
        pages += size
    if total is not None and pages != total:
        log.add(
            "page-count",
            Severity.ERROR,
            layout.name,
            header.size,
            f"the ranges add up to {pages} pages, their header says {total}",
        )
    return from_runs(data, runs, head.FirstPageOffset, layout.name, log)
