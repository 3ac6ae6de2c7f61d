"""Heaps that the PEB does not list.

- Windows 11 24H2 lists the process heap only. The others hang on a circular list of records
  {LIST_ENTRY, heap address, …} whose head lies in ntdll's data; each heap's header points to its
  own record. Where the pointer stands in the header differs by heap kind and build, so it is found
  by what it points to.
- Without a PEB, ntdll's static array of heap addresses still has them: a run of pointers to heaps.
- Lists may be absent, cut or damaged. Memory is searched for heaps as well, see `heap_search`; where
  regions are listed that takes next to nothing, and is done always.

What is on a list and not in the dump is listed as absent. Where heaps may be missing, that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from windumps.arrays import I64, U64
from windumps.diagnostics import HEAP_LIST_CUT, Severity
from windumps.heaps.base import HeapContext
from windumps.heaps.heap_search import Searchable, allocation_starts, find_heaps
from windumps.images.modules import Module
from windumps.memory.lists import list_nodes
from windumps.process.views import ProcessView

HEADER_BYTES = 0x400  # a heap's header, in which the pointer to its record stands
BUILDS_WITH_RECORDS = range(26100, 1 << 16)  # of which the PEB lists the process heap only


class _Ring(NamedTuple):
    """Heaps on the list of records, and whether that is all of it."""

    heaps: list[int]
    whole: bool


def complete_heap_list(
    view: ProcessView, context: HeapContext, kinds: Sequence[Searchable]
) -> None:
    """Adds the heaps that the PEB does not list, and says where they were found.

    Args:
        view: The process; its `heap_addresses` grows.
        context: The same process, for readers of heaps.
        kinds: Kinds of heap that can be on such a list.
    """

    def is_heap(address: int) -> bool:
        return any(kind.detect(view.memory, address, view.pointer_size) for kind in kinds)

    ntdll = view.ntdll()
    if not view.heap_addresses and ntdll is not None:
        view.heap_addresses = _static_list(view, ntdll, is_heap)
        if view.heap_addresses:
            view.heap_list_source = "ntdll's data"
            view.log.add(
                "heap-list-from-ntdll",
                Severity.INFO,
                "RtlpProcessHeapsListBuffer",
                ntdll.base_address,
                f"{len(view.heap_addresses)} heaps found in ntdll's data, since the PEB has no list",
            )
    by_peb = view.build not in BUILDS_WITH_RECORDS
    whole = by_peb and 0 < view.heap_count <= len(view.heap_addresses)
    ring = _linked_heaps(view, ntdll, is_heap)
    if ring is not None:
        listed = set(view.heap_addresses)
        extra = [address for address in ring.heaps if address not in listed]
        whole |= ring.whole
        if extra:
            view.heap_addresses += extra
            view.heap_list_source += " and ntdll's list of heaps"
    if len(view.memory.regions) or not whole:
        whole |= _search(view, context, kinds, by_peb=by_peb, whole=whole)
    if view.heap_addresses and not whole and (not view.heap_count or not by_peb):
        _say_cut(view, "no whole list of heaps is in the dump; heaps may be missing")


def cut_heap_list(view: ProcessView, most: int) -> None:
    """Leaves out the heaps beyond the limit; they count as listed and not read."""
    found = len(view.heap_addresses)
    if found > most:
        view.heap_count = max(view.heap_count, found)
        del view.heap_addresses[most:]
        _say_cut(view, f"{found} heaps were found, at most {most} are read (MAX_HEAPS)")


def _search(
    view: ProcessView,
    context: HeapContext,
    kinds: Sequence[Searchable],
    *,
    by_peb: bool,
    whole: bool,
) -> bool:
    """Adds what a search of the memory finds; true when no heap can be missing then.

    Args:
        view: The process.
        context: The same process, for readers of heaps.
        kinds: What to look for.
        by_peb: The PEB lists heaps in this build, so that a heap's header names its place there.
        whole: The list is whole by its own account: then only a heap that claims a place in it counts.
    """
    found = [
        heap.address
        for heap in find_heaps(view, context, kinds)
        if not by_peb or heap.place or (heap.place is None and not whole)
    ]
    view.heap_addresses += found
    regions = view.memory.regions
    starts = allocation_starts(view.memory, view)
    first = np.searchsorted(regions.base_address, starts) if len(regions) else np.zeros(0, np.int64)
    seen = view.memory.locate(starts, 1) >= 0
    searched_all = bool(len(regions)) and regions.whole
    searched_all = searched_all and bool((seen | ~regions.readable[first]).all())
    if found:
        counted = by_peb and 0 < view.heap_count <= len(view.heap_addresses)
        sure = not whole and (counted or searched_all)
        view.heap_list_source += f"{' and ' * bool(view.heap_list_source)}signatures in memory"
        view.log.add(
            "heaps-by-signature",
            Severity.INFO if sure else Severity.WARNING,
            "_HEAP.Signature",
            found[0],
            f"{len(found)} heaps that are on no list in the dump were found by their signatures in private "
            "memory" + ("" if sure else "; there may be more"),
        )
    return searched_all


def _linked_heaps(
    view: ProcessView, ntdll: Module | None, is_heap: Callable[[int], bool]
) -> _Ring | None:
    """Heaps on the list that a heap's own record is part of; None when no header points to one."""
    best = None
    for record in _own_records(view):
        ring = _ring_of(view, ntdll, record, is_heap)
        if ring is not None and (ring.whole or best is None):
            best = ring
        if ring is not None and ring.whole:
            break
    if best is not None and not best.whole:
        _say_cut(view, "the list of heaps in ntdll is broken; heaps may be missing")
    return best


