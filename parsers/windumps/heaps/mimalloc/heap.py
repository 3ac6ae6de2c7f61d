"""mimalloc of a process: all its pages, whichever of its heaps they belong to.

`capacity == used + blocks on free and local_free` holds in every page; blocks that other threads freed wait
on a third list, and count as used. In version 2 the first such block of a full page waits on a list of the
owning heap instead, `thread_delayed_free`, which goes from page to page.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.blocks import Kind
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.mimalloc.layouts import DELAYED_FREE, V2, WAITS, PageLayout
from windumps.heaps.mimalloc.older import has_older_segments
from windumps.heaps.mimalloc.pages import AGREEING_PAGES, Pages, damaged_pages, find_pages
from windumps.heaps.mimalloc.segments import (
    SEGMENT_BYTES,
    SLICE_BYTES,
    SegmentPages,
    find_segments,
)
from windumps.heaps.slabs import FreeLists, SlabArena, Slabs, allocations_of, chain
from windumps.heaps.unclaimed import Claims, absent_beginnings, claimed_bytes, unclaimed_bytes
from windumps.memory import AddressSpace

NAME = Kind.MIMALLOC.label
OLDER = "2.0 or an early 2.1, whose pages do not say where their blocks begin; it is not read"
SECURE = "a secure or debug build, which encodes the links of free blocks; it is not read"


def find_mimalloc(memory: AddressSpace, ordinal: int, log: DiagnosticLog) -> SlabArena | str | None:
    """All memory of mimalloc in a process.

    Args:
        memory: The process's memory.
        ordinal: What its blocks name as `Blocks.heap`.
        log: Where diagnostics go.

    Returns:
        None where there is none, a text where it is recognised and cannot be read.
    """
    segments = find_segments(memory)
    pages = find_pages(memory)
    if segments is not None and len(segments.pages) >= max(AGREEING_PAGES, _count(pages)):
        return SECURE if segments.secure else _version_2(memory, segments, ordinal, log)
    if pages is None:
        return OLDER if has_older_segments(memory, AGREEING_PAGES) else None
    return SECURE if pages.secure else _version_3(memory, pages, ordinal, log)


def _count(pages: Pages | None) -> int:
    return 0 if pages is None else len(pages.address)


def _version_2(
    memory: AddressSpace, found: SegmentPages, ordinal: int, log: DiagnosticLog
) -> SlabArena:
    slabs = _slabs(memory, V2, found.pages, found.pages["start"])
    places = np.concatenate((found.segments, absent_beginnings(memory, SEGMENT_BYTES)))
    ranges = allocations_of(memory, np.unique(places)) or [
        (start, SEGMENT_BYTES) for start in found.segments.tolist()
    ]
    lost = max(
        _missing_segments(found) * SLICE_BYTES,
        unclaimed_bytes(memory, ranges, found.claims, SLICE_BYTES)
        + claimed_bytes(memory, found.lost, SLICE_BYTES),
    )
    layout = _told(V2, len(slabs), len(found.segments))
    return SlabArena(memory, Kind.MIMALLOC, layout, ordinal, slabs, ranges, lost, log)


def _version_3(memory: AddressSpace, pages: Pages, ordinal: int, log: DiagnosticLog) -> SlabArena:
    slabs = _slabs(memory, pages.layout, pages.pages, pages.start)
    damaged = np.concatenate((damaged_pages(memory, pages), absent_beginnings(memory, SLICE_BYTES)))
    places = np.unique(np.concatenate((pages.address, pages.start, damaged)))
    ranges = allocations_of(memory, places) or _page_ranges(pages.start, slabs)
    length = pages.pages["block_size"] * pages.pages["reserved"].astype(np.uint64)
    # Descriptions in a table are claims, too.
    low = np.concatenate((pages.start, pages.address))
    own = pages.start[pages.start - pages.address <= np.uint64(SLICE_BYTES)]
    claims = Claims(low, low + np.concatenate((length, np.ones_like(length))), own)
    lost = max(
        _missing_pages(pages.address, pages.pages) * SLICE_BYTES,
        unclaimed_bytes(memory, ranges, claims, SLICE_BYTES),
    )
    layout = _told(pages.layout, len(slabs))
    return SlabArena(memory, Kind.MIMALLOC, layout, ordinal, slabs, ranges, lost, log)


def _told(layout: PageLayout, pages: int, segments: int = 0) -> str:
    where = f" in {segments} segments" if segments else ""
    proof = "" if layout.proven else ", which was not tried on known dumps"
    return f"mimalloc {layout.versions}{proof}: {pages} pages{where} that agree"


def _page_ranges(start: U64, slabs: Slabs) -> list[tuple[int, int]]:
    """What pages cover, where the dump does not list its regions."""
    low = start & ~np.uint64(SLICE_BYTES - 1)
    end = start + (slabs.size * np.maximum(slabs.count, 1)).astype(np.uint64)
    return list(zip(low.tolist(), (end - low).tolist(), strict=True))


def _slabs(memory: AddressSpace, layout: PageLayout, pages: NDArray[np.void], start: U64) -> Slabs:
    order = np.argsort(start, kind="stable")
    pages, start = pages[order], start[order]
    capacity, used = pages["capacity"].astype(np.int64), pages["used"].astype(np.int64)
    freed = pages["xthread_free"] & ~np.uint64(layout.flag_bits)
    own = np.stack((pages["free"], pages["local_free"]), axis=1)
    unknown = np.full(len(pages), -1, np.int64)
    lists = FreeLists(own, capacity - used), FreeLists(freed[:, None], unknown)
    slabs = Slabs(
        start,
        pages["block_size"].astype(np.int64),
        capacity,
        lists,
        np.zeros(len(pages), np.bool_),
        np.empty(0, np.uint64),
    )
    return _with_delayed(memory, slabs, pages) if layout is V2 else slabs


def _with_delayed(memory: AddressSpace, slabs: Slabs, pages: NDArray[np.void]) -> Slabs:
    """Version 2: with what waits on the lists of heaps.

    A page says when it has a block there; one that says so and has none that was found is not believed.
    """
    found = [np.empty(0, np.uint64)]
    for heap in np.unique(pages["owner"][pages["owner"] != 0]).tolist():
        head, present = memory.gather(np.array([heap + DELAYED_FREE], np.uint64), "<u8")
        if present[0]:
            found.append(chain(memory, int(head[0]), slabs)[0])
    elsewhere = np.unique(np.concatenate(found))
    waits = np.isin(pages["xthread_free"] & np.uint64(V2.flag_bits), WAITS)
    waits[slabs.page_of(elsewhere)] = False
    return replace(slabs, doubtful=slabs.doubtful | waits, free_elsewhere=elsewhere)


def _missing_segments(found: SegmentPages) -> int:
    """Version 2: how many segments pages name as those of their neighbours and are not there."""
    named = np.concatenate((found.pages["next"], found.pages["prev"]))
    segments = np.unique(named[named != 0] & ~np.uint64(SEGMENT_BYTES - 1))
    return int((~np.isin(segments, found.segments)).sum())


def _missing_pages(address: U64, pages: NDArray[np.void]) -> int:
    """Version 3: how many pages others name as neighbours and are not there."""
    named = np.unique(np.concatenate((pages["next"], pages["prev"])))
    missing = named[(named != 0) & ~np.isin(named, address)]
    return len(missing)
