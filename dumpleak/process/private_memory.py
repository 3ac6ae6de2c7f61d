"""Private memory outside heaps: allocations that are neither heap, stack nor TEB, by allocator and size.

What programs take with VirtualAlloc (arenas, other languages' heaps) leaks as well, so it is grouped for
comparison: by the allocator that is recognised, and by what was reserved, because an arena keeps its
reservation while it commits more and more of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.account import NO_REGIONS
from dumpleak.model.memory import UNKNOWN, USES, PrivateMemory
from dumpleak.model.sites import PRIVATE_KEY, Site, SiteKind
from dumpleak.model.totals import Totals
from dumpleak.model.units import format_bytes
from dumpleak.process.allocators import Owners, allocators_of
from dumpleak.process.memory_use import NO_THREADS, region_uses, uses_in_file
from dumpleak.process.session import Session
from windumps.arrays import I64, U64
from windumps.dumps.kinds import PROCESS_OF_KERNEL
from windumps.memory.regions import MEM_COMMIT, MEM_PRIVATE


class PrivateAllocations(NamedTuple):
    """Private allocations that are neither heap, stack nor TEB.

    Attributes:
        start: uint64, the allocation base of each; ascending.
        reserved: int64, bytes of its pages outside heaps, committed or not.
        committed: int64, bytes of the committed ones.
        owners: The allocators that are recognised.
    """

    start: U64
    reserved: I64
    committed: I64
    owners: Owners

    def groups(self) -> Iterator[tuple[str, int, NDArray[np.bool_]]]:
        """The allocator, "" for none, the reserved bytes and the members of each group."""
        table = np.column_stack([self.owners.number, self.reserved])
        for number, reserved in np.unique(table, axis=0).tolist():
            name = self.owners.names[number] if number >= 0 else ""
            yield name, reserved, (self.owners.number == number) & (self.reserved == reserved)


def find_private(session: Session) -> PrivateAllocations:
    """None where the dump does not list its regions."""
    regions = session.dump.memory.regions
    uses = region_uses(session, regions)
    mine = (regions.type == MEM_PRIVATE) & (uses == USES.index("other-private"))
    start, row = np.unique(regions.allocation_base[mine], return_inverse=True)
    size = regions.region_size[mine].astype(np.int64)
    reserved, committed = np.zeros(len(start), np.int64), np.zeros(len(start), np.int64)
    np.add.at(reserved, row, size)
    np.add.at(committed, row, np.where(regions.state[mine] == MEM_COMMIT, size, 0))
    return PrivateAllocations(start, reserved, committed, allocators_of(session, start))


def private_key(reserved: int, allocator: str = "") -> str:
    """The key of private allocations of so many bytes, of one allocator or of none that is known."""
    return f"{PRIVATE_KEY}{allocator.lower()}{'|' * bool(allocator)}{reserved}"


def private_memory(session: Session) -> PrivateMemory:
    """What a session's dump tells of private memory outside heaps; heaps have to be walked first."""
    dump = session.dump
    regions = dump.memory.regions
    stacks_known = all(view.threads_known for view in session.views)
    in_file = None
    # Of a process in a kernel dump, what is paged out is not in the file, which says nothing of the process.
    if stacks_known and dump.full_memory and dump.kind != PROCESS_OF_KERNEL:
        sizes = uses_in_file(session)[UNKNOWN]
        name = "memory outside heaps, stacks and images, in the file"
        total = sum(sizes)
        in_file = (
            Site(SiteKind.SHAPE, f"{PRIVATE_KEY}file", name),
            Totals(len(sizes), total, total, max(sizes, default=0)),
        )
    if not stacks_known:
        return PrivateMemory(unknown=NO_THREADS)
    if len(regions) and regions.whole:
        return PrivateMemory(private_allocations(session), in_file=in_file)
    if in_file is None:
        return PrivateMemory(unknown=f"{NO_REGIONS}, nor does it hold all memory", by_regions=False)
    return PrivateMemory({in_file[0].key: in_file}, by_regions=False, in_file=in_file)


def private_allocations(session: Session) -> dict[str, tuple[Site, Totals]]:
    """All groups that have committed memory; empty where the dump does not list its regions."""
    unlisted = sum(view.unlisted_heaps for view in session.views)
    nobodys = f"private memory outside heaps{' that could be found' * bool(unlisted)}"
    found = find_private(session)
    groups = {}
    for allocator, reserved, mine in found.groups():
        used = found.committed[mine & (found.committed > 0)]
        if len(used):
            name = f"{allocator or nobodys}, {format_bytes(reserved)} reserved each"
            site = Site(SiteKind.SHAPE, private_key(reserved, allocator), name)
            total = int(used.sum())
            groups[site.key] = site, Totals(len(used), total, total, int(used.max()))
    return groups
