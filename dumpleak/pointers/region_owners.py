"""Who points to private and mapped memory: images, heap blocks, threads, or nobody. No symbols are needed.

All memory of the process that may hold pointers is read once. The best evidence counts: data of images, else
heap blocks, and so on as `Evidence` has it; pointers to an allocation's start count before those into it.
Memory that only other such memory points to belongs to the image whose data leads there, step by step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.holding import Holding
from dumpleak.model.memory import USES
from dumpleak.model.region_owner import Evidence, RegionOwner
from dumpleak.model.sites import Site
from dumpleak.model.units import format_bytes
from dumpleak.pointers.owner_votes import OwnerVotes
from dumpleak.pointers.reachability import PointerWatcher
from dumpleak.pointers.references import BlockIndex, Edges
from dumpleak.pointers.roots import (
    MAX_LOST_SHARE,
    Root,
    RootKind,
    Roots,
    find_roots,
    unreferenced_can_be_told,
)
from dumpleak.process.allocations import allocation_uses, find_allocations
from dumpleak.process.known_memory import inside_spans
from dumpleak.process.memory_use import (
    COPIED_ON_WRITE,
    PROTECTION,
    SHARED_USER_DATA,
    WRITABLE,
    heap_ranges,
)
from dumpleak.process.private_memory import find_private, private_key
from dumpleak.process.session import Session
from dumpleak.process.unread_heaps import unread_spans
from windumps.arrays import I64, U64
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE

# Texts, offsets in images and many other numbers look like addresses below this: only the start of an
# allocation counts there.
LOW = np.uint64(1 << 32)
_RELEASE_EVERY = 8  # pieces of a scan after which mapped pages are given back
_TEBS = 0x2000  # of a WoW64 thread: its 32-bit TEB stands so far behind
OWNED = ("other-private", "mapped")  # uses of memory that somebody owns
_ROOT_EVIDENCE = {
    RootKind.THREAD: Evidence.PROCESS,
    RootKind.PRIVATE: Evidence.OTHER,
    RootKind.MAPPED: Evidence.OTHER,
}


class RegionOwners(NamedTuple):
    """Whose private and mapped memory is.

    Attributes:
        start: uint64, where each allocation begins; ascending.
        number: int64, the owner of each.
        owners: They.
    """

    start: U64
    number: I64
    owners: list[RegionOwner]

    def of(self, start: U64) -> I64:
        """The number of the owner of some allocations; -1 for those whose owner nobody looks for."""
        if not len(self.start):
            return np.full(len(start), -1, np.int64)
        row = np.minimum(np.searchsorted(self.start, start), len(self.start) - 1)
        return np.where(self.start[row] == start, self.number[row], -1)


def why_owners_unknown(session: Session) -> str:
    """Why there is no telling who owns memory; "" when there is."""
    total, present = image_data_bytes(session)
    if total and present >= (1 - MAX_LOST_SHARE) * total:
        return ""
    return (
        f"whose regions are is not known: of {format_bytes(total)} of the images' data "
        f"{format_bytes(present)} are in the dump"
    )


def find_region_owners(session: Session, blocks: BlockIndex, sites: Sequence[Site]) -> RegionOwners:
    """Looks for what points to private and mapped memory.

    Args:
        session: The dump, walked; it lists its regions.
        blocks: Its used blocks; groups number `sites`.
        sites: The groups, which may know the class of their blocks.
    """
    every = find_allocations(session)
    asked = np.isin(allocation_uses(session, every), [USES.index(name) for name in OWNED])
    asked &= (every.reach > 0) & (every.start != np.uint64(SHARED_USER_DATA[0]))
    start, size = every.start[asked], every.reach[asked]
    widths = sorted({view.pointer_size for view in session.views})
    found = OwnerVotes(len(start))
    roots = _all_roots(session)
    for width in widths:
        columns = np.zeros(len(start), np.int32), np.full(len(start), width, np.uint8)
        index = BlockIndex(start, size, *columns)
        _scan(session, roots, index, _Watcher(session, blocks, sites, index, found))
    owners, number = found.result(start < LOW)
    return RegionOwners(start, number, owners)


def private_holdings(
    session: Session, owners: RegionOwners, keys: Collection[str]
) -> dict[str, Holding]:
    """Who holds private memory outside heaps, by the keys of some of its groups."""
    found = find_private(session)
    number = np.where(found.committed > 0, owners.of(found.start), -1)
    certain = unreferenced_can_be_told(session, find_roots(session).amounts(session.dump.memory))
    told = {}
    for allocator, reserved, members in found.groups():
        key = private_key(reserved, allocator)
        if key not in keys:
            continue
        mine = number[members & (number >= 0)]
        whose, many = np.unique(mine, return_counts=True)
        held: Counter[str] = Counter()
        lost = 0
        for owner, count in zip([owners.owners[one] for one in whose.tolist()], many, strict=True):
            held[owner.holder] += int(count)
            lost += int(count) * (certain and owner.is_lost)
        del held[""]
        most = min(held, key=lambda holder: (-held[holder], holder), default="")
        told[key] = Holding(len(mine), lost, most, held[most] if most else 0)
    return told


def _scan(session: Session, roots: Roots, index: BlockIndex, watcher: PointerWatcher) -> None:
    """Shows all pointers, and keeps none: there may be many more of them than of allocations."""
    dump = session.dump
    for number, edges in enumerate(index.edges_among_blocks(dump.memory)):
        watcher.add_blocks(edges)
        if number % _RELEASE_EVERY == _RELEASE_EVERY - 1:
            dump.release()
    starts = np.array([root.start for root in roots.memory], np.uint64)
    for root, allocation in zip(roots.memory, index.find(starts).tolist(), strict=True):
        if allocation >= 0:
            continue  # that was among them
        for _, edges in index.edges_from(dump.memory, root.start, root.end):
            watcher.add_root(root, edges)
    held = index.find(np.array(roots.registers, np.uint64))
    watcher.add_registers(held[held >= 0])
    dump.release()


def image_data_bytes(session: Session) -> tuple[int, int]:
    """Bytes that images may write, by the dump's list of regions, and how many of these are in the dump."""
    memory = session.dump.memory
    rows = _writable(session) & (memory.regions.type == MEM_IMAGE)
    start, size = memory.regions.base_address[rows], memory.regions.region_size[rows]
    return int(size.sum()), int(memory.present_each(start, start + size).sum())


