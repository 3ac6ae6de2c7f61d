"""`_DPH_HEAP_BLOCK`: the nodes in which page heap keeps account of its blocks, on lists and in a tree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, PAGE_SIZE, U32, U64
from windumps.errors import MemoryReadError
from windumps.heaps.base import HeapContext
from windumps.heaps.nt.entries import Mask
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace
from windumps.memory.lists import list_nodes

STRUCTURE = "_DPH_HEAP_BLOCK"
MAX_NODES = 1 << 22
MAX_PAGES = 1 << 12  # kept by a reader of pointers
MAX_DEPTH = 64  # an AVL tree of 2**32 nodes is less than 47 deep

STATE_FREE = 0x04
STATE_AVAILABLE = 0x08
STATE_BUSY = 0x20
FREE_FLAG_COMMITTED = 0x04


class Nodes(NamedTuple):
    """Nodes as columns; those that are not in the dump are left out.

    Attributes:
        node: uint64, address of each `_DPH_HEAP_BLOCK`.
        user: uint64, what the program got.
        block: uint64, first page.
        size: int64, bytes of the pages, guard page included.
        access: int64, bytes of the pages before the guard page.
        requested: int64, bytes the program asked for.
        trace: uint64, address of the recorded stack, or 0.
        state: uint32; 0 where the layout keeps none.
        free_flags: uint32, meaningful for free nodes only; 0 where the layout keeps none.
    """

    node: U64
    user: U64
    block: U64
    size: I64
    access: I64
    requested: I64
    trace: U64
    state: U32
    free_flags: U32

    def take(self, keep: Mask | I64) -> Nodes:
        """The nodes where `keep` is true, or those with these numbers."""
        return Nodes._make(column[keep] for column in self)

    def as_pages(self, which: Mask) -> Nodes:
        """All nodes, those marked as mere pages: what they say of a block is left over from earlier."""
        return self._replace(
            user=np.where(which, self.block, self.user),
            requested=np.where(which, 0, self.requested),
        )

    def plausible(self) -> Mask:
        """True where a node can describe a block: whole pages, and the user area inside them."""
        into = (self.user - self.block).astype(np.int64)  # wraps to a negative or huge distance
        return np.asarray(
            ((self.block & np.uint64(PAGE_SIZE - 1)) == 0)
            & (((self.size | self.access) & (PAGE_SIZE - 1)) == 0)
            & (self.access > 0)
            & (self.access <= self.size)
            & (into >= 0)
            & (self.requested >= 0)
            & (into <= self.access)
            & (self.requested <= self.access - into)
        )


def read_nodes(context: HeapContext, row: LayoutRow, addresses: list[int] | U64) -> Nodes:
    """Reads nodes; sizes too large to be any become -1."""
    node = np.array(addresses, np.uint64)
    pointer = f"<u{context.pointer_size}"
    complete = np.ones(len(node), bool)

    def column(name: str) -> U64:
        if not row.has(STRUCTURE, name):
            return np.zeros(len(node), np.uint64)
        dtype = "<u4" if row.field_size(STRUCTURE, name) == 4 else pointer
        values, present = context.memory.gather(
            node + np.uint64(row.offset(STRUCTURE, name)), dtype
        )
        np.logical_and(complete, present, out=complete)
        return values.astype(np.uint64)

    size = length(column("nVirtualBlockSize"))
    access = size - PAGE_SIZE
    if row.has(STRUCTURE, "nVirtualAccessSize"):
        access = length(column("nVirtualAccessSize"))
    nodes = Nodes(
        node,
        column("pUserAllocation"),
        column("pVirtualBlock"),
        size,
        access,
        length(column("nUserRequestedSize")),
        column("StackTrace"),
        column("State").astype(np.uint32),
        column("FreeFlags").astype(np.uint32),
    )
    return nodes.take(complete)


def length(values: U64) -> I64:
    """Sizes as signed numbers, -1 for those too large to be any."""
    small = values < np.uint64(1 << 47)
    return np.where(small, values, 0).astype(np.int64) - (~small).astype(np.int64)


@dataclass
class PointerReader:
    """Reads pointers of chains, a page at a time: their nodes lie close together."""

    memory: AddressSpace
    pointer_size: int
    _pages: dict[int, bytes] = field(default_factory=dict)

    def read_uint(self, address: int, size: int) -> int:
        """An integer at `address`.

        Raises:
            MemoryReadError: it is not in the dump.
        """
        page, at = address & ~0xFFF, address & 0xFFF
        raw = self._pages.get(page)
        if raw is None:
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            raw = self._pages[page] = self.memory.read_available(page, PAGE_SIZE)
        if at + size > len(raw):
            return self.memory.read_uint(address, size)
        return int.from_bytes(raw[at : at + size], "little")


def chain_nodes(
    reader: PointerReader, first: int, link: int, limit: int = MAX_NODES
) -> tuple[list[int], str | None]:
    """Nodes of a chain that ends with a null pointer, and why it ended otherwise, or None.

    Args:
        reader: Reads the chain.
        first: The first node, 0 for none.
        link: Where in a node the pointer to the next one stands.
        limit: Most nodes to follow it.
    """
    nodes: list[int] = []
    seen: set[int] = set()
    node = first
    while node:
        if len(nodes) >= limit:
            return nodes, f"the list has more than {limit} nodes"
        if node in seen:
            return nodes, f"the list runs in a circle at 0x{node:x}"
        try:
            following = reader.read_uint(node + link, reader.pointer_size)
        except MemoryReadError as error:
            return nodes, str(error)
        seen.add(node)
        nodes.append(node)
        node = following
    return nodes, None


def ring_nodes(reader: PointerReader, head: int, link: int) -> tuple[list[int], str | None]:
    """Nodes of a circular list of LIST_ENTRYs; see `list_nodes`.

    Args:
        reader: Reads the list.
        head: Address of the list's head.
        link: Where in a node its LIST_ENTRY stands.
    """
    entries, trouble = list_nodes(reader, head, reader.pointer_size)
    return [entry - link for entry in entries], trouble


def tree_nodes(
    context: HeapContext, row: LayoutRow, table: int, depth: int = MAX_DEPTH
) -> tuple[U64, list[int]]:
    """Nodes of an `_RTL_AVL_TABLE`, level by level, and those that were named but do not check out.

    At most `depth` levels; a node of the first one left out is among the bad ones. Every node points back to
    its parent, so none can be reached twice but the table's own links, which are their own parent.
    """
    pointer = f"<u{context.pointer_size}"
    right = row.offset("_RTL_BALANCED_LINKS", "RightChild")
    offsets = (row.offset("_RTL_BALANCED_LINKS", "LeftChild"), right)
    found: list[U64] = []
    bad: list[int] = []
    total = 0
    # The table's own links stand for a node whose right child is the root.
    level = np.array([table], np.uint64)
    children = np.array([table + right], np.uint64)
    parents = level
    for _ in range(depth):
        child, present = context.memory.gather(children, pointer)
        child = child.astype(np.uint64)
        bad += parents[~present].tolist()
        named = child != 0
        child, parents = child[named], parents[named]
        back, readable = context.memory.gather(
            child + np.uint64(row.offset("_RTL_BALANCED_LINKS", "Parent")), pointer
        )
        sound = readable & (back.astype(np.uint64) == parents) & (child != np.uint64(table))
        bad += child[~sound].tolist()
        level = np.unique(child[sound])
        total += len(level)
        if not len(level):
            break
        if total > MAX_NODES:
            bad.append(int(level[0]))
            break
        found.append(level)
        children = np.concatenate([level + np.uint64(offset) for offset in offsets])
        parents = np.concatenate([level, level])
    else:
        bad.append(int(level[0]))
    return np.concatenate([np.empty(0, np.uint64), *found]), bad
