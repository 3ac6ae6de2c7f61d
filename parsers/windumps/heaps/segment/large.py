"""Segment heap, large allocations: a red-black tree of records, each for memory of its own.

Links go both ways, so a node is believed only when it names its parent. Where a link is broken, the tree is
entered again from its least node, which the root names too, and the pages the records lie in are searched
for records of memory that is there and that no other has. The heap counts the pages of all its large blocks.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import PAGE_SIZE
from windumps.blocks import SIZE_UNKNOWN
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.errors import MemoryReadError
from windumps.heaps.segment.large_check import Block, block_of, doubtful, memory_agrees
from windumps.layouts.rows import LayoutRow, Record
from windumps.memory import AddressSpace

MAX_NODES = 1 << 20
LEFT = 0
MOST_ADOPTED = 64  # children of broken links searched one by one; the others are searched together
MOST_UNUSED = 2 * PAGE_SIZE  # of the last page, and what is the heap's own


@dataclass(frozen=True)
class LargeBlocks:
    """Large allocations, ascending, as columns.

    Attributes:
        record: uint64, address of the `_HEAP_LARGE_ALLOC_DATA` that describes each.
        address: uint64.
        size: int64, bytes of pages.
        unused: int64, bytes at the end nobody asked for; `SIZE_UNKNOWN` where that cannot be right.
        extra: bool, something of the heap's own lies behind the user's bytes.
        missing_bytes: What the heap counts and no record describes.
    """

    record: NDArray[np.uint64]
    address: NDArray[np.uint64]
    size: NDArray[np.int64]
    unused: NDArray[np.int64]
    extra: NDArray[np.bool_]
    missing_bytes: int


def read_large(memory: AddressSpace, row: LayoutRow, heap: int, log: DiagnosticLog) -> LargeBlocks:
    """Walks the tree of `_HEAP_LARGE_ALLOC_DATA` records."""
    tree = _Tree(memory, row, heap + row.offset("_SEGMENT_HEAP", "LargeAllocMetadata"))
    committed = _counted(memory, row, heap)
    try:
        tree.walk()
    except MemoryReadError as error:
        log.add("large-tree-absent", Severity.WARNING, "_RTL_RB_TREE", tree.address, str(error))
    bad = doubtful(memory, tree.blocks.values(), committed)
    for node, block in list(tree.blocks.items()):
        if block in bad:
            tree.say(
                node, f"describes 0x{block.size:x} bytes at 0x{block.address:x}; others are there"
            )
            del tree.blocks[node]
    if sum(block.size for block in tree.blocks.values()) < committed:
        tree.search(committed)
    for node, trouble in tree.troubles:
        log.add("large-tree-broken", Severity.WARNING, "_HEAP_LARGE_ALLOC_DATA", node, f"{trouble}")
    order = sorted(tree.blocks, key=tree.blocks.__getitem__)
    found = [tree.blocks[record] for record in order]
    missing = max(committed - sum(block.size for block in found), 0)
    if missing:
        log.add(
            "large-blocks-missing",
            Severity.WARNING,
            "_SEGMENT_HEAP.LargeCommittedPages",
            heap,
            f"the heap counts {committed} bytes of large blocks, {missing} more than were found",
            missing,
        )
    return LargeBlocks(
        np.array(order, np.uint64),
        np.array([block.address for block in found], np.uint64),
        np.array([block.size for block in found], np.int64),
        np.array(
            [block.unused if block.unused < MOST_UNUSED else SIZE_UNKNOWN for block in found],
            np.int64,
        ),
        np.array([block.extra for block in found], np.bool_),
        missing,
    )


def all_records(
    memory: AddressSpace, row: LayoutRow, address: NDArray[np.uint64], room: NDArray[np.int64]
) -> bool:
    """True when blocks of a heap are all records of large blocks, as only ntdll's own heap has them.

    Args:
        memory: The process's memory.
        row: The heap's layout.
        address: uint64, blocks of the heap; those of a page and more, of which it has some, tell nothing.
        room: int64, bytes of each.
    """
    name, pointer = "_HEAP_LARGE_ALLOC_DATA", row.pointer_size
    address, spare = address[room < PAGE_SIZE], room[room < PAGE_SIZE] - row.size(name)
    if not len(address) or (spare < 0).any() or (spare > 4 * pointer).any():
        return False
    fields, present = memory.gather(address, row.dtype(name, "VirtualAddress", "AllocatedPages"))
    for words in fields[present]:
        block = block_of(int(words["VirtualAddress"]), int(words["AllocatedPages"]), pointer)
        if block is None or memory_agrees(memory, block) is False:
            return False
    return bool(present.any())


def _counted(memory: AddressSpace, row: LayoutRow, heap: int) -> int:
    """Bytes of large blocks as the heap counts them; -1 where it says more than there can be."""
    pages = row.read_field(memory, "_SEGMENT_HEAP", "LargeCommittedPages", heap)
    return pages * PAGE_SIZE if pages < most_pages(memory, row) else -1


def most_pages(memory: AddressSpace, row: LayoutRow) -> int:
    """More pages than any heap of the process has."""
    if len(memory.regions):
        return memory.regions.committed_bytes() // PAGE_SIZE + 1
    return 1 << (20 if row.pointer_size == 4 else 35)


@dataclass
class _Tree:
    """The tree while it is walked.

    Attributes:
        memory: The process's memory.
        row: The heap's layout.
        address: Of `_RTL_RB_TREE`.
        blocks: Node → what it describes.
        seen: Nodes that are believed.
        reached: Nodes that a link or the root names.
        broken: (node, side) of links that lead nowhere.
        troubles: What was wrong, by node.
    """

    memory: AddressSpace
    row: LayoutRow
    address: int
    encoded: bool = False
    blocks: dict[int, Block] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    reached: set[int] = field(default_factory=set)
    broken: list[tuple[int, int]] = field(default_factory=list)
    troubles: list[tuple[int, str]] = field(default_factory=list)

    def walk(self) -> None:
        """Reads all nodes that can be reached or found; raises `MemoryReadError` without the root."""
        pointer = self.row.pointer_size
        stored = self.memory.read_uint(self.address, pointer)
        # Bit 0 of the pointer to the least node: links are XORed with the address they are stored at.
        least = self.memory.read_uint(self.address + pointer, pointer)
        if not stored and not least & ~1:
            return
        self.reached.add(least & ~1)
        for encoded in (bool(least & 1), not least & 1):
            self.encoded = encoded
            root = stored ^ self.address if encoded else stored
            top = self._climb(least & ~1, root)
            if top:
                if top != root:
                    self.say(root, "is not the root the least node leads to")
                self._descend(top, None)
                break
        else:
            self.encoded = bool(least & 1)
            self.say(least & ~1, "does not lead to the root")
            self._descend(stored ^ self.address if self.encoded else stored, 0)
        for node, side in self.broken[:MOST_ADOPTED]:
            self._adopt(node, side)

    def _record(self, node: int) -> Record | None:
        if node % self.row.pointer_size:
            return None
        try:
            return self.row.read(self.memory, "_HEAP_LARGE_ALLOC_DATA", node)
        except MemoryReadError:
            return None

    def _block(self, record: Record) -> Block | None:
        return block_of(record["VirtualAddress"], record["AllocatedPages"], self.row.pointer_size)

    def _links(self, record: Record) -> tuple[int, int]:
        pointer = self.row.pointer_size
        left, right = (
            int.from_bytes(record.raw[at : at + pointer], "little") for at in (0, pointer)
        )
        key = record.address if self.encoded else 0
        return left and left ^ key, right and right ^ key

    def _names_parent(self, record: Record, parent: int) -> bool:
        return self._parent(record) == parent

    def _descend(self, top: int, above: int | None) -> None:
        """Takes in a node and all below it.

        Args:
            top: The node.
            above: What it must name as its parent; None when it is known to be right.
        """
        pending: list[tuple[int, int | None, int]] = [(top, above, -1)]
        while pending and len(self.seen) < MAX_NODES:
            node, parent, side = pending.pop()
            self.reached.add(node)
            record = self._record(node)
            trouble = ""
            if record is None:
                trouble = "is not in the dump"
            elif node in self.seen:
                trouble = "is reached twice"
            elif parent is not None and not self._belongs(record, parent):
                trouble = "does not name its parent"
            if trouble or record is None:
                self.say(node, f"(below 0x{parent or self.address:x}) {trouble}")
                if side >= 0 and parent:
                    self.broken.append((parent, side))
                continue
            self.seen.add(node)
            block = self._block(record)
            if block is None:
                self.say(node, "describes no memory")
            else:
                self.blocks[node] = block
            for number, child in enumerate(self._links(record)):
                if child:
                    pending.append((child, node, number))

    def _belongs(self, record: Record, parent: int) -> bool:
        """True when a node names its parent; or its children name it and nobody else claims it."""
        if self._names_parent(record, parent):
            return True
        other = self._record(self._parent(record))
        if other is not None and record.address in self._links(other):
            return False
        children = [self._record(child) for child in self._links(record) if child]
        return any(c is not None and self._names_parent(c, record.address) for c in children)

    def _parent(self, record: Record) -> int:
        pointer = self.row.pointer_size
        value = int.from_bytes(record.raw[2 * pointer : 3 * pointer], "little") & ~3
        return value ^ record.address if self.encoded and value else value

    def say(self, node: int, trouble: str) -> None:
        """Keeps what is wrong with a node."""
        self.troubles.append((node, f"the node at 0x{node:x} {trouble}"))

    def _climb(self, least: int, root: int) -> int:
        """The root that the least node leads up to; 0 when it leads nowhere."""
        node, seen = least, set[int]()
        while node and node not in seen and len(seen) < MAX_NODES:
            seen.add(node)
            record = self._record(node)
            if record is None:
                return 0
            above = self._parent(record)
            if not above:
                return node
            other = self._record(above)
            if other is None or node not in self._links(other):
                return node if node == root else 0
            node = above
        return 0

    def _adopt(self, parent: int, side: int) -> None:
        """Searches for the child a broken link should lead to; takes it when there is just one."""
        if parent not in self.blocks:
            return
        known = sorted(self.blocks.values())
        found = [
            node
            for node, block, above in self._records()
            if above == parent
            and (block.address < self.blocks[parent].address) == (side == LEFT)
            and self._stands_alone(block, known)
        ]
        if len(found) == 1:
            self._descend(found[0], parent)

    def search(self, committed: int) -> None:
        """Takes in records no link leads to, when there are not more than the heap counts."""
        fresh: dict[int, Block] = {}
        known = sorted(self.blocks.values())
        for node, block, _ in self._records():
            if node not in self.blocks and self._stands_alone(block, known):
                fresh[node] = block
        ordered = sorted(fresh.values())
        apart = all(one.end <= two.address for one, two in pairwise(ordered))
        total = sum(block.size for block in (*ordered, *self.blocks.values()))
        if fresh and apart and total <= committed:
            self.blocks |= fresh
            self.say(min(fresh), f"is one of {len(fresh)} no link leads to")

    def _records(self) -> list[tuple[int, Block, int]]:
        """All that could be records, and the parents they name, in the pages known records lie in."""
        pointer = self.row.pointer_size
        size = self.row.size("_HEAP_LARGE_ALLOC_DATA")
        found = []
        for page in sorted({node & ~(PAGE_SIZE - 1) for node in self.seen | self.reached}):
            raw = self.memory.read_available(page, PAGE_SIZE)
            words = np.frombuffer(raw[: len(raw) // pointer * pointer], f"<u{pointer}")
            at = self.row.offset("_HEAP_LARGE_ALLOC_DATA", "AllocatedPages") // pointer
            # Pages, and behind them few bits that are set.
            for index in np.flatnonzero(words[at:] >= PAGE_SIZE).tolist():
                node = page + index * pointer
                if node in self.seen or node + size > page + PAGE_SIZE:
                    continue
                record = self._record(node)
                block = self._block(record) if record is not None else None
                if record is not None and block is not None:
                    found.append((node, block, self._parent(record)))
        return found

    def _stands_alone(self, block: Block, known: list[Block]) -> bool:
        """True when just the memory a record describes is there, and no known block has any of it.

        Records of freed memory stay where they were; this tells them from live ones.
        """
        place = bisect_left(known, block)
        before, behind = known[max(place - 1, 0) : place], known[place : place + 1]
        return (
            all(other.end <= block.address for other in before)
            and all(block.end <= other.address for other in behind)
            and bool(memory_agrees(self.memory, block))
        )
