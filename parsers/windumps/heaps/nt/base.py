"""What the NT heap of Vista and later and that of XP have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from windumps.arrays import U64
from windumps.blocks import Blocks, Kind
from windumps.diagnostics import Severity
from windumps.errors import HeapError, MemoryReadError
from windumps.heaps.base import HeapAccount, HeapContext
from windumps.heaps.committed import ALLOCATION_GRANULARITY
from windumps.heaps.nt.lfh import LfhReader
from windumps.heaps.nt.virtual import VirtualBlocks
from windumps.layouts.rows import LayoutChoice


@dataclass
class NtHeapBase:
    """One NT heap of either form; see `windumps.heaps.base.Heap`."""

    context: HeapContext
    address: int
    ordinal: int
    choice: LayoutChoice[None]
    kind: str = ""
    account: HeapAccount = field(default_factory=HeapAccount)
    _lfh: LfhReader = field(init=False)

    def __post_init__(self) -> None:
        self.row = self.choice.row
        try:
            self._heap = self.row.read(self.context.memory, "_HEAP", self.address)
        except MemoryReadError as error:
            raise HeapError(f"the heap at 0x{self.address:x}: {error}", self.address) from error

    @property
    def architecture(self) -> str:
        """See `Heap`."""
        return self.context.architecture

    @property
    def flags(self) -> int:
        """See `Heap`."""
        return self._heap["Flags"]

    @property
    def layout(self) -> str:
        """See `Heap`."""
        return str(self.choice)

    @property
    def front_end_pointer(self) -> tuple[int, int]:
        """Start and end of the pointer to the front end, which may lie in a used block of this heap."""
        start = self.address + self.row.offset("_HEAP", "FrontEndHeap")
        return start, start + self.row.pointer_size

    def _area_blocks(self, blocks: Blocks, lost: int) -> Blocks:
        """The blocks of LFH areas, which were counted as overhead a moment ago."""
        account = self.account
        account.unwalked_bytes += lost
        account.overhead_bytes -= int(blocks.block_bytes.sum()) + lost
        return account.count(blocks)

    def _large_blocks(self, large: VirtualBlocks, own: int = 0) -> Iterator[Blocks]:
        """Blocks with memory of their own; what lies at `own` is the heap's."""
        account = self.account
        account.committed_bytes += int(large.commit.sum())
        account.reserved_bytes += int(large.reserve.sum())
        # Since Windows 8 a block begins some pages behind the beginning of what was reserved for it.
        behind = (large.entry & np.uint64(ALLOCATION_GRANULARITY - 1)).astype(np.int64)
        behind[behind + large.commit > large.reserve] = 0
        start = large.entry - behind.astype(np.uint64)
        account.ranges += zip(start.tolist(), large.reserve.tolist(), strict=True)
        hidden = large.header + np.uint64(self.context.granularity) == np.uint64(own)
        account.overhead_bytes += int(large.commit[hidden].sum())
        blocks = Blocks.build(
            large.address,
            large.size,
            large.commit,
            np.ones(len(large.address), bool),
            Kind.NT_VIRTUAL,
            self.ordinal,
            large.trace,
        ).select(~hidden)
        if len(blocks):
            yield account.count(blocks)

    def _say(self, code: str, structure: str, address: int, message: str, lost: int = 0) -> None:
        self.context.log.add(code, Severity.WARNING, structure, address, message, lost)


def report_unclear_sizes(context: HeapContext, header: U64) -> None:
    """Says of used blocks, by their headers, that what the program asked for is not readable."""
    for address in header[: context.log.limit + 1].tolist():
        context.log.add(
            "unused-bytes-unclear",
            Severity.WARNING,
            "_HEAP_ENTRY.UnusedBytes",
            address,
            "the size the program asked for is not readable; the block's own size is used",
        )
