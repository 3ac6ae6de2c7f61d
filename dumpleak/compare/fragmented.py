"""Heaps that took memory and do not use it: their committed memory grew while used bytes did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dumpleak.model.account import ROWS
from dumpleak.model.snapshot import HeapRow

WORTH_TELLING = ROWS["heaps.committed_bytes"].threshold
USED_SHARE = 0.1  # of what a heap took, that it may use for blocks and still be called fragmented


@dataclass(frozen=True)
class Fragmented:
    """One heap.

    Attributes:
        label: Its name.
        committed: How many bytes more it has committed.
        used: How many bytes more its used blocks take.
        free: Bytes of its free blocks now.
        share: Of its committed memory, what is free now.
    """

    label: str
    committed: int
    used: int
    free: int
    share: float


def fragmented_heaps(base: Sequence[HeapRow], current: Sequence[HeapRow]) -> list[Fragmented]:
    """Heaps of both sides, by their label, that grew without need; what took most first."""
    before = {row.label: row for row in base if row.read}
    found = []
    for row in current:
        old = before.get(row.label)
        if old is None or not row.read:
            continue
        sizes = row.committed_bytes, old.committed_bytes, row.used_bytes, old.used_bytes
        if None in sizes or not row.committed_bytes or row.free_bytes is None:
            continue
        committed = (row.committed_bytes or 0) - (old.committed_bytes or 0)
        used = (row.used_bytes or 0) - (old.used_bytes or 0)
        if committed > WORTH_TELLING and used <= USED_SHARE * committed:
            share = row.free_bytes / row.committed_bytes
            found.append(Fragmented(row.label, committed, used, row.free_bytes, share))
    return sorted(found, key=lambda heap: (-heap.committed, heap.label))
