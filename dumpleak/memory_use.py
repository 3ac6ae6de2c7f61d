"""What the memory of a process is used for: heaps, stacks, images, mapped files, the rest.

The rows are the dump's own memory-info list; each committed region gets one use. Where the dump has no
such list, only what is in the file can be told apart, and `complete` is False.

The rest, private memory that is neither heap nor stack, is what programs take with VirtualAlloc
(arenas, other languages' heaps): it leaks as well, so it is also grouped for comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.session import Session
from dumpleak.sites import Site, SiteKind
from dumpleak.totals import Totals
from dumpleak.units import format_bytes
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE, MEM_MAPPED, MEM_PRIVATE

USES = ("heaps", "stacks", "teb-peb", "images", "mapped", "other-private")


@dataclass(frozen=True)
class UseRow:
    """One use of memory.

    Attributes:
        use: One of `USES`, or "unknown" where the dump does not list its regions.
        committed_bytes: Committed in the process.
        present_bytes: Of that, in the dump.
        regions: How many regions.
    """

    use: str
    committed_bytes: int
    present_bytes: int
    regions: int


@dataclass(frozen=True)
class MemoryByUse:
    """All memory of a process by use.

    Attributes:
        rows: One for each use that occurs.
        complete: True when the dump lists all regions of the process.
    """

    rows: tuple[UseRow, ...]
    complete: bool


def memory_by_use(session: Session) -> MemoryByUse:
    """Accounts for all committed memory; heaps count once their blocks were walked."""
    memory = session.dump.memory
    regions = memory.regions
    if len(regions):
        keep = regions.state == MEM_COMMIT
        start, size = regions.base_address[keep], regions.region_size[keep].astype(np.int64)
        use = region_uses(session, regions)[keep]
    else:
        start, size = memory.runs.address, memory.runs.size
        use = np.where(session.modules.index_of(start) >= 0, USES.index("images"), len(USES))
        use[_inside(start, heap_ranges(session))] = USES.index("heaps")
    present = np.array(
        [
            memory.present_bytes(a, a + s)
            for a, s in zip(start.tolist(), size.tolist(), strict=True)
        ],
        np.int64,
    )
    rows = []
    for index, name in enumerate((*USES, "unknown")):
        mine = use == index
        if mine.any():
            rows.append(
                UseRow(name, int(size[mine].sum()), int(present[mine].sum()), int(mine.sum()))
            )
    return MemoryByUse(tuple(rows), bool(len(regions)))


def private_allocations(session: Session) -> dict[str, tuple[Site, Totals]]:
    """Private allocations that are neither heap, stack nor TEB, grouped by their reserved size.

    Reserved, because an arena keeps its reservation while it commits more and more of it.
    Empty where the dump does not list its regions.
    """
    regions = session.dump.memory.regions
    uses = region_uses(session, regions)
    mine = (regions.type == MEM_PRIVATE) & (uses == USES.index("other-private"))
    owner, row = np.unique(regions.allocation_base[mine], return_inverse=True)
    size = regions.region_size[mine].astype(np.int64)
    committed = np.where(regions.state[mine] == MEM_COMMIT, size, 0)
    reserved_of = np.zeros(len(owner), np.int64)
    committed_of = np.zeros(len(owner), np.int64)
    np.add.at(reserved_of, row, size)
    np.add.at(committed_of, row, committed)
    groups = {}
    for reserved in np.unique(reserved_of).tolist():
        members = committed_of[reserved_of == reserved]
        used = members[members > 0]
        if len(used):
            name = f"private memory outside heaps, {format_bytes(reserved)} reserved each"
            site = Site(SiteKind.SHAPE, f"{SiteKind.SHAPE}|private|{reserved}", name)
            total = int(used.sum())
            groups[site.key] = site, Totals(len(used), total, total, int(used.max()))
    return groups


def region_uses(session: Session, regions: Regions) -> NDArray[np.int64]:
    """The use of each region, as an index into `USES`; heaps count once they were walked."""
    use = np.full(len(regions), USES.index("other-private"), np.int64)
    use[regions.type == MEM_IMAGE] = USES.index("images")
    use[regions.type == MEM_MAPPED] = USES.index("mapped")
    threads = session.dump.threads
    blocks = [view.peb for view in session.views] + [thread.teb for thread in threads]
    use[_same_allocation(regions, blocks)] = USES.index("teb-peb")
    use[_same_allocation(regions, [thread.stack_start for thread in threads])] = USES.index(
        "stacks"
    )
    use[_inside(regions.base_address, heap_ranges(session))] = USES.index("heaps")
    return use


def heap_ranges(session: Session) -> list[tuple[int, int]]:
    """(start, bytes) of the memory of all heaps that were walked."""
    return [
        span
        for source in session.heaps
        if source.entry.heap is not None
        for span in source.entry.heap.account.ranges
    ]


def _same_allocation(regions: Regions, addresses: list[int]) -> NDArray[np.bool_]:
    """True for regions of the allocations that hold one of the addresses."""
    rows = [row for address in addresses if address and (row := regions.row_of(address)) >= 0]
    bases = regions.allocation_base[rows]
    return np.asarray(np.isin(regions.allocation_base, bases) & (regions.type == MEM_PRIVATE))


def _inside(addresses: NDArray[np.uint64], ranges: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """True for addresses inside one of the ranges (start, size)."""
    if not ranges:
        return np.zeros(len(addresses), bool)
    spans = np.array(sorted(ranges), np.uint64)
    row = np.searchsorted(spans[:, 0], addresses, "right") - 1
    safe = np.maximum(row, 0)
    return np.asarray((row >= 0) & (addresses - spans[safe, 0] < spans[safe, 1]))
