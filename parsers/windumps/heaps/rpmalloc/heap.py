"""rpmalloc of a process: spans of 256 MiB with pages of one size, and blocks that are too large for these.

`initialized == used + local_free_count` holds in every page. Blocks on the lists of a heap, those it hands
out next and those that other threads freed in full pages, count as used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import U64
from windumps.blocks import Kind
from windumps.diagnostics import DiagnosticLog
from windumps.heaps.candidates import aligned_addresses
from windumps.heaps.rpmalloc.layouts import (
    HEADER_BYTES,
    HUGE,
    IS_FULL,
    LOCAL_FREE,
    PAGE,
    PAGE_BYTES,
    SIZE_CLASSES,
    SPAN,
    SPAN_BYTES,
    THREAD_FREE,
    VERSIONS,
)
from windumps.heaps.slabs import FreeLists, SlabArena, Slabs, allocations_of, chain, is_blank
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE

NAME = Kind.RPMALLOC.label
AGREEING_PAGES = 3
LISTS = 3  # of a page: its own, what other threads freed, and what its heap hands out next
# PAGE_(EXECUTE_)READWRITE and PAGE_(EXECUTE_)WRITECOPY of winnt.h.
WRITABLE = (0x04, 0x08, 0x40, 0x80)


class _Spans(NamedTuple):
    """Spans of one process.

    Attributes:
        address: uint64.
        spans: Their records.
        pages: uint64, pages that were handed out, those of huge blocks left out.
        page_bytes: int64, of each.
    """

    address: U64
    spans: NDArray[np.void]
    pages: U64
    page_bytes: NDArray[np.int64]


def find_rpmalloc(memory: AddressSpace, ordinal: int, log: DiagnosticLog) -> SlabArena | None:
    """All memory of rpmalloc in a process; None where there is none.

    Args:
        memory: The process's memory.
        ordinal: What its blocks name as `Blocks.heap`.
        log: Where diagnostics go.
    """
    spans = _find_spans(memory)
    pages, present = memory.gather(spans.pages, PAGE)
    fits = present & _is_page(pages, spans.page_bytes)
    heaps = np.isin(pages["heap"], spans.spans["heap"])
    if int((fits & heaps).sum()) < AGREEING_PAGES:
        return None
    lost = int(spans.page_bytes[~fits].sum())
    pages = pages[fits]
    small = _with_lists_of_heaps(memory, _slabs(spans.pages[fits], pages), pages)
    slabs = _joined(small, _huge(memory, spans))
    ranges = allocations_of(memory, spans.address) or [
        (start, SPAN_BYTES) for start in spans.address.tolist()
    ]
    layout = f"rpmalloc {VERSIONS}: {len(pages)} pages in {len(spans.address)} spans that agree"
    return SlabArena(memory, Kind.RPMALLOC, layout, ordinal, slabs, ranges, lost, log)


def _find_spans(memory: AddressSpace) -> _Spans:
    address = aligned_addresses(memory, SPAN_BYTES)
    spans, present = memory.gather(address, SPAN)
    first, _ = memory.gather(address, PAGE)
    kind = spans["page_type"]
    page_bytes = np.array([*PAGE_BYTES, 0], np.uint64)[np.minimum(kind, HUGE)]
    mask = ~(np.where(kind == HUGE, PAGE_BYTES[-1], page_bytes).astype(np.uint64) - np.uint64(1))
    fits = present & (kind <= HUGE) & (spans["page_address_mask"] == mask) & (spans["heap"] != 0)
    fits &= first["page_type"] == kind
    size = spans["page_size"].astype(np.uint64)
    whole = (size == page_bytes) & (size * spans["page_count"] == SPAN_BYTES)
    whole &= (spans["page_initialized"] > 0) & (spans["page_initialized"] <= spans["page_count"])
    huge = (size > 0) & (size % np.uint64(1 << 12) == 0) & (spans["page_count"] > 0)
    fits &= np.where(kind == HUGE, huge, whole)
    address, spans, page_bytes = address[fits], spans[fits], page_bytes[fits]
    count = np.where(spans["page_type"] == HUGE, 0, spans["page_initialized"]).astype(np.int64)
    into = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
    size = np.repeat(page_bytes, count)
    pages = np.repeat(address, count) + into.astype(np.uint64) * size
    return _Spans(address, spans, pages, size.astype(np.int64))


def _is_page(pages: NDArray[np.void], page_bytes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for headers whose numbers fit each other and the page's size."""
    kind = np.minimum(pages["page_type"], len(PAGE_BYTES) - 1)
    fits = np.array(PAGE_BYTES)[kind] == page_bytes
    fits &= (pages["block_size"] > 0) & (pages["initialized"] <= pages["block_count"])
    room = pages["block_size"].astype(np.int64) * pages["block_count"]
    fits &= (room > 0) & (room <= page_bytes - HEADER_BYTES) & (pages["size_class"] < SIZE_CLASSES)
    held = pages["used"].astype(np.int64) + pages["local_free_count"]
    fits &= held == pages["initialized"]
    return np.asarray(fits)


