"""What somebody holds of a pool and held at most, as Verifier counts it over all drivers and for each."""

from __future__ import annotations

from typing import NamedTuple

from windumps.layouts.rows import Record

PAGED, NONPAGED = "Paged", "NonPaged"  # as fields are called


class PoolUse(NamedTuple):
    """Blocks and bytes of one pool.

    The peaks are None where only that nothing is held is known.
    """

    blocks: int
    bytes: int
    peak_blocks: int | None
    peak_bytes: int | None


def pool_use(record: Record, pool: str) -> PoolUse | None:
    """What a record says of a pool; None where its numbers cannot be such counters."""
    blocks, most = record[f"Current{pool}PoolAllocations"], record[f"Peak{pool}PoolAllocations"]
    held, most_held = record[f"{pool}Bytes"], record[f"Peak{pool}Bytes"]
    is_possible = blocks <= min(most, held) and held <= most_held and bool(held) == bool(blocks)
    return PoolUse(blocks, held, most, most_held) if is_possible else None
