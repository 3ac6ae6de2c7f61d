"""The figures of the account that only an opened process tells: threads, modules, handles, regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dumpleak.model.account import (
    CUT_HANDLES,
    MANAGED_ROWS,
    MODULES_CUT,
    NARROW_LIMIT,
    NO_COUNTERS,
    NO_FREE,
    NO_HANDLES,
    NO_MODULES,
    NO_REGIONS,
    NO_THREADS,
    REGIONS_CUT,
    THREADS_CUT,
    UNEXPLAINED,
    Figure,
    _figure,
)
from dumpleak.model.memory import USES
from dumpleak.model.totals import Totals
from dumpleak.process.arenas import arena_blocks, arenas_of
from dumpleak.process.memory_use import charged_bytes, region_uses
from dumpleak.process.session import Session
from windumps.dump import Dump
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_FREE, MEM_PRIVATE, MEM_RESERVE


def outside_figures(session: Session) -> tuple[Figure, ...]:
    """The figures of what is neither block nor heap; heaps have to be walked first."""
    dump = session.dump
    regions = dump.memory.regions
    figures = [
        _figure("threads.count", len(dump.threads), _why_no_threads(dump)),
        _figure("modules.count", len(dump.modules), why_no_modules(dump)),
    ]
    return (
        *(*figures, *_of_managed(session), _of_handles(session)),
        *(*_of_regions(session, regions), *_of_arenas(session)),
        *(*_address_space(session, regions), *_counters(session, regions)),
    )


def _of_managed(session: Session) -> list[Figure]:
    """What the .NET objects come to; nothing for a process without."""
    managed = session.managed
    if not managed.applies:
        return []
    memory = managed.memory
    if memory is None:
        return [Figure(name, None, managed.why) for name in MANAGED_ROWS]
    return [
        Figure("managed.count", memory.count),
        Figure("managed.bytes", memory.bytes),
        Figure("managed.free_bytes", memory.free_bytes),
        Figure("managed.committed_bytes", memory.committed_bytes),
    ]


def why_no_modules(dump: Dump) -> str:
    """Why a dump does not tell which modules there are; "" when it does."""
    if not dump.modules:
        return NO_MODULES
    return "" if dump.modules_whole else MODULES_CUT


def _of_handles(session: Session) -> Figure:
    handles = session.dump.handles
    if handles is None:
        return Figure("handles.count", None, NO_HANDLES)
    return _figure("handles.count", len(handles), "" if handles.whole else CUT_HANDLES)


def _counters(session: Session, regions: Regions) -> list[Figure]:
    """What Windows counted, and what of its private bytes the dump does not show."""
    counted = session.dump.vm_counters
    private = counted.private if counted else None
    figures = [
        Figure(name, value, NO_COUNTERS if value is None else "")
        for name, value in (
            ("counters.private_bytes", private),
            ("counters.virtual_bytes", counted.virtual if counted else None),
            ("counters.working_set_bytes", counted.working_set if counted else None),
        )
    ]
    if private is None or not len(regions) or not regions.whole:
        reason = NO_COUNTERS if private is None else NO_REGIONS
        return [*figures, Figure(UNEXPLAINED, None, reason)]
    return [*figures, Figure(UNEXPLAINED, private - charged_bytes(regions))]


def _of_regions(session: Session, regions: Regions) -> list[Figure]:
    names = (
        *("private.reserved_bytes", "mapped.count", "mapped.bytes", "modules.bytes"),
        *("stacks.bytes", "stacks.reserved_bytes"),
        *("regions.committed_bytes", "regions.reserved_bytes"),
    )
    if not (len(regions) and regions.whole):
        reason = REGIONS_CUT if len(regions) else NO_REGIONS
        return [Figure(name, None, reason) for name in names]
    use = region_uses(session, regions)
    committed, reserved = regions.state == MEM_COMMIT, regions.state == MEM_RESERVE
    taken = committed | reserved
    private = (use == USES.index("other-private")) & (regions.type == MEM_PRIVATE)
    stacks, mapped = use == USES.index("stacks"), use == USES.index("mapped")
    images = use == USES.index("images")

    def size(rows: NDArray[np.bool_]) -> int:
        return int(regions.region_size[rows].sum())

    values = (
        size(private & taken),
        len(np.unique(regions.allocation_base[mapped & taken])),
        size(mapped & committed),
        size(images & committed),
        size(stacks & committed),
        size(stacks & taken),
        size(committed),
        size(taken),
    )
    no_threads = _why_no_threads(session.dump)
    reasons = [no_threads if "stacks" in name else "" for name in names]
    return [
        _figure(name, value, reason)
        for name, value, reason in zip(names, values, reasons, strict=True)
    ]


def _of_arenas(session: Session) -> list[Figure]:
    """Blocks of other allocators; no figures where there are none."""
    arenas = arenas_of(session)
    if not arenas:
        return []
    unread = [source.entry for source in arenas if source.entry.heap is None]
    why = "; ".join(f"{entry.kind} is {entry.reason}" for entry in unread)
    used = Totals()
    for _, blocks in arena_blocks(session):
        used += Totals(len(blocks), int(blocks.counted_bytes.sum()))
    return [
        _figure("arenas.count", used.count, why),
        _figure("arenas.bytes", used.bytes, why),
    ]


def _why_no_threads(dump: Dump) -> str:
    """Why a dump does not tell how many threads there are; "" when it does."""
    if not dump.threads:
        return NO_THREADS
    return "" if dump.threads_whole else THREADS_CUT


def _address_space(session: Session, regions: Regions) -> list[Figure]:
    """What is left of the address space; of a process with 32-bit pointers below their end."""
    free = regions.state == MEM_FREE
    if any(view.pointer_size == 4 for view in session.views):
        free &= regions.base_address < np.uint64(NARROW_LIMIT)
    names = ("address_space.free_bytes", "address_space.largest_free_bytes")
    if not free.any() or not regions.whole:
        reason = NO_FREE if len(regions) else NO_REGIONS
        return [Figure(name, None, reason if regions.whole else REGIONS_CUT) for name in names]
    start = regions.base_address[free]
    size = regions.region_size[free]
    if any(view.pointer_size == 4 for view in session.views):
        size = np.minimum(size, np.uint64(NARROW_LIMIT) - start)
    return [Figure(names[0], int(size.sum())), Figure(names[1], int(size.max()))]
