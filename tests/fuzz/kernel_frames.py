"""Physical memory of kernel dumps: which pages hold page tables, and files that lack some pages.

Files are written with numbers of their own (public headers), not through the readers under test.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fuzz.seeds import PAGE
from windumps.arrays import U64
from windumps.memory import PageTableMemory

FULL, SUMMARY, BITMAP = 1, 2, 5
_SHORT, _LONG = 0x28, 0x38  # headers of bitmaps: of type 2 (64 bits), of types 5 and 6
_SHORT32 = 0x20


class _Header(NamedTuple):
    """Where things stand in the header of a file."""

    size: int
    dump_type: int
    run_count: int
    runs: int
    run: str
    summary_bits: int


_HEADERS = {
    b"DU64": _Header(0x2000, 0xF98, 0x88, 0x98, "<QQ", _SHORT),
    b"DUMP": _Header(0x1000, 0xF88, 0x64, 0x6C, "<II", _SHORT32),
}


def without_frames(data: bytes, frames: set[int]) -> bytes:
    """The file as if these frames of physical memory had not been captured.

    A complete dump becomes one with a bit for each page.
    """
    form = _HEADERS[data[4:8]]
    (dump_type,) = struct.unpack_from("<I", data, form.dump_type)
    head = bytearray(data[: form.size])
    if dump_type == FULL:
        present, first = _of_runs(data, form), form.size
        struct.pack_into("<I", head, form.dump_type, BITMAP)
        magic = b"SDMPDUMP"
        is_short = False
    else:
        is_short = dump_type == SUMMARY
        at, count, first = _bitmap(data, form, is_short)
        bits = np.unpackbits(np.frombuffer(data, np.uint8, (count + 7) // 8, at), bitorder="little")
        present = bits[:count].astype(np.bool_)
        magic = data[form.size : form.size + 8]
    frame = np.flatnonzero(present)
    keep = ~np.isin(frame, list(frames))
    stored = min((len(data) - first) // PAGE, len(frame))
    pages = np.frombuffer(data, np.uint8, stored * PAGE, first).reshape(-1, PAGE)
    body = pages[keep[:stored]].tobytes() + data[first + stored * PAGE :] * bool(
        stored >= len(frame) or keep[stored]
    )
    present = present.copy()
    present[frame[~keep]] = False
    return bytes(head) + _bitmap_bytes(present, form, is_short, magic) + body


def _of_runs(data: bytes, form: _Header) -> NDArray[np.bool_]:
    (count,) = struct.unpack_from("<I", data, form.run_count)
    step = struct.calcsize(form.run)
    runs = [struct.unpack_from(form.run, data, form.runs + step * i) for i in range(count)]
    present = np.zeros(max(base + pages for base, pages in runs), np.bool_)
    for base, pages in runs:
        present[base : base + pages] = True
    return present


def _bitmap(data: bytes, form: _Header, is_short: bool) -> tuple[int, int, int]:
    """File offset of the bits, their number, and the offset of the first page."""
    if is_short:
        first, count = struct.unpack_from("<II", data, form.size + 0xC)
        return form.size + form.summary_bits, count, first
    first, _, count = struct.unpack_from("<QQQ", data, form.size + 0x20)
    return form.size + _LONG, count, first


def _bitmap_bytes(present: NDArray[np.bool_], form: _Header, is_short: bool, magic: bytes) -> bytes:
    bits = np.packbits(present, bitorder="little").tobytes()
    start = form.summary_bits if is_short else _LONG
    first = -(-(form.size + start + len(bits)) // PAGE) * PAGE
    head = bytearray(first - form.size)
    head[:8] = magic
    if is_short:
        struct.pack_into("<III", head, 0xC, first, len(present), int(present.sum()))
    else:
        struct.pack_into("<QQQ", head, 0x20, first, int(present.sum()), len(present))
    head[start : start + len(bits)] = bits
    return bytes(head)


def page_tables(memory: PageTableMemory, addresses: U64) -> tuple[set[int], list[int]]:
    """Of the tables that translate some addresses: their frames, and file offsets of last entries."""
    physical, paging = memory.physical, memory.paging
    table = np.full(len(addresses), memory.directory_base, np.uint64)
    frames: set[int] = set()
    places = table
    for level, bits in enumerate(paging.index_bits):
        frames |= set(np.unique(table // np.uint64(PAGE)).tolist())
        index = (addresses >> np.uint64(paging.shift(level))) & np.uint64((1 << bits) - 1)
        places = table + index * np.uint64(paging.entry_size)
        raw, there = physical.gather(places, f"<u{paging.entry_size}")
        entries = raw.astype(np.uint64)
        down = there & paging.is_valid(entries) & ~paging.is_large(entries, level)
        table, addresses, places = paging.frames(entries)[down], addresses[down], places[down]
    offsets = physical.locate(places, paging.entry_size)
    return frames, sorted(set(offsets[offsets >= 0].tolist()))
