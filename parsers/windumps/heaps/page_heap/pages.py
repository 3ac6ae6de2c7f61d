"""Full page heap: blocks on pages of their own, kept account of in nodes; what its memory is used for.

How busy blocks are kept differs by form (see `layouts/page_heap.py`). Two forms have a second record, used
where the first is damaged: on XP the node pools, in verifier.dll of Windows 7 and later the lists of
neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from windumps.arrays import PAGE_SIZE, U64
from windumps.diagnostics import Severity
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.committed import committed_at
from windumps.heaps.nt.entries import Mask
from windumps.heaps.page_heap.check import check_headers
from windumps.heaps.page_heap.nodes import (
    FREE_FLAG_COMMITTED,
    STATE_AVAILABLE,
    STATE_BUSY,
    STATE_FREE,
    Nodes,
    PointerReader,
    chain_nodes,
    read_nodes,
    ring_nodes,
    tree_nodes,
)
from windumps.layouts.rows import LayoutRow, Record

ROOT = "_DPH_HEAP_ROOT"
NODE = "_DPH_HEAP_BLOCK"
COUNTS = {
    "VirtualStorage": "nVirtualStorageRanges",
    "FreeAllocation": "nFreeAllocations",
    "AvailableAllocation": "nAvailableAllocations",
    "NodePool": "nNodePools",
}
MAX_POOL = 1 << 26  # bytes; pools of 4000h were seen
OWN_PAGES = 2  # XP: of the memory that is on no list, the handle's page and that of the lock


@dataclass
class PageBlocks:
    """Reads the blocks of one root that have pages of their own.

    Attributes:
        context: The process.
        row: The layout.
        root: The `_DPH_HEAP_ROOT`.
        account: Gets reserved, committed and overhead bytes; the blocks are the caller's to count.
        trouble: True once something on the way was damaged or absent.
    """

    context: HeapContext
    row: LayoutRow
    root: Record
    account: HeapAccount
    trouble: bool = False
    _reader: PointerReader = field(init=False)
    _ranges_whole: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        self._reader = PointerReader(self.context.memory, self.context.pointer_size)

    def read(self) -> tuple[Nodes, Nodes]:
        """Busy and free nodes; free ones have the committed bytes they hold as `access`."""
        ranges = self._chain_or_ring("VirtualStorage")
        self._ranges_whole = not self.trouble
        self.account.ranges += zip(ranges.block.tolist(), ranges.size.tolist(), strict=True)
        self.account.reserved_bytes += int(ranges.size.sum())
        if self.row.has(NODE, "AdjacencyEntry"):
            return self._with_neighbours(ranges)
        if self.row.has(ROOT, "BusyNodesTable"):
            busy = self._checked(read_nodes(self.context, self.row, self._tree()))
            free = self._chain_or_ring("FreeAllocation")
            # The handle's page and that of the lock are among them.
            overhead = self.root["nNodePoolBytes"]
            missing = self._missing(busy)
            self.account.overhead_bytes += overhead
            self.account.unwalked_bytes += missing
            self.account.committed_bytes += overhead + missing + int(busy.access.sum())
            return busy, free._replace(access=np.zeros(len(free.node), np.int64))
        return self._with_pools(ranges)

    # -- XP

    def _with_pools(self, ranges: Nodes) -> tuple[Nodes, Nodes]:
        """XP commits whole ranges: guard pages, freed and available memory are only made inaccessible."""
        free = [
            self._inside(ranges, self._chain_or_ring(n))
            for n in ("FreeAllocation", "AvailableAllocation")
        ]
        free[1] = free[1].as_pages(np.ones(len(free[1].node), bool))
        pools = self._inside(ranges, self._chain_or_ring("NodePool"))
        first = self.root["pBusyAllocationListHead"]
        chained, trouble = chain_nodes(self._reader, first, self.row.offset(NODE, "pNextAlloc"))
        if trouble is not None or len(chained) != self.root["nBusyAllocations"]:
            self._say(
                "page-heap-busy-list-cut",
                f"{ROOT}.pBusyAllocationListHead",
                f"{trouble or f'the list has {len(chained)} blocks'}; the root counts "
                f"{self.root['nBusyAllocations']}"
                "; blocks behind it are taken from the node pools, where their headers are alive",
            )
            known = [chained, ranges.node, pools.node, *(nodes.node for nodes in free)]
            listed = np.concatenate([np.array(nodes, np.uint64) for nodes in known])
            chained += self._unlisted(pools, listed)
        busy = self._checked(self._inside(ranges, read_nodes(self.context, self.row, chained)))
        total = int(ranges.size.sum()) + self._unlisted_ranges(ranges, busy, pools)
        unused = Nodes(*(np.concatenate(pair) for pair in zip(*free, strict=True)))
        unused = unused._replace(access=unused.size)
        account = self.account
        guards = len(busy.node) * PAGE_SIZE
        if not self.trouble:
            guards = int((busy.size - busy.access).sum())
        own = int(pools.size.sum()) + guards
        account.overhead_bytes += own
        known_bytes = own + int(busy.access.sum()) + int(unused.size.sum())
        rest = total - known_bytes
        if not self.trouble and 0 <= rest <= OWN_PAGES * PAGE_SIZE:
            account.overhead_bytes += rest
        else:
            if not self.trouble:
                self._say(
                    "page-heap-account-differs",
                    ROOT,
                    f"its lists leave {rest} of {total} bytes unexplained",
                )
            rest = max(rest, self._missing(busy))
            account.unwalked_bytes += max(rest, 0)
        account.committed_bytes += known_bytes + max(rest, 0)
        return busy, unused

    def _unlisted_ranges(self, ranges: Nodes, busy: Nodes, pools: Nodes) -> int:
        """Committed bytes of allocations that hold blocks or nodes and that the cut list does not name."""
        if self._ranges_whole or not len(self.context.memory.regions):
            return 0
        own = np.array([self.root.address], np.uint64)
        places = np.concatenate([busy.block, pools.block, own])
        parts = committed_at(self.context.memory, places)
        start = np.array([part[0] for part in parts], np.uint64)
        order = np.argsort(ranges.block)
        begin, length = ranges.block[order], ranges.size[order].astype(np.uint64)
        at = np.searchsorted(begin, start, "right") - 1
        listed = (at >= 0) & (start - begin[at] < length[at]) if len(begin) else start < 0
        found = [(a, b - a) for (a, b), known in zip(parts, listed, strict=True) if not known]
        self.account.ranges += found
        size = sum(length for _, length in found)
        self.account.reserved_bytes += size
        return size

    def _inside(self, ranges: Nodes, nodes: Nodes) -> Nodes:
        """The nodes whose pages lie in one of the ranges; of whole pages at least where not all are known."""
        if not self._ranges_whole:
            low = (nodes.block.astype(np.int64) | nodes.size) & (PAGE_SIZE - 1)
            return nodes.take((low == 0) & (nodes.size > 0))
        order = np.argsort(ranges.block)
        starts, sizes = ranges.block[order], ranges.size[order]
        if not len(starts):
            return nodes.take(np.zeros(len(nodes.node), bool))
        at = np.maximum(np.searchsorted(starts, nodes.block, "right") - 1, 0)
        into = (nodes.block - starts[at]).astype(np.int64)
        inside = (nodes.block >= starts[at]) & (into >= 0) & (nodes.size >= 0)
        inside &= (into <= sizes[at]) & (nodes.size <= sizes[at] - into)
        for node in nodes.node[~inside].tolist():
            self._say("page-heap-node-damaged", NODE, "its pages lie outside the heap", node)
        return nodes.take(inside)

    def _unlisted(self, pools: Nodes, known: U64) -> list[int]:
        """Nodes of the pools that no list has: busy ones whose place on their list is lost."""
        size = self.row.size(NODE)
        slots = [np.empty(0, np.uint64)]
        behind = 0
        for start, length in sorted(zip(pools.block.tolist(), pools.size.tolist(), strict=True)):
            if length > MAX_POOL or start < behind:
                continue  # pools do not overlap; so there are no more slots than the dump has memory
            behind = start + length
            base = start + (self.row.size(ROOT) if start == self.root.address else 0)
            pieces = self.context.memory.extents(base, behind)
            for low, there in zip(pieces.address.tolist(), pieces.size.tolist(), strict=True):
                first = base + -(-(low - base) // size) * size
                slots.append(np.arange(first, low + there - size + 1, size, dtype=np.uint64))
        rest = np.setdiff1d(np.concatenate(slots), known)
        nodes = read_nodes(self.context, self.row, rest)
        nodes = nodes.take(nodes.plausible())
        # Unused nodes keep what they held; only a block whose header is alive and agrees is one.
        checked = check_headers(self.context, self.row, self.root.address, nodes)
        return list(nodes.node[checked.agrees].tolist())

    # -- verifier.dll of Windows 7 and later

    def _with_neighbours(self, ranges: Nodes) -> tuple[Nodes, Nodes]:
        """Each region's blocks are on a list in order of address; what lies between them are node pools."""
        tree = self._tree()
        link = self.row.offset(NODE, "AdjacencyEntry")
        lists: list[U64] = [np.array(tree, np.uint64)]
        cut: list[bool] = []
        for region in ranges.node.tolist():
            neighbours, trouble = ring_nodes(self._reader, region + link, link)
            lists.append(np.array(neighbours, np.uint64))
            cut.append(trouble is not None)
            if trouble is not None:
                self._say("page-heap-region-cut", f"{NODE}.AdjacencyEntry", trouble, region)
        nodes = read_nodes(self.context, self.row, np.unique(np.concatenate(lists)))
        in_tree, is_busy = np.isin(nodes.node, lists[0]), nodes.state == STATE_BUSY
        listed = int(is_busy.sum())
        if listed != len(tree):
            said = f"the tree has {len(tree)} busy blocks, the lists of neighbours {listed}; both are used"
            self._say("page-heap-tree-differs", f"{ROOT}.BusyNodesTable", said)
        busy = self._checked(nodes.take(in_tree | is_busy))
        freed = (nodes.state == STATE_FREE) | (nodes.state == STATE_AVAILABLE)
        free = nodes.take(~in_tree & freed)
        free = self._possible(free.as_pages(free.state == STATE_AVAILABLE))
        kept = (free.state == STATE_AVAILABLE) | ((free.free_flags & FREE_FLAG_COMMITTED) != 0)
        free = free._replace(access=np.where(kept, free.access, 0))
        self.account.committed_bytes += int(busy.access.sum()) + int(free.access.sum())
        left_out = (in_tree | is_busy) & ~np.isin(nodes.node, busy.node)
        covering = nodes.take((nodes.size > 0) & ~left_out)
        covering = covering.take(np.argsort(covering.block))
        for index, is_cut in enumerate(cut):
            gaps = self._gaps(covering, int(ranges.block[index]), int(ranges.size[index]))
            if is_cut or self.trouble:
                present = sum(self.context.memory.present_bytes(a, b) for a, b in gaps)
                self.account.unwalked_bytes += present
                self.account.committed_bytes += present
            else:
                own = self._pool_bytes(gaps)
                self.account.overhead_bytes += own
                self.account.committed_bytes += own
        # What no region on their list holds.
        missing = max(self._missing(busy) - self.account.unwalked_bytes, 0)
        self.account.unwalked_bytes += missing
        self.account.committed_bytes += missing
        return busy, free

    def _gaps(self, nodes: Nodes, start: int, size: int) -> list[tuple[int, int]]:
        """Parts of a region that no node covers; the nodes are in the order of their pages."""
        low, high = np.searchsorted(nodes.block, np.array([start, start + size], np.uint64))
        begins, lengths = nodes.block[low:high].tolist(), nodes.size[low:high].tolist()
        gaps, at = [], start
        for begin, length in zip(begins, lengths, strict=True):
            if begin > at:
                gaps.append((at, begin))
            at = max(at, begin + length)
        if at < start + size:
            gaps.append((at, start + size))
        return gaps

    def _pool_bytes(self, gaps: list[tuple[int, int]]) -> int:
        """Committed bytes of node pools: the newest is committed as far as it is used."""
        low, high = self.root["NodePoolCommitEnd"], self.root["NodePoolReserveEnd"]
        return sum(end - start - max(min(end, high) - max(start, low), 0) for start, end in gaps)

    # -- common

    def _missing(self, busy: Nodes) -> int:
        """Bytes by which the root counts more busy blocks than were found; 0 where its counter is nonsense.

        A block takes a page at least, and one to guard it, so many are missing even where bytes are not.
        """
        if not self.trouble:
            return 0
        counted = self.root["nBusyAllocationBytesAccessible"]
        if self.row.has(NODE, "nVirtualAccessSize") and not self.row.has(ROOT, "BusyNodesTable"):
            counted = self.root["nBusyAllocationBytesCommitted"]
            found = int(busy.size.sum())
        else:
            found = int(busy.access.sum())
        blocks = self.root["nBusyAllocations"] - len(busy.node)
        memory = self.context.memory
        most = memory.regions.committed_bytes() or memory.total_bytes
        missing = [counted - found, blocks * PAGE_SIZE]
        return max([0, *(size for size in missing if size <= most)])

    def _tree(self) -> list[int]:
        table = self.root.address_of("BusyNodesTable")
        found, bad = tree_nodes(self.context, self.row, table)
        count = self.root["nBusyAllocations"]
        for node in bad[: self.context.log.limit + 1]:
            self._say(
                "page-heap-tree-damaged",
                "_RTL_BALANCED_LINKS",
                "this node of the tree of busy blocks is absent or does not point back to its parent",
                node,
            )
        if not bad and len(found) != count:
            self._say(
                "page-heap-count-differs",
                f"{ROOT}.nBusyAllocations",
                f"the root counts {count} busy blocks, the tree has {len(found)}",
            )
        return list(found.tolist())

    def _chain_or_ring(self, name: str) -> Nodes:
        """The nodes of one of the root's lists, or none where the layout lacks it."""
        if self.row.has(ROOT, f"{name}List"):
            head = f"{name}List"
            found, trouble = ring_nodes(self._reader, self.root.address_of(head), 0)
        else:
            head, link = f"p{name}ListHead", self.row.offset(NODE, "pNextAlloc")
            found, trouble = chain_nodes(self._reader, self.root[head], link)
        count = self.root[COUNTS[name]]
        if trouble is None and len(found) != count:
            trouble = f"the list has {len(found)} nodes, the root counts {count}"
        if trouble is not None:
            self._say("page-heap-list-cut", f"{ROOT}.{head}", trouble)
        nodes = read_nodes(self.context, self.row, found)
        keep = nodes.size > 0
        keep &= (nodes.block.astype(np.int64) | nodes.size) & (PAGE_SIZE - 1) == 0
        if not keep.all() or len(nodes.node) != len(found):
            message = "a node on this list holds nonsense"
            self._say("page-heap-node-damaged", f"{ROOT}.{head}", message)
        return nodes.take(keep)

    def _possible(self, nodes: Nodes) -> Nodes:
        sound = nodes.plausible()
        for node in nodes.node[~sound].tolist():
            self._say(
                "page-heap-node-damaged",
                NODE,
                "this node describes no possible block; the block is left out",
                node,
            )
        return nodes.take(sound)

    def _checked(self, nodes: Nodes) -> Nodes:
        """The busy nodes that can be blocks; a header in front of one that contradicts it is said."""
        checked = check_headers(self.context, self.row, self.root.address, self._possible(nodes))
        differs = checked.readable & ~checked.agrees
        for index in np.flatnonzero(differs).tolist():
            self._say(
                "page-heap-header-differs",
                "_DPH_BLOCK_INFORMATION",
                f"it contradicts the node at 0x{int(checked.nodes.node[index]):x}"
                + ("" if checked.possible[index] else "; the block is left out"),
                int(checked.nodes.user[index]) - self.row.size("_DPH_BLOCK_INFORMATION"),
            )
        apart = self._apart(checked.nodes, checked.possible, checked.agrees)
        nodes = checked.nodes.take(apart)
        committed, accessible = int(nodes.size.sum()), int(nodes.access.sum())
        counted = (
            self.root["nBusyAllocationBytesCommitted"],
            self.root["nBusyAllocationBytesAccessible"],
        )
        if not self.trouble and (committed, accessible) != counted:
            self._say(
                "page-heap-count-differs",
                f"{ROOT}.nBusyAllocationBytesCommitted",
                f"the root counts {counted[0]} bytes of busy blocks, {counted[1]} of them accessible; the "
                f"blocks have {committed} and {accessible}",
            )
        return nodes

    def _apart(self, nodes: Nodes, possible: Mask, agrees: Mask) -> Mask:
        """Which possible blocks lie in memory of the heap and overlap no other; headers decide."""
        mapped = self._is_mapped(nodes)
        # Where nobody tells which memory is the heap's, a header in front of the block must.
        keep = possible & (mapped if self._ranges_whole else mapped | agrees)
        order = np.argsort(nodes.block, kind="stable")
        for certain in (agrees, np.zeros(len(keep), bool)):
            row = order[keep[order]]
            end = nodes.block[row] + nodes.size[row].astype(np.uint64)
            meets = np.flatnonzero(end[:-1] > nodes.block[row[1:]])
            pairs = row[meets + 1]
            if certain is agrees:
                pairs = np.concatenate([row[meets], pairs])
            keep[pairs[~certain[pairs]]] = False
        for node in nodes.node[possible & ~keep].tolist():
            self._say(
                "page-heap-node-damaged",
                NODE,
                "its pages are another block's, or none of the heap's; the block is left out",
                node,
            )
        return keep

    def _is_mapped(self, nodes: Nodes) -> Mask:
        """Where pages lie in one of the ranges; where their list is cut, in memory that is committed."""
        if self._ranges_whole:
            spans = sorted(self.account.ranges)
            starts = np.array([start for start, _ in spans], np.uint64)
            ends = np.array([start + size for start, size in spans], np.uint64)
        else:
            regions = self.context.memory.regions
            starts = regions.base_address
            ends = starts + regions.region_size
        if not len(starts):
            return np.zeros(len(nodes.block), bool)
        at = np.searchsorted(starts, nodes.block, "right") - 1
        return np.asarray((at >= 0) & (nodes.block < ends[at]))

    def _say(self, code: str, structure: str, message: str, address: int | None = None) -> None:
        self.trouble = True
        at = self.root.address if address is None else address
        self.context.log.add(code, Severity.WARNING, structure, at, message)
