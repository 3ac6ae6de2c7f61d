"""What the memory of a process is used for: heaps, stacks, images, mapped files, the rest.

The rows are the dump's own memory-info list; each committed region gets one use. Where the dump
has no such list, only what is in the file can be told apart, and `complete` is False.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dumpleak.session import Session
from windumps.memory import Regions
from windumps.memory.regions import MEM_COMMIT, MEM_IMAGE, MEM_MAPPED

USES = ("heaps", "stacks", "teb-peb", "images", "mapped", "other-private")


@dataclass(frozen=True)
class UseRow:
    """One use of memory.

    Attributes:
        use: One of `USES`, or "unknown" where the dump does not list its regions.
        committed_bytes: Committed in the process.
        present_bytes: Of that, in the dump.
        regions: How many regions.
    """

    use: str
    committed_bytes: int
    present_bytes: int
    regions: int


@dataclass(frozen=True)
class MemoryByUse:
    """All memory of a process by use.

    Attributes:
        rows: One for each use that occurs.
        complete: True when the dump lists all regions of the process.
    """

    rows: tuple[UseRow, ...]
    complete: bool


def memory_by_use(session: Session) -> MemoryByUse:
    """Accounts for all committed memory; heaps count once their blocks were walked."""
    memory = session.dump.memory
    regions = memory.regions
    if len(regions):
        keep = regions.state == MEM_COMMIT
        start, size = regions.base_address[keep], regions.region_size[keep].astype(np.int64)
        use = _uses(session, regions, keep)
    else:
        runs = memory.runs
        start, size = runs.address, runs.size
        use = np.where(session.modules.index_of(start) >= 0, USES.index("images"), len(USES))
        use = _claim(use, _heap_ranges(session), start, USES.index("heaps"))
    present = np.array(
        [
            memory.present_bytes(a, a + s)
            for a, s in zip(start.tolist(), size.tolist(), strict=True)
        ],
        np.int64,
    )
    rows = []
    for index, name in enumerate((*USES, "unknown")):
        mine = use == index
        if mine.any():
            rows.append(
                UseRow(name, int(size[mine].sum()), int(present[mine].sum()), int(mine.sum()))
            )
    return MemoryByUse(tuple(rows), bool(len(regions)))


def _uses(session: Session, regions: Regions, keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    kinds, bases = regions.type[keep], regions.base_address[keep]
    use = np.full(len(kinds), USES.index("other-private"), np.int64)
    use[kinds == MEM_IMAGE] = USES.index("images")
    use[kinds == MEM_MAPPED] = USES.index("mapped")
    threads = session.dump.threads
    blocks = [view.peb for view in session.views] + [thread.teb for thread in threads]
    use = _claim(
        use, [(address, 1) for address in blocks if address], bases, USES.index("teb-peb"), regions
    )
    stacks = [(t.stack_start, max(t.stack_size, 1)) for t in threads if t.stack_start]
    use = _claim(use, stacks, bases, USES.index("stacks"), regions)
    return _claim(use, _heap_ranges(session), bases, USES.index("heaps"))


def _heap_ranges(session: Session) -> list[tuple[int, int]]:
    return [
        span
        for source in session.heaps
        if source.entry.heap is not None
        for span in source.entry.heap.account.ranges
    ]


def _claim(
    use: NDArray[np.int64],
    ranges: list[tuple[int, int]],
    bases: NDArray[np.uint64],
    number: int,
    regions: Regions | None = None,
) -> NDArray[np.int64]:
    """Marks regions that begin inside one of the ranges; with `regions`, those that hold a range's
    start.
    """
    if not ranges or not len(bases):
        return use
    claimed = use.copy()
    if regions is not None:
        rows = np.searchsorted(bases, np.array([a for a, _ in ranges], np.uint64), "right") - 1
        claimed[rows[rows >= 0]] = number
        return claimed
    starts = np.array(sorted(ranges), np.uint64)
    row = np.searchsorted(starts[:, 0], bases, "right") - 1
    safe = np.maximum(row, 0)
    inside = (row >= 0) & (bases - starts[safe, 0] < starts[safe, 1])
    claimed[inside] = number
    return claimed
