"""Heaps by their signatures, for processes whose list of heaps is absent, cut or damaged.

A heap stands at the beginning of a private allocation, names itself in its header, and its lists close: all
checks of its kind are made, and nearly all must hold. So neither a shared section with another process's
heap, nor a copy of one, nor memory that merely bears a signature is taken for a heap of this process. Where
the dump does not list regions, shared memory is told by the PEB alone, and addresses that allocations can
begin at are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from windumps.diagnostics import DiagnosticLog
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import Heap, HeapContext
from windumps.memory import AddressSpace
from windumps.memory.address_space import U64
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE
from windumps.windows.process import ProcessView
from windumps.windows.process_blocks import offsets_of, read_pointer

GRANULARITY = 0x10000  # allocations begin at multiples of this
LEAST_SCORE = 0.9  # of a heap that is on no list: one check of its header may fail
SHARED_BYTES = 0x100000  # CSRSS's section of heaps for all processes, at most


class ListIndex(NamedTuple):
    """Where a heap's header keeps its place in the PEB's list, counted from 1, from one build on."""

    first_build: int
    kind: str
    x86: int
    x64: int


# `_HEAP.ProcessHeapsListIndex` and `_SEGMENT_HEAP.ProcessHeapListIndex` of the public types; 26100 keeps 0.
LIST_INDEX = (
    ListIndex(2600, "nt", 0x30, 0x50),
    ListIndex(6000, "nt", 0x80, 0xD8),
    ListIndex(9200, "nt", 0x7C, 0xD0),
    ListIndex(17763, "segment", 0x14, 0x1C),
)


class Searchable(Protocol):
    """A kind of heap that can be told by its signature; see `windumps.heaps.kinds.HeapKind`."""

    @property
    def name(self) -> str: ...
    @property
    def signature(self) -> int: ...
    @property
    def detect(self) -> Callable[[AddressSpace, int, int], bool]: ...
    @property
    def open(self) -> Callable[[HeapContext, int, int], Heap] | None: ...


def find_heaps(view: ProcessView, context: HeapContext, kinds: Sequence[Searchable]) -> list[int]:
    """Heaps in private memory that are not on the view's list.

    Args:
        view: The process and the list it has.
        context: The same process, for readers of heaps.
        kinds: What to look for.

    Returns:
        Handles: those whose place in the process's list is known in its order, then by address.
    """
    starts = allocation_starts(context.memory, view)
    signature, _ = context.memory.gather(starts + np.uint64(2 * view.pointer_size), "<u4")
    listed = set(view.heap_addresses)
    quiet = replace(context, log=DiagnosticLog())
    found = []
    for kind in kinds:
        for address in starts[signature == kind.signature].tolist():
            if address in listed or not kind.detect(context.memory, address, view.pointer_size):
                continue
            place = _checked(quiet, kind, address)
            if place is not None:
                found.append((place, address))
    return [address for _, address in sorted(found)]


def allocation_starts(memory: AddressSpace, view: ProcessView) -> U64:
    """Where private allocations begin; without a list of regions, where they may."""
    regions = memory.regions
    limit = np.uint64((1 << (8 * view.pointer_size)) - 1)
    if len(regions):
        rows = (regions.state == MEM_COMMIT) & (regions.type == MEM_PRIVATE)
        rows &= regions.base_address == regions.allocation_base
        starts = regions.base_address[rows]
    else:
        pieces = [np.empty(0, np.uint64)]
        for address, size in zip(
            memory.runs.address.tolist(), memory.runs.size.tolist(), strict=True
        ):
            first = -(-address // GRANULARITY) * GRANULARITY
            pieces.append(np.arange(first, address + size, GRANULARITY, dtype=np.uint64))
        starts = np.concatenate(pieces)
        for low, high in _not_private(memory, view):
            starts = starts[(starts < np.uint64(low)) | (starts >= np.uint64(high))]
    return starts[starts <= limit]


def _not_private(memory: AddressSpace, view: ProcessView) -> list[tuple[int, int]]:
    """Images, and the section that all processes share."""
    spans = [(module.base_address, module.end_address) for module in view.modules]
    if view.peb:
        offsets = offsets_of(view.architecture)
        shared = read_pointer(memory, view.peb + offsets.peb_shared_memory, offsets.pointer)
        if shared:
            spans.append((shared, shared + SHARED_BYTES))
    return spans


def _checked(context: HeapContext, kind: Searchable, address: int) -> int | None:
    """Opens what may be a heap; its place in the process's list, or None when it is no heap."""
    if kind.open is None:
        return None
    try:
        heap = kind.open(context, address, 0)
    except HeapError:
        return None
    choice = getattr(heap, "choice", None)
    if choice is None or choice.score < LEAST_SCORE:
        return None
    after_all = 1 << 16
    rows = [
        row
        for row in LIST_INDEX
        if row.kind == heap.kind and row.first_build <= choice.row.first_build
    ]
    if not rows:
        return after_all
    try:
        place = context.memory.read_uint(
            address + (rows[-1].x86 if context.architecture == "x86" else rows[-1].x64), 2
        )
    except MemoryReadError:
        return after_all
    return place or after_all
