"""Which kinds of heap there are, and which heaps a process has.

A heap that is recognised but cannot be read is still listed, with the reason: an answer that leaves out a
heap must say so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from windumps.diagnostics import Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import Heap, HeapContext
from windumps.heaps.heap_list import complete_heap_list, cut_heap_list
from windumps.heaps.nt import heap as nt_heap
from windumps.heaps.nt.segments import SEGMENT_SIGNATURE
from windumps.heaps.page_heap import heap as page_heap
from windumps.heaps.page_heap.list import put_page_heaps
from windumps.heaps.segment import heap as segment_heap
from windumps.heaps.xp import heap as xp_heap
from windumps.memory import AddressSpace
from windumps.process.views import MAX_HEAPS, ProcessView


class HeapKind(NamedTuple):
    """One kind of heap.

    Attributes:
        name: The interface's word.
        detect: Tells from memory, the handle and the pointer size.
        open: Opens it, or None when this kind is recognised only.
        signature: The word two pointers behind the handle, by which it can be searched for; 0 for none.
    """

    name: str
    detect: Callable[[AddressSpace, int, int], bool]
    open: Callable[[HeapContext, int, int], Heap] | None
    signature: int = 0


def _word(memory: AddressSpace, address: int) -> int | None:
    try:
        return memory.read_uint(address, 4)
    except MemoryReadError:
        return None


WINE_MAGIC = 0x50414548  # "HEAP"
WINE_HEADER_BYTES = 0x200


def _is_nt_like(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """Bears the NT heap's segment signature, as Wine's heap does, too."""
    return _word(memory, address + 2 * pointer_size) == SEGMENT_SIGNATURE


def _is_wine(memory: AddressSpace, address: int, pointer_size: int) -> bool:
    """NT-like, with the magic number of Wine's own `struct heap` (dlls/ntdll/heap.c)."""
    head = memory.read_available(address, WINE_HEADER_BYTES)
    words = np.frombuffer(head[: len(head) // 4 * 4], "<u4")
    return _is_nt_like(memory, address, pointer_size) and bool((words == WINE_MAGIC).any())


# The first row that detects a heap wins.
HEAP_KINDS: tuple[HeapKind, ...] = (
    HeapKind(nt_heap.NAME, nt_heap.detect, nt_heap.open_nt_heap, SEGMENT_SIGNATURE),
    HeapKind(
        segment_heap.NAME,
        segment_heap.detect,
        segment_heap.open_segment_heap,
        segment_heap.SIGNATURE,
    ),
    HeapKind(xp_heap.NAME, xp_heap.detect, xp_heap.open_xp_heap, xp_heap.SIGNATURE),
    HeapKind(page_heap.NAME, page_heap.detect, page_heap.open_page_heap),
    HeapKind("wine", _is_wine, None),
)

UNREAD_REASONS = {"wine": "Wine's own heap, which is not Windows' and is not read"}


@dataclass(frozen=True)
class ProcessHeap:
    """One entry of a process's heap list.

    Attributes:
        address: The handle.
        ordinal: Position in the list, from 0.
        architecture: "x86" or "x64".
        kind: A name of `HEAP_KINDS`, "absent" (not in the dump) or "unknown".
        heap: The reader, or None.
        reason: Why there is no reader; "" when there is one.
    """

    address: int
    ordinal: int
    architecture: str
    kind: str
    heap: Heap | None
    reason: str = ""


def process_heaps(view: ProcessView, most: int = MAX_HEAPS) -> list[ProcessHeap]:
    """All heaps of a process in the order of its own list, opened where that is possible.

    Args:
        view: The process.
        most: How many heaps are read at most.
    """
    context = HeapContext(
        view.memory,
        view.architecture,
        view.build,
        view.ntdll(),
        view.nt_global_flag or 0,
        view.log,
        view.exact_layouts,
    )
    complete_heap_list(view, context, [kind for kind in HEAP_KINDS if kind.signature])
    pages = put_page_heaps(view, context)
    cut_heap_list(view, most)
    there = _may_be_there(context, view.heap_addresses)
    heaps = [
        _rootless(context, address, ordinal)
        if address in pages.rootless
        else _open(context, address, ordinal, there=there[ordinal])
        for ordinal, address in enumerate(view.heap_addresses)
    ]
    for entry in heaps:
        if isinstance(entry.heap, page_heap.PageHeap):
            entry.heap.normal_heap = pages.normal.get(entry.address, entry.heap.normal_heap)
            entry.heap.stamps = pages.stamps
    segment_heap.introduce(entry.heap for entry in heaps)
    return heaps


def _rootless(context: HeapContext, address: int, ordinal: int) -> ProcessHeap:
    heap = page_heap.PageHeap(context, address, ordinal, None)
    return ProcessHeap(address, ordinal, context.architecture, heap.kind, heap)


def _may_be_there(context: HeapContext, addresses: list[int]) -> list[bool]:
    """False for heaps of which the dump has neither the beginning nor a page heap's root."""
    handles = np.array(addresses, np.uint64)
    found = context.memory.locate(handles, 4) >= 0
    found |= context.memory.locate(handles + np.uint64(2 * context.pointer_size), 4) >= 0
    found |= context.memory.locate(handles + np.uint64(page_heap.ROOT_OFFSET), 4) >= 0
    present: list[bool] = found.tolist()
    return present


def _open(context: HeapContext, address: int, ordinal: int, *, there: bool) -> ProcessHeap:
    def unread(kind: str, reason: str) -> ProcessHeap:
        context.log.add(
            f"heap-{'absent' if kind == 'absent' else 'not-read'}",
            Severity.ERROR,
            "_HEAP",
            address,
            f"heap {ordinal} at 0x{address:x}: {reason}",
        )
        return ProcessHeap(address, ordinal, context.architecture, kind, None, reason)

    for kind in HEAP_KINDS if there else ():
        if not kind.detect(context.memory, address, context.pointer_size):
            continue
        if kind.open is None:
            return unread(kind.name, UNREAD_REASONS[kind.name])
        try:
            heap = kind.open(context, address, ordinal)
        except HeapError as error:
            return unread(kind.name, str(error))
        return ProcessHeap(address, ordinal, context.architecture, kind.name, heap)
    if _word(context.memory, address) is None:
        return unread("absent", "its first page is not in the dump")
    if _is_nt_like(context.memory, address, context.pointer_size):
        return unread(
            "unknown", "an NT heap's signature, but the rest of its header is no known heap's"
        )
    return unread("unknown", "what is there is no heap of a known kind")
