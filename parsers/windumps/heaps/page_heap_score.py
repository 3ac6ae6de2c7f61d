"""How well a `_DPH_HEAP_ROOT` fits a layout."""

from __future__ import annotations

import numpy as np

from windumps.errors import MemoryReadError
from windumps.heaps import nt_heap, xp_heap
from windumps.heaps.base import HeapContext
from windumps.heaps.page_heap_nodes import (
    PAGE_SIZE,
    PointerReader,
    chain_nodes,
    read_nodes,
    ring_nodes,
)
from windumps.heaps.page_heap_pages import NODE, ROOT
from windumps.windows.layouts import LayoutRow, Record

SIGNATURE = 0xFFEEDDCC


def score_root(context: HeapContext, row: LayoutRow, address: int) -> tuple[float, Record] | None:
    """Share of the self-consistency checks that the root at `address` passes, and the root as read.

    None when it is not in the dump.
    """
    try:
        root = row.read(context.memory, ROOT, address)
    except MemoryReadError:
        return None
    pointer = context.pointer_size
    reader = PointerReader(context.memory, pointer)
    if row.has(ROOT, "VirtualStorageList"):
        nodes, trouble = ring_nodes(reader, root.address_of("VirtualStorageList"), 0)
    else:
        link = row.offset(NODE, "pNextAlloc")
        nodes, trouble = chain_nodes(reader, root["pVirtualStorageListHead"], link)
    ranges = read_nodes(context, row, nodes)
    reserved = int(np.maximum(ranges.size, 0).sum())
    normal = root["NormalHeap"]
    checks = [
        root["Signature"] == SIGNATURE,
        trouble is None and len(nodes) == root["nVirtualStorageRanges"],
        bool((ranges.block == np.uint64(address - PAGE_SIZE)).any()),  # it begins with the handle
        nt_heap.detect(context.memory, normal, pointer)
        or xp_heap.detect(context.memory, normal, pointer),
        root["nBusyAllocationBytesAccessible"] <= root["nBusyAllocationBytesCommitted"],
        root["nBusyAllocationBytesCommitted"] <= reserved,
    ]
    if row.has(ROOT, "BusyNodesTable"):
        checks += _tree_checks(context, row, root)
    else:
        checks += _list_checks(context, row, root, reader)
    if row.has(ROOT, "nNodePoolBytes"):
        free = root["pFreeAllocationListHead"]
        checks += [
            root["nNodePoolBytes"] <= reserved,
            bool(free) == (root["nFreeAllocations"] > 0),
        ]
    if row.has(ROOT, "NodePoolCommitEnd"):
        end = root["NodePoolReserveEnd"]
        low, high = ranges.block, ranges.block + np.maximum(ranges.size, 0).astype(np.uint64)
        checks += [
            root["NodePoolCommitEnd"] <= end,
            bool(((low <= np.uint64(end)) & (np.uint64(end) <= high)).any()),
        ]
    return sum(checks) / len(checks), root


def _tree_checks(context: HeapContext, row: LayoutRow, root: Record) -> list[bool]:
    """The tree's head is its own parent, counts as the root does, and its first node can be a block."""
    table = root.address_of("BusyNodesTable")
    try:
        parent = row.read_field(context.memory, "_RTL_BALANCED_LINKS", "Parent", table)
        first = row.read_field(context.memory, "_RTL_BALANCED_LINKS", "RightChild", table)
        count = row.read_field(
            context.memory, "_RTL_AVL_TABLE", "NumberGenericTableElements", table
        )
    except MemoryReadError:
        return [False]
    checks = [parent == table, count == root["nBusyAllocations"], bool(first) == (count > 0)]
    return checks + _first_block(context, row, first)


def _list_checks(
    context: HeapContext, row: LayoutRow, root: Record, reader: PointerReader
) -> list[bool]:
    """The first pool of nodes holds the root itself; the list of busy blocks is as empty as its count."""
    link = row.offset(NODE, "pNextAlloc")
    pools = read_nodes(context, row, chain_nodes(reader, root["pNodePoolListHead"], link)[0])
    first, count = root["pBusyAllocationListHead"], root["nBusyAllocations"]
    checks = [bool((pools.block == np.uint64(root.address)).any()), bool(first) == (count > 0)]
    return checks + _first_block(context, row, first)


def _first_block(context: HeapContext, row: LayoutRow, node: int) -> list[bool]:
    if not node:
        return []
    nodes = read_nodes(context, row, [node])
    return [bool(nodes.plausible().all())] if len(nodes.node) else []
