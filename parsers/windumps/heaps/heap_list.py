"""Heaps that the PEB does not list.

- Windows 11 24H2 lists the process heap only. The others hang on a circular list of records
  {LIST_ENTRY, heap address, …} whose head lies in ntdll's data; each heap's header points to its
  own record. Where the pointer stands in the header differs by heap kind and build, so it is found
  by what it points to.
- Without a PEB, ntdll's static array of heap addresses still has them: a run of pointers to heaps.

Memory that merely bears a heap's signature (a shared section of another process, say) is on
neither, and is never taken for a heap of this process. What is on the list and not in the dump is
listed as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from windumps.diagnostics import Severity
from windumps.heaps.lists import list_nodes
from windumps.memory import AddressSpace
from windumps.windows.modules import Module
from windumps.windows.process import HEAP_LIST_CUT, MAX_HEAPS, ProcessView

HEADER_BYTES = 0x400  # a heap's header, in which the pointer to its record stands


class _Detector(Protocol):
    @property
    def detect(self) -> Callable[[AddressSpace, int, int], bool]: ...


def complete_heap_list(view: ProcessView, kinds: Sequence[_Detector]) -> None:
    """Adds the heaps that the PEB does not list, and says where they were found.

    Args:
        view: The process; its `heap_addresses` grows.
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
    for handle in list(view.heap_addresses):
        found = _linked_heaps(view, ntdll, handle, is_heap)
        extra = [address for address in found if address not in view.heap_addresses]
        if extra:
            view.heap_addresses += extra
            view.heap_list_source += " and ntdll's list of heaps"
            return


def _linked_heaps(
    view: ProcessView, ntdll: Module | None, handle: int, is_heap: Callable[[int], bool]
) -> list[int]:
    """Heaps on the list that a heap's own record is part of; empty when its header points to none."""
    pointer = view.pointer_size
    raw = view.memory.read_available(handle, HEADER_BYTES)
    pointers = np.frombuffer(raw[: len(raw) // pointer * pointer], f"<u{pointer}")
    records = np.unique(pointers[pointers > HEADER_BYTES]).astype(np.uint64)
    owner, present = view.memory.gather(records + np.uint64(2 * pointer), f"<u{pointer}")
    for record in records[present & (owner == handle)].tolist():
        nodes, trouble = list_nodes(view.memory, record, pointer)
        outside = [
            node
            for node in (record, *nodes[:MAX_HEAPS])
            if ntdll is None or not ntdll.base_address <= node < ntdll.end_address
        ]
        heaps, readable = view.memory.gather(
            np.array(outside, np.uint64) + np.uint64(2 * pointer), f"<u{pointer}"
        )
        found = list(dict.fromkeys(heaps[readable].tolist()))
        if trouble is None and ntdll is not None:
            # One node, the head, lies in ntdll; the others are records of different heaps.
            if (
                len(outside) == len(nodes) == len(found)
                and heaps.all()
                and not (heaps & 0xFFF).any()
            ):
                return found
            continue
        known = [address for address in found if is_heap(address)]
        # Without a module list the head is the one entry that leads to no heap.
        if len(known) < 2 or (trouble is None and len(known) > len(nodes)):
            continue
        if trouble is not None or len(known) < len(nodes):
            view.log.add(
                HEAP_LIST_CUT,
                Severity.WARNING,
                "list of heaps in ntdll",
                record,
                f"{trouble or 'not all entries lead to heaps'}; heaps may be missing",
            )
        return known
    return []


def _static_list(view: ProcessView, ntdll: Module, is_heap: Callable[[int], bool]) -> list[int]:
    """The longest run of pointers to different heaps in ntdll's memory."""
    best: list[int] = []
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
        run: list[int] = []
        last = -2
        for index in likely.tolist():
            value = int(values[index])
            if value not in known:
                known[value] = is_heap(value)
            if not known[value]:
                continue
            run = run + [value] if index == last + 1 and value not in run else [value]
            last = index
            if len(run) > len(best):
                best = run
    return best
