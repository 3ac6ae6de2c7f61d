"""How well a `_DPH_HEAP_ROOT` fits a layout."""

from __future__ import annotations

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt import heap as nt_heap
from windumps.heaps.page_heap.nodes import (
    STATE_BUSY,
    PointerReader,
    chain_nodes,
    read_nodes,
    ring_nodes,
    tree_nodes,
)
from windumps.heaps.page_heap.pages import NODE, ROOT
from windumps.heaps.segment import heap as segment_heap
from windumps.heaps.xp import heap as xp_heap
from windumps.layouts.rows import LayoutRow, Record

SIGNATURE = 0xFFEEDDCC
SAMPLE_RANGES = 1 << 14  # of a megabyte and more each
SAMPLE_DEPTH = 6  # levels of the tree of busy blocks that are looked at


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
        first = root["pVirtualStorageListHead"]
        nodes, trouble = chain_nodes(reader, first, link, SAMPLE_RANGES)
    ranges = read_nodes(context, row, nodes)
    reserved = int(np.maximum(ranges.size, 0).sum())
    normal = root["NormalHeap"]
    checks = [
        root["Signature"] == SIGNATURE,
        (trouble is None and len(nodes) == root["nVirtualStorageRanges"])
        or len(nodes) == SAMPLE_RANGES <= root["nVirtualStorageRanges"],
        bool((ranges.block == np.uint64(address - PAGE_SIZE)).any()),  # it begins with the handle
        any(
            kind.detect(context.memory, normal, pointer)
            for kind in (nt_heap, xp_heap, segment_heap)
        ),
        root["nBusyAllocationBytesAccessible"] <= root["nBusyAllocationBytesCommitted"],
        root["nBusyAllocationBytesCommitted"] <= reserved,
    ]
    if row.has(ROOT, "BusyNodesTable"):
        busy = tree_nodes(context, row, root.address_of("BusyNodesTable"), SAMPLE_DEPTH)[0]
        checks += _tree_checks(context, row, root)
    else:
        link = row.offset(NODE, "pNextAlloc")
        first = root["pBusyAllocationListHead"]
        busy = np.array(chain_nodes(reader, first, link, 1 << SAMPLE_DEPTH)[0], np.uint64)
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
    score = sum(checks) / len(checks)
    if len(busy):
        # Roots of different forms are much alike; nodes are not, and they are what must not be misread.
        score = (score + _share_of_blocks(context, row, busy)) / 2
    return score, root


def _tree_checks(context: HeapContext, row: LayoutRow, root: Record) -> list[bool]:
    """The tree's head is its own parent, and counts as the root does."""
    table = root.address_of("BusyNodesTable")
    try:
        parent = row.read_field(context.memory, "_RTL_BALANCED_LINKS", "Parent", table)
        first = row.read_field(context.memory, "_RTL_BALANCED_LINKS", "RightChild", table)
        count = row.read_field(
            context.memory, "_RTL_AVL_TABLE", "NumberGenericTableElements", table
        )
    except MemoryReadError:
        return [False]
    return [parent == table, count == root["nBusyAllocations"], bool(first) == (count > 0)]


def _list_checks(
    context: HeapContext, row: LayoutRow, root: Record, reader: PointerReader
) -> list[bool]:
    """The first pool of nodes holds the root itself; the list of busy blocks is as empty as its count."""
    link = row.offset(NODE, "pNextAlloc")
    pools = read_nodes(
        context, row, chain_nodes(reader, root["pNodePoolListHead"], link, SAMPLE_RANGES)[0]
    )
    first, count = root["pBusyAllocationListHead"], root["nBusyAllocations"]
    return [bool((pools.block == np.uint64(root.address)).any()), bool(first) == (count > 0)]


def _share_of_blocks(context: HeapContext, row: LayoutRow, nodes: U64) -> float:
    """Share of busy nodes that can be blocks, and say that they are busy where they say it."""
    read = read_nodes(context, row, nodes)
    sound = read.plausible()
    if row.has(NODE, "State"):
        sound &= read.state == STATE_BUSY
    return int(sound.sum()) / len(nodes)
