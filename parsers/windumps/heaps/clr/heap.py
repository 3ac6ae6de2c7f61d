"""The heap of a .NET process as one: found, bounded, walked, and accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from windumps.arrays import I64
from windumps.diagnostics import DiagnosticLog, Severity
from windumps.dump import Dump
from windumps.heaps.base import HeapAccount
from windumps.heaps.clr.bounds import End, Pointers, contexts, ends_of_objects, heap_pointers
from windumps.heaps.clr.collector import Collector, find_collector
from windumps.heaps.clr.method_tables import MethodTables
from windumps.heaps.clr.names import TypeName, TypeNames
from windumps.heaps.clr.runtime import CORE, FRAMEWORK, NONE, Runtime, runtime_of
from windumps.heaps.clr.segments import Segment, find_segments, uncovered
from windumps.heaps.clr.walk import Objects, Span, Walk

_STRUCTURE = "heap_segment"
PROVEN = ("x86", "x64")  # architectures of which heaps were compared with what a program made
LARGE_ALIGNMENT = 8  # of large objects, also where pointers have four bytes
NOT_FOUND = (
    "the process has a .NET runtime, but its heap is not in the dump; take a full dump: "
    "procdump -ma PID app.dmp"
)
NO_RUNTIME = "the dump shows no .NET runtime in the process"
FRAMEWORK_NOT_READ = (
    "the heap of the .NET Framework is not read; look at it with the debugger (windbg: .loadby sos clr, "
    "!dumpheap -stat)"
)


@dataclass
class KindAccount:
    """Objects of segments of one kind: small, large, pinned or frozen.

    Attributes:
        segments: How many.
        count: Objects.
        bytes: Bytes in them.
        free_bytes: Between them.
        largest_free_bytes: Of that, the largest stretch.
        committed_bytes: Memory of the segments.
    """

    segments: int = 0
    count: int = 0
    bytes: int = 0
    free_bytes: int = 0
    largest_free_bytes: int = 0
    committed_bytes: int = 0


class ManagedHeap:
    """All objects of a process.

    Args:
        dump: The open dump.
        runtime: Its runtime.

    Attributes:
        runtime: As given.
        tables: The MethodTables met so far.
        segments: Where the objects are, ascending.
        account: Where its memory went, complete once `objects` has run to its end: used and free blocks are
            objects and free stretches between them; overhead is what is committed behind the last object,
            and what threads have taken and not used yet.
        kinds: The same by kind of segment.
        marked: Objects with marks of a collection, complete like `account`.
        log: What was left out.
    """

    def __init__(self, dump: Dump, runtime: Runtime) -> None:
        self.runtime = runtime
        self.log = DiagnosticLog()
        self.tables = MethodTables(dump.memory, runtime.pointer_size, dump.release)
        self.segments = find_segments(self.tables)
        self.account = HeapAccount()
        self.kinds: dict[str, KindAccount] = {}
        self.marked = 0
        if runtime.architecture not in PROVEN:
            told = f"the .NET heap of {runtime.architecture} is read by the rules of x64, untried"
            self.log.add("managed-unproven", Severity.WARNING, _STRUCTURE, None, told)
        self._memory = dump.memory

    @cached_property
    def names(self) -> list[TypeName]:
        """Names of `tables` in order, to be asked for once `objects` has run to its end."""
        return TypeNames(self.tables).all

    @cached_property
    def _jumps(self) -> dict[int, int]:
        return contexts(self.tables, self.segments, self.pointers)

    @cached_property
    def pointers(self) -> Pointers:
        """Words outside the heap that point into it."""
        return heap_pointers(self.tables, self.segments, self.runtime.images)

    @cached_property
    def ends(self) -> list[End]:
        """Where the objects of each segment end."""
        known = self.collector.alloc_allocated if self.collector is not None else 0
        return ends_of_objects(self.tables, self.segments, self.pointers, self._jumps, known)

    @cached_property
    def collector(self) -> Collector | None:
        """What the collector says of itself; None where that is not found."""
        return find_collector(self.tables, self.segments, self.runtime.images)

    @property
    def in_collection(self) -> bool:
        """The dump was taken in the middle of a collection, as far as its traces tell."""
        return self.marked > 0 or (self.collector is not None and self.collector.collecting)

    def objects(self) -> Iterator[Objects]:
        """Walks the heap; every object comes once, in pieces of bounded size. Free stretches do not."""
        self.account = HeapAccount()
        self.kinds = {}
        self.marked = 0
        for segment, end in zip(self.segments, self.ends, strict=True):
            small = segment.kind == "small"
            align = self.tables.pointer_size if small else LARGE_ALIGNMENT
            align = max(align, self.tables.pointer_size)
            walk = Walk(self.tables, Span(segment.start, end.address, align, self._jumps))
            walked = 0
            for piece in walk.pieces():
                free = self.tables.free[piece.table]
                walked += self._count(segment.kind, piece.size, free)
                yield piece.select(~free)
            self._close(segment, end, walk, walked)
        self._close_uncovered()
        if self.in_collection:
            marks = f": {self.marked} objects bear its marks" * bool(self.marked)
            self.log.add(
                "managed-heap-in-collection",
                Severity.WARNING,
                _STRUCTURE,
                None,
                f"the dump was taken in the middle of a garbage collection{marks}; objects may be in two "
                "places, or overwritten",
            )

    def _count(self, name: str, size: I64, free: NDArray[np.bool_]) -> int:
        account, kind = self.account, self.kinds.setdefault(name, KindAccount())
        freed, both = int(size[free].sum()), int(size.sum())
        kind.count += int(np.count_nonzero(~free))
        kind.bytes += both - freed
        kind.free_bytes += freed
        kind.largest_free_bytes = max(kind.largest_free_bytes, int(size[free].max(initial=0)))
        account.free_count += int(np.count_nonzero(free))
        account.used_count += int(np.count_nonzero(~free))
        account.free_block_bytes += freed
        account.used_block_bytes += both - freed
        account.used_bytes += both - freed
        return both

    def _close(self, segment: Segment, end: End, walk: Walk, walked: int) -> None:
        """Accounts for a segment that was walked."""
        account = self.account
        lost = [*walk.lost, (end.address, end.unsure)]
        unwalked = sum(high - low for low, high in lost)
        there = sum(self._memory.present_bytes(low, high) for low, high in lost)
        committed = max(segment.committed, end.unsure) - segment.start
        account.committed_bytes += committed
        kind = self.kinds.setdefault(segment.kind, KindAccount())
        kind.segments += 1
        kind.committed_bytes += committed
        account.reserved_bytes += segment.reserved - segment.start
        account.unwalked_bytes += unwalked
        account.absent_bytes += unwalked - there
        account.overhead_bytes += committed - walked - unwalked
        account.ranges.append((segment.start, segment.reserved - segment.start))
        self.marked += walk.marked
        if unwalked:
            self.log.add(
                "managed-heap-unwalked",
                Severity.WARNING,
                _STRUCTURE,
                lost[0][0],
                f"{unwalked} bytes of .NET objects could not be walked: they are not in the dump, or damaged",
                unwalked,
            )

    def _close_uncovered(self) -> None:
        """Accounts for memory of the heap whose segments are lost."""
        spans = uncovered(self._memory, self.segments)
        size = sum(high - low for low, high in spans)
        if not size:
            return
        self.account.committed_bytes += size
        self.account.unwalked_bytes += size
        self.account.absent_bytes += size - self._memory.present_in([(a, b - a) for a, b in spans])
        self.log.add(
            "managed-segment-lost",
            Severity.WARNING,
            _STRUCTURE,
            spans[0][0],
            f"{size} bytes of the .NET heap belong to segments that are not in the dump, or damaged",
            size,
        )


class Found(NamedTuple):
    """What was found of .NET in a process.

    Attributes:
        heap: The heap; None when there is none to read.
        why: Why there is none; "" when there is.
        applies: The process has a .NET runtime.
    """

    heap: ManagedHeap | None
    why: str
    applies: bool


def find_managed_heap(dump: Dump) -> Found:
    """Looks for the heap of .NET objects of a process."""
    runtime = runtime_of(dump)
    if runtime.kind == NONE:
        return Found(None, NO_RUNTIME, False)
    if runtime.kind == FRAMEWORK:
        return Found(None, FRAMEWORK_NOT_READ, True)
    heap = ManagedHeap(dump, runtime) if runtime.pointer_size else None
    if heap is not None and heap.segments:
        return Found(heap, "", True)
    known = runtime.kind == CORE
    return Found(None, NOT_FOUND if known else NO_RUNTIME, known)
