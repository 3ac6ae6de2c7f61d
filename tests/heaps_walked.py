"""Walks heaps of made memory, of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from windumps.blocks import Blocks
from windumps.diagnostics import Diagnostic, DiagnosticLog
from windumps.heaps.base import Heap, HeapContext
from windumps.memory import AddressSpace, RunMemory


class Walked(NamedTuple):
    """A heap after its walk.

    Attributes:
        heap: The heap; its account is complete.
        blocks: All its blocks.
        said: What was said of damage.
    """

    heap: Heap
    blocks: Blocks
    said: list[Diagnostic]

    @property
    def used(self) -> dict[int, int]:
        """Address → requested size; each block must have come once."""
        used = self.blocks.used
        found = dict(zip(used.address.tolist(), used.size.tolist(), strict=True))
        assert len(found) == len(used), "a block came twice"
        return found

    @property
    def traces(self) -> dict[int, int]:
        """Address → trace of used blocks."""
        used = self.blocks.used
        return dict(zip(used.address.tolist(), used.trace.tolist(), strict=True))

    @property
    def codes(self) -> set[str]:
        """Codes of what was said."""
        return {item.code for item in self.said}


def context(memory: AddressSpace, x64: bool, build: int, log: DiagnosticLog) -> HeapContext:
    """A process without ntdll that has only this memory."""
    return HeapContext(memory, "x64" if x64 else "x86", build, None, 0, log)


def walked(
    opener: Callable[[HeapContext, int, int], Heap],
    memory: AddressSpace,
    address: int,
    x64: bool,
    build: int,
) -> Walked:
    """Opens and walks a heap; its account must add up, damaged or not."""
    log = DiagnosticLog()
    heap = opener(context(memory, x64, build, log), address, 1)
    blocks = Blocks.concatenate(heap.blocks())
    assert heap.account.residual_bytes == 0
    return Walked(heap, blocks, [item for item in log.collect() if item.severity != "info"])


def patched(pieces: dict[int, bytes], address: int, raw: bytes) -> dict[int, bytes]:
    """Pieces of memory with other bytes at an address."""
    for at, content in pieces.items():
        if at <= address and address + len(raw) <= at + len(content):
            offset = address - at
            return pieces | {at: content[:offset] + raw + content[offset + len(raw) :]}
    raise AssertionError(f"0x{address:x} is in no piece")


def value_at(pieces: dict[int, bytes], address: int, size: int) -> int:
    """The number that stands at an address."""
    for at, content in pieces.items():
        if at <= address and address + size <= at + len(content):
            return int.from_bytes(content[address - at : address - at + size], "little")
    raise AssertionError(f"0x{address:x} is in no piece")


def lacking(pieces: dict[int, bytes], start: int, size: int) -> dict[int, bytes]:
    """Pieces of memory without [start, start + size)."""
    left = {}
    for at, content in pieces.items():
        low, high = max(start, at), min(start + size, at + len(content))
        if low >= high:
            left[at] = content
            continue
        if low > at:
            left[at] = content[: low - at]
        if high < at + len(content):
            left[high] = content[high - at :]
    return left


def flipped_at(memory: RunMemory, random: np.random.Generator) -> RunMemory:
    """The same memory with one to eight bits flipped somewhere."""
    data = memory.data.copy()
    for _ in range(int(random.integers(1, 9))):
        data[int(random.integers(len(data)))] ^= 1 << int(random.integers(8))
    runs = memory.runs
    return RunMemory(data, runs.address, runs.size, runs.offset)
