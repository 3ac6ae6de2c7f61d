"""Cores of Xen domains (`xl dump-core`): pages in one section of an ELF file, their numbers in another.

Source: "Xen core dump format" of the Xen project (docs/misc/dump-core-format.txt). There are no program
headers. `.xen_pages` holds whole pages one after another; `.xen_pfn` the guest's page number of each
(domains with hardware virtualisation, such as Windows), or `.xen_p2m` pairs of it and the machine's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from windumps.arrays import PAGE_SIZE, U8, U64
from windumps.dumps.image import structures as c
from windumps.errors import TruncatedDumpError
from windumps.memory import RunMemory

PAGES = b".xen_pages"
# Sections with page numbers: their names, and how many words stand for one page, its number first.
NUMBERS = {b".xen_pfn": 1, b".xen_p2m": 2}
_MAX_PAGE = 1 << 40  # numbers behind it are none, as is the mark for "not valid" (all ones)
_MAX_NAMES = 1 << 16


def read_memory(data: U8, header: Any) -> tuple[RunMemory, int] | None:
    """The memory of a Xen core and how many of its bytes are not in the file; None when it is none.

    Args:
        data: The file's bytes.
        header: Its `Elf64_Ehdr`.

    Raises:
        TruncatedDumpError: the file ends before its section headers, which stand behind the memory.
    """
    if header.SegmentCount:
        return None
    sections = _sections(data, header)
    numbers = next((name for name in NUMBERS if name in sections), None)
    if PAGES not in sections or numbers is None:
        return None
    words = _words(data, *sections[numbers])[:: NUMBERS[numbers]]
    at, told = sections[PAGES]
    count = min(len(words), told // PAGE_SIZE)
    present = min(count, max(len(data) - at, 0) // PAGE_SIZE)
    missing = max(told // PAGE_SIZE, len(words)) - present
    index = np.flatnonzero(words[:present] < np.uint64(_MAX_PAGE))
    # Where one number comes twice the first page counts: addresses of runs must not overlap.
    page, first = np.unique(words[index], return_index=True)
    place = at + index[first] * PAGE_SIZE
    breaks = np.flatnonzero((np.diff(page) != 1) | (np.diff(place) != PAGE_SIZE)) + 1
    start = np.concatenate([[0], breaks]).astype(np.int64)[: len(page)]
    length = np.diff(np.append(start, len(page)))
    memory = RunMemory(
        data,
        page[start] * np.uint64(PAGE_SIZE),
        length.astype(np.int64) * PAGE_SIZE,
        place[start].astype(np.int64),
    )
    return memory, missing * PAGE_SIZE


def _sections(data: U8, header: Any) -> dict[bytes, tuple[int, int]]:
    """Offset and bytes of each section, by name; those that begin behind the file are left out."""
    end = header.SectionTable + int(header.SectionCount) * c.SECTION64.size
    if end > len(data):
        raise TruncatedDumpError(c.SECTION64.name, end, len(data))
    rows = c.SECTION64.records(
        data, header.SectionTable, int(header.SectionCount), header.SectionEntrySize
    )
    if header.SectionNames >= len(rows):
        return {}
    names = rows[int(header.SectionNames)]
    at, size = int(names["Offset"]), min(int(names["Size"]), _MAX_NAMES)
    text = data[at : at + size].tobytes() if at <= len(data) else b""
    return {
        text[int(row["Name"]) :].partition(b"\0")[0]: (int(row["Offset"]), int(row["Size"]))
        for row in rows
        if int(row["Offset"]) <= len(data)
    }


def _words(data: U8, at: int, size: int) -> U64:
    """A section's words, as many as are in the file."""
    size = min(size, len(data) - at) // 8 * 8
    return np.frombuffer(data[at : at + size].tobytes(), "<u8")
