"""Segment heap, large allocations: a red-black tree of records, each for memory of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.memory import AddressSpace
from windumps.windows.layouts import LayoutRow

MAX_NODES = 1 << 20
PAGE_SHIFT = 12


@dataclass(frozen=True)
class LargeBlocks:
    """Large allocations, ascending, as columns.

    Attributes:
        address: uint64.
        size: int64, bytes of pages.
        unused: int64, bytes at the end nobody asked for.
        extra: bool, something of the heap's own lies behind the user's bytes.
    """

    address: NDArray[np.uint64]
    size: NDArray[np.int64]
    unused: NDArray[np.int64]
    extra: NDArray[np.bool_]


def read_large(memory: AddressSpace, row: LayoutRow, heap: int, log: DiagnosticLog) -> LargeBlocks:
    """Walks the tree of `_HEAP_LARGE_ALLOC_DATA`; a node that cannot be reached costs what hangs on it."""
    pointer = row.pointer_size
    tree = heap + row.offset("_SEGMENT_HEAP", "LargeAllocMetadata")
    try:
        root = memory.read_uint(tree, pointer)
        # Bit 0 of the pointer to the least node: links are XORed with the address they are stored at.
        encoded = memory.read_uint(tree + pointer, pointer) & 1
    except MemoryReadError as error:
        log.add("large-tree-absent", Severity.WARNING, "_RTL_RB_TREE", tree, str(error))
        return _columns([])
    if encoded and root:
        root ^= tree
    found: list[tuple[int, int, int, int]] = []
    pending = [root] if root else []
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        trouble = ""
        if node in seen:
            trouble = "is reached twice: the tree runs in a circle"
        elif len(seen) >= MAX_NODES:
            trouble = f"is one too many: the tree has more than {MAX_NODES} nodes"
        else:
            seen.add(node)
            try:
                record = row.read(memory, "_HEAP_LARGE_ALLOC_DATA", node)
            except MemoryReadError as error:
                trouble = f"cannot be read: {error}"
        if trouble:
            log.add(
                "large-tree-broken",
                Severity.WARNING,
                "_HEAP_LARGE_ALLOC_DATA",
                node,
                f"the node at 0x{node:x} {trouble}; large allocations below it are missing",
            )
            continue
        for at in (0, pointer):
            child = int.from_bytes(record.raw[at : at + pointer], "little")
            if child:
                pending.append(child ^ node if encoded else child)
        word, pages = record["VirtualAddress"], record["AllocatedPages"]
        address, size = word & ~0xFFFF, pages >> PAGE_SHIFT << PAGE_SHIFT
        unused = word & 0xFFFF
        if not address or not size or unused > size or address + size > 1 << 8 * pointer:
            log.add(
                "large-node-damaged",
                Severity.WARNING,
                "_HEAP_LARGE_ALLOC_DATA",
                node,
                f"the record at 0x{node:x} makes no sense and is left out",
            )
            continue
        found.append((address, size, unused, pages & 1))
    return _columns(sorted(found))


def _columns(found: list[tuple[int, int, int, int]]) -> LargeBlocks:
    return LargeBlocks(
        np.array([row[0] for row in found], np.uint64),
        np.array([row[1] for row in found], np.int64),
        np.array([row[2] for row in found], np.int64),
        np.array([row[3] != 0 for row in found], np.bool_),
    )
