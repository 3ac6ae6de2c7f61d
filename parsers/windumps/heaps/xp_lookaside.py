"""Look-aside lists of the XP heap, and the singly linked interlocked lists (SLISTs) they are made of.

A block on such a list keeps a busy header; to the program it is free. `RtlWalkHeap` empties the lists
before it walks, so tools inside the process never see them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from windumps.diagnostics import Severity
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt_entries import I64, U64
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow

LISTS = 128  # one for each block size in units of the granularity, header included


class CachedBlocks(NamedTuple):
    """Blocks on look-aside lists, ascending by address.

    Attributes:
        address: uint64, what the program had.
        units: int64, block size in units, as the list says.
    """

    address: U64
    units: I64


def read_cached_blocks(context: HeapContext, row: LayoutRow, table: int) -> CachedBlocks:
    """The blocks on the lists of the table at `table`; 0 gives none."""
    address: list[int] = []
    units: list[int] = []
    for index in range(LISTS if table else 0):
        head = table + index * row.size("_HEAP_LOOKASIDE")
        nodes, trouble = slist_nodes(context.memory, head, context.pointer_size)
        if trouble is not None:
            context.log.add(
                "lookaside-list-cut",
                Severity.WARNING,
                "_HEAP_LOOKASIDE",
                head,
                f"{trouble}; freed blocks of {index * context.granularity} bytes may be taken for used ones",
            )
        address += nodes
        units += [index] * len(nodes)
    order = np.argsort(np.array(address, np.uint64), kind="stable")
    return CachedBlocks(np.array(address, np.uint64)[order], np.array(units, np.int64)[order])


def is_lookaside_table(context: HeapContext, row: LayoutRow, address: int) -> bool:
    """True where memory holds 128 look-aside lists: all have the same, non-zero greatest depth.

    A table stays in the heap when the LFH takes over or look-asides are switched off, and nothing points to
    it then.
    """
    at = address + row.offset("_HEAP_LOOKASIDE", "MaximumDepth")
    steps = np.arange(LISTS, dtype=np.uint64) * np.uint64(row.size("_HEAP_LOOKASIDE"))
    depth, present = context.memory.gather(np.uint64(at) + steps, "<u2")
    return bool(present.all() and depth[0] and (depth == depth[0]).all())


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
