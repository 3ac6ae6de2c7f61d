"""The kernel's own list of the machine's memory."""

from __future__ import annotations

import numpy as np

from windumps.arrays import PAGE_SIZE
from windumps.errors import MemoryReadError
from windumps.kernel.kernel import Kernel

_MAX_RUNS = 4096


def memory_runs(kernel: Kernel) -> list[tuple[int, int]]:
    """(address, bytes) of the memory a kernel has, by MmPhysicalMemoryBlock; empty when unknown.

    `_PHYSICAL_MEMORY_DESCRIPTOR`: NumberOfRuns, NumberOfPages, Run[] of BasePage and PageCount; the same
    in all builds (public kernel symbols). A list that does not add up is none.
    """
    step = kernel.pointer_size
    block = kernel.value("MmPhysicalMemoryBlock")
    if not block:
        return []
    try:
        count = kernel.memory.read_uint(block, 4)
        pages = kernel.memory.read_uint(block + step, step)
        if not 0 < count <= _MAX_RUNS:
            return []
        raw = kernel.memory.read(block + 2 * step, count * 2 * step)
    except MemoryReadError:
        return []
    runs = np.frombuffer(raw, f"<u{step}").reshape(-1, 2).astype(np.uint64).tolist()
    ends = [base + length for base, length in runs]
    in_order = all(base >= end for (base, _), end in zip(runs[1:], ends, strict=False))
    if not in_order or sum(length for _, length in runs) != pages:
        return []
    return [(base * PAGE_SIZE, length * PAGE_SIZE) for base, length in runs]
