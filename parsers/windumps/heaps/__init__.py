"""Heap kinds: one file each, one row each in `HEAP_KINDS`; and the list of a process's heaps."""

from windumps.heaps.base import Heap, HeapAccount, HeapContext
from windumps.heaps.kinds import HEAP_KINDS, HeapKind, ProcessHeap, process_heaps

__all__ = [
    "HEAP_KINDS",
    "Heap",
    "HeapAccount",
    "HeapContext",
    "HeapKind",
    "ProcessHeap",
    "process_heaps",
]
