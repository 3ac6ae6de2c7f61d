"""Dumps with a bit for each page: types 5 to 7 of Windows 8 and later, type 2 before.

Both say the same in different headers. Which header a file has is decided by its type, and the
other one is tried when the first does not add up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dumps import c_kernel_dump as c
from windumps.dumps.kernel_header import KernelHeader
from windumps.dumps.kernel_pages import MAX_PFN, PageMap
from windumps.errors import CorruptDumpError, TruncatedDumpError
from windumps.memory.address_space import I64, U8, U64
from windumps.memory.paging import PAGE_BITS, PAGE_SIZE

CHUNK_BYTES = 1 << 17  # of the bitmap: a MiB of bits as bytes


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
    """Pages of a dump of type 2; see `kernel_pages.PageMap`.

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
    runs, present = _runs(data, bitmap)
    if present != bitmap.present and len(possible) > 1:
        other_runs, other_present = _runs(data, possible[1])
        if other_present == possible[1].present:
            bitmap, runs, present = possible[1], other_runs, other_present
    if present != bitmap.present and len(data) > bitmap.first_page:
        log.add(
            "page-count",
            Severity.ERROR,
            bitmap.structure,
            header.size,
            f"{present} pages are marked in the bitmap, its header says {bitmap.present}: "
            "pages may be taken for others",
        )
    size = int(runs.size.sum())
    return runs._replace(
        missing_bytes=(max(present, bitmap.present) << PAGE_BITS) - size,
        physical_limit=bitmap.bits << PAGE_BITS,
    )


def _is_possible(bitmap: Bitmap) -> bool:
    end = bitmap.offset + (bitmap.bits + 7) // 8
    return (
        0 < bitmap.bits <= MAX_PFN
        and bitmap.present <= bitmap.bits
        and bitmap.first_page >= end
        and bitmap.first_page % PAGE_SIZE == 0
    )


def _runs(data: U8, bitmap: Bitmap) -> tuple[PageMap, int]:
    """Runs of set bits whose pages are in the file, and how many bits are set in all."""
    found: list[tuple[U64, I64, I64]] = []
    present = 0
    pages_in_file = max(len(data) - bitmap.first_page, 0) // PAGE_SIZE
    end = min(bitmap.offset + (bitmap.bits + 7) // 8, len(data))
    for at in range(bitmap.offset, end, CHUNK_BYTES):
        first = (at - bitmap.offset) * 8
        bits = np.unpackbits(data[at : min(at + CHUNK_BYTES, end)], bitorder="little")
        bits = bits[: bitmap.bits - first]
        count = int(np.count_nonzero(bits))
        if count and present < pages_in_file:
            edges = np.flatnonzero(np.diff(bits.view(np.int8), prepend=0, append=0))
            starts, sizes = edges[::2], edges[1::2] - edges[::2]
            rank = present + np.cumsum(sizes) - sizes
            sizes = np.minimum(sizes, np.maximum(pages_in_file - rank, 0))
            found.append(
                (
                    (starts + first).astype(np.uint64) << np.uint64(PAGE_BITS),
                    sizes << PAGE_BITS,
                    (rank << PAGE_BITS) + bitmap.first_page,
                )
            )
        present += count
    if not found:
        return PageMap(
            np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
        ), present
    address, size, offset = (np.concatenate(column) for column in zip(*found, strict=True))
    return PageMap(address, size, offset), present
