"""Where the pages of physical memory lie in a kernel dump, whatever its kind says it with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import PAGE_BITS, PAGE_SIZE, U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.memory import AddressSpace, RunMemory

MAX_PFN = 1 << 40  # physical addresses have at most 52 bits


class PageMap(NamedTuple):
    """Physical memory of a dump.

    Attributes:
        memory: By physical address.
        missing_bytes: Memory that the dump's own tables promise behind the end of the file.
        physical_limit: First physical address above the machine's memory; 0 when unknown.
        end: File offset behind the last page, where blocks of components may follow.
    """

    memory: AddressSpace
    missing_bytes: int = 0
    physical_limit: int = 0
    end: int = 0


def no_pages(data: U8) -> PageMap:
    """Of a dump without memory."""
    none = np.empty(0, np.int64)
    return PageMap(RunMemory(data, np.empty(0, np.uint64), none, none))


def from_runs(
    data: U8, runs: list[tuple[int, int]], first_page: int, structure: str, log: DiagnosticLog
) -> PageMap:
    """Pages that lie run after run from `first_page` on.

    Args:
        data: The file's bytes.
        runs: (page frame number, page count), in the order of the file; not trusted.
        first_page: File offset of the first page.
        structure: Where the runs come from, for diagnostics.
        log: Where damage is told.
    """
    address, size, offset = [], [], []
    at, missing, limit, bad = first_page, 0, 0, 0
    for pfn, count in runs:
        if pfn >= MAX_PFN or count > MAX_PFN - pfn:
            bad += 1
            continue
        there = min(count, max(len(data) - at, 0) // PAGE_SIZE)
        if there:
            address.append(pfn << PAGE_BITS)
            size.append(there << PAGE_BITS)
            offset.append(at)
        missing += (count - there) << PAGE_BITS
        limit = max(limit, (pfn + count) << PAGE_BITS)
        at += count << PAGE_BITS
    if bad:
        log.add(
            "bad-memory-range",
            Severity.ERROR,
            structure,
            None,
            f"{bad} runs lie beyond any physical memory and are left out; "
            "what follows them in the file may be taken for other pages",
        )
    memory = RunMemory(
        data,
        np.array(address, np.uint64),
        np.array(size, np.int64),
        np.array(offset, np.int64),
    )
    return PageMap(memory, missing, limit, at)


def say_missing(pages: PageMap, file_size: int, required: int | None, log: DiagnosticLog) -> None:
    """Tells that a dump was cut."""
    if pages.missing_bytes:
        should = f" of {required}" if required and required > file_size else ""
        log.add(
            "memory-cut",
            Severity.ERROR,
            "_DUMP_HEADER",
            None,
            f"the file ends after {file_size}{should} bytes: pages behind count as absent; "
            "copy it again from where it was written",
            pages.missing_bytes,
        )
