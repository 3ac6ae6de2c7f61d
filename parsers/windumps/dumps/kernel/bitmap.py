"""Dumps with a bit for each page: types 5 to 7 of Windows 8 and later, type 2 before.

Both say the same in different headers. Which header a file has is decided by its type, and the
other one is tried when the first does not add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from windumps.arrays import PAGE_BITS, PAGE_SIZE, U8
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps.kernel import structures as c
from windumps.dumps.kernel.header import KernelHeader
from windumps.dumps.kernel.pages import MAX_PFN, PageMap
from windumps.errors import CorruptDumpError, TruncatedDumpError
from windumps.memory.bitmap import BitmapMemory


class Bitmap(NamedTuple):
    """Where a bitmap is and what it says of itself.

    Attributes:
        structure: Of the header.
        offset: File offset of the bitmap.
        bits: How many pages it covers.
        first_page: File offset of the first page.
        present: How many bits should be set.
    """

    structure: str
    offset: int
    bits: int
    first_page: int
    present: int


_ReadHeader = Callable[[U8, KernelHeader], Bitmap]


def read_bitmap_pages(data: U8, header: KernelHeader, log: DiagnosticLog) -> PageMap:
    """Pages of a dump of type 5, 6 or 7; raises as `read_summary_pages`."""
    return _read(data, header, log, [_bitmap, _summary])


def read_summary_pages(data: U8, header: KernelHeader, log: DiagnosticLog) -> PageMap:
    """Which physical pages a dump of type 2 has, and where in the file they are.

    Raises:
        TruncatedDumpError: the file ends inside the header of the bitmap.
        CorruptDumpError: neither header makes sense.
    """
    return _read(data, header, log, [_summary, _bitmap])


def _bitmap(data: U8, header: KernelHeader) -> Bitmap:
    layout = c.BITMAP_DUMP
    raw = layout.record(data, header.size)
    return Bitmap(
        layout.name, header.size + layout.size, raw.Pages, raw.FirstPage, raw.TotalPresentPages
    )


def _summary(data: U8, header: KernelHeader) -> Bitmap:
    layout = c.SUMMARY_DUMP64 if header.is_64bit else c.SUMMARY_DUMP32
    raw = layout.record(data, header.size)
    return Bitmap(layout.name, header.size + layout.size, raw.BitmapSize, raw.HeaderSize, raw.Pages)


def _read(
    data: U8, header: KernelHeader, log: DiagnosticLog, readers: list[_ReadHeader]
) -> PageMap:
    magic = data[header.size : header.size + 8].tobytes()
    if len(magic) < 8:
        raise TruncatedDumpError(c.BITMAP_DUMP.name, header.size + c.BITMAP_DUMP.size, len(data))
    if magic not in c.BITMAP_MAGICS:
        raise CorruptDumpError(
            c.BITMAP_DUMP.name, header.size, "SDMPDUMP or FDMPDUMP", repr(magic)[1:]
        )
    candidates = [read(data, header) for read in readers]
    possible = [bitmap for bitmap in candidates if _is_possible(bitmap)]
    if not possible:
        raise CorruptDumpError(
            candidates[0].structure,
            header.size,
            "a bitmap that ends before the first page",
            f"{candidates[0].bits} bits, first page at 0x{candidates[0].first_page:x}",
        )
    bitmap = possible[0]
    memory = _memory(data, bitmap)
    if memory.present_pages != bitmap.present and len(possible) > 1:
        other = _memory(data, possible[1])
        if other.present_pages == possible[1].present:
            bitmap, memory = possible[1], other
    present = memory.present_pages
    if present != bitmap.present and len(data) > bitmap.first_page:
        log.add(
            "page-count",
            Severity.ERROR,
            bitmap.structure,
            header.size,
            f"{present} pages are marked in the bitmap, its header says {bitmap.present}: "
            "pages may be taken for others",
        )
    return PageMap(
        memory,
        (max(present, bitmap.present) << PAGE_BITS) - memory.total_bytes,
        bitmap.bits << PAGE_BITS,
        memory.end,
    )


def _memory(data: U8, bitmap: Bitmap) -> BitmapMemory:
    return BitmapMemory(data, bitmap.offset, bitmap.bits, bitmap.first_page)


def _is_possible(bitmap: Bitmap) -> bool:
    end = bitmap.offset + (bitmap.bits + 7) // 8
    return (
        0 < bitmap.bits <= MAX_PFN
        and bitmap.present <= bitmap.bits
        and bitmap.first_page >= end
        and bitmap.first_page % PAGE_SIZE == 0
    )
