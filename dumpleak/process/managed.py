"""The objects of a .NET process, walked once and added up by type."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from dumpleak.model.group_sums import GroupSums
from dumpleak.model.managed import ManagedKind, ManagedMemory
from dumpleak.model.totals import Totals
from windumps.arrays import I64, U64
from windumps.diagnostics import Diagnostic
from windumps.dump import Dump
from windumps.heaps.clr.heap import ManagedHeap, find_managed_heap
from windumps.heaps.clr.names import TypeName
from windumps.heaps.clr.references import ObjectIndex

UNNAMED = "(type not named in the dump)"


@dataclass(frozen=True)
class ManagedObjects:
    """What is known of a process's .NET objects.

    Attributes:
        heap: Their heap; None where there is none to read.
        why: Why there is none; "" where there is.
        applies: The process has a .NET runtime.
    """

    heap: ManagedHeap | None
    why: str
    applies: bool

    @classmethod
    def of(cls, dump: Dump) -> ManagedObjects:
        """Looks for them."""
        found = find_managed_heap(dump)
        return cls(found.heap, found.why, found.applies)

    @cached_property
    def groups(self) -> list[tuple[TypeName, Totals]]:
        """The objects by MethodTable; two may have one name."""
        if self.heap is None:
            return []
        sums = GroupSums()
        for piece in self.heap.objects():
            if len(piece.size):
                sums.add(piece.table, piece.size, piece.size)
        return [
            (name, sums.totals(number))
            for number, name in enumerate(self.heap.names)
            if number < sums.count and sums.totals(number).count
        ]

    @cached_property
    def memory(self) -> ManagedMemory | None:
        """What they come to; None where they are not read."""
        if self.heap is None:
            return None
        total = sum((totals for _, totals in self.groups), Totals())
        account, module = self.heap.account, self.heap.runtime.module
        collector = self.heap.collector
        kinds = sorted(self.heap.kinds.items(), key=lambda pair: -pair[1].committed_bytes)
        return ManagedMemory(
            runtime=module.name if module is not None else "",
            version=module.version if module is not None else "",
            count=total.count,
            bytes=total.bytes,
            free_bytes=account.free_block_bytes,
            committed_bytes=account.committed_bytes,
            walked_bytes=account.walked_bytes,
            present_bytes=account.committed_bytes - account.absent_bytes,
            segments=len(self.heap.segments),
            kinds=tuple(ManagedKind(name, **asdict(sums)) for name, sums in kinds),
            finalizable=collector.finalizable if collector is not None else None,
            to_finalize=collector.to_finalize if collector is not None else None,
        )

    @cached_property
    def index(self) -> ObjectIndex | None:
        """All objects, to be looked up by address; None where there are none to read."""
        return ObjectIndex(self.heap) if self.heap is not None and self.heap.segments else None

    def at(self, addresses: U64) -> I64:
        """The object that each address lies in; -1 where it lies in none."""
        nowhere = np.full(len(addresses), -1, np.int64)
        segments = self.heap.segments if self.heap is not None else []
        starts = np.array([0, *(segment.start for segment in segments)], np.uint64)
        ends = np.array([0, *(segment.committed for segment in segments)], np.uint64)
        if not (addresses < ends[np.searchsorted(starts, addresses, "right") - 1]).any():
            return nowhere  # the heap has to be walked for none of them
        if self.index is None or not len(self.index.objects.address):
            return nowhere
        objects = self.index.objects
        row = np.searchsorted(objects.address, addresses, "right") - 1
        inside = addresses - objects.address[row] < objects.size[row].astype(np.uint64)
        return np.where((row >= 0) & inside, row, -1)

    def name_of(self, number: int) -> str:
        """What the type of an object of `index` is called."""
        if self.heap is None or self.index is None:
            return UNNAMED
        return self.heap.names[int(self.index.objects.table[number])].name or UNNAMED

    @cached_property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was left out of them."""
        return tuple(self.heap.log.collect()) if self.heap is not None and self.groups else ()
