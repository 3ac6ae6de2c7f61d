"""Look-aside lists of the XP heap, and the singly linked interlocked lists (SLISTs) they are made of.

A block on such a list keeps a busy header; to the program it is free. `RtlWalkHeap` empties the lists
before it walks, so tools inside the process never see them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U16, U64
from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace

LISTS = 128  # one for each block size in units of the granularity, header included


class CachedBlocks(NamedTuple):
    """Blocks on look-aside lists, ascending by address.

    Attributes:
        address: uint64, what the program had.
        units: int64, block size in units, as the list says.
        cut: For each block size in units: True where not all of its list is known.
    """

    address: U64
    units: I64
    cut: Mask


def read_cached_blocks(context: HeapContext, row: LayoutRow, table: int) -> CachedBlocks:
    """The blocks on the lists of the table at `table`; 0 gives none."""
    address: list[int] = []
    units: list[int] = []
    cut = np.zeros(LISTS, bool)
    depth = _depths(context, row, table)[0] if table else np.empty(0, np.uint16)
    common = np.bincount(depth).argmax() if len(depth) else 0
    for index in range(LISTS if table else 0):
        head = table + index * row.size("_HEAP_LOOKASIDE")
        nodes, trouble = slist_nodes(context.memory, head, context.pointer_size)
        if trouble is None and (not common or depth[index] != common):
            trouble = "its head is damaged"
        if trouble is None and not nodes:
            trouble = _erased(context, row, head)
        if trouble is not None:
            cut[index] = True
            context.log.add(
                "lookaside-list-cut",
                Severity.WARNING,
                "_HEAP_LOOKASIDE",
                head,
                f"{trouble}; blocks of {index * context.granularity} bytes that may be on it are not walked",
            )
        address += nodes
        units += [index] * len(nodes)
    order = np.argsort(np.array(address, np.uint64), kind="stable")
    return CachedBlocks(np.array(address, np.uint64)[order], np.array(units, np.int64)[order], cut)


def _erased(context: HeapContext, row: LayoutRow, head: int) -> str | None:
    """Why a list that seems empty is not believed: nothing in its head says that it ever held a block.

    Each push and pop changes the head's sequence number, so it is zero only while nothing was pushed; the
    counters tell how many were.
    """
    size = row.field_size("_HEAP_LOOKASIDE", "ListHead")
    if any(context.memory.read_available(head, size)):
        return None
    try:
        allocations, misses, frees, refused = (
            row.read_field(context.memory, "_HEAP_LOOKASIDE", name, head)
            for name in ("TotalAllocates", "AllocateMisses", "TotalFrees", "FreeMisses")
        )
    except MemoryReadError as error:
        return str(error)
    count = frees - refused - (allocations - misses) & 0xFFFFFFFF
    return f"its head is zero, its counters tell of {count} entries" if count else None


def may_be_cached(
    context: HeapContext,
    cached: CachedBlocks,
    header: U64,
    size: I64,
    busy: Mask,
    ranges: list[tuple[int, int]],
) -> U64:
    """Headers of busy blocks that may be on a list that is not known as a whole, ascending.

    Such a block begins with a pointer: to the next block on the list, which has its size or is not known
    either, or null. All blocks of a heap are given; only those of a size whose list is cut can be meant.
    `ranges` are those of its segments, as (start, bytes).
    """
    granularity = np.uint64(context.granularity)
    order = np.argsort(header)
    header, size, busy = header[order], size[order], busy[order]
    units = size // context.granularity
    wanted = busy & (units < LISTS) & cached.cut[np.minimum(units, LISTS - 1)]
    at = np.flatnonzero(wanted)
    user = header[at] + granularity
    pointer, present = context.memory.gather(user, f"<u{context.pointer_size}")
    target = pointer.astype(np.uint64) - granularity
    inside = np.maximum(np.searchsorted(header, target, "right") - 1, 0)
    apart = (target - header[inside]).astype(np.int64)
    known = (target >= header[inside]) & (apart < size[inside])
    same = (apart == 0) & (size[inside] == size[at]) & busy[inside]
    possible = (target & (granularity - np.uint64(1))) == (
        header[at] & (granularity - np.uint64(1))
    )
    in_heap = np.zeros(len(target), bool)
    for start, length in ranges:
        in_heap |= target - np.uint64(start) < np.uint64(length)
    linked = possible & in_heap & np.where(known, same, True)
    return np.asarray(header[at][~present | (pointer == 0) | linked])


def is_lookaside_table(context: HeapContext, row: LayoutRow, address: int) -> bool:
    """True where memory holds 128 look-aside lists: all have the same, non-zero greatest depth.

    A table stays in the heap when the LFH takes over or look-asides are switched off, and nothing points to
    it then.
    """
    depth, present = _depths(context, row, address)
    return bool(present.all() and depth[0] and (depth == depth[0]).all())


def _depths(context: HeapContext, row: LayoutRow, table: int) -> tuple[U16, Mask]:
    """MaximumDepth of each list, and which are in the dump."""
    steps = np.arange(LISTS, dtype=np.uint64) * np.uint64(row.size("_HEAP_LOOKASIDE"))
    at = np.full(LISTS, table, np.uint64) + np.uint64(row.offset("_HEAP_LOOKASIDE", "MaximumDepth"))
    depth, present = context.memory.gather(at + steps, "<u2")
    return depth, present


def slist_nodes(memory: AddressSpace, head: int, pointer_size: int) -> tuple[list[int], str | None]:
    """Entries of an SLIST, and why the walk ended early, or None.

    The header holds a depth of 16 bits, which bounds the walk. Pointers of x64 are packed (winnt.h,
    SLIST_HEADER): shifted into 39 bits, or in a second word where the processor has a 16-byte exchange.
    """
    nodes: list[int] = []
    seen: set[int] = set()
    try:
        first = memory.read_uint(head, 8)
        if pointer_size == 4:
            node, depth = first & 0xFFFFFFFF, first >> 32 & 0xFFFF
        else:
            second = memory.read_uint(head + 8, 8)
            depth = first & 0xFFFF
            node = second & ~0xF if second & 1 else (first >> 25 & (1 << 39) - 1) << 4
        while node:
            if node in seen or len(nodes) >= depth:
                return nodes, f"the list is longer than the {depth} entries it counts"
            seen.add(node)
            following = memory.read_uint(node, pointer_size)
            nodes.append(node)
            node = following
    except MemoryReadError as error:
        return nodes, str(error)
    return nodes, None if len(nodes) == depth else f"the list has {len(nodes)} of {depth} entries"
