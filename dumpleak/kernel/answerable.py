"""Whether the pools of a dump can be told about: one answer for `pool`, `info` and all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dumpleak.kernel.machine import memory_bytes
from dumpleak.model.units import format_bytes, format_count
from dumpleak.process.session import CannotAnswerError
from windumps.pools.pages.chain import form_of

if TYPE_CHECKING:
    from dumpleak.kernel.pools import PoolReader
    from windumps.dumps.kernel.dump import KernelDump
    from windumps.pools.trackers.totals import TagTotals

BLOCK_TABLE_BYTES = 30  # a block takes at most while the table of all is made


def why_no_answer(dump: KernelDump) -> tuple[str, str]:
    """Why `dumpleak pool` cannot answer from this dump, and what to know when it can; "" for none.

    The pools are walked, unless their blocks are more than this machine has memory for.
    """
    from dumpleak.kernel.pools import PoolReader

    if dump.why_no_pool:
        return f"this is {dump.why_no_pool}", ""
    try:
        reader = PoolReader(dump)
        too_many = why_no_walk(reader)
        return reader.account(walk=not too_many).shortfall, too_many
    except CannotAnswerError as error:
        return str(error), ""


def why_no_walk(reader: PoolReader) -> str:
    """Why the blocks cannot be looked at on this machine; "" when they can.

    The kernel's trackers tell how many there are.
    """
    memory = memory_bytes()
    if not reader.has_trackers or memory is None:
        return ""
    physical = reader.dump.physical
    held = physical.total_bytes if physical is not None else 0
    count = counted_blocks(reader.pools.trackers, form_of(reader.dump.architecture).unit, held)
    if count * BLOCK_TABLE_BYTES <= memory:
        return ""
    return (
        f"the table of {format_count(count)} blocks takes {format_bytes(count * BLOCK_TABLE_BYTES)}, this "
        f"machine has {format_bytes(memory)} of memory; the kernel's own counters are enough for: dumpleak "
        "pool DUMP --no-walk"
    )


def counted_blocks(totals: TagTotals, unit: int, held_bytes: int) -> int:
    """Blocks that the trackers count, as far as they are possible: in a damaged dump they may be anything.

    Args:
        totals: What they say.
        unit: Bytes of the smallest block.
        held_bytes: Bytes of memory in the dump.
    """
    total = 0
    for count, size in (
        (totals.nonpaged_count, totals.nonpaged_bytes),
        (totals.paged_count, totals.paged_bytes),
    ):
        possible = (count >= 0) & (size >= 0) & (size <= held_bytes) & (count <= size // unit)
        total += int(np.where(totals.complete & possible, count, 0).sum())
    return min(total, held_bytes // unit)
