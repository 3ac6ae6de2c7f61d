"""Memory of heaps that could not be read, as far as the dump's list of regions tells.

It counts as heap memory that was not walked, so that neither is an answer called whole that leaves it out,
nor does it show up as private memory outside heaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dumpleak.process.session import HeapSource, Session
from windumps.arrays import PAGE_SIZE
from windumps.heaps.heap_search import allocation_starts
from windumps.memory.lists import list_nodes
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE
from windumps.process.views import ProcessView

HEAD_BYTES = 0x80  # of what belongs to a heap: segments and its front end begin with its handle

Span = tuple[int, int]


def unread_heaps(session: Session) -> list[HeapSource]:
    """The heaps that are listed and were not read."""
    return [source for source in session.heaps if source.entry.heap is None]


def unread_spans(session: Session) -> dict[int, list[Span]]:
    """(start, bytes) of committed memory by heap, for heaps that were not read.

    A heap has the allocation that it begins in, those that name it at their beginning, and large blocks on
    the list in its header. Empty for a heap whose memory the dump does not list.
    """
    found: dict[int, list[Span]] = {}
    for view in session.views:
        handles = [s.entry.address for s in unread_heaps(session) if s.view is view]
        if handles:
            found |= _spans_of(view, handles)
    # A word at the beginning of another allocator's memory may look like a handle.
    others = session.arena_ranges if found else []
    return {heap: [s for s in spans if not _inside(s, others)] for heap, spans in found.items()}


def _inside(span: Span, ranges: Sequence[Span]) -> bool:
    return any(start <= span[0] < start + size for start, size in ranges)


def unread_amounts(session: Session) -> tuple[int, int]:
    """Committed bytes of heaps that were not read, and how many of these are in the dump.

    A page is counted for each heap of which nothing is known.
    """
    memory = session.dump.memory
    known = unread_spans(session)
    unknown = sum(view.unlisted_heaps for view in session.views)
    unknown += sum(not known.get(source.entry.address) for source in unread_heaps(session))
    spans = [span for spans in known.values() for span in spans]
    committed = sum(size for _, size in spans) + unknown * PAGE_SIZE
    return committed, sum(memory.present_bytes(start, start + size) for start, size in spans)


def _spans_of(view: ProcessView, handles: Sequence[int]) -> dict[int, list[Span]]:
    regions = view.memory.regions
    if not len(regions):
        return {}
    owner: dict[int, int] = {}  # allocation -> heap
    for handle in handles:
        row = regions.row_of(handle)
        if row >= 0:
            owner.setdefault(int(regions.allocation_base[row]), handle)
    starts = allocation_starts(view.memory, view)
    for start, heap in _named(view, starts, handles):
        owner.setdefault(start, heap)
    for block, heap in _large_blocks(view, handles):
        row = regions.row_of(block)
        if row >= 0 and int(regions.type[row]) == MEM_PRIVATE:
            owner.setdefault(int(regions.allocation_base[row]), heap)
    committed = (regions.state == MEM_COMMIT) & np.isin(
        regions.allocation_base, np.array(list(owner), np.uint64)
    )
    found: dict[int, list[Span]] = {}
    for base, start, size in zip(
        regions.allocation_base[committed].tolist(),
        regions.base_address[committed].tolist(),
        regions.region_size[committed].tolist(),
        strict=True,
    ):
        found.setdefault(owner[base], []).append((start, size))
    return found


def _words(view: ProcessView, starts: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """The first words of allocations, one row each; zeros where they are not in the dump."""
    places = starts[:, None] + np.arange(count, dtype=np.uint64) * np.uint64(view.pointer_size)
    words, _ = view.memory.gather(places, f"<u{view.pointer_size}")
    return words.astype(np.uint64)


def _named(
    view: ProcessView, starts: NDArray[np.uint64], handles: Sequence[int]
) -> list[tuple[int, int]]:
    """Allocations that are segments or the front end of a heap, each with the heap that it names."""
    words = _words(view, starts, HEAD_BYTES // view.pointer_size)
    row, column = np.nonzero(np.isin(words, np.array(handles, np.uint64)))
    return list(zip(starts[row].tolist(), words[row, column].tolist(), strict=True))


def _large_blocks(view: ProcessView, handles: Sequence[int]) -> list[tuple[int, int]]:
    """Large blocks, each with its heap: on a list whose head is in the heap's header.

    Where the head stands there differs; a block's own links, at the beginning of its memory, lead to it.
    """
    regions = view.memory.regions
    committed = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
    pieces = regions.base_address[committed]
    links = _words(view, pieces, 2)
    in_header = np.isin(links & ~np.uint64(PAGE_SIZE - 1), np.array(handles, np.uint64))
    found = []
    for head in np.unique(links[in_header]).tolist():
        nodes, _ = list_nodes(view.memory, head, view.pointer_size)
        if nodes and not {node & ~(PAGE_SIZE - 1) for node in nodes} & set(handles):
            found += [(node, head & ~(PAGE_SIZE - 1)) for node in nodes]
    return found
