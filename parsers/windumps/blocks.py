"""Blocks: the one output of heaps and pools, as numpy columns.

A walk yields `Blocks` in pieces of bounded size, so that a consumer that only adds up never holds
them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class State(IntEnum):
    """What a block is to the program."""

    FREE = 0
    USED = 1


class Kind(IntEnum):
    """Which allocator structure holds a block; `label` is the name in the interface."""

    NT_BACKEND = 0
    NT_LFH = 1
    NT_VIRTUAL = 2
    NT_LOOKASIDE = 3
    SEGMENT_VS = 4
    SEGMENT_LFH = 5
    SEGMENT_PAGES = 6
    SEGMENT_LARGE = 7
    PAGE_HEAP = 8
    POOL_BLOCK = 9
    POOL_LARGE = 10
    MIMALLOC = 11
    RPMALLOC = 12

    @property
    def label(self) -> str:
        """The interface's word, "nt-backend"."""
        return self.name.lower().replace("_", "-")


SIZE_UNKNOWN = -1


@dataclass(frozen=True)
class Blocks:
    """Blocks of one or more heaps, as columns of equal length.

    Attributes:
        address: uint64, what the program got.
        size: int64, bytes the program asked for; `SIZE_UNKNOWN` where the allocator does not keep
            it.
        block_bytes: int64, bytes taken from the heap, header and padding included.
        state: uint8, `State`.
        kind: uint8, `Kind`.
        heap: uint16, ordinal of the heap in the process's heap list; of pool blocks the pool
            (`pools.pool_types.Pool`).
        trace: uint64, what the block says of its recorded allocation stack (the address of a trace
            record, or an index on systems that keep indices); 0 when nothing.
        source_file: uint64, address of the source file's name that a debug runtime keeps; 0 when none.
        source_line: uint32, line in it.
        tag: uint32, pool tag; 0 for blocks of heaps, which have none.
    """

    address: NDArray[np.uint64]
    size: NDArray[np.int64]
    block_bytes: NDArray[np.int64]
    state: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    heap: NDArray[np.uint16]
    trace: NDArray[np.uint64]
    source_file: NDArray[np.uint64]
    source_line: NDArray[np.uint32]
    tag: NDArray[np.uint32]

    @classmethod
    def build(
        cls,
        address: NDArray[np.uint64],
        size: NDArray[np.int64],
        block_bytes: NDArray[np.int64],
        used: NDArray[np.bool_],
        kind: Kind,
        heap: int | NDArray[np.uint8],
        trace: NDArray[np.uint64] | None = None,
        tag: NDArray[np.uint32] | None = None,
    ) -> Blocks:
        """Columns of one kind and heap; free blocks get no size, no trace and no tag."""
        count = len(address)
        return cls(
            address=address.astype(np.uint64, copy=False),
            size=np.where(used, size, SIZE_UNKNOWN).astype(np.int64, copy=False),
            block_bytes=block_bytes.astype(np.int64, copy=False),
            state=used.astype(np.uint8),
            kind=np.full(count, kind, np.uint8),
            heap=np.full(count, heap, np.uint16)
            if isinstance(heap, int)
            else heap.astype(np.uint16),
            trace=np.zeros(count, np.uint64)
            if trace is None
            else np.where(used, trace, 0).astype(np.uint64, copy=False),
            source_file=np.zeros(count, np.uint64),
            source_line=np.zeros(count, np.uint32),
            tag=np.zeros(count, np.uint32)
            if tag is None
            else np.where(used, tag, 0).astype(np.uint32, copy=False),
        )

    @classmethod
    def empty(cls) -> Blocks:
        """No blocks."""
        nothing = np.empty(0, np.int64)
        return cls.build(
            nothing.astype(np.uint64), nothing, nothing, np.empty(0, np.bool_), Kind.NT_BACKEND, 0
        )

    @classmethod
    def concatenate(cls, pieces: Iterable[Blocks]) -> Blocks:
        """All pieces behind each other."""
        parts = list(pieces) or [cls.empty()]
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def __len__(self) -> int:
        return len(self.address)

    def select(self, keep: NDArray[np.bool_]) -> Blocks:
        """The rows where `keep` is true."""
        return Blocks(*(getattr(self, f.name)[keep] for f in fields(self)))

    @property
    def used(self) -> Blocks:
        """The used blocks only."""
        return self.select(self.state == State.USED)

    @property
    def counted_bytes(self) -> NDArray[np.int64]:
        """int64: bytes asked for where known, else block bytes; what all totals add up."""
        return np.where(self.size == SIZE_UNKNOWN, self.block_bytes, self.size)