def _own_records(view: ProcessView) -> list[int]:
    """Addresses of what names the heap in whose header a pointer to it stands."""
    pointer, handles = view.pointer_size, np.array(view.heap_addresses, np.uint64)
    records = []
    for first in range(0, len(handles), 1024):
        some = handles[first : first + 1024]
        headers, _ = view.memory.gather(some, np.dtype((np.void, HEADER_BYTES)))
        words = headers.view(f"<u{pointer}").reshape(len(some), -1).astype(np.uint64)
        # A header's words that lead into itself name the heap as well: its first segment does.
        row, column = np.nonzero((words - some[:, None] >= HEADER_BYTES) & (words > HEADER_BYTES))
        places = words[row, column]
        owner, present = view.memory.gather(places + np.uint64(2 * pointer), f"<u{pointer}")
        mine = present & (owner == some[row])
        records += places[mine].tolist()
    return list(dict.fromkeys(records))


def _ring_of(
    view: ProcessView, ntdll: Module | None, record: int, is_heap: Callable[[int], bool]
) -> _Ring | None:
    """The heaps on the list that `record` is part of; None when it is on no list of heaps."""
    pointer = view.pointer_size
    nodes, trouble = list_nodes(view.memory, record, pointer)
    ring = np.array([record, *nodes], np.uint64)
    outside = ring
    if ntdll is not None:
        low, high = np.uint64(ntdll.base_address), np.uint64(ntdll.end_address)
        outside = ring[(ring < low) | (ring >= high)]
    named, readable = view.memory.gather(outside + np.uint64(2 * pointer), f"<u{pointer}")
    heaps: U64 = named.astype(np.uint64)
    found = list(dict.fromkeys(heaps[readable].tolist()))
    if ntdll is not None and (trouble is None or _meets_in(view, ring, ntdll)):
        # One node, the head, lies in ntdll; the others are records of different heaps.
        heads = len(ring) - len(outside) + (trouble is not None)
        sound = len(outside) == len(found) and heads == 1
        if sound and heaps.all() and not (heaps & np.uint64(0xFFF)).any():
            return _Ring(found, True)
        if trouble is None:
            return None
    known = [address for address in found if is_heap(address)]
    # Without a module list the head is the one entry that leads to no heap.
    if len(known) < 2 or (trouble is None and len(known) > len(nodes)):
        return None
    return _Ring(known, trouble is None and len(known) == len(nodes))


def _meets_in(view: ProcessView, ring: U64, ntdll: Module) -> bool:
    """True when a list breaks at one node only, which is not in the dump and lies in ntdll: its head."""
    pointer = view.pointer_size
    after, _ = view.memory.gather(ring, f"<u{pointer}")
    before, _ = view.memory.gather(np.roll(ring, -1) + np.uint64(pointer), f"<u{pointer}")
    gaps: I64 = np.flatnonzero(after != np.roll(ring, -1))
    if len(gaps) != 1:
        return False
    head = int(after[gaps[0]])
    return head == int(before[gaps[0]]) and ntdll.base_address <= head < ntdll.end_address


def _static_list(view: ProcessView, ntdll: Module, is_heap: Callable[[int], bool]) -> list[int]:
    """The longest run of pointers to different heaps in ntdll's memory."""
    best: dict[int, None] = {}
    pointer = view.pointer_size
    extents = view.memory.extents(ntdll.base_address, ntdll.end_address)
    known: dict[int, bool] = {}
    for address, size in zip(extents.address.tolist(), extents.size.tolist(), strict=True):
        start = -address % pointer
        usable = max(size - start, 0) // pointer * pointer
        raw = view.memory.view(address + start, usable)
        values = raw.view(f"<u{pointer}").astype(np.uint64)
        # Heap handles are page-aligned; few other values in ntdll's data are.
        likely = np.flatnonzero((values != 0) & ((values & np.uint64(0xFFF)) == 0))
        run: dict[int, None] = {}
        last = -2
        for index in likely.tolist():
            value = int(values[index])
            if value not in known:
                known[value] = is_heap(value)
            if not known[value]:
                continue
            if index != last + 1 or value in run:
                run = {}
            run[value] = None
            last = index
            if len(run) > len(best):
                best = run
    return list(best)


def _say_cut(view: ProcessView, message: str) -> None:
    view.heaps_missing = True
    view.log.add(HEAP_LIST_CUT, Severity.WARNING, "list of heaps", view.peb or None, message)
