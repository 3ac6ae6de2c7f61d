"""The objects of a .NET process, walked once and added up by type."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from dumpleak.model.group_sums import GroupSums
from dumpleak.model.managed import ManagedMemory
from dumpleak.model.totals import Totals
from windumps.diagnostics import Diagnostic
from windumps.dump import Dump
from windumps.heaps.clr.heap import ManagedHeap, find_managed_heap
from windumps.heaps.clr.names import TypeName


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
        )

    @cached_property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """What was left out of them."""
        return tuple(self.heap.log.collect()) if self.heap is not None and self.groups else ()
