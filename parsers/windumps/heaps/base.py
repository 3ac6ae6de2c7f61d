"""What every heap kind gives: a description, a walk that yields blocks, and accounts that add
up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from windumps.blocks import Blocks, State
from windumps.diagnostics import DiagnosticLog
from windumps.images.modules import Module
from windumps.layouts.rows import LayoutRow
from windumps.memory import AddressSpace


@dataclass(frozen=True)
class HeapContext:
    """What a heap reader needs to know of the process.

    Attributes:
        memory: The process's memory.
        architecture: "x86" or "x64".
        build: Windows build number; 0 when unknown.
        ntdll: The ntdll of this architecture, or None.
        nt_global_flag: PEB.NtGlobalFlag; 0 when unknown.
        log: Where diagnostics go.
        exact_layouts: Layouts out of ntdll's own symbols, by component.
    """

    memory: AddressSpace
    architecture: str
    build: int
    ntdll: Module | None
    nt_global_flag: int
    log: DiagnosticLog
    exact_layouts: Mapping[str, LayoutRow] = field(default_factory=dict)

    @property
    def pointer_size(self) -> int:
        """4 or 8 bytes."""
        return 4 if self.architecture == "x86" else 8

    @property
    def granularity(self) -> int:
        """Heap granularity in bytes: 8 on x86, 16 on x64."""
        return 2 * self.pointer_size


@dataclass
class HeapAccount:
    """Where a heap's memory went; all numbers in bytes or blocks, filled while its walk runs.

    `committed_bytes` = `used_block_bytes` + `free_block_bytes` + `overhead_bytes` +
    `unwalked_bytes` +
    `residual_bytes`; an undamaged, fully present heap has a residual and unwalked bytes of zero.

    Attributes:
        reserved_bytes: Address space the heap holds.
        committed_bytes: Of that, committed, as the heap's own structures say; pages that a free block gave
            back are not.
        used_bytes: What the program asked for (block bytes where that is not kept).
        used_block_bytes: Used blocks with header and padding.
        used_count: Used blocks.
        free_block_bytes: Free blocks, without pages that they gave back.
        free_count: Free blocks.
        overhead_bytes: The heap's own structures.
        unwalked_bytes: Committed, but absent from the dump or behind damage.
        absent_bytes: The part of `unwalked_bytes` that is not in the dump.
        ranges: Address ranges the heap holds (segments, large blocks), as (start, bytes reserved).
        counters: The heap's own counters, by Microsoft's field name, where it keeps any.
    """

    reserved_bytes: int = 0
    committed_bytes: int = 0
    used_bytes: int = 0
    used_block_bytes: int = 0
    used_count: int = 0
    free_block_bytes: int = 0
    free_count: int = 0
    overhead_bytes: int = 0
    unwalked_bytes: int = 0
    absent_bytes: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def count(self, blocks: Blocks, sign: int = 1) -> Blocks:
        """Adds blocks to the account (or takes them off it, with -1) and hands them on."""
        used = blocks.state == State.USED
        self.used_count += sign * int(np.count_nonzero(used))
        self.free_count += sign * (len(blocks) - int(np.count_nonzero(used)))
        self.used_bytes += sign * int(blocks.counted_bytes[used].sum())
        self.used_block_bytes += sign * int(blocks.block_bytes[used].sum())
        self.free_block_bytes += sign * int(blocks.block_bytes[~used].sum())
        return blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of the blocks that were walked so far."""
        return self.used_block_bytes + self.free_block_bytes

    @property
    def walked_bytes(self) -> int:
        """Committed bytes whose use is known."""
        return self.used_block_bytes + self.free_block_bytes + self.overhead_bytes

    @property
    def residual_bytes(self) -> int:
        """What is left unexplained; not zero only where something is damaged or misread."""
        return self.committed_bytes - self.walked_bytes - self.unwalked_bytes


class Heap(Protocol):
    """One heap of a process."""

    @property
    def address(self) -> int:
        """The handle the program has."""
        ...

    @property
    def ordinal(self) -> int:
        """Position in the process's heap list, from 0."""
        ...

    @property
    def kind(self) -> str:
        """What kind of heap it is, as "nt", "segment" or "page-heap"."""
        ...

    @property
    def architecture(self) -> str:
        """Whose heap it is, "x86" or "x64" code's."""
        ...

    @property
    def flags(self) -> int:
        """`_HEAP.Flags` or the kind's own."""
        ...

    @property
    def front_end(self) -> str:
        """What stands in front of it: "lfh", "lookaside" or nothing."""
        ...

    @property
    def layout(self) -> str:
        """Which layout is used and how well it checked out, for people."""
        ...

    @property
    def account(self) -> HeapAccount:
        """Where the memory went; complete once `blocks` has run to its end."""
        ...

    def blocks(self) -> Iterator[Blocks]:
        """Walks the heap; every used and free block comes once, in pieces of bounded size."""
        ...