def _slabs(address: U64, pages: NDArray[np.void]) -> Slabs:
    """Small to large pages, with their own lists; a free page has no blocks until it is used again."""
    start = address + np.uint64(HEADER_BYTES)
    size = pages["block_size"].astype(np.int64)
    count = np.where(pages["used"] == 0, 0, pages["initialized"]).astype(np.int64)
    empty = count == 0
    local = np.where(empty, 0, pages["local_free"]).astype(np.uint64)
    kept = np.where(empty, 0, pages["local_free_count"]).astype(np.int64)
    given = np.where(empty, 0, pages["thread_free_count"]).astype(np.int64)
    index = pages["thread_free_index"].astype(np.uint64) * size.astype(np.uint64)
    head = np.where(given > 0, start + index, 0).astype(np.uint64)
    lists = FreeLists(local[:, None], kept), FreeLists(head[:, None], given)
    none = np.empty(0, np.uint64)
    return Slabs(start, size, count, lists, np.zeros(len(pages), np.bool_), none)


def _huge(memory: AddressSpace, spans: _Spans) -> Slabs:
    """Blocks that have a mapping of their own."""
    rows = spans.spans["page_type"] == HUGE
    size = spans.spans["page_size"][rows].astype(np.int64) * spans.spans["page_count"][rows]
    start = spans.address[rows] + np.uint64(HEADER_BYTES)
    nothing = FreeLists(np.zeros((len(start), 1), np.uint64), np.zeros(len(start), np.int64))
    kept = start[np.isin(spans.address[rows], _cached(memory, spans.address[rows]))]
    # Without a list of regions nothing tells where a table of mappings kept for reuse would be.
    unknown = np.full(len(start), not len(memory.regions))
    one = np.ones(len(start), np.int64)
    return Slabs(start, size - HEADER_BYTES, one, (nothing,) * LISTS, unknown, kept)


def _cached(memory: AddressSpace, spans: U64) -> U64:
    """Those of the mappings that were freed and are kept for reuse: a table in an image names them.

    The program's own pointers lead behind the header.
    """
    regions = memory.regions
    rows = (regions.type == MEM_IMAGE) & (regions.state == MEM_COMMIT) & (len(spans) > 0)
    rows &= np.isin(regions.protect & np.uint32(0xFF), WRITABLE)
    found = [np.empty(0, np.uint64)]
    for start, size in zip(
        regions.base_address[rows].tolist(), regions.region_size[rows].tolist(), strict=True
    ):
        for _, count, offset in zip(*memory.extents(start, start + size), strict=True):
            words = memory.data[int(offset) : int(offset) + int(count) // 8 * 8].view("<u8")
            found.append(words[np.isin(words, spans)])
    return np.unique(np.concatenate(found))


def _joined(first: Slabs, second: Slabs) -> Slabs:
    """Both, ascending by start."""
    start = np.concatenate((first.start, second.start))
    order = np.argsort(start, kind="stable")

    def both(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate((one, other))[order]

    lists = tuple(
        FreeLists(both(a.heads, b.heads), both(a.lengths, b.lengths))
        for a, b in zip(first.lists, second.lists, strict=True)
    )
    return Slabs(
        start[order],
        both(first.size, second.size),
        both(first.count, second.count),
        lists,
        both(first.doubtful, second.doubtful),
        np.union1d(first.free_elsewhere, second.free_elsewhere),
    )


def _with_lists_of_heaps(memory: AddressSpace, slabs: Slabs, pages: NDArray[np.void]) -> Slabs:
    """With the free blocks that heaps have; where a list cannot be followed, its blocks are not known.

    What a heap hands out next is from one page of each size class. What other threads freed is from full
    pages, many of them.
    """
    found, doubtful = [slabs.free_elsewhere], slabs.doubtful.copy()
    heads = np.zeros((len(slabs), 1), np.uint64)
    for heap in np.unique(pages["heap"]).tolist():
        mine = pages["heap"] == np.uint64(heap)
        next_ones, present = memory.gather(_words_at(heap + LOCAL_FREE, SIZE_CLASSES), "<u8")
        freed, freed_present = memory.gather(_words_at(heap + THREAD_FREE, len(PAGE_BYTES)), "<u8")
        blank = is_blank(memory, np.array([heap + LOCAL_FREE], np.uint64))[0]
        if blank or not (present.all() and freed_present.all()):
            doubtful |= mine
            continue
        classes = np.flatnonzero(next_ones)
        page = slabs.page_of(next_ones[classes])
        known = (page >= 0) & mine[page] & (pages["size_class"][page] == classes)
        doubtful |= mine & np.isin(pages["size_class"], classes[~known])
        heads[page[known], 0] = next_ones[classes[known]]
        for kind in np.flatnonzero(freed).tolist():
            blocks, whole = chain(memory, int(freed[kind]), slabs)
            found.append(blocks)
            if not whole:
                full = (pages["flags"] & IS_FULL) != 0
                doubtful |= mine & full & (pages["page_type"] == kind)
    handed = FreeLists(heads, np.full(len(slabs), -1, np.int64))
    elsewhere = np.unique(np.concatenate(found))
    lists = (*slabs.lists, handed)
    return replace(slabs, lists=lists, doubtful=doubtful, free_elsewhere=elsewhere)


def _words_at(address: int, count: int) -> U64:
    return np.uint64(address) + np.arange(count, dtype=np.uint64) * np.uint64(8)
