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

from windumps.arrays import U64
from windumps.diagnostics import DiagnosticLog
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import Heap, HeapContext
from windumps.memory import AddressSpace
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE
from windumps.process.environment_blocks import offsets_of, read_pointer
from windumps.process.views import ProcessView

GRANULARITY = 0x10000  # allocations begin at multiples of this
LEAST_SCORE = 0.9  # of a heap that is on no list: one check of its header may fail
LAST_ADDRESS = (1 << 64) - 1
SHARED_BYTES = 0x100000  # CSRSS's section of heaps for all processes, at most


class ListIndex(NamedTuple):
    """Where a heap's header keeps its place in the PEB's list, counted from 1, from one build on."""

    first_build: int
    kind: str
    offset: dict[str, int | None]


# `_HEAP.ProcessHeapsListIndex` and `_SEGMENT_HEAP.ProcessHeapListIndex` of the public types. ntdll's own
# heap of records on x86 has 0, and is not on the list. 26100 lists heaps elsewhere.
LIST_INDEX = (
    ListIndex(2600, "nt", {"x86": 0x30, "x64": 0x50}),
    ListIndex(6000, "nt", {"x86": 0x80, "x64": 0xD8}),
    ListIndex(9200, "nt", {"x86": 0x7C, "x64": 0xD0}),
    ListIndex(17763, "segment", {"x86": 0x14, "x64": 0x1C}),
    ListIndex(26100, "segment", {"x86": None, "x64": None}),
)


class Searchable(Protocol):
    """A kind of heap that can be told by its signature; see `windumps.heaps.kinds.HeapKind`."""

    @property
    def signature(self) -> int:
        """The word two pointers behind the handle."""
        ...

    @property
    def detect(self) -> Callable[[AddressSpace, int, int], bool]:
        """Tells from memory, the handle and the pointer size."""
        ...

    @property
    def open(self) -> Callable[[HeapContext, int, int], Heap] | None:
        """Opens it; None when it is recognised only."""
        ...


class FoundHeap(NamedTuple):
    """A heap that was found.

    Attributes:
        place: Its place in the PEB's list, from 1, as its header says; 0 when it says it is on none, None
            when headers of its kind and build do not say.
        address: The handle.
    """

    place: int | None
    address: int


def find_heaps(
    view: ProcessView, context: HeapContext, kinds: Sequence[Searchable]
) -> list[FoundHeap]:
    """Heaps in private memory that are not on the view's list.

    Args:
        view: The process and the list it has.
        context: The same process, for readers of heaps.
        kinds: What to look for.

    Returns:
        Those that name their place in the process's list in its order, then the others by address.
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
            heap = _checked(quiet, kind, address)
            if heap is not None:
                found.append(heap)
    return sorted(found, key=lambda heap: (not heap.place, heap.place or 0, heap.address))


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
            if high <= low:
                continue
            last = np.uint64(min(high - 1, LAST_ADDRESS))  # a damaged size may reach behind it
            starts = starts[(starts < np.uint64(min(low, LAST_ADDRESS))) | (starts > last)]
    fitting: U64 = starts[starts <= limit]
    return fitting


def _not_private(memory: AddressSpace, view: ProcessView) -> list[tuple[int, int]]:
    """Images, and the section that all processes share."""
    spans = [(module.base_address, module.end_address) for module in view.modules]
    if view.peb:
        offsets = offsets_of(view.architecture)
        shared = read_pointer(memory, view.peb + offsets.peb_shared_memory, offsets.pointer)
        if shared:
            spans.append((shared, shared + SHARED_BYTES))
    return spans


def _checked(context: HeapContext, kind: Searchable, address: int) -> FoundHeap | None:
    """Opens what may be a heap; None when it is none."""
    if kind.open is None:
        return None
    try:
        heap = kind.open(context, address, 0)
    except HeapError:
        return None
    choice = getattr(heap, "choice", None)
    if choice is None or choice.score < LEAST_SCORE:
        return None
    build = choice.row.first_build
    rows = [row for row in LIST_INDEX if row.kind == heap.kind and row.first_build <= build]
    offset = rows[-1].offset[context.architecture] if rows else None
    if offset is None:
        return FoundHeap(None, address)
    try:
        return FoundHeap(context.memory.read_uint(address + offset, 2), address)
    except MemoryReadError:
        return FoundHeap(None, address)
