"""Whether the machine that runs this has memory enough for a walk over all blocks of a dump's pools."""

from __future__ import annotations

import os
import sys

import numpy as np

from dumpleak.model.units import format_bytes, format_count
from windumps.dumps.kernel.dump import KernelDump
from windumps.pools.pages.chain import form_of
from windumps.pools.trackers.totals import TagTotals

BLOCK_TABLE_BYTES = 30  # a block takes at most while the table of all is made


def memory_bytes() -> int | None:
    """Bytes of its physical memory; None where the system does not tell."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    return pages * size if pages > 0 and size > 0 else None


def _windows_memory() -> int | None:
    if sys.platform != "win32":
        return None
    import ctypes

    size = ctypes.c_ulonglong()
    # In KiB.
    found = ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(size))
    return size.value * 1024 if found else None


def why_no_walk(dump: KernelDump, totals: TagTotals) -> str:
    """Why the blocks cannot be looked at on this machine; "" when they can.

    Args:
        dump: The dump.
        totals: What the kernel's trackers say, which is how many blocks there are.
    """
    memory = memory_bytes()
    if memory is None:
        return ""
    held = dump.physical.total_bytes if dump.physical is not None else 0
    count = counted_blocks(totals, form_of(dump.architecture).unit, held)
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