def _writable(session: Session) -> NDArray[np.bool_]:
    regions = session.dump.memory.regions
    protect = regions.protect & np.uint32(PROTECTION)
    writable = np.isin(protect, (*WRITABLE, *COPIED_ON_WRITE)) & (regions.state == MEM_COMMIT)
    return np.asarray(writable, np.bool_)


def _all_roots(session: Session) -> Roots:
    """The roots, and the heaps that were walked."""
    found = find_roots(session)
    heaps = (Root(RootKind.HEAP, at, at + size) for at, size in heap_ranges(session))
    others = (root for root in found.memory if root.kind is not RootKind.HEAP)
    return Roots((*others, *heaps), found.registers)


class _Watcher:
    """Is shown every pointer to an allocation; see `PointerWatcher`.

    Args:
        session: The dump.
        blocks: Used blocks.
        sites: Their groups.
        index: The allocations.
        found: Who points to them.
    """

    def __init__(
        self,
        session: Session,
        blocks: BlockIndex,
        sites: Sequence[Site],
        index: BlockIndex,
        found: OwnerVotes,
    ) -> None:
        self._session, self._blocks, self._sites = session, blocks, sites
        self._index, self._found = index, found
        self._of_group = np.full(len(sites), -1, np.int64)
        regions = session.dump.memory.regions
        rows = _writable(session)
        columns = regions.base_address[rows], regions.region_size[rows]
        self._writable = list(zip(*(column.tolist() for column in columns), strict=True))
        self._unread = [span for spans in unread_spans(session).values() for span in spans]
        self._threads = self._stacks()

    def add_blocks(self, edges: Edges) -> None:
        """Pointers in allocations, to others."""
        others = edges.source != edges.target
        self._add(edges, edges.source, others)

    def add_root(self, root: Root, edges: Edges) -> None:
        """Pointers in what is no such allocation."""
        label = self._found.label
        match root.kind:
            case RootKind.GLOBALS if root.module is not None:
                kept = None
                if root.start == root.module.base_address:  # its sections are not known
                    kept = inside_spans(edges.place, self._writable)
                self._add(edges, label(Evidence.IMAGE, root.module.name), kept)
            case RootKind.HEAP:
                self._add_heap(edges)
            case RootKind.STACK:
                began = self._threads.get(self._allocation(root.start), "")
                self._add(edges, label(Evidence.STACK, began))
            case RootKind.PRIVATE:
                unread = inside_spans(edges.place, self._unread)
                self._add(edges, label(Evidence.UNREAD), unread)
                self._add(edges, label(Evidence.OTHER), ~unread)
            case _:
                self._add(edges, label(_ROOT_EVIDENCE[root.kind]))

    def add_registers(self, targets: I64) -> None:
        """Pointers in registers."""
        label = self._found.label(Evidence.STACK)
        high = targets[self._index.address[targets] >= LOW]
        self._found.add(high, label, np.zeros(len(high), np.bool_))

    def _add_heap(self, edges: Edges) -> None:
        """What used blocks hold; the rest of a heap is nobody's."""
        block = self._blocks.find(edges.place)
        used = block >= 0
        groups = self._blocks.group[block[used]]
        for group in np.unique(groups[self._of_group[groups] < 0]).tolist():
            type_ = self._sites[group].type or ""
            self._of_group[group] = self._found.label(Evidence.BLOCK, type_)
        label = np.zeros(len(block), np.int64)
        label[used] = self._of_group[groups]
        self._add(edges, label, used)

    def _add(self, edges: Edges, label: I64 | int, kept: NDArray[np.bool_] | None = None) -> None:
        exact = edges.value == self._index.address[edges.target]
        # Nobody needs an address in what is only reserved; a reservation of 256 GiB holds many numbers.
        rows = exact | ((edges.value >= LOW) & self._is_committed(edges.value))
        if kept is not None:
            rows &= kept
        if rows.any():
            own = label if isinstance(label, int) else label[rows]
            self._found.add(edges.target[rows], own, exact[rows])

    def _is_committed(self, addresses: U64) -> NDArray[np.bool_]:
        regions = self._session.dump.memory.regions
        row = np.maximum(np.searchsorted(regions.base_address, addresses, "right") - 1, 0)
        inside = addresses - regions.base_address[row] < regions.region_size[row]
        return np.asarray(inside & (regions.state[row] == MEM_COMMIT), np.bool_)

    def _allocation(self, address: int) -> int:
        regions = self._session.dump.memory.regions
        row = regions.row_of(address)
        return int(regions.allocation_base[row]) if row >= 0 else 0

    def _stacks(self) -> dict[int, str]:
        """Where the thread of each stack began, by the allocation of the stack; both stacks of WoW64."""
        told = [block for view in self._session.views for block in view.thread_blocks]
        found = {}
        for thread in self._session.dump.threads:
            began = self._began(thread.start_address)
            # The TEB of 32-bit code lies behind the other one.
            blocks = [b for b in told if 0 <= b.address - thread.teb <= _TEBS]
            for at in (thread.stack_start, *(block.stack[0] for block in blocks)):
                if at:
                    found[self._allocation(at)] = began
        return found

    def _began(self, start: int) -> str:
        modules = self._session.modules
        row = int(modules.index_of(np.array([start], np.uint64))[0]) if start else -1
        if row < 0:
            return ""
        module = modules.modules[row]
        return f"{module.name}+0x{start - module.base_address:x}"
